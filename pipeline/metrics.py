"""Prometheus metrics of a run, in a registry of their own.

The hot path is one dictionary look-up and one addition under prometheus_client's lock: about 1 µs a counter and 2 µs a
histogram on one core. Label values are bounded: streams, models, stages, reasons and queues are named by the
configuration or by the code, classes by the models, and none by what is in the footage.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from socketserver import ThreadingMixIn
from typing import Any, Generic, Literal, Self, TypeVar
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import WSGIApplication

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from engines.errors import OutputError
from pipeline.addresses import is_loopback
from pipeline.state import OutputChange, OutputState, SourceState, StateChange

log = logging.getLogger(__name__)

MOST_SCRAPES = 32
"""Clients of the endpoint at once; each has a thread."""

SCRAPE_SECONDS = 10.0
"""Seconds that one of them may be silent."""

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
        self.registry = CollectorRegistry(auto_describe=True)
        self._of_streams: list[_Series[Any]] = []
        counter, gauge = self._counter, self._gauge
        self._decoded = counter("roadlens_frames_decoded", "Frames decoded.", "stream")
        self._inferred = counter("roadlens_frames_inferred", "Frames a model has looked at.", "stream", "model")
        self._carried = counter("roadlens_frames_carried", "Frames filled from other looks.", "stream", "model")
        self._put_off = counter("roadlens_looks_put_off", "Looks put off, for the engine is busy.", "stream")
        self._faults = counter("roadlens_model_faults", "What a model said that cannot be.", "stream", "model", "fault")
        self._emitted = counter("roadlens_frames_emitted", "Frames handed to the outputs.", "stream")
        about = "Frames dropped, by the stage that dropped them and why."
        self._dropped = counter("roadlens_frames_dropped", about, "stream", "stage", "reason")
        self._received = counter("roadlens_packets_received", "Packets of pictures that a live source got.", "stream")
        about = "Packets of a live source that gave no frame, and why."
        self._skipped = counter("roadlens_packets_skipped", about, "stream", "reason")
        self._decode_errors = counter("roadlens_decode_errors", "Packets or frames that did not decode.", "stream")
        about = "Time a frame (in batch stages: a batch) spends in a stage."
        self._stage = self._histogram("roadlens_stage_seconds", about, STAGE_BUCKETS, "stage")
        self._age = self._histogram(
            "roadlens_frame_age_seconds", "Time from leaving the decoder to being emitted.", AGE_BUCKETS, "stream"
        )
        about = "Share of the newest picture that a class covers, 0 to 1."
        self._area = gauge("roadlens_class_area", about, "stream", "class")
        self._boxes = gauge("roadlens_boxes", "Boxes of a class in the newest picture.", "stream", "class")
        about = "How unlike what its model was trained on a picture of the last second is; about 1 is as in training."
        self._novelty = gauge("roadlens_novelty", about, "stream", "model")
        self._named: dict[str, tuple[set[str], set[str]]] = {}
        self._queue_depth = gauge("roadlens_queue_depth", "Items waiting in a queue.", "stream", "queue")
        self._engine_info = gauge(
            "roadlens_engine_info", "1 for the engine that a model runs on.", "model", "backend", "precision", "device"
        )
        about = "1 for the state that a model's engine is in."
        self._engine_state = gauge("roadlens_engine_state", about, "model", "state")
        about = "What could not be had, what is used in its place, and what is lacking."
        self._degraded = counter("roadlens_degraded", about, "wanted", "instead", "lacking")
        about = "1 for the encoder that a stream uses."
        self._encoder_info = gauge("roadlens_encoder_info", about, "stream", "encoder")
        about = "1 for the state that a stream's source is in."
        self._stream_state = gauge("roadlens_stream_state", about, "stream", "state")
        self._source_failures = counter(
            "roadlens_source_failures", "Connections to a live source that failed or were lost, by cause.",
            "stream", "cause",
        )  # fmt: skip
        self._source_reconnects = counter(
            "roadlens_source_reconnects", "Returns of a live source, by the cause of its last failure.",
            "stream", "cause",
        )  # fmt: skip
        self._output_running = gauge(
            "roadlens_output_running", "1 while a live output takes pictures.", "stream", "output"
        )
        self._output_failures = counter(
            "roadlens_output_failures", "How often a live output had to pause or to connect anew.", "stream", "output"
        )
        self._output_dropped = counter(
            "roadlens_output_dropped", "Pictures that a live output left out; of `events`, packets.",
            "stream", "output", "reason",
        )  # fmt: skip

    def _counter(self, name: str, about: str, *labels: str) -> _Series[Counter]:
        return self._known(Counter(name, about, labels, registry=self.registry), labels)

    def _gauge(self, name: str, about: str, *labels: str) -> _Series[Gauge]:
        return self._known(Gauge(name, about, labels, registry=self.registry), labels)

    def _histogram(self, name: str, about: str, buckets: tuple[float, ...], *labels: str) -> _Series[Histogram]:
        made = Histogram(name, about, labels, buckets=buckets, registry=self.registry)
        return self._known(made, labels)

    def _known(self, metric: Child, labels: tuple[str, ...]) -> _Series[Child]:
        """The metric's series. Those whose first label is `stream` go with their stream, whatever they count."""
        series = _Series(metric)
        if labels[0] == "stream":
            self._of_streams.append(series)
        return series

    def decoded(self, stream: str, count: int = 1) -> None:
        """Frames that left the decoder."""
        self._decoded(stream).inc(count)

    def inferred(self, stream: str, model: str, count: int = 1) -> None:
        """Frames that a model has looked at."""
        self._inferred(stream, model).inc(count)

    def carried(self, stream: str, model: str) -> None:
        """A frame that a model has not looked at, and to which what it says was carried or repeated."""
        self._carried(stream, model).inc()

    def looks_put_off(self, stream: str, count: int) -> None:
        """Looks that newer frames have got, since the engine did not keep up."""
        self._put_off(stream).inc(count)

    def model_fault(self, stream: str, model: str, fault: str, count: int) -> None:
        """What a model said that cannot be so."""
        self._faults(stream, model, fault).inc(count)

    def emitted(self, stream: str, count: int = 1) -> None:
        """Frames handed to the outputs."""
        self._emitted(stream).inc(count)

    def dropped(self, stream: str, stage: str, reason: str, count: int = 1) -> None:
        """Frames that a stage dropped, and why. `count` 0 makes the series visible before anything is dropped."""
        self._dropped(stream, stage, reason).inc(count)

    def received(self, stream: str, count: int) -> None:
        """Packets of pictures that a live source got. Received = decoded + skipped + decode errors, once it is over."""
        self._received(stream).inc(count)

    def skipped(self, stream: str, reason: str, count: int) -> None:
        """Packets that gave no frame, and why."""
        self._skipped(stream, reason).inc(count)

    def decode_error(self, stream: str, count: int = 1) -> None:
        """Packets or frames that did not decode."""
        self._decode_errors(stream).inc(count)

    def stage(self, stage: str, seconds: float) -> None:
        """Time spent in a stage."""
        self._stage(stage).observe(seconds)

    def age(self, stream: str, seconds: float) -> None:
        """Age of a frame when it is emitted."""
        self._age(stream).observe(seconds)

    def seen(self, stream: str, area: Mapping[str, float], boxes: Iterable[str]) -> None:
        """What is in the newest picture; a class that is not in it any more is at 0.

        Args:
            stream: its id.
            area: share of the picture by class name.
            boxes: the class of each box.
        """
        counts = Counts(boxes)
        areas_named, boxes_named = self._named.setdefault(stream, (set(), set()))
        for series, values, named in ((self._area, area, areas_named), (self._boxes, counts, boxes_named)):
            named.update(values)
            for name in named:
                series(stream, name).set(values.get(name, 0))

    def novelty(self, stream: str, model: str, novelty: float) -> None:
        """How unlike what a model was trained on the newest picture is, of which that was looked at."""
        self._novelty(stream, model).set(novelty)

    def queue_depth(self, stream: str, queue: str, depth: int) -> None:
        """Items waiting in a queue now."""
        self._queue_depth(stream, queue).set(depth)

    def engine(self, model: str, backend: str, precision: str, device: str, state: EngineState) -> None:
        """The engine that a model runs on and its state; replaces what was said of that model before."""
        self._engine_info.only(model, backend, precision, device).set(1)
        self.engine_state(model, state)

    def engine_state(self, model: str, state: EngineState) -> None:
        """The state of a model's engine, also while nothing else is known of it."""
        for each in ENGINE_STATES:
            self._engine_state(model, each).set(each == state)

    def forget_engine_state(self, model: str) -> None:
        """Take back what `engine_state` said: the model is known under another name by now."""
        self._engine_state.forget(model)

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
        self._encoder_info.only(stream, encoder).set(1)

    def output(self, change: OutputChange) -> None:
        """A live output entered a state."""
        self._output_running(change.stream, change.output).set(change.state is OutputState.RUNNING)
        failed = change.state in (OutputState.BACKING_OFF, OutputState.PAUSED)
        self._output_failures(change.stream, change.output).inc(int(failed))

    def output_dropped(self, stream: str, output: str, reason: str, count: int = 1) -> None:
        """Pictures that a live output left out, or packets that clips of events did, and why."""
        self._output_dropped(stream, output, reason).inc(count)

    def forget(self, stream: str) -> None:
        """A stream was removed, and so are its series: streams may come and go for months."""
        self._named.pop(stream, None)
        for series in self._of_streams:
            series.forget(stream)

    def serve(self, host: str = "127.0.0.1", port: int = 9464) -> MetricsServer:
        """Answer Prometheus over HTTP at `http://host:port/metrics` until the returned server is closed.

        Args:
            host: address to bind; loopback unless told otherwise.
            port: TCP port; 0 for a free one.

        Raises:
            OutputError: the address is in use or not of this machine.
        """
        return serve_metrics(self.registry, host, port)


