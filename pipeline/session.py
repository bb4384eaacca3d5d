"""A run from its configuration: opens everything before anything is written, runs, and says how it went.

A *serving* session begins without streams and goes on until it is stopped; streams come and go meanwhile.
"""

from __future__ import annotations

import json
import logging
import math
import queue
import shutil
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import msgspec

import engines
from engines.cuda.probe import has_driver, without_kernels
from engines.errors import ModelError, OutputError, RoadlensError, SourceError, UsageError
from engines.loading import Building, Degraded, Observe, in_tenths
from pipeline.anonymize import AnonymizeStage, check_segmenter
from pipeline.browser_view import BrowserView
from pipeline.config import Config, StreamConfig, check, devices_of
from pipeline.decoding import Decoding
from pipeline.encoder import NVENC
from pipeline.event_clip import EventClip, EventRing
from pipeline.fragments import ResumePoint
from pipeline.frame import Analysis
from pipeline.fuse import FuseOptions
from pipeline.jsonlines import JsonLines, complete_lines, read_lines, truncate_lines
from pipeline.keys import server_keys
from pipeline.live_input import LiveOptions
from pipeline.live_output import LiveOutput
from pipeline.live_view import LiveView
from pipeline.metrics import Metrics
from pipeline.output_state import OutputChange, OutputObserver
from pipeline.outputs import check_outputs, open_outputs
from pipeline.overlay import OverlayStage
from pipeline.placement import Berth, Placer
from pipeline.publish import Publisher
from pipeline.record import McapSink
from pipeline.redact import strip_credentials
from pipeline.runtime import LiveSource, LoadedModel, RunResult, Runtime, Sink, Stage, StreamPlan
from pipeline.smoothing import SETTLED
from pipeline.sources import Source, StreamInfo, resolve_source, stream_name
from pipeline.state import SourceState, StateChange
from pipeline.tap import PacketTap
from pipeline.video_writer import VideoWriter, partial_name

log = logging.getLogger(__name__)

_LEAST_FREE = 16 << 20
"""Bytes of free disk below which no run is begun."""


_READERS_TIME = 2.0
"""Seconds that a stop leaves the reader of a PUSH socket to take what is under way."""

SERVING_BATCH = 8
"""Largest batch of a serving session, which does not know how many streams will come."""


@runtime_checkable
class StatusSink(Protocol):
    """A sink that also wants to know what the sources are doing."""

    def status(self, change: StateChange) -> None:
        """A source entered a state; from any thread, one at a time. Must not wait."""
        ...


@runtime_checkable
class ForgettingSink(Protocol):
    """A sink that remembers streams, and lets go of one that was removed."""

    def forget(self, stream: str) -> None:
        """A stream was removed; another one of its name may come. Must not wait."""
        ...


@runtime_checkable
class TappedSource(Protocol):
    """A source that shows its compressed packets."""

    on_packet: PacketTap | None


