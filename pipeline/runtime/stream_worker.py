"""The three threads of a stream.

    source ─► decode ─► slot ─► (batches of its device) ─► fuse ─► stages ─► sinks
    (a thread)                                             (a thread)        (a thread)

The sinks have a thread of their own so that an encoder is fed as soon as it takes a frame: with the overlay drawn in
between its calls it idles, and two cores are 91 % busy in place of 95.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass

from pipeline.analysis.carrying.carrier import Carrier, Passing
from pipeline.analysis.carrying.looks import Glance, Looks
from pipeline.analysis.fuse import Fuser
from pipeline.analysis.novelty import NoveltyWatch
from pipeline.capabilities import AttachedSink, AttachedStage, attach_sink
from pipeline.contracts import AudioPacket, DataPacket
from pipeline.frame import Analysis, Frame
from pipeline.pictures.picture import Picture
from pipeline.runtime.context import RunContext
from pipeline.runtime.lifecycle import Came, Drop, Finished, Leave, ReadOut, Rested, Retire
from pipeline.runtime.result import StreamResult
from pipeline.runtime.slots import Sample, UInt8
from pipeline.runtime.stageclock import StageClock
from pipeline.runtime.stream import FILE_BURST, Pending, Stream
from pipeline.state import SourceState

log = logging.getLogger(__name__)

BURST_SECONDS = 0.05
"""How long a burst waits for its next frame."""

Luggage = tuple[Sample, list[AudioPacket | DataPacket], float]
"""What travels with an analysis past the carrier: its sample, the sound and data that came before its frame, and when
its batch was submitted."""


@dataclass(slots=True, eq=False)
class _Fused:
    """An analysis on its way to the sinks, with the sound and the data that came before its frame, and when its batch
    was submitted, on `time.perf_counter`.
    """

    analysis: Analysis
    beside: list[AudioPacket | DataPacket]
    submitted: float


class _Fusing:
    """The second thread of a stream: makes an analysis of each frame, fills it, and has the stages look at it.

    Args:
        stream: the stream.
        run: the circumstances.
        looks: which models look at which of its frames.
        clock: of this thread.
        fused: where the sinks' thread gets what is done; None behind the last.
    """

    def __init__(
        self, stream: Stream, run: RunContext, looks: Looks, clock: StageClock,
        fused: queue.SimpleQueue[_Fused | None],
    ) -> None:  # fmt: skip
        self.stream, self._run, self._looks, self.clock, self._fused = stream, run, looks, clock, fused
        self._waiting: deque[Passing[Luggage]] = deque()

    def work(self) -> None:
        """Until the batch hands over nothing more."""
        plan, file = self.stream.plan, self.stream.mode == "file"
        options = self._run.fuse if plan.info.moving else self._run.fuse.of_stills()
        specs = [model.engine.spec for model in self._run.models]
        fuser = Fuser(specs, options, plan.first_track, own_car=plan.own_car and plan.info.moving)
        novelty = NoveltyWatch(specs)
        carrier = self._carrier()
        beside: list[AudioPacket | DataPacket] = []  # of frames that were too old, and of the one that follows them
        # A decoder that waits for what a look teaches sends no more until then: a burst of it waits for nothing.
        patience = 0.0 if self._looks.waits else BURST_SECONDS
        for pending in _handed_over(self.stream.pending, FILE_BURST if file else 1, patience):
            sample = pending.sample
            if self.stream.life.failed or self.stream.gives_up:
                self._drop_held(carrier)
                _drop_taken(self.stream, sample.counted, "fuse")
                continue
            beside += sample.beside
            if self.stream.too_old(sample.frame, self._run.monotonic()):
                _drop_old(self.stream, "fuse", pending.submitted)
                continue
            try:
                analysis = self._fuse_one(fuser, novelty, pending)
            except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
                self.stream.fail(error)
                self._drop_held(carrier)
                _drop_taken(self.stream, sample.counted, "fuse")
                continue
            passing = Passing(analysis, sample.luma, sample.scene, (sample, beside, pending.submitted))
            if not sample.again:
                beside = []
            if carrier is None:
                self._show(passing)
                continue
            with self.clock.measure("carry"):
                filled = carrier.take(passing)
            for each in filled:
                self._show(each)
        for each in carrier.flush() if carrier is not None else ():
            self._show(each)
        self._hand_on_all_but(0)
        self._fused.put(None)

    def _carrier(self) -> Carrier[Luggage] | None:
        """What fills the frames that models do not look at; None where all of them look at every one."""
        looks = self._looks
        if not looks.sparse:
            return None
        specs = [model.engine.spec for model in self._run.models]
        segmenter = next((spec.name for spec in specs if "class_map" in spec.outputs), "")
        names = [spec.name for spec in specs]
        return Carrier(names, looks.sparse, looks.awaited, segmenter, looks.judged, looks.learned)

    def _fuse_one(self, fuser: Fuser, novelty: NoveltyWatch, pending: Pending) -> Analysis:
        sample, clock, timings = pending.sample, self.clock, pending.sample.timings
        try:
            predictions = {name: future.result()[place] for name, (future, place) in pending.predictions.items()}
        except Exception as error:  # noqa: BLE001  # whatever an engine raises: the other devices tell what it means
            predictions = pending.again(error)
        if predictions:
            timings["engine"] = (time.perf_counter() - pending.submitted) * 1000
            self.stream.counter.inferred(predictions)
        with self._run.turns, clock.measure("fuse", timings):
            analysis = fuser.fuse(sample.frame, self.stream.mode, predictions, sample.inputs)
            analysis.novelty = novelty.look(sample.frame.time, predictions)
        self.stream.counter.wrong(fuser.faults)
        analysis.timings = timings
        return analysis

    def _show(self, passing: Passing[Luggage]) -> None:
        """Show an analysis to the stages that look ahead, and hand on those whose turn it is."""
        ahead = self.stream.ahead
        try:
            for stage in self.stream.stages:
                if stage.foresee is not None:
                    with self._turn(stage), self.clock.measure(stage.name, passing.analysis.timings):
                        stage.foresee(passing.analysis)
        except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
            self.stream.fail(error)
            ahead = 0
        self._waiting.append(passing)
        self._hand_on_all_but(ahead)

    def _hand_on_all_but(self, ahead: int) -> None:
        while len(self._waiting) > ahead:
            self._hand_on(self._waiting.popleft())

    def _hand_on(self, passing: Passing[Luggage]) -> None:
        """Have the stages look at an analysis, and give it to the sinks."""
        sample, beside, submitted = passing.luggage
        if self.stream.life.failed or self.stream.gives_up:
            _drop_taken(self.stream, sample.counted, "fuse")
            return
        try:
            analysis = self._staged(passing.analysis, again=sample.again)
        except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
            self.stream.fail(error)
            _drop_taken(self.stream, sample.counted, "fuse")
            return
        if sample.again:
            self.stream.give_credit()
        else:
            self._fused.put(_Fused(analysis, beside, submitted))

    def _turn(self, stage: AttachedStage) -> AbstractContextManager[object]:
        return self._run.turns if stage.takes_turns else nullcontext()

    def _staged(self, analysis: Analysis, *, again: bool) -> Analysis:
        if again:
            for stage in self.stream.stages:
                if stage.remember is not None:
                    stage.remember(analysis)
            return analysis
        for stage in self.stream.stages:
            with self._turn(stage):
                analysis.age = self.stream.age(analysis.frame, self._run.monotonic())
                with self.clock.measure(stage.name, analysis.timings):
                    analysis = stage.process(analysis)
        return analysis

    def _drop_held(self, carrier: Carrier[Luggage] | None) -> None:
        """Drop the frames that wait for a model's next look, or for those behind them."""
        waiting = [*self._waiting, *(carrier.drop() if carrier is not None else ())]
        self._waiting.clear()
        for passing in waiting:
            _drop_taken(self.stream, passing.luggage[0].counted, "fuse")