def serve_metrics(registry: CollectorRegistry, host: str, port: int) -> MetricsServer:
    """As `Metrics.serve`, of any registry."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not is_loopback(host):
        log.warning(
            "the metrics at %s:%d are open to every machine that reaches this one, without a token; listen on "
            "127.0.0.1, or let a firewall see to it", host, port,
        )  # fmt: skip
    try:
        return MetricsServer(host, port, family, make_wsgi_app(registry))
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

    def __init__(self, *args: Any, **named: Any) -> None:
        self._room = threading.BoundedSemaphore(MOST_SCRAPES)
        super().__init__(*args, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; one client too many is sent away, for each keeps a thread."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread of a client."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # socketserver's own names
        """A client that went away, or asked nothing for too long, is no news."""
        log.debug("a scrape from %s was broken off", client_address)


class _Silent(WSGIRequestHandler):
    timeout = SCRAPE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it is called by
        """Say nothing: a scrape every few seconds is no news."""


class _Series(Generic[Child]):
    """A metric's series by label values; `labels()` itself costs more than the observation."""

    def __init__(self, metric: Child) -> None:
        self._metric: Child = metric
        self._children: dict[tuple[str, ...], Child] = {}
        self._replacing = threading.Lock()

    def __call__(self, *values: str) -> Child:
        found = self._children.get(values)
        if found is None:
            found = self._children[values] = self._metric.labels(*values)
        return found

    def only(self, *values: str) -> Child:
        """The series with these values, and no other one with the same first value."""
        with self._replacing:
            self._remove(v for v in list(self._children) if v[0] == values[0] and v != values)
            return self(*values)

    def forget(self, first: str) -> None:
        """Remove the series whose first label has this value."""
        with self._replacing:
            self._remove(v for v in list(self._children) if v[0] == first)

    def _remove(self, which: Iterable[tuple[str, ...]]) -> None:
        for values in which:
            self._children.pop(values, None)
            self._metric.remove(*values)
