"""Prometheus metrics of a run, in a registry of their own.

The hot path is one dictionary look-up and one addition under prometheus_client's lock: about 1 µs a counter and 2 µs a
histogram on one core. Label values are bounded: streams, models, stages, reasons and queues are named by the
configuration or by the code, never by what is in the footage.
"""

from __future__ import annotations

import errno
import socket
import threading
from socketserver import ThreadingMixIn
from typing import Generic, Literal, Self, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import WSGIApplication

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from engines.errors import OutputError
from pipeline.output_state import OutputChange, OutputState
from pipeline.state import SourceState, StateChange

EngineState = Literal["loading", "building", "ready", "failed"]
ENGINE_STATES: tuple[EngineState, ...] = ("loading", "building", "ready", "failed")

STAGE_BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048)
"""Seconds; from a blend of a small frame to an engine that warms up."""

AGE_BUCKETS = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds; dense where a live frame should be."""

Child = TypeVar("Child", Counter, Gauge, Histogram)


class Metrics:
    """What a run counts and times. Safe to call from any thread.

    Frames decoded = frames emitted + frames dropped, by stream, once a run has drained.

    Example:
        >>> metrics = Metrics()
        >>> metrics.decoded("drive")
        >>> metrics.dropped("drive", "mailbox", "newer")
        >>> metrics.registry.get_sample_value("roadlens_frames_decoded_total", {"stream": "drive"})
        1.0

    Attributes:
        registry: what to scrape; nothing is registered globally.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=True)
        self._decoded = _Children(Counter("roadlens_frames_decoded", "Frames decoded.", ("stream",), registry=registry))
        self._inferred = _Children(
            Counter("roadlens_frames_inferred", "Frames a model has looked at.", ("stream", "model"), registry=registry)
        )
        self._emitted = _Children(
            Counter("roadlens_frames_emitted", "Frames handed to the outputs.", ("stream",), registry=registry)
        )
        self._dropped = _Children(
            Counter(
                "roadlens_frames_dropped",
                "Frames dropped, by the stage that dropped them and why.",
                ("stream", "stage", "reason"),
                registry=registry,
            )
        )
        self._decode_errors = _Children(
            Counter("roadlens_decode_errors", "Packets or frames that did not decode.", ("stream",), registry=registry)
        )
        self._stage = _Children(
            Histogram(
                "roadlens_stage_seconds",
                "Time a frame (in batch stages: a batch) spends in a stage.",
                ("stage",),
                buckets=STAGE_BUCKETS,
                registry=registry,
            )
        )
        self._age = _Children(
            Histogram(
                "roadlens_frame_age_seconds",
                "Time from leaving the decoder to being emitted.",
                ("stream",),
                buckets=AGE_BUCKETS,
                registry=registry,
            )
        )
        self._queue_depth = _Children(
            Gauge("roadlens_queue_depth", "Items waiting in a queue.", ("stream", "queue"), registry=registry)
        )
        self._engine_info = Gauge(
            "roadlens_engine_info",
            "1 for the engine that a model runs on.",
            ("model", "backend", "precision", "device"),
            registry=registry,
        )
        self._engine_state = Gauge(
            "roadlens_engine_state",
            "1 for the state that a model's engine is in.",
            ("model", "state"),
            registry=registry,
        )
        self._degraded = _Children(
            Counter(
                "roadlens_degraded",
                "What could not be had, what is used in its place, and what is lacking.",
                ("wanted", "instead", "lacking"),
                registry=registry,
            )
        )
        self._encoder_info = Gauge(
            "roadlens_encoder_info", "1 for the encoder that a stream uses.", ("stream", "encoder"), registry=registry
        )
        self._stream_state = _Children(
            Gauge(
                "roadlens_stream_state", "1 for the state that a stream's source is in.", ("stream", "state"),
                registry=registry,
            )
        )  # fmt: skip
        self._source_failures = _Children(
            Counter(
                "roadlens_source_failures", "Connections to a live source that failed or were lost, by cause.",
                ("stream", "cause"), registry=registry,
            )
        )  # fmt: skip
        self._source_reconnects = _Children(
            Counter(
                "roadlens_source_reconnects", "Returns of a live source, by the cause of its last failure.",
                ("stream", "cause"), registry=registry,
            )
        )  # fmt: skip
        self._output_running = _Children(
            Gauge(
                "roadlens_output_running", "1 while a live output takes pictures.", ("stream", "output"),
                registry=registry,
            )
        )  # fmt: skip
        self._output_failures = _Children(
            Counter(
                "roadlens_output_failures",
                "How often a live output had to pause or to connect anew.",
                ("stream", "output"),
                registry=registry,
            )
        )
        self._output_dropped = _Children(
            Counter(
                "roadlens_output_dropped",
                "Pictures that a live output left out; they are emitted frames.",
                ("stream", "output", "reason"),
                registry=registry,
            )
        )
        self._engines: dict[str, tuple[str, str, str, str]] = {}
        self._encoders: dict[str, str] = {}
        self._lock = threading.Lock()

    def decoded(self, stream: str, count: int = 1) -> None:
        """Frames that left the decoder."""
        self._decoded(stream).inc(count)

    def inferred(self, stream: str, model: str, count: int = 1) -> None:
        """Frames that a model has looked at."""
        self._inferred(stream, model).inc(count)

    def emitted(self, stream: str, count: int = 1) -> None:
        """Frames handed to the outputs."""
        self._emitted(stream).inc(count)

    def dropped(self, stream: str, stage: str, reason: str, count: int = 1) -> None:
        """Frames that a stage dropped, and why. `count` 0 makes the series visible before anything is dropped."""
        self._dropped(stream, stage, reason).inc(count)

    def decode_error(self, stream: str, count: int = 1) -> None:
        """Packets or frames that did not decode."""
        self._decode_errors(stream).inc(count)

    def stage(self, stage: str, seconds: float) -> None:
        """Time spent in a stage."""
        self._stage(stage).observe(seconds)

    def age(self, stream: str, seconds: float) -> None:
        """Age of a frame when it is emitted."""
        self._age(stream).observe(seconds)

    def queue_depth(self, stream: str, queue: str, depth: int) -> None:
        """Items waiting in a queue now."""
        self._queue_depth(stream, queue).set(depth)

    def engine(self, model: str, backend: str, precision: str, device: str, state: EngineState) -> None:
        """The engine that a model runs on and its state; replaces what was said of that model before."""
        described = (model, backend, precision, device)
        with self._lock:
            before = self._engines.get(model)
            if before is not None and before != described:
                self._engine_info.remove(*before)
            self._engines[model] = described
            self._engine_info.labels(*described).set(1)
        self.engine_state(model, state)

    def engine_state(self, model: str, state: EngineState) -> None:
        """The state of a model's engine, also while nothing else is known of it."""
        for each in ENGINE_STATES:
            self._engine_state.labels(model, each).set(each == state)

    def forget_engine_state(self, model: str) -> None:
        """Take back what `engine_state` said: the model is known under another name by now."""
        for each in ENGINE_STATES:
            self._engine_state.remove(model, each)

    def state(self, change: StateChange) -> None:
        """The state that a stream's source is in; replaces the one before."""
        for each in SourceState:
            self._stream_state(change.stream, each.value).set(each is change.state)
        if change.state in {SourceState.BACKING_OFF, SourceState.FAILED} and change.cause:
            self._source_failures(change.stream, change.cause).inc()
        if change.state is SourceState.STREAMING and change.reconnects and change.cause:
            self._source_reconnects(change.stream, change.cause).inc()

    def degraded(self, wanted: str, instead: str, lacking: str) -> None:
        """Something could not be had, and the next best is used; see `engines.loading.Degraded`."""
        self._degraded(wanted, instead, lacking).inc()

    def encoder(self, stream: str, encoder: str) -> None:
        """The encoder in use for a stream; replaces the one before."""
        with self._lock:
            before = self._encoders.get(stream)
            if before is not None and before != encoder:
                self._encoder_info.remove(stream, before)
            self._encoders[stream] = encoder
            self._encoder_info.labels(stream, encoder).set(1)

    def output(self, change: OutputChange) -> None:
        """A live output entered a state."""
        self._output_running(change.stream, change.output).set(change.state is OutputState.RUNNING)
        failed = change.state in (OutputState.BACKING_OFF, OutputState.PAUSED)
        self._output_failures(change.stream, change.output).inc(int(failed))

    def output_dropped(self, stream: str, output: str, reason: str, count: int = 1) -> None:
        """Pictures that a live output left out, and why."""
        self._output_dropped(stream, output, reason).inc(count)

    def forget(self, stream: str) -> None:
        """A stream was removed, and so are its series: streams may come and go for months."""
        for children in (
            self._decoded, self._inferred, self._emitted, self._dropped, self._decode_errors, self._age,
            self._queue_depth, self._stream_state, self._source_failures, self._source_reconnects,
            self._output_running, self._output_failures, self._output_dropped,
        ):  # fmt: skip
            children.forget(stream)
        with self._lock:
            encoder = self._encoders.pop(stream, None)
            if encoder is not None:
                self._encoder_info.remove(stream, encoder)

    def serve(self, host: str = "127.0.0.1", port: int = 9464) -> MetricsServer:
        """Answer Prometheus over HTTP at `http://host:port/metrics` until the returned server is closed.

        Args:
            host: address to bind; loopback unless told otherwise.
            port: TCP port; 0 for a free one.

        Raises:
            OutputError: the address is in use or not of this machine.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return MetricsServer(host, port, family, make_wsgi_app(self.registry))
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise OutputError(
                f"metrics cannot be served at {host}:{port}, which is in use: choose another port or stop that process"
                if in_use
                else f"metrics cannot be served at {host}:{port}: {getattr(error, 'strerror', None) or error}"
            ) from error


class MetricsServer:
    """A running metrics endpoint, in threads of its own.

    Attributes:
        host, port: where it listens.
        url: what to scrape.
    """

    def __init__(self, host: str, port: int, family: socket.AddressFamily, app: WSGIApplication) -> None:
        server_class: type[_Server] = type("Server", (_Server,), {"address_family": family})
        self._server = make_server(host, port, app, server_class, _Silent)
        self.host, self.port = str(self._server.server_address[0]), int(self._server.server_address[1])
        self.url = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/metrics"
        # prometheus_client's own server looks for its end every 0.5 s, which is a tenth of what a whole stop may take.
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening. Twice is allowed."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingMixIn, WSGIServer):
    """A client that holds its connection open holds up neither the others nor the end."""

    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it is called by
        """Say nothing: a scrape every few seconds is no news."""


class _Children(Generic[Child]):
    """A metric's children by label values; `labels()` itself costs more than the observation."""

    def __init__(self, metric: Child) -> None:
        self._metric: Child = metric
        self._children: dict[tuple[str, ...], Child] = {}

    def __call__(self, *values: str) -> Child:
        found = self._children.get(values)
        if found is None:
            found = self._children[values] = self._metric.labels(*values)
        return found

    def forget(self, first: str) -> None:
        """Remove the children whose first label has this value."""
        for values in [v for v in list(self._children) if v[0] == first]:
            self._children.pop(values, None)
            self._metric.remove(*values)