class StreamWorker:
    """Decodes, fuses and emits the frames of a stream, each in a thread.

    Args:
        stream: the stream.
        run: the circumstances.

    Attributes:
        clocks: of its three threads, in the order of a frame's way.
    """

    def __init__(self, stream: Stream, run: RunContext) -> None:
        self.stream, self._run = stream, run
        self._sinks = [attach_sink(sink) for sink in stream.plan.sinks]
        self.clocks = [run.clock() for _ in range(3)]
        self._looks = Looks(
            {model.name: model.every for model in run.models}, run.carrying, stream.mode, stream.plan.info.moving,
            run.ready, lambda: stream.ends or stream.slot.closed,
        )  # fmt: skip
        self._fused: queue.SimpleQueue[_Fused | None] = queue.SimpleQueue()
        self._fusing = _Fusing(stream, run, self._looks, self.clocks[1], self._fused)
        self._beside: list[AudioPacket | DataPacket] = []
        self._next_index = stream.plan.first_frame
        self._threads: list[threading.Thread] = []
        self._working = 0
        self._over: Callable[[], None] = lambda: None

    # From the runtime -------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start its threads."""
        for work, target in (("decode", self._decode), ("fuse", self._fusing.work), ("emit", self._emit)):
            # Daemons: a read that never returns must not keep the process alive.
            name = f"{work} {self.stream.id}"
            self._threads.append(threading.Thread(target=self._work, args=(target,), name=name, daemon=True))
        self._working = len(self._threads)
        for thread in self._threads:
            thread.start()

    def leave(self, timeout: float, longest: float) -> None:
        """Read no further, and wait until what has been read and the outputs are finished. What is not after `timeout`
        seconds is dropped; then the threads have `longest` seconds more.
        """
        self.stream.apply(Leave())
        if not self._threads:  # not started yet
            self.stream.plan.source.close()
            self.stream.slot.end()
        if not self._joined(timeout):
            self.stream.apply(Drop())
            self._joined(longest)

    def retire(self, over: Callable[[], None]) -> bool:
        """It was removed. Returns whether none of its threads is left; else the last of them calls `over`."""
        with self._run.ready:
            self.stream.apply(Retire())
            self.stream.counter.forget()
            self._over = over
            return not self._working

    def _joined(self, timeout: float) -> bool:
        """Wait until all its threads are over; False when `timeout` seconds passed first."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not self.threads

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that still run."""
        return [thread for thread in self._threads if thread.is_alive()]

    def result(self) -> StreamResult:
        """How it stands so far."""
        stream, source = self.stream, self.stream.plan.source
        return StreamResult(
            source.id, source.mode, stream.counter.counts, stream.life.ending, stream.error,
            source.counts.decode_errors, source.counts.skipped_clips, [thread.name for thread in self.threads],
            len(source.counts.own_outputs), source.counts.left_out, [*source.counts.recorded],
            source.counts.packets, +source.counts.skipped,
        )  # fmt: skip

    def _work(self, target: Callable[[], None]) -> None:
        """One of its threads."""
        try:
            target()
        finally:
            with self._run.ready:
                self._working -= 1
                late = self.stream.life.gone and not self._working
            if late:  # nobody waits for it any more
                try:
                    self._over()
                except Exception:
                    log.exception("%s: removed, but what it had open could not be closed", self.stream.id)

    # Decode -----------------------------------------------------------------------------------------------------------
    def _decode(self) -> None:
        source = self.stream.plan.source
        try:
            self._read()
        except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
            self.stream.fail(error)
        finally:
            try:
                source.close()
            except Exception as error:  # noqa: BLE001  # as above; whoever waits for the end is told of it all the same
                self.stream.fail(error)
            self.stream.counter.follow(source.counts)
            self.stream.slot.end()

    def _read(self) -> None:
        source, clock = self.stream.plan.source, self.clocks[0]
        # A camera's frames are waited for; a file's are decoded in this very thread.
        waiting = "wait" if self.stream.source.waits else "decode"
        items, seen = iter(source), 0
        while not self.stream.ends:
            if self.stream.life.rests and not self.stream.source.waits:
                self._rest()
                continue
            timings: dict[str, float] = {}
            with clock.measure(waiting, timings):
                item = next(items, None)
            timings.pop("wait", None)
            self.stream.counter.follow(source.counts)
            if item is None:
                self.stream.plan.check_reached(seen)
                break
            if isinstance(item, AudioPacket | DataPacket):
                self._beside.append(item)
                continue
            seen = item.index + 1
            if not self._decoded(item, timings):
                break
        self.stream.apply(ReadOut(cut=self.stream.ends))

    def _rest(self) -> None:
        """Wait while it is paused."""
        self.stream.apply(Rested())
        with self._run.ready:
            while self.stream.life.rests and not self._run.stop.stopping:
                self._run.ready.wait()

    def _decoded(self, frame: Frame, timings: dict[str, float]) -> bool:
        """Leave a frame for the next batch; False where nobody takes it any more."""
        plan, slot = self.stream.plan, self.stream.slot
        if plan.regions is not None:
            frame.ignored = plan.regions.look(frame.image, frame.time)
        again = frame.index < plan.first_frame
        if again:
            # Sound comes ahead of the pictures: what lies behind this one belongs to those that follow.
            self._beside = [item for item in self._beside if item.time > frame.time]
            if frame.index < plan.first_frame - plan.warm_up:
                return True
        glance = self._glance(frame, timings)
        sample = Sample(
            frame, self._inputs(frame, glance.models, timings), [] if again else self._beside, timings,
            glance.models, glance.luma, glance.scene, glance.yields, again,
        )  # fmt: skip
        if not again:
            self._beside = []
        self.stream.counter.decoded(sample.counted)
        if self.stream.life.state is not SourceState.STREAMING:
            self.stream.apply(Came())
        before, put_off = slot.superseded, slot.put_off
        if not slot.put(sample):
            self.stream.dropped(sample.counted, "slot")
            return False
        self.stream.counter.waiting("slot", len(slot))
        self.stream.counter.dropped(slot.superseded - before, "slot", "superseded")
        self.stream.counter.put_off(slot.put_off - put_off)
        return True

    def _glance(self, frame: Frame, timings: dict[str, float]) -> Glance:
        if not self._looks.sparse:
            return self._looks.of(frame)
        with self.clocks[0].measure("look", timings):
            return self._looks.of(frame)

    def _inputs(self, frame: Frame, looks: tuple[str, ...], timings: dict[str, float]) -> dict[tuple[int, int], UInt8]:
        sizes = {(m.engine.spec.height, m.engine.spec.width) for m in self._run.models if m.name in looks}
        picture = Picture.of(frame.image)
        if not sizes or picture.in_gpu_memory:
            return {}  # pictures in GPU memory are converted with the rest of their batch, in one launch
        with self.clocks[0].measure("resize", timings):
            return {size: picture.network_input(*size, frame.crop) for size in sizes}

    # Emit -------------------------------------------------------------------------------------------------------------
    def _emit(self) -> None:
        while (fused := self._fused.get()) is not None:
            # What was fused before an earlier frame failed still counts; what comes after a failed write does not.
            if not self.stream.life.writing or self.stream.gives_up:
                _drop_taken(self.stream, 1, "emit")
                continue
            try:
                if self.stream.too_old(fused.analysis.frame, self._run.monotonic()):
                    for sink in self._sinks:
                        _hand_beside(sink, fused.beside)
                    _drop_old(self.stream, "emit", fused.submitted)
                    continue
                self._emit_one(fused)
            except Exception as error:  # noqa: BLE001  # a stream's failure is its own, whatever it is
                self.stream.fail(error, writing=True)
                _drop_taken(self.stream, 1, "emit")
            else:
                self.stream.way.took(time.perf_counter() - fused.submitted)
                self.stream.give_credit()
        self._finish()
        self._end()

    def _emit_one(self, fused: _Fused) -> None:
        analysis, clock = fused.analysis, self.clocks[2]
        analysis.age = self.stream.age(analysis.frame, self._run.monotonic())
        # The index counts every decoded frame, wherever it was dropped.
        analysis.dropped_since_last = analysis.frame.index - self._next_index
        self._next_index = analysis.frame.index + 1
        for sink in self._sinks:
            if self.stream.life.gone:  # while the one before had it
                break
            _hand_beside(sink, fused.beside)
            with clock.measure(sink.name):
                sink.consume(analysis)
        self.stream.counter.emitted(analysis)

    def _finish(self) -> None:
        """Finish its outputs, when it came to its end in order or was asked to stop."""
        if self.stream.slot.discarded:
            self.stream.dropped(self.stream.slot.discarded, "slot")
        orderly = not self.stream.life.failed and not self.stream.gives_up
        try:
            if orderly and self.stream.life.ending == "stopped":
                self.stream.plan.stopped(self.stream.counter.counts.emitted)
            for sink in self._sinks if orderly else ():
                if self.stream.life.ending == "complete":
                    _hand_beside(sink, self._beside)
                if sink.finish is not None:
                    with self.clocks[2].measure(sink.name):
                        sink.finish()
        except Exception as error:  # noqa: BLE001  # the last write may fail like any other
            self.stream.fail(error)

    def _end(self) -> None:
        """Say that it is over, before the sinks are told: behind one of them nobody may be reading."""
        self.stream.apply(Finished(given_up=self.stream.gives_up))
        dropped = sum(self.stream.counter.counts.dropped.values())
        for sink in self._sinks:
            if sink.end is not None and not self.stream.life.gone:
                try:
                    sink.end(self.stream.id, self.stream.life.ending, dropped)
                except Exception as error:  # noqa: BLE001  # the others are told all the same
                    self.stream.fail(error)


