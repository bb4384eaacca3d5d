"""The runtime: it alone owns threads, queues, start, stop and supervision. The stages know nothing of them.

    source ─► decode ─► slot ─► batch ─► engine(s) ─► fuse ─► stages ─► sinks
    (a thread a stream)      (one thread)      (a thread a stream)   (another)

The sinks have a thread of their own so that an encoder is fed as soon as it takes a frame: with the overlay drawn in
between its calls it idles, and two cores are 91 % busy in place of 95.

A stream holds a few frames at most (`CREDITS`) between the batch and its sinks, so a slow sink stops its own stream
and no other. Every frame decoded is emitted or counted as dropped, with the stage and the reason.

Streams come, rest and go while others run. The batch thread alone takes a stream out of its list, once it has handed
over everything it took from it: so nothing is lost on the way, and nobody else waits.

With several devices there is a batch thread for each, and each stream is bound to one (`pipeline.placement`). A batch
that fails on one device and not on another one shows that the device is lost: its streams go on on the others, and the
frames that it had are computed there too.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from engines.engine import Engine, Prediction
from engines.errors import RoadlensError, UsageError
from engines.loading import Degraded
from pipeline.batching import ArrivalRate, batch_room, batch_window, round_robin
from pipeline.frame import Analysis, Frame
from pipeline.fuse import FuseOptions, Fuser
from pipeline.metrics import Metrics
from pipeline.picture import network_input, network_inputs, on_device
from pipeline.placement import Berth, Placer
from pipeline.redact import strip_credentials
from pipeline.slots import Sample, Slot, UInt8
from pipeline.sources import AudioPacket, Source, StreamInfo
from pipeline.stageclock import StageClock, StageTime, merged
from pipeline.state import SourceState, StateChange

log = logging.getLogger(__name__)

FILE_SLOT = 8
"""Decoded frames of a file that wait for the engine."""

FILE_BURST = 4
"""Frames of a file that are fused and drawn in a row: code and tables are in the caches for all but the first, which
network and encoder push out in between. At 720p a fifth of the time outside them is saved."""

BURST_SECONDS = 0.05
"""How long a burst waits for its next frame."""

CREDITS = 4
"""Frames of a live stream between the batch and its sinks, at least: twice what the engines have in flight, so that
neither they nor an encoder wait for the other. Of a file there are two bursts more."""

STOP_SECONDS = 5.0
"""How long a stop may take; what has not stopped by then is named."""

REMOVE_SECONDS = 2.0
"""How long a stream that is removed may take to finish what has been read of it; after that it is dropped."""


class Stage(Protocol):
    """One's own stage, between fusing and the sinks: a class with this one method. It is timed under its class' name,
    or its `name` if it has one; so are sinks."""

    def process(self, analysis: Analysis) -> Analysis:
        """The analysis to hand on, the given one or another."""
        ...


@runtime_checkable
class RememberingStage(Protocol):
    """A stage that remembers frames, and is shown those just before the first one of a resumed run."""

    def remember(self, analysis: Analysis) -> None:
        """Look at the analysis of a frame that is not given out."""
        ...


class Sink(Protocol):
    """One's own output: a class with this one method. Analyses come in order, from one thread a stream."""

    def consume(self, analysis: Analysis) -> None:
        """Take an analysis. What waits here holds up its own stream."""
        ...


@runtime_checkable
class LiveSource(Protocol):
    """What a source that waits for somebody else has beside `Source`. It says its states itself; those of a source
    without these methods are said by the runtime. All three return at once, come from any thread, and may come twice.
    """

    def stop(self) -> None:
        """Iterate no further: a waiting `next` ends, and so does the iteration."""
        ...

    def pause(self) -> None:
        """Close the connection; `next` waits until `resume` or `stop`."""
        ...

    def resume(self) -> None:
        """Connect again."""
        ...


@runtime_checkable
class AudioSink(Protocol):
    """A sink that also wants the sound."""

    def consume_audio(self, item: AudioPacket) -> None:
        """Take a compressed packet of sound, ahead of the frame that follows it."""
        ...


@runtime_checkable
class FinishingSink(Protocol):
    """A sink of one stream that has something to do when the stream has come to its end in order."""

    def finish(self) -> None:
        """The last analysis has been consumed."""
        ...


@runtime_checkable
class EndingSink(Protocol):
    """A sink of several streams that is told when one of them is over."""

    def end(self, stream: str, reason: str = ..., dropped: int | None = ...) -> None:
        """`stream` is over: `complete`, `stopped` or `failed`."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An engine and its cadence: it looks at every `every`-th frame of each stream.

    `others` are engines of the same model on further devices, in the order of the run's devices.
    """

    engine: Engine
    every: int = 1
    others: tuple[Engine, ...] = ()

    @property
    def name(self) -> str:
        return self.engine.spec.name

    @property
    def engines(self) -> tuple[Engine, ...]:
        """One for each device."""
        return (self.engine, *self.others)

    @property
    def device(self) -> str:
        """What they run on, for people."""
        return ", ".join(engine.device for engine in self.engines)


@dataclass(slots=True)
class StreamPlan:
    """A stream to run: an opened source, its own stages and sinks.

    Attributes:
        source: already open.
        info: what opening it said.
        stages: after fusing, in order.
        sinks: outputs of this stream and shared ones, in order.
        first_frame: index of the first frame to give out; a resumed run skips those before it.
        warm_up: how many of those of a file are looked at all the same, for what is remembered from frame to frame.
        first_track: number of the first track.
        stopped: called before the outputs of a stream that is stopped ahead of its end are finished, with the number
            of frames given out.
        berth: which device looks at it; of a runtime's own choice when left out.
    """

    source: Source
    info: StreamInfo
    stages: Sequence[Stage] = ()
    sinks: Sequence[Sink] = ()
    first_frame: int = 0
    warm_up: int = 0
    first_track: int = 1
    stopped: Callable[[int], None] = lambda _frames: None
    berth: Berth | None = None


