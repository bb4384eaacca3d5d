"""What all streams of a session share: devices and engines, stages and sinks, and who is told how the streams do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import engines
from engines.errors import UsageError
from engines.loading import Observe, in_tenths
from pipeline.analysis.fuse import FuseOptions
from pipeline.capabilities import attach_sink, attach_stage
from pipeline.config import Config, PublishConfig, devices_of
from pipeline.contracts import Sink, Stage
from pipeline.files import check_writable
from pipeline.messages.jsonlines import JsonLines
from pipeline.messages.mcap import McapSink
from pipeline.messages.publish import Publisher
from pipeline.messages.sockets.keys import server_keys
from pipeline.metrics import Metrics
from pipeline.outputs.snapshots import LiveView
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.runtime.placement import Placer
from pipeline.session.degradations import Degradations
from pipeline.session.files import RunFiles
from pipeline.session.models import check_anonymity, check_classes, device_names, load_models
from pipeline.session.states import States
from pipeline.session.stream import RunningStream, Streams
from pipeline.state import OutputObserver, StateChange

log = logging.getLogger(__name__)

RELAY_HIGH_WATER = 256
"""Messages queued between a worker and its parent: those of a few seconds, should the parent get no time."""

READERS_TIME = 2.0
"""Seconds that a stop leaves the reader of a PUSH socket to take what is under way."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a session is to a run of several processes.

    Attributes:
        workers: how many there are; an engine on a CPU takes its share of the cores.
        relays: addresses to which the messages of each `publish` go, in their order.
    """

    workers: int
    relays: tuple[str, ...] = ()


class Shared:
    """What the streams of a session share. The session opens it in steps, in the order of the methods; `close` takes
    the steps back.

    Args:
        config: the run.
        files: what it reads and writes.
        stages: one's own stages, for every stream.
        sinks: one's own sinks.
        observers: told every state change of a source.
        output_observers: told every state change of a live output.
        metrics: where counters and times go.
        building: told how far the build of an engine is; left out, each tenth is logged.
        part: what the session is to a run of several processes; None where it is the whole run.

    Attributes:
        streams: the streams that are there now.
        states: hands state changes on.
        degradations: what is gone without.
        placer: which device looks at which stream.
        models: the engines.
        sinks: sinks of all streams.
        view: the newest pictures, for viewers; None where there are none.
        encoders: the encoder of each stream's video file.
        stack: closes what was opened.

    Raises:
        UsageError: a stage or sink is none, or the configuration asks for several processes.
    """

    def __init__(
        self,
        config: Config,
        files: RunFiles,
        *,
        stages: Sequence[Stage] = (),
        sinks: Sequence[Sink] = (),
        observers: Sequence[Callable[[StateChange], None]] = (),
        output_observers: Sequence[OutputObserver] = (),
        metrics: Metrics | None = None,
        building: Observe | None = None,
        part: Part | None = None,
    ) -> None:
        if config.workers > 1:
            raise UsageError(
                f"a session is one process, and `workers: {config.workers}` asks for several; leave it out, or start "
                "`roadlens serve`"
            )
        for stage in stages:  # one that cannot be used is refused before anything is opened
            attach_stage(stage)
        for sink in sinks:
            attach_sink(sink)
        self.config, self.files = config, files
        self.stages, self.sinks = tuple(stages), list(sinks)
        self.metrics = metrics or Metrics()
        self.streams = Streams()
        self.states = States(self.streams, self.metrics, observers, output_observers)
        self.degradations = Degradations(self.metrics)
        self.placer = Placer(device_names(devices_of(config)))
        self.models: list[LoadedModel] = []
        self.view: LiveView | None = None
        self.encoders: dict[str, str] = {}
        self.stack = ExitStack()
        self._building = building or in_tenths(log.info)
        self._part = part
        self._runtime: Runtime | None = None

    @property
    def runtime(self) -> Runtime:
        """The runtime, once it is open."""
        if self._runtime is None:
            raise RuntimeError("the session is not open")
        return self._runtime

    def load_models(self, hint: engines.Hint, streams: int | None) -> None:
        """Load the engines, for so many streams a device; None where that is not known.

        Raises:
            ModelError: a model cannot be used, or not beside the others.
            UsageError: no model finds what is to be blurred, hidden or smoothed.
        """
        self.models = load_models(
            self.config, hint, streams, self.metrics, self.degradations, self._building, self.stack,
            1 if self._part is None else self._part.workers,
        )  # fmt: skip
        self.stack.callback(self.streams.close)
        check_classes(self.config, self.models)
        check_anonymity(self.config, self.models)

    def open_messages(self, first: Mapping[str, int]) -> None:
        """Open the sockets of metrics and messages, and standard output; `first` is the first frame of each stream.

        Raises:
            RoadlensError: an address cannot be used.
        """
        config = self.config
        if config.metrics is not None:
            self.stack.enter_context(self.metrics.serve(config.metrics.host, config.metrics.port))
        relays = (None,) * len(config.publish) if self._part is None else self._part.relays
        for options, relay in zip(config.publish, relays, strict=True):
            publisher = self._publisher(options, first, relay)
            self.add_sink(publisher, publisher.close)
        if config.jsonl == "-":
            lines = JsonLines("-", first_sequence=dict(first), instances=config.instances)
            self.add_sink(lines, lines.close)

    def record_messages(self, going_on: Mapping[str, int] | None = None, *, lasting: bool = False) -> None:
        """Record the messages of all streams, where the run has a recording; see `McapSink`.

        Raises:
            OutputError: the recording cannot be written.
        """
        path = self.files.mcap
        if path is not None:
            check_writable(path)
            sink = McapSink(
                path, going_on, lasting=lasting, unfinished=lambda: self.files.unfinished,
                instances=self.config.instances,
            )  # fmt: skip
            self.add_sink(sink, sink.close)

    def show(self, view: LiveView) -> None:
        """Give every stream's pictures to viewers."""
        self.view = view
        self.add_sink(view, view.close)

    def add_sink(self, sink: Sink, close: Callable[[], None]) -> None:
        """Add a sink that takes the analyses of all streams, and is closed behind them."""
        self.stack.callback(close)
        self.sinks.append(sink)

    def begin(self) -> None:
        """All sinks are open: they are told of states from now on."""
        self.states.begin(self.sinks)
        self.stack.callback(self.states.close)

    def open_runtime(self, plans: Sequence[StreamPlan], *, idle: bool = False) -> None:
        """Make the runtime; one that is `idle` goes on without streams."""
        config = self.config
        fuse = FuseOptions(config.boxes, config.tracking, config.min_score, config.hold_score, config.smoothing)
        self._runtime = Runtime(
            plans, self.models, fuse, self.metrics, idle=idle, observe=self.states.tell_of_runtime,
            degraded=self.degradations.say, placer=self.placer, carrying=config.carrying,
        )  # fmt: skip
        self.stack.callback(self._runtime.close)

    def forget(self, name: str) -> None:
        """Let go of whatever is known of a stream that is gone; `states.telling` is held."""
        self.files.forget(name)
        self.encoders.pop(name, None)
        self.states.forget(name)

    def close(self) -> None:
        """Abort what still runs, close files, sockets and engines. Twice is allowed."""
        self.stack.close()

    def _publisher(self, options: PublishConfig, first: Mapping[str, int], relay: str | None) -> Publisher:
        return Publisher(
            options.bind,
            options.pattern,
            header=options.header,
            mask=options.mask,
            instances=self.config.instances,
            high_water=options.high_water if relay is None else max(options.high_water, RELAY_HIGH_WATER),
            linger=options.linger,
            stop=self._gives_up,
            allow_remote=options.allow_remote,
            first_sequence=dict(first),
            picture=options.picture,
            style=self.config.overlay,
            curve=None if options.curve is None or relay is not None else server_keys(options.curve),
            relay=relay,
        )

    def _gives_up(self) -> bool:
        """Whether what waits for a reader shall wait no longer: a stop has given it its time."""
        runtime = self._runtime
        return runtime is not None and (runtime.aborting or runtime.stopping_seconds > READERS_TIME)


class OpenSession:
    """What every session shows of itself while it is open."""

    _shared: Shared
    _files: RunFiles

    @property
    def runtime(self) -> Runtime:
        """The runtime, to start, stop and wait for."""
        return self._shared.runtime

    @property
    def streams(self) -> dict[str, RunningStream]:
        """The streams that are there now, by id."""
        return self._shared.streams.by_id

    @property
    def models(self) -> list[LoadedModel]:
        """The engines."""
        return self._shared.models

    @property
    def metrics(self) -> Metrics:
        """The session's metrics."""
        return self._shared.metrics

    @property
    def outputs(self) -> dict[str, list[Path]]:
        """Final paths of the files written, by stream."""
        return self._files.outputs

    @property
    def encoders(self) -> dict[str, str]:
        """The encoder of each stream's video file, by stream."""
        return self._shared.encoders