def _drop_taken(stream: Stream, count: int, stage: str) -> None:
    """Drop a frame that the batch took: count it and give its credit back."""
    stream.dropped(count, stage)
    stream.give_credit()


def _drop_old(stream: Stream, stage: str, submitted: float) -> None:
    """Drop a frame that was too old when it came to a stage."""
    stream.counter.dropped(1, stage, "old")
    stream.way.took(time.perf_counter() - submitted)
    stream.give_credit()


def _hand_beside(sink: AttachedSink, items: Sequence[AudioPacket | DataPacket]) -> None:
    """Sound and data, to a sink that wants them."""
    for item in items:
        if isinstance(item, DataPacket):
            if sink.consume_data is not None:
                sink.consume_data(item)
        elif sink.consume_audio is not None:
            sink.consume_audio(item)


def _handed_over(pending: queue.SimpleQueue[Pending | None], most: int, patience: float) -> Iterator[Pending]:
    """What the batch hands over until it is the last, in bursts of `most` frames; a burst waits for `patience` seconds
    for its next one."""
    over = False
    while not over:
        burst: list[Pending] = []
        while len(burst) < most and not over:
            try:
                item = pending.get(timeout=patience if burst else None)
            except queue.Empty:
                break
            over = item is None
            burst += [item] if item is not None else []
        for future, _ in burst[-1].predictions.values() if burst else ():
            with suppress(CancelledError):
                future.exception()  # waits, and leaves the error to whoever asks for the result
        yield from burst