@dataclass(slots=True)
class StreamCounts:
    """Where the frames of a stream went: `decoded == emitted + sum(dropped.values())` once the run is over."""

    decoded: int = 0
    emitted: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(slots=True)
class StreamResult:
    """How a stream ended: `complete`, `stopped` or `failed`, with the error that ended it; `not_stopped` names the
    threads of it that still run.
    """

    stream: str
    mode: str
    counts: StreamCounts
    reason: str
    error: Exception | None
    decode_errors: int
    skipped_clips: list[tuple[str, str]]
    not_stopped: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RunResult:
    """A run that is over: the streams it had last. `stages` sums wall and CPU seconds by stage over all threads of the
    runtime, and `removed` the frames of the streams that were removed: streams may come and go for months.
    """

    streams: list[StreamResult]
    stages: dict[str, StageTime]
    seconds: float
    cpu_seconds: float
    not_stopped: list[str]
    removed: StreamCounts = field(default_factory=StreamCounts)

    @property
    def error(self) -> Exception | None:
        """The first error of any of the streams."""
        return next((s.error for s in self.streams if s.error is not None), None)


@dataclass(slots=True, eq=False)
class _Pending:
    """A sample with the predictions it waits for: model name → (batch's future, place in the batch)."""

    sample: Sample
    predictions: dict[str, tuple[Future[list[Prediction]], int]]
    submitted: float
    bench: _Bench
    count: int


@dataclass(slots=True, eq=False)
class _Fused:
    """An analysis on its way to the sinks, with the sound that came before its frame."""

    analysis: Analysis
    audio: list[AudioPacket]


@dataclass(slots=True, eq=False)
class _Bench:
    """What works on one device: an engine for each model, a batch thread, and the streams bound to it."""

    number: int
    engines: dict[str, Engine]
    clock: StageClock
    max_batch: int
    engine_free: threading.Semaphore
    streams: tuple[_Stream, ...] = ()
    thread: threading.Thread | None = None
    submitting: threading.Lock = field(default_factory=threading.Lock)
    engine_time: float = 0.0
    frame_time: float = 0.0
    engine_done_at: float = 0.0
    in_engine: int = 0
    next_stream: int = 0
    over: bool = False
    lost: bool = False


@dataclass(slots=True, eq=False)
class _Stream:
    plan: StreamPlan
    berth: Berth
    slot: Slot
    clock: StageClock
    fuse_clock: StageClock
    sink_clock: StageClock
    counts: StreamCounts = field(default_factory=StreamCounts)
    output: queue.SimpleQueue[_Pending | None] = field(default_factory=queue.SimpleQueue)
    fused: queue.SimpleQueue[_Fused | None] = field(default_factory=queue.SimpleQueue)
    in_flight: int = 0
    next_index: int = 0
    arrivals: ArrivalRate = field(default_factory=ArrivalRate)
    trailing_audio: list[AudioPacket] = field(default_factory=list)
    error: Exception | None = None
    stopped: bool = False
    threads: list[threading.Thread] = field(default_factory=list)
    working: int = 0
    gone: bool = False
    over: Callable[[], None] = lambda: None
    handed_over: bool = False
    write_failed: bool = False
    paused: bool = False
    leaving: bool = False
    aborting: bool = False
    state: SourceState = SourceState.CONNECTING

    @property
    def reason(self) -> str:
        """How it ends, as far as is known."""
        if self.error is not None:
            return "failed"
        return "stopped" if self.stopped else "complete"

    @property
    def bound(self) -> float | None:
        """Seconds beyond which a frame is dropped rather than given out."""
        return self.plan.info.latency_bound if self.slot.mode == "live" else None

    @property
    def clocks(self) -> list[StageClock]:
        return [self.clock, self.fuse_clock, self.sink_clock]

    @property
    def alive(self) -> list[str]:
        return [t.name for t in self.threads if t.is_alive()]