class JsonLinesFile:
    """JSON lines of one stream at a partial name, given its final one when the stream has come to its end."""

    def __init__(self, path: Path, stream: str, first_frame: int) -> None:
        self.path, self.partial = path, partial_name(path)
        resumed = first_frame > 0
        if resumed:
            truncate_lines(self.partial, first_frame)
        self._lines = JsonLines(self.partial, append=resumed, first_sequence={stream: first_frame})

    def consume(self, analysis: Analysis) -> None:
        """Write one line."""
        self._lines.consume(analysis)

    def finish(self) -> None:
        """Close the file and give it its final name."""
        self._lines.close()
        self.partial.replace(self.path)

    def close(self) -> None:
        """Close the file where it is; one in which nothing has been written goes."""
        self._lines.close()
        if self.partial.exists() and self.partial.stat().st_size == 0:
            self.partial.unlink()


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a stream begins: frame, track number, and the recording to go on with."""

    frame: int = 0
    track: int = 1
    video: ResumePoint | None = None
    complete: bool = False


@dataclass(slots=True, eq=False, weakref_slot=True)
class RunningStream:
    """A stream of a session.

    Attributes:
        id: its id.
        config: what it was asked to be.
        source: where its frames come from; None where the address stands for nothing.
        change: the state entered last.
        info: what opening the source said; None until then.
        overlay: what draws its pictures; None where nothing is drawn.
        output: its live outputs; None where there are none.
        browsers: what a server's browsers get of them; None where there are none.
        ring: its newest packets, to be saved; None where none are kept.
        paused: whether it was told to rest.
        removed: whether it was told to go.
        berth: which device looks at it; None where the address stands for nothing.
    """

    id: str
    config: StreamConfig
    source: Source | None
    change: StateChange
    berth: Berth | None = None
    info: StreamInfo | None = None
    overlay: OverlayStage | None = None
    output: LiveOutput | None = None
    browsers: BrowserView | None = None
    ring: EventRing | None = None
    paused: bool = False
    removed: bool = False
    resources: ExitStack = field(default_factory=ExitStack)


class _States:
    """Hands state changes on, in order and in a thread of its own: a source never waits for those who listen."""

    def __init__(self, listeners: Sequence[Callable[[StateChange], None]]) -> None:
        self._listeners = tuple(listeners)
        self._changes: queue.SimpleQueue[StateChange | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._tell_all, name="states", daemon=True)
        self._thread.start()

    def put(self, change: StateChange) -> None:
        self._changes.put(change)

    def _tell_all(self) -> None:
        while (change := self._changes.get()) is not None:
            for listener in self._listeners:
                try:
                    listener(change)
                except Exception:
                    log.exception("%s: its state could not be handed on", change.stream)

    def close(self) -> None:
        """Hand on what waits, a second at most."""
        self._changes.put(None)
        self._thread.join(1.0)


class Session:
    """Everything a run needs, opened and checked; a context manager that closes it again.

    Args:
        config: the run.
        resume: go on where an earlier run of the same configuration was killed.
        stages: one's own stages, for every stream.
        sinks: one's own sinks, shared by all streams.
        serving: begin without streams and run until stopped; `start` adds those of the configuration.
        observers: told every state change of a source, from one thread of the session's.
        output_observers: told every state change of a live output, from its thread; they must not wait.
        metrics: where counters and times go; the session's own where it is left out.
        building: told how far the build of an engine is; left out, each tenth is logged.

    Attributes:
        runtime: to start, stop and wait for.
        plans: the streams that were opened at the start.
        streams: every stream that is there now, by id; a serving session's come and go.
        view: the newest pictures, for viewers; of a serving session only.
        metrics: the run's metrics.
        outputs: final paths of the files written, by stream.

    Raises:
        RoadlensError: whatever cannot be opened; nothing has been written then.
    """

    def __init__(
        self,
        config: Config,
        *,
        resume: bool = False,
        stages: Sequence[Stage] = (),
        sinks: Sequence[Sink] = (),
        serving: bool = False,
        observers: Sequence[Callable[[StateChange], None]] = (),
        output_observers: Sequence[OutputObserver] = (),
        metrics: Metrics | None = None,
        building: Observe | None = None,
    ) -> None:
        if not config.streams and not serving:
            raise UsageError("no source is given; name a video file, a folder of clips, or synthetic:")
        self.config = config
        self.metrics = metrics or Metrics()
        self.streams: dict[str, RunningStream] = {}
        self.outputs: dict[str, list[Path]] = {}
        self.already_complete: list[str] = []
        self.encoders: dict[str, str] = {}
        self.plans: list[StreamPlan] = []
        self.view = LiveView() if serving else None
        self._resume, self._stages, self._sinks = resume, tuple(stages), tuple(sinks)
        self._lacking: set[tuple[str, str]] = set()
        self._building = building or in_tenths(log.info)
        self._serving, self._observers, self._output_observers = serving, tuple(observers), tuple(output_observers)
        self._stack = ExitStack()
        self._changing, self._telling = threading.Lock(), threading.Lock()
        self._going: set[str] = set()
        self._placer = Placer(_device_names(devices_of(config)))
        self._states: _States | None = None
        self._shared: list[Sink] = []
        self._runtime: Runtime | None = None
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    @property
    def runtime(self) -> Runtime:
        """The runtime; a serving session's is started by `start`, another one's by `run` or its owner."""
        if self._runtime is None:
            raise RuntimeError("the session is not open")
        return self._runtime

    def _open(self) -> None:
        config = self.config
        check_outputs(config.outputs, self._serving or len(config.streams) > 1)
        opened = [] if self._serving else self._open_sources()
        # A file is to be through soon; of a live source each answer is.
        files = bool(opened) and all(source.mode == "file" for _, source in opened)
        self.models = self._load_models("throughput" if files else "latency")
        self._stack.callback(self._close_streams)
        starts = {stream.id: self._start(stream.id) for stream, _ in opened}
        self._check_anonymity()
        if config.metrics is not None:
            self._stack.enter_context(self.metrics.serve(config.metrics.host, config.metrics.port))
        shared: list[Sink] = list(self._sinks)
        shared += [self._publisher(i, {k: s.frame for k, s in starts.items()}) for i in range(len(config.publish))]
        if config.jsonl == "-":
            lines = JsonLines("-", first_sequence={k: s.frame for k, s in starts.items()})
            self._stack.callback(lines.close)
            shared.append(lines)
        if config.mcap is not None:
            shared.append(self._mcap_sink(config.mcap))
        if self.view is not None:
            self._stack.callback(self.view.close)
            shared.append(self.view)
        self._shared = shared
        self._stack.callback(self._tell_nobody)
        self._states = _States(self._observers)
        self._stack.callback(self._states.close)
        for stream, source in opened:
            start = starts[stream.id]
            if start.complete:
                self.already_complete.append(stream.id)
                source.close()
                del self.streams[stream.id]
                continue
            self.plans.append(self._plan(stream, source, start))
        fuse = FuseOptions(config.boxes, config.tracking, config.min_score, config.hold_score, config.smoothing)
        self._runtime = Runtime(
            self.plans, self.models, fuse, self.metrics, idle=self._serving, observe=self.tell, degraded=self._degraded,
            placer=self._placer,
        )  # fmt: skip
        self._stack.callback(self._runtime.close)

    # Sources --------------------------------------------------------------------------------------------------------
    def _open_sources(self) -> list[tuple[RunningStream, Source]]:
        opened = []
        names = _unique_names(self.config.streams)
        for name, config in zip(names, self.config.streams, strict=True):
            stream, source = self._resolved(name, config)
            self.streams[name] = stream
            self._stack.callback(source.close)
            stream.info = source.open()
            opened.append((stream, source))
        return opened

    def _resolved(self, name: str, config: StreamConfig) -> tuple[RunningStream, Source]:
        live = config.live
        if self._serving:  # a camera that is away when the server starts is waited for, like one that goes away later
            again = msgspec.structs.replace(live.reconnect, at_start="wait")
            live = msgspec.structs.replace(live, reconnect=again)
        berth = self._placer.place()
        stream = RunningStream(name, config, None, StateChange(name, SourceState.CONNECTING, at=time.time()), berth)
        told = partial(self._told_by_source, weakref.ref(stream))
        try:
            stream.source = source = resolve_source(
                config.source, name, config.decode_threads, config.picture_rate(),
                live=live, realtime=config.realtime, observe=told, decoding=self._decoding(name, config, berth),
            )  # fmt: skip
        except RoadlensError:
            berth.leave()
            raise
        except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL in it, a home of nobody's
            berth.leave()
            shown = strip_credentials(config.source[:64])
            raise SourceError(f"{shown!r} cannot be looked for: {error}; give a file or an address") from None
        stream.resources.callback(berth.leave)
        if self.config.events is not None and isinstance(source, TappedSource):
            stream.ring = EventRing(name, self.config.events, self._told_of_output)
            stream.resources.callback(stream.ring.close)
            source.on_packet = stream.ring.packet
        return stream, source

    def _decoding(self, name: str, config: StreamConfig, berth: Berth) -> Decoding:
        # Where the models are that look at the pictures; of those on a GPU of their own the first.
        devices = [model.device.split(",") for model in self.config.models]
        own = [each[berth.first] if len(each) > 1 else each[0] for each in devices]
        on_cpu = config.decode == "auto" and all(device == "cpu" for device in own)
        numbered = (device.partition(":")[2] for device in own)
        gpu = next((int(number) for number in numbered if number), 0)
        decoding = Decoding(name, "cpu" if on_cpu else config.decode, gpu, degraded=self._degraded)
        if decoding.decoder == "cuda" and (missing := without_kernels(gpu)) is not None:
            sentence = f"{name}: {missing[1]}; PyTorch's own operations do the kernels' work, and take longer."
            self._degraded(Degraded(name, "triton", "torch", missing[0], sentence))
        return decoding

    def _degraded(self, what: Degraded) -> None:
        """Count what could not be had, and say it once, however many streams go without."""
        self._count_degraded(what)
        if (what.wanted, what.lacking) not in self._lacking:
            self._lacking.add((what.wanted, what.lacking))
            log.warning("%s", what.sentence)

    def _loading(self, model: str, what: Degraded | Building) -> None:
        if isinstance(what, Building):
            self.metrics.engine_state(model, "building")
            self._building(what)
        else:
            self._count_degraded(what)

    def _count_degraded(self, what: Degraded) -> None:
        self.metrics.degraded(what.wanted, what.instead, what.lacking)

    def _plan(self, stream: RunningStream, source: Source, start: _Start) -> StreamPlan:
        """The stream's own stages and outputs, opened."""
        info = stream.info
        if info is None:
            raise RuntimeError(f"the source of stream {stream.id!r} is not open")
        bound = stream.config.live.latency_bound
        if source.mode == "live" and bound < min(float(1 / info.rate), LiveOptions().latency_bound):
            log.warning(
                "%s: a latency bound of %g ms is less than one frame of it (%g ms), so that most will be too old; "
                "raise live.latency_bound", stream.id, bound * 1000, 1000 / info.rate,
            )  # fmt: skip
        if stream.berth is not None:
            self._placer.pace(stream.berth, float(info.rate))
        stages = list(self._stages)
        if self.config.anonymize is not None:
            segmenter = next(m.name for m in self.models if m.engine.spec.task == "segmentation")
            stages.insert(0, AnonymizeStage(self.config.anonymize, segmenter))  # before anybody can look
        if self.view is not None or self.config.video.path is not None or self.config.outputs.any:
            stream.overlay = OverlayStage(self.config.overlay, float(1 / info.rate))
            stream.overlay.degraded = self._degraded
            if self.view is not None and self.config.video.path is None and not self.config.outputs.any:
                view = self.view
                stream.overlay.wanted = lambda: view.viewers(stream.id) > 0
            stages.append(stream.overlay)
        files = self._file_sinks(stream, info, start)
        browsers = BrowserView(stream.id) if self._serving else None
        stream.output = open_outputs(
            stream.id, info, source.mode, self.config.outputs, self.metrics, [self._told_of_output], browsers,
            partial(_gone, weakref.ref(stream)),
        )  # fmt: skip
        if stream.output is not None:
            stream.browsers = browsers
            stream.resources.callback(stream.output.close)
            files.append(stream.output)
        encoders = [sink for sink in files if isinstance(sink, VideoWriter | LiveOutput)]
        for encoder in encoders:
            encoder.observe(self._degraded)
            options = self.config.outputs.encoder if isinstance(encoder, LiveOutput) else self.config.video
            if options.encoder == "auto" and encoder.encoder != NVENC and has_driver():
                sentence = f"{stream.id}: this GPU opens no NVENC encoder; {encoder.encoder} is used."
                self._degraded(Degraded(stream.id, "nvenc", encoder.encoder, "nvenc", sentence))
        if stream.overlay is not None and encoders:
            # One download serves several encoders in host memory: pictures stay where all of them read the GPU's.
            stream.overlay.stay = lambda: all(encoder.takes_device for encoder in encoders)
        if stream.ring is not None and stream.ring.options.save_when is not None:
            files.append(stream.ring)
        return StreamPlan(
            source, info, stages, [*self._shared, *files], start.frame, self._warm_up(info, source), start.track,
            partial(self._mark_stopped, stream.id), stream.berth,
        )  # fmt: skip

    def _warm_up(self, info: StreamInfo, source: Source) -> int:
        """Frames that a resumed run looks at again, so that it shows what it would have shown uninterrupted."""
        if source.mode != "file":
            return 0
        remembered = [model.every - 1 for model in self.models]
        if self.config.smoothing is not None:
            remembered.append(math.ceil(SETTLED * info.rate))
        if self.config.anonymize is not None:
            remembered.append(max(math.ceil(self.config.anonymize.hold * info.rate), 1))
        return max(remembered, default=0)

    def _mark_stopped(self, stream: str, frames: int) -> None:
        """Say beside its files, before they get their final names, that a stream was stopped and can be resumed."""
        if self._serving or not self.outputs[stream]:
            return
        marker = _stopped_marker(self.outputs[stream][0])
        try:
            marker.write_text(json.dumps({"frames": frames}) + "\n")
        except OSError as error:
            raise OutputError(f"{marker} cannot be written: {error.strerror or error}; free some space") from None

    def tell(self, change: StateChange) -> None:
        """A stream entered a state: those who listen are told, in a thread of the session's."""
        with self._telling:
            self._tell(change)

    def _told_by_source(self, teller: weakref.ref[RunningStream], change: StateChange) -> None:
        # The threads of a source may outlive its stream: what they say is neither of the next one of its name, nor
        # of one that has been forgotten meanwhile.
        with self._telling:
            if self.streams.get(change.stream) in (teller(), None):
                self._tell(change)

    def _tell(self, change: StateChange) -> None:
        stream = self.streams.get(change.stream)
        if stream is None and change.stream not in self._going:
            return
        if stream is not None:
            # What ended after it failed has failed; a source may say what the runtime says as well, and what it did
            # before it knew.
            if stream.change.state is SourceState.FAILED and stream.change is not change:
                return
            stream.change = change
            if stream.output is not None:
                stream.output.status(change)
        self.metrics.state(change)
        # At once, so that a stream's last state goes out before its end does.
        for sink in self._shared:
            if isinstance(sink, StatusSink):
                sink.status(change)
        if self._states is not None:
            self._states.put(change)

    def _tell_nobody(self) -> None:
        """The outputs are about to be closed, and a source may still have something to say."""
        with self._telling:
            self._shared.clear()

    def _told_of_output(self, change: OutputChange) -> None:
        for observer in self._output_observers:
            observer(change)

    def save_event(self, name: str, reason: str = "event") -> EventClip:
        """Save the last seconds of a stream, and the next ones, as its camera sent them.

        Raises:
            UsageError: there is no such stream, or nothing is kept of it.
            OutputError: nothing has come from its camera yet.
        """
        stream = self._stream(name)
        if stream.ring is None:
            why = "it is a file" if self.config.events is not None else "set `events` in the configuration"
            raise UsageError(f"nothing is kept of the stream {name!r} to be saved: {why}")
        return stream.ring.save(reason)

    # Streams that come and go ---------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start a serving session and add the streams of its configuration. One that cannot be opened is there as
        `failed`, with its reason: it keeps nobody else from being served.
        """
        self.runtime.start()
        for name, config in zip(_unique_names(self.config.streams), self.config.streams, strict=True):
            try:
                self.add_stream(config, name)
            except RoadlensError as error:
                reason = strip_credentials(str(error))
                log.error("%s: %s", name, reason)  # noqa: TRY400  # a sentence for the user, no traceback
                with self._changing:
                    failed = StateChange(name, SourceState.FAILED, reason, at=time.time())
                    self.streams = {**self.streams, name: RunningStream(name, config, None, failed)}
                self.tell(failed)

    def add_stream(self, config: StreamConfig, name: str | None = None) -> RunningStream:
        """Open a source and run it beside the others. A live one is opened in the background: it is there at once,
        and its state says how it gets on.

        Raises:
            RoadlensError: the id is in use, or the source or an output cannot be opened; nothing has changed then.
        """
        with self._changing:
            taken = {*self.streams, *self._going}
            name = name or _unique_names([config], taken)[0]
            if name in taken:
                raise UsageError(f"the stream id {name!r} is in use; remove that stream first, or choose another id")
            stream, source = self._resolved(name, config)
            self.streams = {**self.streams, name: stream}
        return self._begun(stream, source)

    def _begun(self, stream: RunningStream, source: Source) -> RunningStream:
        if isinstance(source, LiveSource):
            self.tell(stream.change)
            work = threading.Thread(target=self._begin_live, args=(stream, source), name=f"open {stream.id}")
            work.daemon = True  # a camera that never answers must not keep the process alive
            work.start()
            return stream
        try:
            self._begin(stream, source)
        except BaseException:
            with self._changing, self._telling:
                self.streams = {k: v for k, v in self.streams.items() if v is not stream}
                self._forget(stream.id)
            raise
        return stream

    def _begin(self, stream: RunningStream, source: Source) -> None:
        try:
            stream.info = stream.info or source.open()
            with self._changing:
                if stream.removed:
                    source.close()
                    return
                plan = self._plan(stream, source, self._start(stream.id))
                if not isinstance(source, LiveSource):
                    self.tell(stream.change)  # not before all of it is open: one that cannot be has never been there
                self.runtime.add(plan)
                if stream.paused:
                    self.runtime.pause(stream.id)
        except BaseException:
            source.close()
            stream.resources.close()
            raise

    def _begin_live(self, stream: RunningStream, source: Source) -> None:
        try:
            self._begin(stream, source)
        except Exception as error:  # a stream's failure is its own, whatever it is
            if stream.removed:
                return
            reason = strip_credentials(str(error))
            if not isinstance(error, RoadlensError):
                log.exception("%s: %s", stream.id, reason)
            self.tell(StateChange(stream.id, SourceState.FAILED, reason, stream.change.cause, time.time()))

    def remove_stream(self, name: str) -> None:
        """Let a stream go: what has been read of it is finished, and so are its files. Others do not notice.

        Raises:
            UsageError: there is no such stream.
        """
        with self._parted(name):
            pass

    @contextmanager
    def _parted(self, name: str) -> Iterator[None]:
        """Let a stream go. Its name is taken until the end of the block, and whatever is known of it goes with it,
        unless another one of its name is there by then.
        """
        with self._changing:
            stream = self._stream(name)
            stream.removed = True
            self.streams = {k: v for k, v in self.streams.items() if v is not stream}
            self._going.add(name)
            ran = name in self.runtime.counts()
        try:
            self._finish(stream, ran)
            yield
        finally:
            with self._changing, self._telling:
                self._going.discard(name)
                if name not in self.streams:
                    self._forget(name)

    def _finish(self, stream: RunningStream, ran: bool) -> None:
        """Stop a stream that has been taken out of the list, and close what it has open."""
        if ran:
            self.runtime.remove(stream.id, over=stream.resources.close)
        else:
            if stream.source is not None and isinstance(stream.source, LiveSource):
                stream.source.stop()
            stream.resources.close()
        if self.view is not None:
            self.view.end(stream.id)
        if not ran:
            self.tell(StateChange(stream.id, SourceState.ENDED, "removed", "stopped", time.time()))

    def _forget(self, name: str) -> None:
        self.outputs.pop(name, None)
        self.encoders.pop(name, None)
        self.metrics.forget(name)
        for sink in self._shared:
            if isinstance(sink, ForgettingSink):
                sink.forget(name)

    def replace_stream(self, name: str, config: StreamConfig) -> RunningStream:
        """Let a stream go on as another one of the same id; a file begins anew.

        Raises:
            RoadlensError: there is no such stream, or the new source cannot be opened; the old one runs on then.
        """
        self._stream(name)
        new, source = self._resolved(name, config)
        try:
            if not isinstance(source, LiveSource):
                new.info = source.open()
            with self._parted(name), self._changing:
                self.streams = {**self.streams, name: new}
        except BaseException:
            source.close()
            new.resources.close()
            raise
        return self._begun(new, source)

    def pause_stream(self, name: str, paused: bool = True) -> None:
        """Let a stream rest, or go on.

        Raises:
            UsageError: there is no such stream, or it is over.
        """
        with self._changing:
            stream = self._stream(name)
            if stream.change.state.final:
                raise UsageError(f"the stream {name!r} has {stream.change.state}; start it again or remove it")
            stream.paused = paused
            if name in self.runtime.counts():
                (self.runtime.pause if paused else self.runtime.resume)(name)

    def _stream(self, name: str) -> RunningStream:
        stream = self.streams.get(name)
        if stream is None:
            raise UsageError(f"there is no stream {name!r}; the streams are: {', '.join(self.streams) or 'none'}")
        return stream

    def _close_streams(self) -> None:
        for stream in self.streams.values():
            stream.removed = True
            if stream.source is not None and isinstance(stream.source, LiveSource):
                stream.source.stop()  # one that is still being opened is not the runtime's, and would try for ever
            stream.resources.close()

    # Models ---------------------------------------------------------------------------------------------------------
    def _load_models(self, hint: engines.Hint) -> list[LoadedModel]:
        devices = len(self._placer.devices)
        batch = SERVING_BATCH if self._serving else min(8, -(-len(self.config.streams) // devices))
        loaded: list[LoadedModel] = []
        for wanted in self.config.models:
            self.metrics.engine_state(wanted.model, "loading")
            found = []
            for device in wanted.device.split(","):
                engine = engines.load(
                    wanted.model, device=device, precision=wanted.precision, max_batch=batch, hint=hint,
                    observe=partial(self._loading, wanted.model),
                )  # fmt: skip
                self._stack.callback(engine.close)
                found.append(engine)
            engine = found[0]
            loaded.append(LoadedModel(engine, wanted.every, tuple(found[1:])))
            if wanted.model != engine.spec.name:
                self.metrics.forget_engine_state(wanted.model)
            self.metrics.engine(engine.spec.name, engine.backend, engine.precision, loaded[-1].device, "ready")
        segmenters = [m.name for m in loaded if m.engine.spec.task == "segmentation"]
        if len(segmenters) > 1:
            raise ModelError(
                f"{' and '.join(segmenters)} are both segmenters; "
                "a run takes one segmenter and any number of localizers"
            )
        names = [m.name for m in loaded]
        for name in names:
            if names.count(name) > 1:
                raise ModelError(f"two of the models call themselves {name!r}; list each model once")
        return loaded

    # Outputs --------------------------------------------------------------------------------------------------------
    def _publisher(self, index: int, first: dict[str, int]) -> Publisher:
        options = self.config.publish[index]
        publisher = Publisher(
            options.bind,
            options.pattern,
            header=options.header,
            mask=options.mask,
            high_water=options.high_water,
            linger=options.linger,
            stop=self._gives_up,
            allow_remote=options.allow_remote,
            first_sequence=first,
            picture=options.picture,
            style=self.config.overlay,
            curve=None if options.curve is None else server_keys(options.curve),
        )
        self._stack.callback(publisher.close)
        return publisher

    def _mcap_sink(self, path: Path) -> McapSink:
        if self._resume:
            raise UsageError("--resume cannot go on with a recording (mcap); leave it out, or record the messages")
        _check_writable(path)
        sink = McapSink(path)
        self._stack.callback(sink.close)
        return sink

    def _check_anonymity(self) -> None:
        """See, before anything is opened for writing, that what is to be blurred will be."""
        if self.config.anonymize is None:
            return
        check(self.config, "the configuration")  # whoever made it in Python may not have
        model = next((m for m in self.models if m.engine.spec.task == "segmentation"), None)
        if model is None:
            check_segmenter(self.config.anonymize, "", (), 1)
        else:
            check_segmenter(self.config.anonymize, model.name, model.engine.spec.classes, model.every)

    def _gives_up(self) -> bool:
        """Whether what waits for a reader shall wait no longer: a stop has given it its time."""
        runtime = self._runtime
        return runtime is not None and (runtime.aborting or runtime.stopping_seconds > _READERS_TIME)

    def _video_path(self, stream: str) -> Path | None:
        return None if self.config.video.path is None else self._path(self.config.video.path, stream, ".mp4")

    def _jsonl_path(self, stream: str) -> Path | None:
        if self.config.jsonl in (None, "-"):
            return None
        return self._path(Path(str(self.config.jsonl)), stream, ".jsonl")

    def _path(self, given: Path, stream: str, suffix: str) -> Path:
        path = _file_for(given, stream, suffix, self._serving or len(self.config.streams) > 1)
        # A stream that comes again must not write over what it left before.
        return _unused(path) if self._serving else path

    def _start(self, name: str) -> _Start:
        """Where a stream begins: at 0, or with `--resume` where all its files agree to go on."""
        video, lines = self._video_path(name), self._jsonl_path(name)
        self.outputs[name] = [p for p in (video, lines) if p is not None]
        for path in self.outputs[name]:
            _check_writable(path)
        if self._serving:
            return _Start()
        if not self._resume:
            if self.outputs[name]:
                _stopped_marker(self.outputs[name][0]).unlink(missing_ok=True)
            return _Start()
        if not self.outputs[name]:
            raise UsageError("--resume goes on with files; give the -o and --jsonl of the run that was interrupted")
        if _stopped_marker(self.outputs[name][0]).exists():
            # An interrupted run gave its files their final names; they become partial again.
            for path in self.outputs[name]:
                if path.exists():
                    path.replace(partial_name(path))
            _stopped_marker(self.outputs[name][0]).unlink()
        if all(p.exists() and not partial_name(p).exists() for p in self.outputs[name]):
            return _Start(complete=True)
        whole = None
        if lines is not None:
            whole = complete_lines(partial_name(lines)) if partial_name(lines).exists() else 0
        if video is None:
            frame, point = whole or 0, None
        else:
            point = VideoWriter.resume_point(video, whole)
            frame = point.frames if point is not None else 0
        track = 1
        if lines is not None and frame:
            numbers = [
                b.track for m, _ in zip(read_lines(partial_name(lines)), range(frame), strict=False) for b in m.boxes
            ]
            track = 1 + max((n for n in numbers if n is not None), default=0)
        if frame:
            log.info("%s: going on at frame %d", name, frame)
        else:
            log.info("%s: nothing to resume; starting at the first frame", name)
        return _Start(frame, track, point)

    def _file_sinks(self, stream: RunningStream, info: StreamInfo, start: _Start) -> list[Sink]:
        sinks: list[Sink] = []
        for path in self.outputs[stream.id]:
            if path.suffix == ".jsonl":
                file = JsonLinesFile(path, stream.id, start.frame)
                stream.resources.callback(file.close)
                sinks.append(file)
            else:
                writer = VideoWriter(path, info, self.config.video, start.video)
                stream.resources.callback(writer.close)
                sinks.append(writer)
                self.encoders[stream.id] = writer.encoder
                self.metrics.encoder(stream.id, writer.encoder)
        return sinks

    # Running --------------------------------------------------------------------------------------------------------
    def run(self, poll: Callable[[Runtime], None] = lambda _runtime: None, interval: float = 0.2) -> RunResult:
        """Run to the end; `poll` is called every `interval` seconds, from this thread."""
        self.runtime.start()
        while not self.runtime.wait(interval):
            poll(self.runtime)
        poll(self.runtime)
        return self.runtime.result()

    def files(self, stream: str) -> list[Path]:
        """The output files of a stream that exist: the final one, or the partial one where it did not end well."""
        found = [(path, partial_name(path)) for path in self.outputs.get(stream, [])]
        return [partial if partial.exists() else path for path, partial in found if partial.exists() or path.exists()]

    def close(self) -> None:
        """Abort what still runs, close files, sockets and engines. Twice is allowed."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _gone(held: weakref.ref[RunningStream]) -> bool:
    stream = held()
    return stream is None or stream.removed