class Runtime:
    """Runs streams through models into sinks.

    Args:
        streams: opened sources with their stages and sinks.
        models: engines; closed by whoever loaded them.
        fuse: how predictions become boxes and tracks.
        metrics: where counters and times go; None for none.
        monotonic: clock in seconds.
        idle: keep running when all streams are over, until it is stopped: for a server, to which streams are added.
        observe: told the state changes of the streams whose sources do not say them; from any thread, and must not
            wait.
        degraded: told where a GPU had no room for model inputs and the CPU made them, and when a device is lost.
        placer: which device looks at a stream; left out, of as many devices as the models have engines.

    Example:
        >>> runtime = Runtime([plan], [LoadedModel(engine)])  # doctest: +SKIP
        >>> runtime.start()  # doctest: +SKIP
        >>> runtime.wait()  # doctest: +SKIP
        >>> runtime.result().streams[0].counts.emitted  # doctest: +SKIP
    """

    def __init__(
        self,
        streams: Sequence[StreamPlan],
        models: Sequence[LoadedModel],
        fuse: FuseOptions | None = None,
        metrics: Metrics | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        idle: bool = False,
        observe: Callable[[StateChange], None] = lambda _change: None,
        degraded: Callable[[Degraded], None] = lambda _what: None,
        placer: Placer | None = None,
    ) -> None:
        devices = min((len(m.engines) for m in models), default=1)
        self._placer = placer or Placer(["device"] * devices)
        self._models = list(models)
        self._fuse = fuse or FuseOptions()
        self._metrics = metrics
        self._monotonic = monotonic
        self._idle, self._observe, self._degraded = idle, observe, degraded
        self._ready = threading.Condition()
        self._counting = threading.Lock()
        self._known: dict[str, _Stream] = {}
        self._removed = StreamCounts()
        self._removed_stages: dict[str, StageTime] = {}
        self._stuck: list[_Stream] = []
        # No method of its own: a runtime that its own clocks know would keep its sources and encoders, with their
        # threads and memory, until the garbage collector comes by.
        self._observe_stage: Callable[[str, float], None] = metrics.stage if metrics else lambda _stage, _seconds: None
        self._benches = [self._make_bench(number) for number in range(len(self._placer.devices))]
        in_flight = max(1, min((e.in_flight for m in models for e in m.engines), default=8))
        self._live_credits = max(CREDITS, 2 * in_flight)
        self._stopping = threading.Event()
        self._aborting = threading.Event()
        self._stopped_at = 0.0
        self._started = self._batch_over = False
        self._began = self._began_cpu = 0.0
        self._seconds = self._cpu_seconds = 0.0
        for plan in streams:
            self.add(plan)

    def _make_bench(self, number: int) -> _Bench:
        engines = {m.name: m.engines[number] for m in self._models}
        most = min((e.max_batch for e in engines.values()), default=8)
        in_flight = max(1, min((e.in_flight for e in engines.values()), default=8))
        return _Bench(number, engines, StageClock(self._observe_stage), most, threading.Semaphore(in_flight))

    # Start, stop, wait ----------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start all threads."""
        self._began, self._began_cpu = time.perf_counter(), time.process_time()
        self._started = True
        for stream in list(self._known.values()):
            self._start_stream(stream)
        for bench in self._benches:
            name = "batch" if len(self._benches) == 1 else f"batch {bench.number}"
            bench.thread = threading.Thread(target=self._batch, args=(bench,), name=name, daemon=True)
        for thread in [bench.thread for bench in self._benches if bench.thread is not None]:
            thread.start()

    def _start_stream(self, stream: _Stream) -> None:
        name = stream.plan.source.id
        for work, target in (("decode", self._decode), ("fuse", self._fuse_all), ("emit", self._emit)):
            # Daemons: a read that never returns must not keep the process alive.
            stream.threads.append(
                threading.Thread(target=self._work, args=(stream, target), name=f"{work} {name}", daemon=True)
            )
        stream.working = len(stream.threads)
        for thread in stream.threads:
            thread.start()

    def _work(self, stream: _Stream, target: Callable[[_Stream], None]) -> None:
        """One of the threads of a stream."""
        try:
            target(stream)
        finally:
            with self._ready:
                stream.working -= 1
                late = stream.gone and not stream.working
            if late:  # nobody waits for it any more
                try:
                    stream.over()
                except Exception:
                    log.exception("%s: removed, but what it had open could not be closed", stream.plan.source.id)

    def stop(self) -> None:
        """Read no further; what has been read is analysed and written, and the outputs are finished."""
        if not self._stopping.is_set():
            self._stopped_at = self._monotonic()
            self._stopping.set()
        with self._ready:
            self._ready.notify_all()
        for stream in list(self._known.values()):
            _interrupt(stream)

    def abort(self) -> None:
        """Stop at once: what is under way is dropped and counted."""
        self._aborting.set()
        self.stop()
        for stream in list(self._known.values()):
            stream.slot.close()

    @property
    def stopping(self) -> bool:
        """Whether the run is being stopped."""
        return self._stopping.is_set()

    @property
    def stopping_seconds(self) -> float:
        """How long the run has been stopping; 0 while it is not."""
        return self._monotonic() - self._stopped_at if self._stopping.is_set() else 0.0

    @property
    def aborting(self) -> bool:
        """Whether the run is being stopped without finishing what is under way."""
        return self._aborting.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stream is over (an idle runtime: until it is stopped); False when `timeout` seconds passed
        first.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (thread := next(iter(self._running()), None)) is not None:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if deadline is not None and thread.is_alive():
                return False
        if not self._seconds:
            self._seconds = time.perf_counter() - self._began
            self._cpu_seconds = time.process_time() - self._began_cpu
        return True

    def close(self) -> None:
        """Abort what still runs and wait for it, `STOP_SECONDS` at most."""
        if self._running():
            self.abort()
            if not self.wait(STOP_SECONDS):
                log.warning("did not stop within %.0f s: %s", STOP_SECONDS, ", ".join(self._alive()))

    def _running(self) -> list[threading.Thread]:
        batch = [bench.thread for bench in self._benches if bench.thread is not None]
        threads = [t for s in list(self._known.values()) for t in s.threads]
        return [t for t in (*threads, *batch) if t.is_alive()]

    def _alive(self) -> list[str]:
        return [t.name for t in self._running()] + [name for s in self._stuck for name in s.alive]

    # Streams that come, rest and go ---------------------------------------------------------------------------------
    def add(self, plan: StreamPlan) -> None:
        """Take a stream on; it starts at once when the runtime has been started.

        Raises:
            UsageError: a stream of this id is there, or the runtime is being stopped.
        """
        observe = self._observe_stage
        stream = _Stream(
            plan, plan.berth or self._placer.place(float(plan.info.rate)),
            Slot(plan.source.mode, FILE_SLOT, self._ready), StageClock(observe), StageClock(observe),
            StageClock(observe),
        )  # fmt: skip
        stream.next_index = plan.first_frame
        name = plan.source.id
        with self._ready:
            if name in self._known:
                raise UsageError(f"the stream id {name!r} is in use; remove that stream first, or choose another id")
            if self._stopping.is_set() or self._batch_over:
                raise UsageError(f"the stream {name!r} cannot be added: the run is being stopped")
            self._known[name] = stream
            bench = self._benches[self._placer.device(stream.berth)]
            bench.streams = (*bench.streams, stream)
            if self._started:
                self._start_stream(stream)

    def remove(
        self, name: str, timeout: float = REMOVE_SECONDS, over: Callable[[], None] = lambda: None
    ) -> StreamResult:
        """Let a stream go: read no further, finish what has been read and the outputs of it. What is not finished
        after `timeout` seconds is dropped and counted. Other streams do not notice. Returns when its outputs are
        finished; not to be called from a sink or stage.

        Args:
            name: its id.
            timeout: seconds.
            over: called once none of its threads is left: before this returns, or by the last of those that did not
                stop in time.

        Raises:
            UsageError: there is no such stream.
        """
        stream = self._stream(name)
        with self._ready:
            stream.leaving = True
            self._ready.notify_all()
        _interrupt(stream)
        if not stream.threads:  # not started yet
            stream.plan.source.close()
            stream.slot.end()
        if not _joined(stream, timeout):
            stream.aborting = True
            stream.slot.close()
            _joined(stream, STOP_SECONDS - REMOVE_SECONDS)
        with self._ready:
            result = _result(stream)
            if stream.gone:
                return result  # removed from two places at once
            stream.gone, stream.over = True, over
            del self._known[name]
            stream.berth.leave()
            self._stuck.append(stream)
            self._settle()
            if stream.alive:
                log.warning("%s: removed, but these did not stop: %s", name, ", ".join(stream.alive))
            working = stream.working
        if not working:
            over()
        return result

    def _settle(self) -> None:
        """Add up the removed streams of which no thread is left, and let go of them; `_ready` is held."""
        for stream in [s for s in self._stuck if not s.alive]:
            self._stuck.remove(stream)
            self._removed = _summed(self._removed, stream.counts)
            self._removed_stages = _added(self._removed_stages, merged(stream.clocks))

    def pause(self, name: str) -> None:
        """Let a stream rest: nothing is read until `resume`; what has been read is finished. Twice is allowed.

        Raises:
            UsageError: there is no such stream.
        """
        stream = self._stream(name)
        with self._ready:
            stream.paused = True
        if isinstance(stream.plan.source, LiveSource):
            stream.plan.source.pause()

    def resume(self, name: str) -> None:
        """Go on with a stream that rests.

        Raises:
            UsageError: there is no such stream.
        """
        stream = self._stream(name)
        with self._ready:
            stream.paused = False
            self._ready.notify_all()
        if isinstance(stream.plan.source, LiveSource):
            stream.plan.source.resume()

    def _stream(self, name: str) -> _Stream:
        stream = self._known.get(name)
        if stream is None:
            known = ", ".join(self._known) or "none"
            raise UsageError(f"there is no stream {name!r}; the streams are: {known}")
        return stream

    # Results --------------------------------------------------------------------------------------------------------
    def counts(self) -> dict[str, StreamCounts]:
        """Frames so far, by stream; without those removed."""
        return {name: s.counts for name, s in list(self._known.items())}

    def progress(self) -> dict[str, StreamResult]:
        """How each stream stands so far, by id; without those removed. `reason` says how it ends once it has."""
        return {name: _result(s) for name, s in list(self._known.items())}

    def result(self) -> RunResult:
        """How the run went; complete once `wait` has returned True."""
        with self._ready:
            self._settle()
            known, stuck = list(self._known.values()), list(self._stuck)
            removed, stages = self._removed, self._removed_stages
        clocks = [*(b.clock for b in self._benches), *(c for s in (*known, *stuck) for c in s.clocks)]
        for stream in stuck:
            removed = _summed(removed, stream.counts)
        return RunResult(
            list(map(_result, known)),
            _added(stages, merged(clocks)),
            self._seconds,
            self._cpu_seconds,
            self._alive(),
            removed,
        )

    # Decode: one thread a stream ------------------------------------------------------------------------------------
    def _decode(self, stream: _Stream) -> None:
        source, plan, slot = stream.plan.source, stream.plan, stream.slot
        audio: list[AudioPacket] = []
        errors = 0
        dropped: Counter[str] = Counter()
        # A camera's frames are waited for; a file's are decoded in this very thread.
        waiting = "wait" if isinstance(source, LiveSource) else "decode"
        try:
            items = iter(source)
            while not (stream.leaving or self._stopping.is_set()):
                if stream.paused and not isinstance(source, LiveSource):
                    self._rest(stream)
                    continue
                timings: dict[str, float] = {}
                with stream.clock.measure(waiting, timings):
                    item = next(items, None)
                timings.pop("wait", None)
                self._count_dropped_before(stream, dropped)
                if (metrics := self._metrics_of(stream)) and source.counts.decode_errors != errors:
                    metrics.decode_error(source.id, source.counts.decode_errors - errors)
                    errors = source.counts.decode_errors
                if item is None:
                    break
                if isinstance(item, AudioPacket):
                    audio.append(item)
                    continue
                again = item.index < plan.first_frame
                if again:
                    # Sound comes ahead of the pictures: what lies behind this one belongs to those that follow.
                    audio = [sound for sound in audio if sound.time > item.time]
                    if item.index < plan.first_frame - plan.warm_up:
                        continue
                sample = Sample(item, self._inputs(stream, item, timings), [] if again else audio, timings, again)
                audio = audio if again else []
                count = 0 if again else 1
                self._count_decoded(stream, count)
                if stream.state is not SourceState.STREAMING:
                    self._say(stream, SourceState.STREAMING)
                before = slot.superseded
                if not slot.put(sample):
                    self._count_dropped(stream, count, "slot", "stopped" if stream.error is None else "failed")
                    break
                if metrics := self._metrics_of(stream):
                    metrics.queue_depth(source.id, "slot", len(slot))
                if slot.superseded != before:
                    self._count_dropped(stream, slot.superseded - before, "slot", "superseded")
            stream.stopped = stream.leaving or self._stopping.is_set()
        except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
            self._fail(stream, error)
        finally:
            stream.trailing_audio = audio
            try:
                source.close()
            except Exception as error:  # noqa: BLE001  # as above; whoever waits for the end is told of it all the same
                self._fail(stream, error)
            self._count_dropped_before(stream, dropped)
            slot.end()

    def _rest(self, stream: _Stream) -> None:
        """Wait while the stream is paused."""
        self._say(stream, SourceState.PAUSED)
        with self._ready:
            while stream.paused and not stream.leaving and not self._stopping.is_set():
                self._ready.wait()

    def _inputs(self, stream: _Stream, frame: Frame, timings: dict[str, float]) -> dict[tuple[int, int], UInt8]:
        sizes = {(m.engine.spec.height, m.engine.spec.width) for m in self._models if frame.index % m.every == 0}
        if not sizes or on_device(frame.image):
            return {}  # pictures in GPU memory are converted with the rest of their batch, in one launch
        with stream.clock.measure("resize", timings):
            return {size: network_input(frame.image, *size) for size in sizes}

    # Batch: one thread a device -------------------------------------------------------------------------------------
    def _batch(self, bench: _Bench) -> None:
        try:
            while True:
                bench.engine_free.acquire()
                picked = self._pick(bench)
                if picked is None:
                    return
                try:
                    self._submit(bench, picked)
                except Exception:
                    for stream, sample in picked:
                        self._count_dropped(stream, 0 if sample.again else 1, "batch", "failed")
                    raise
        except Exception as error:  # noqa: BLE001  # reported as the streams' error
            for stream in bench.streams:
                self._fail(stream, error)
            self.abort()
        finally:
            with self._ready:
                bench.over = True
                self._batch_over = all(b.over for b in self._benches)
                self._ready.notify_all()
            for stream in bench.streams:
                stream.slot.close()
                self._end_output(stream)

    def _pick(self, bench: _Bench) -> list[tuple[_Stream, Sample]] | None:
        """Wait for frames and take those of the next batch; None when every stream is over and none may come, or the
        device is lost.
        """
        first_ready: float | None = None
        with self._ready:
            while True:
                now = self._monotonic()
                self._let_go(bench)
                if bench.lost:
                    self._move_streams(bench)
                    return None
                streams = bench.streams
                # Streams of a device that is lost may come here until no device has any.
                none_left = not any(b.streams for b in self._benches)
                if none_left and (not self._idle or self._stopping.is_set()):
                    self._batch_over = True
                    self._ready.notify_all()
                    return None
                ready = [i for i, s in enumerate(streams) if len(s.slot) and s.in_flight < self._credits(s)]
                room = self._room(bench)
                if ready and room:
                    first_ready = now if first_ready is None else first_ready
                    left = first_ready + self._window(bench, now) - now
                    if left <= 0 or len(ready) >= room or self._all_there(bench, ready, now):
                        picked = self._take(bench, round_robin(ready, bench.next_stream, room), now)
                        if picked:
                            return picked
                        first_ready = None  # all of them were too old
                        continue
                    self._ready.wait(left)
                else:
                    self._ready.wait()

    def _let_go(self, bench: _Bench) -> None:
        """Part with the streams of which nothing more will come."""
        over = [s for s in bench.streams if self._exhausted(s)]
        if over:
            for stream in over:
                self._end_output(stream)
            bench.streams = tuple(s for s in bench.streams if s not in over)
            if not bench.streams and len(self._benches) > 1:
                self._ready.notify_all()  # the others wait for the last one to be without

    def _move_streams(self, bench: _Bench) -> None:
        """Hand the streams of a lost device to those that they are bound to by now; by the device's own thread, which
        has handed on all that it took from them, so that their frames stay in order."""
        for stream in bench.streams:
            target = self._benches[self._placer.device(stream.berth)]
            target.streams = (*target.streams, stream)
        bench.streams = ()
        self._ready.notify_all()

    def _exhausted(self, stream: _Stream) -> bool:
        slot = stream.slot
        # A closed slot of a stream that is not given up: its decoder still has to count what it holds.
        given_up = slot.closed and (stream.aborting or self._aborting.is_set())
        return (slot.ended and not len(slot)) or given_up

    def _window(self, bench: _Bench, now: float) -> float:
        periods = [s.arrivals.period(now) for s in bench.streams if s.slot.mode == "live"]
        return batch_window([p for p in periods if p is not None], bench.engine_time)

    def _room(self, bench: _Bench) -> int:
        """Frames that the engine can take now without making those of live streams too old."""
        bounds = [s.bound for s in bench.streams if s.bound is not None]
        return batch_room(bench.max_batch, bench.in_engine, bench.frame_time, min(bounds, default=None))

    def _credits(self, stream: _Stream) -> int:
        """Frames of a stream that may be between the batch and its sinks."""
        return self._live_credits + (2 * FILE_BURST if stream.slot.mode == "file" else 0)

    def _all_there(self, bench: _Bench, ready: list[int], now: float) -> bool:
        """Whether no further stream could join the batch by waiting: every other one is over, rests, is out of credit,
        or is a camera of which nothing is to be expected.
        """
        return all(
            i in ready
            or s.slot.ended
            or s.paused
            or s.in_flight >= self._credits(s)
            or (s.slot.mode == "live" and not s.arrivals.expected(now))
            for i, s in enumerate(bench.streams)
        )

    def _take(self, bench: _Bench, order: list[int], now: float) -> list[tuple[_Stream, Sample]]:
        picked = []
        for i in order:
            stream = bench.streams[i]
            sample = stream.slot.take()
            if sample is not None and _too_old(stream, sample.frame, now):
                self._count_dropped(stream, 1, "slot", "old")
            elif sample is not None:
                stream.in_flight += 1
                if stream.slot.mode == "live":
                    stream.arrivals.arrived(sample.frame.arrived_at)
                picked.append((stream, sample))
        bench.next_stream = (order[-1] + 1) % len(bench.streams)
        return picked

    def _submit(self, bench: _Bench, picked: list[tuple[_Stream, Sample]]) -> None:
        submitted, count = time.perf_counter(), len(picked)
        places: list[dict[str, tuple[Future[list[Prediction]], int]]] = [{} for _ in picked]
        futures: list[Future[list[Prediction]]] = []
        with bench.clock.measure("submit"):
            for model in self._models:
                chosen = [k for k, (_, s) in enumerate(picked) if s.frame.index % model.every == 0]
                if not chosen:
                    continue
                future = self._begin(bench, model.name, [picked[k] for k in chosen])
                futures.append(future)
                for place, k in enumerate(chosen):
                    places[k][model.name] = (future, place)
        if futures:
            with self._ready:
                bench.in_engine += count
            futures[-1].add_done_callback(lambda _: self._engine_done(bench, submitted, count))
        else:
            bench.engine_free.release()
        for (stream, sample), predictions in zip(picked, places, strict=True):
            stream.output.put(_Pending(sample, predictions, submitted, bench, count))
            if metrics := self._metrics_of(stream):
                metrics.queue_depth(stream.plan.source.id, "slot", len(stream.slot))
                metrics.queue_depth(stream.plan.source.id, "emit", stream.in_flight)

    def _begin(self, bench: _Bench, model: str, picked: Sequence[tuple[_Stream, Sample]]) -> Future[list[Prediction]]:
        """Give a batch to a device's engine. Where there are other devices, what goes wrong here is the future's, like
        what goes wrong later."""
        engine = bench.engines[model]
        # In GPU memory for an engine of the GPU that decodes; those of a stream that was moved go by way of the host.
        at_home = all(stream.berth.first == bench.number for stream, _ in picked)
        stay = at_home and engine.backend in {"tensorrt", "torch"}
        try:
            images = self._images([sample for _, sample in picked], (engine.spec.height, engine.spec.width), stay)
            with bench.submitting:
                future = engine.submit(images)
        except Exception as error:
            if len(self._benches) == 1:
                raise
            failed: Future[list[Prediction]] = Future()
            failed.set_exception(error)
            return failed
        # Those made just now are nobody's else, and the engine's until it is done.
        future.add_done_callback(_holding(images))
        return future

    def _images(self, samples: Sequence[Sample], size: tuple[int, int], stay: bool) -> list[UInt8]:
        """The model inputs of a batch; those that were not made while decoding are made here."""
        waiting = [sample.frame.image for sample in samples if size not in sample.inputs]
        made = iter(network_inputs(waiting, *size, stay, self._degraded))
        return [sample.inputs[size] if size in sample.inputs else next(made) for sample in samples]

    def _engine_done(self, bench: _Bench, submitted: float, count: int) -> None:
        now = time.perf_counter()
        elapsed = now - submitted
        with self._ready:
            bench.engine_time += 0.1 * (elapsed - bench.engine_time) if bench.engine_time else elapsed
            # What a frame costs: since the batch before it was through, if that was later than its own begin.
            busy = (now - max(submitted, bench.engine_done_at)) / count
            bench.frame_time += 0.1 * (busy - bench.frame_time) if bench.frame_time else busy
            bench.engine_done_at = now
            bench.in_engine -= count
            if len(self._benches) > 1:
                self._placer.measure(bench.number, bench.frame_time)
            self._ready.notify_all()
        bench.engine_free.release()

    def _end_output(self, stream: _Stream) -> None:
        if not stream.handed_over:
            stream.handed_over = True
            stream.output.put(None)

    # Fuse: one thread a stream --------------------------------------------------------------------------------------
    def _fuse_all(self, stream: _Stream) -> None:
        fuser = Fuser([m.engine.spec for m in self._models], self._fuse, stream.plan.first_track)
        for pending in _handed_over(stream):
            sample = pending.sample
            count = 0 if sample.again else 1
            if stream.error is not None or self._gives_up(stream):
                self._drop_taken(stream, "fuse", count=count)
                continue
            if _too_old(stream, sample.frame, self._monotonic()):
                self._drop_taken(stream, "fuse", "old")
                continue
            try:
                fused = _Fused(self._fuse_one(stream, fuser, pending), sample.audio)
            except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
                self._fail(stream, error)
                self._drop_taken(stream, "fuse", count=count)
                continue
            if sample.again:
                self._give_credit(stream)
            else:
                stream.fused.put(fused)
        stream.fused.put(None)

    def _fuse_one(self, stream: _Stream, fuser: Fuser, pending: _Pending) -> Analysis:
        sample, clock, timings = pending.sample, stream.fuse_clock, pending.sample.timings
        try:
            predictions = {name: future.result()[place] for name, (future, place) in pending.predictions.items()}
        except Exception as error:  # noqa: BLE001  # whatever an engine raises: the other devices tell what it means
            predictions = self._computed_again(stream, pending, error)
        if predictions:
            timings["engine"] = (time.perf_counter() - pending.submitted) * 1000
            if metrics := self._metrics_of(stream):
                for name in predictions:
                    metrics.inferred(stream.plan.source.id, name)
        with clock.measure("fuse", timings):
            analysis = fuser.fuse(sample.frame, stream.slot.mode, predictions, sample.inputs)
        analysis.timings = timings
        if sample.again:
            for stage in stream.plan.stages:
                if isinstance(stage, RememberingStage):
                    stage.remember(analysis)
            return analysis
        for stage in stream.plan.stages:
            analysis.age = self._age(analysis)
            with clock.measure(_name(stage), timings):
                analysis = stage.process(analysis)
        return analysis

    def _computed_again(self, stream: _Stream, pending: _Pending, error: Exception) -> dict[str, Prediction]:
        """A frame's predictions after its batch failed. Where there was no room for the batch it is computed alone, and
        batches are smaller from then on; else by another device, which shows that the first one is lost. Where there
        is none, or it fails there too, the error is the frame's own.
        """
        bench = pending.bench
        if _no_room(error) and pending.count > 1 and not bench.lost:
            self._take_smaller(bench, pending.count)
            try:
                return self._computed_alone(bench, stream, pending)
            except Exception as failed:  # noqa: BLE001  # then it is not the batch
                error = failed
        for other in [b for b in self._benches if b is not bench and not b.lost]:
            try:
                found = self._computed_alone(other, stream, pending)
            except Exception as failed:  # noqa: BLE001  # then it is not the device
                log.debug("not there either: %s", failed)
                continue
            self._lose(bench, other, error)
            return found
        raise error

    def _computed_alone(self, bench: _Bench, stream: _Stream, pending: _Pending) -> dict[str, Prediction]:
        futures = {name: self._begin(bench, name, [(stream, pending.sample)]) for name in pending.predictions}
        return {name: future.result()[0] for name, future in futures.items()}

    def _take_smaller(self, bench: _Bench, count: int) -> None:
        """Give a device half of the pictures at once from now on."""
        smaller = count // 2
        with self._ready:
            if bench.max_batch <= smaller:
                return
            bench.max_batch = smaller
        device = next(engine.device for engine in bench.engines.values())
        sentence = f"{device} had no room for a batch of {count} while it ran; taking {smaller} from now on."
        self._degraded(Degraded("", f"batch {count}", f"batch {smaller}", "memory", sentence))

    def _lose(self, bench: _Bench, other: _Bench, error: Exception) -> None:
        """Part with a device; its streams are moved by its own thread."""
        streams = len(bench.streams)
        if not self._placer.lose(bench.number):
            return
        with self._ready:
            bench.lost = True
            self._ready.notify_all()
        bench.engine_free.release()
        names = self._placer.devices
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        sentence = (
            f"{names[bench.number]} failed and is done without ({reason}); {_streams(streams)} go on on "
            f"{' and '.join(names[left] for left in self._placer.placement.left)}."
        )
        self._degraded(Degraded("", names[bench.number], names[other.number], "device", sentence))

    def _age(self, analysis: Analysis) -> float:
        return max(0.0, self._monotonic() - analysis.frame.arrived_at)

    # Emit: one thread a stream --------------------------------------------------------------------------------------
    def _emit(self, stream: _Stream) -> None:
        while (fused := stream.fused.get()) is not None:
            # What was fused before an earlier frame failed still counts; what comes after a failed write does not.
            if stream.write_failed or self._gives_up(stream):
                self._drop_taken(stream, "emit")
                continue
            if _too_old(stream, fused.analysis.frame, self._monotonic()):
                self._drop_taken(stream, "emit", "old")
                continue
            try:
                self._emit_one(stream, fused)
            except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
                stream.write_failed = True
                self._fail(stream, error)
                self._drop_taken(stream, "emit")
            else:
                self._give_credit(stream)
        self._finish(stream)

    def _emit_one(self, stream: _Stream, fused: _Fused) -> None:
        analysis, clock = fused.analysis, stream.sink_clock
        analysis.age = self._age(analysis)
        # The index counts every decoded frame, wherever it was dropped.
        analysis.dropped_since_last = analysis.frame.index - stream.next_index
        stream.next_index = analysis.frame.index + 1
        for sink in stream.plan.sinks:
            if stream.gone:  # while the one before had it
                break
            if isinstance(sink, AudioSink):
                for item in fused.audio:
                    sink.consume_audio(item)
            with clock.measure(_name(sink)):
                sink.consume(analysis)
        stream.counts.emitted += 1
        if metrics := self._metrics_of(stream):
            metrics.emitted(stream.plan.source.id)
            metrics.age(stream.plan.source.id, analysis.age)

    def _give_credit(self, stream: _Stream) -> None:
        with self._ready:
            stream.in_flight -= 1
            self._ready.notify_all()

    def _drop_taken(self, stream: _Stream, stage: str, reason: str = "", count: int = 1) -> None:
        """Drop a frame that the batch took: count it and give its credit back."""
        self._count_dropped(stream, count, stage, reason or ("stopped" if stream.error is None else "failed"))
        self._give_credit(stream)

    def _finish(self, stream: _Stream) -> None:
        """Close a stream's outputs: finish them when it came to its end in order or was asked to stop."""
        counts, slot = stream.counts, stream.slot
        if slot.discarded:
            self._count_dropped(stream, slot.discarded, "slot", "stopped" if stream.error is None else "failed")
        orderly = stream.error is None and not self._gives_up(stream)
        try:
            if orderly and stream.stopped:
                stream.plan.stopped(counts.emitted)
            for sink in stream.plan.sinks:
                if orderly and isinstance(sink, AudioSink) and stream.reason == "complete":
                    for item in stream.trailing_audio:
                        sink.consume_audio(item)
                if orderly and isinstance(sink, FinishingSink):
                    with stream.sink_clock.measure(_name(sink)):
                        sink.finish()
        except Exception as error:  # noqa: BLE001  # the last write may fail like any other
            self._fail(stream, error)
        if self._gives_up(stream):
            stream.stopped = True
        if stream.error is None:  # before the sinks' end, behind which nobody may be reading
            self._say(stream, SourceState.ENDED, "" if stream.reason == "complete" else stream.reason)
        for sink in stream.plan.sinks:
            if isinstance(sink, EndingSink) and not stream.gone:
                try:
                    sink.end(stream.plan.source.id, stream.reason, sum(counts.dropped.values()))
                except Exception as error:  # noqa: BLE001  # the others are told all the same
                    self._fail(stream, error)

    def _gives_up(self, stream: _Stream) -> bool:
        """Whether what is under way of a stream shall be dropped."""
        return stream.aborting or self._aborting.is_set()

    # Counting -------------------------------------------------------------------------------------------------------
    def _metrics_of(self, stream: _Stream) -> Metrics | None:
        # What was removed with a thread that did not stop then has been forgotten, and its name may be another's.
        return None if stream.gone else self._metrics

    def _count_decoded(self, stream: _Stream, count: int = 1) -> None:
        stream.counts.decoded += count
        if metrics := self._metrics_of(stream):
            metrics.decoded(stream.plan.source.id, count)

    def _count_dropped_before(self, stream: _Stream, known: Counter[str]) -> None:
        """Count what the source has decoded and dropped by itself since it was asked last."""
        for reason, count in list(stream.plan.source.counts.dropped.items()):
            if count > known[reason]:
                self._count_decoded(stream, count - known[reason])
                self._count_dropped(stream, count - known[reason], "decode", reason)
                known[reason] = count

    def _count_dropped(self, stream: _Stream, count: int, stage: str, reason: str) -> None:
        if not count:
            return
        with self._counting:  # several threads may count one reason; a file's frames never come here
            stream.counts.dropped[stage, reason] += count
        if metrics := self._metrics_of(stream):
            metrics.dropped(stream.plan.source.id, stage, reason, count)

    def _fail(self, stream: _Stream, error: Exception) -> None:
        if stream.error is None:
            stream.error = error
            if isinstance(error, RoadlensError):
                log.error("%s: %s", stream.plan.source.id, error)
            else:
                log.error("%s: %s: %s", stream.plan.source.id, type(error).__name__, error, exc_info=error)
            self._say(stream, SourceState.FAILED, strip_credentials(str(error)))
        stream.slot.close()
        _interrupt(stream)

    def _say(self, stream: _Stream, state: SourceState, reason: str = "") -> None:
        """Tell the observer that a stream entered a state, where its source does not; a failure is told always."""
        if stream.gone or stream.state is SourceState.FAILED:
            return  # removed with a thread that did not stop then, or its decoder is not aware yet that it has failed
        stream.state = state
        if state is SourceState.FAILED or not isinstance(stream.plan.source, LiveSource):
            self._observe(StateChange(stream.plan.source.id, state, reason, at=time.time()))


def _handed_over(stream: _Stream) -> Iterator[_Pending]:
    """What the batch hands over until it is the last: of a live stream at once, of a file in bursts."""
    most = FILE_BURST if stream.slot.mode == "file" else 1
    over = False
    while not over:
        burst: list[_Pending] = []
        while len(burst) < most and not over:
            try:
                pending = stream.output.get(timeout=BURST_SECONDS if burst else None)
            except queue.Empty:
                break
            over = pending is None
            burst += [pending] if pending is not None else []
        for future, _ in burst[-1].predictions.values() if burst else ():
            with suppress(CancelledError):
                future.exception()  # waits, and leaves the error to whoever asks for the result
        yield from burst


def _interrupt(stream: _Stream) -> None:
    """Make a source that waits for somebody else iterate no further."""
    if isinstance(stream.plan.source, LiveSource):
        stream.plan.source.stop()


def _joined(stream: _Stream, timeout: float) -> bool:
    """Wait until all threads of a stream are over; False when `timeout` seconds passed first."""
    deadline = time.monotonic() + timeout
    for thread in stream.threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return not stream.alive


def _result(stream: _Stream) -> StreamResult:
    source = stream.plan.source
    return StreamResult(
        source.id, source.mode, stream.counts, stream.reason, stream.error, source.counts.decode_errors,
        source.counts.skipped_clips, stream.alive,
    )  # fmt: skip