def _device_names(devices: Sequence[str]) -> list[str]:
    """As they are asked for, numbered where one is given twice."""
    names = list[str]()
    for device in devices:
        earlier = sum(name.split("#")[0] == device for name in names)
        names.append(f"{device}#{earlier + 1}" if earlier else device)
    return names


def _unique_names(streams: Sequence[StreamConfig], others: Iterable[str] = ()) -> list[str]:
    """An id for every stream: its own, or made of its source and numbered where that is taken."""
    taken = {*others, *(s.id for s in streams if s.id is not None)}
    names = []
    for stream in streams:
        name = stream.id or stream_name(stream.source)
        number = 2
        while stream.id is None and name in taken:
            name = f"{stream_name(stream.source)}-{number}"
            number += 1
        taken.add(name)
        names.append(name)
    return names


def _file_for(path: Path, stream: str, suffix: str, many: bool) -> Path:
    """The file of a stream: the path itself for one stream, `<path>/<stream><suffix>` where it is a folder."""
    is_folder = path.is_dir() or not path.suffix
    if is_folder:
        return path / f"{stream}{suffix}"
    if path.suffix.lower() != suffix:
        raise UsageError(f"{path}: this output is written as {suffix}; give a name that ends in {suffix}, or a folder")
    if many:
        raise UsageError(f"{path} is one file, but there are several streams; give a folder, such as -o {path.stem}/")
    return path