def _summed(one: StreamCounts, other: StreamCounts) -> StreamCounts:
    """The sums of both."""
    dropped = Counter(one.dropped)
    dropped.update(dict(other.dropped))
    return StreamCounts(one.decoded + other.decoded, one.emitted + other.emitted, dropped)


def _no_room(error: Exception) -> bool:
    """Whether memory ran out: by our engines' word, Python's exception, or PyTorch's, which nothing here imports."""
    return (
        getattr(error, "lacking", "") == "memory"
        or type(error).__name__ == "OutOfMemoryError"
        or isinstance(error, MemoryError)
    )


def _streams(count: int) -> str:
    return "its stream" if count == 1 else f"its {count} streams"


def _added(one: dict[str, StageTime], other: dict[str, StageTime]) -> dict[str, StageTime]:
    """The sums of both by stage."""
    names = dict.fromkeys((*one, *other))
    none = StageTime()
    return {
        name: StageTime(a.calls + b.calls, a.wall + b.wall, a.cpu + b.cpu)
        for name, a, b in ((name, one.get(name, none), other.get(name, none)) for name in names)
    }


def _holding(images: list[UInt8]) -> Callable[[object], None]:
    """A callback for a future: it does nothing, and keeps the images as long as the future may need them."""

    def done(_future: object) -> None:
        _ = images

    return done


def _name(part: Stage | Sink) -> str:
    """What a stage or sink is timed as: its `name` if it has one, else its class'."""
    return str(getattr(part, "name", type(part).__name__))


def _too_old(stream: _Stream, frame: Frame, now: float) -> bool:
    """Whether a live frame has outlived its bound."""
    return stream.bound is not None and now - frame.arrived_at > stream.bound