def _unused(path: Path) -> Path:
    """The path, numbered if a file is there."""
    number, free = 2, path
    while free.exists() or partial_name(free).exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def _stopped_marker(path: Path) -> Path:
    """Stands beside a finished file whose run was interrupted, and lets `--resume` go on with it."""
    return path.with_name(f"{path.name}.stopped")


def _check_writable(path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give a file name")
    if not folder.exists():
        if folder.parent.is_dir():
            try:
                folder.mkdir(exist_ok=True)
            except OSError as error:
                raise OutputError(f"the folder {folder} cannot be made: {error.strerror}") from None
        else:
            raise OutputError(f"{path} cannot be written: the folder {folder} does not exist; make it first")
    probe = path.with_name(f".{path.name}.probe")
    try:
        probe.touch()
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None
    if free < _LEAST_FREE:
        raise OutputError(f"{path} cannot be written: its disk has {free >> 20} MB left; free some space first")


def summary(session: Session, result: RunResult) -> dict[str, Any]:
    """The final summary as JSON-ready values: streams with their frame counts, stage times in ms a frame, models."""
    frames = sum(s.counts.emitted for s in result.streams)
    return {
        "seconds": round(result.seconds, 3),
        "cpu_seconds": round(result.cpu_seconds, 3),
        "frames": frames,
        "frames_per_second": round(frames / result.seconds, 2) if result.seconds else 0.0,
        "streams": [
            {
                "stream": s.stream,
                "mode": s.mode,
                "ended": s.reason,
                "error": None if s.error is None else str(s.error),
                "frames_in": s.counts.decoded,
                "frames_out": s.counts.emitted,
                "frames_dropped": {f"{stage}/{reason}": n for (stage, reason), n in sorted(s.counts.dropped.items())},
                "decode_errors": s.decode_errors,
                "skipped_clips": [{"clip": name, "reason": reason} for name, reason in s.skipped_clips],
                "encoder": session.encoders.get(s.stream),
                "files": [str(p) for p in session.files(s.stream)],
            }
            for s in result.streams
        ],
        "already_complete": session.already_complete,
        "models": [
            {
                "model": m.name, "backend": m.engine.backend, "precision": m.engine.precision,
                "device": m.device, "every": m.every,
            }
            for m in session.models
        ],
        "stages": {
            name: {
                "calls": t.calls,
                "wall_ms": round(t.wall * 1000 / max(frames, 1), 3),
                "cpu_ms": round(t.cpu * 1000 / max(frames, 1), 3),
            }
            for name, t in sorted(result.stages.items())
        },
    }  # fmt: skip


def write_summary(target: str, values: dict[str, Any]) -> None:
    """Write the summary to a file, or to standard output for `-`.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(values, indent=2) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}") from None


def exit_code(result: RunResult) -> int:
    """0 when every stream came to its end, 130 when the run was interrupted, else the first error's code."""
    error = result.error
    if isinstance(error, RoadlensError):
        return error.exit_code
    if error is not None:
        return 1
    return 130 if any(s.reason == "stopped" for s in result.streams) else 0
