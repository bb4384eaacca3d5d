"""A stream between its decoder, its device, its outputs and its owner: how it stands, and what waits and is counted.

It has a few frames at most (`credits`) between its batch and its sinks, so a slow sink stops its own stream and no
other. Every frame decoded is emitted or counted as dropped, with the stage and the reason.
"""

from __future__ import annotations

import logging
import queue
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from engines.engine import Prediction
from engines.errors import NO_MEMORY, RoadlensError, lacks_memory
from pipeline.addresses import strip_credentials
from pipeline.analysis.carrying.cadence import LONGEST
from pipeline.capabilities import attach_source, attach_stage
from pipeline.frame import Frame
from pipeline.runtime.batching import ArrivalRate, Way
from pipeline.runtime.context import RunContext
from pipeline.runtime.counter import FrameCounter, Sight
from pipeline.runtime.lifecycle import Action, Blinded, Demand, Drained, Event, Failed, Lifecycle, Seeing, step
from pipeline.runtime.placement import Berth
from pipeline.runtime.plan import StreamPlan
from pipeline.runtime.slots import Sample, Slot
from pipeline.state import SourceState, StateChange

log = logging.getLogger(__name__)

FILE_SLOT = 8
"""Decoded frames of a file that wait for the engine."""

FILE_BURST = 4
"""Frames of a file that are fused and drawn in a row: code and tables are in the caches for all but the first, which
network and encoder push out in between. At 720p a fifth of the time outside them is saved."""

CREDITS = 4
"""Frames of a live stream between the batch and its sinks, at least: twice what the engines have in flight, so that
neither they nor an encoder wait for the other. Of a file there are two bursts more, and what its stages look ahead; of
a live stream with `every: auto` as many as may pass by an engine that is busy with one."""


@dataclass(slots=True, eq=False)
class Pending:
    """A sample on its way from its batch to the fusing thread.

    Attributes:
        sample: the sample.
        predictions: what it waits for: model name → (the batch's future, place in the batch).
        submitted: when the batch was submitted, on `time.perf_counter`.
        again: computes the predictions after the batch failed with an error, which it raises where that cannot be done.
    """

    sample: Sample
    predictions: dict[str, tuple[Future[list[Prediction]], int]]
    submitted: float
    again: Callable[[Exception], dict[str, Prediction]]


class Board:
    """What a device's thread looks at in place of all of its streams, each time that something changes.

    Attributes:
        waiting: the streams of which a frame can be taken.
        ended: whether nothing more may come of one of them since it was looked at last.
    """

    def __init__(self) -> None:
        self.waiting: set[Stream] = set()
        self.ended = False


class Stream:
    """One stream of a run.

    Args:
        plan: the stream.
        berth: its binding to a device.
        run: the circumstances.

    Attributes:
        id: its id.
        mode: `file` or `live`.
        source: what its source can.
        slot: where its frames wait for a batch; closed and ended when nothing more comes.
        board: where it says whether a frame of it can be taken; its device's.
        pending: frames on their way from their batches to be fused; None behind the last one.
        in_flight: frames between their batch and the sinks; guarded by `run.ready`.
        stages: what is called of its stages, in order.
        ahead: how many frames of a file they look ahead.
        credits: how many of them there may be.
        arrivals: how often the frames of a live stream come.
        way: how long frames took from their batch to where they were given out.
        life: how it stands.
        error: what it failed with.
        counter: where its frames went.
    """

    def __init__(self, plan: StreamPlan, berth: Berth, run: RunContext) -> None:
        self.id, self.mode = plan.source.id, plan.source.mode
        self.plan, self.berth, self._run = plan, berth, run
        self.source = attach_source(plan.source)
        own = weakref.ref(self)  # a circle would keep source and outputs until the collector comes by
        self.slot = Slot(self.mode, FILE_SLOT, run.ready, lambda: _note(own))
        self.board = Board()
        self.pending: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self.in_flight = 0
        file = self.mode == "file"
        self.stages = [attach_stage(stage) for stage in plan.stages]
        self.ahead = max((stage.ahead for stage in self.stages), default=0) if file else 0
        passing = LONGEST if any(model.every == "auto" for model in run.models) else 0
        self.credits = max(CREDITS, 2 * run.in_flight) + (2 * FILE_BURST + self.ahead if file else passing)
        self.arrivals = ArrivalRate()
        self.way = Way()
        self.life = Lifecycle()
        self.error: Exception | None = None
        self.counter, self._sight = FrameCounter(self.id, run.metrics), Sight()

    # What happens to it -----------------------------------------------------------------------------------------------
    def apply(self, event: Event) -> None:
        """Let an event happen to it, and do what it asks for; from any thread."""
        with self._run.ready:
            life, actions = step(self.life, event)
            self.life = life
            self.note()
            self._run.ready.notify_all()
        for action in actions:
            match action:
                case Action.PAUSE_SOURCE:
                    self.source.pause()
                case Action.RESUME_SOURCE:
                    self.source.resume()
                case Action.STOP_SOURCE:
                    self.source.stop()
                case Action.CLOSE_SLOT:
                    self.slot.close()
                case Action.END_HANDOVER:
                    self.pending.put(None)
                case Action.SAY:
                    self._say(life)
                case Action.SAY_SIGHT:
                    cause = "blind" if life.blind else ""
                    self._run.observe(StateChange(self.id, life.state, life.blind, cause, time.time()))

    def _say(self, life: Lifecycle) -> None:
        """Tell the observer the state, where its source does not; a failure is told always."""
        failed, reason = life.state is SourceState.FAILED, ""
        if failed:
            reason = strip_credentials(str(self.error))
        elif life.state is SourceState.ENDED and life.ending != "complete":
            reason = life.ending
        if failed or not self.source.waits:
            self._run.observe(StateChange(self.id, life.state, reason, at=time.time()))

    def watch(self, now: float) -> None:
        """Look whether its pictures go out, at the monotonic time `now`; one thread."""
        if self.mode == "file" or self.life.demand is not Demand.RUN:
            self._sight.forget()
            return
        reason = self._sight.look(now, self.counter.tally(self.plan.source.counts))
        if reason is None:
            return
        if reason and not self.life.blind:
            log.warning("%s: %s", self.id, reason)
        elif self.life.blind and not reason:
            log.info("%s: pictures go out again", self.id)
        self.apply(Blinded(reason) if reason else Seeing())

    def fail(self, error: Exception, *, writing: bool = False) -> None:
        """End as failed; the first error counts. `writing`: an output raised it."""
        with self._run.ready:
            first = self.error is None
            if first:
                self.error = error
        if first and (isinstance(error, RoadlensError) or lacks_memory(error)):
            log.error("%s: %s", self.id, error if isinstance(error, RoadlensError) else NO_MEMORY)
        elif first:
            log.error("%s: %s: %s", self.id, type(error).__name__, error, exc_info=error)
        self.apply(Failed(writing))

    def interrupt(self) -> None:
        """Make a source that waits for somebody else iterate no further: the run is being stopped."""
        self.source.stop()

    def abort(self) -> None:
        """Take no more frames either: the run drops what is under way."""
        self.source.stop()
        self.slot.close()

    # How it stands ----------------------------------------------------------------------------------------------------
    @property
    def ends(self) -> bool:
        """Whether nothing more is to be read."""
        return not self.life.reads or self._run.stop.stopping

    @property
    def bound(self) -> float | None:
        """Seconds beyond which a frame is dropped rather than given out; None for a file. A camera's follows it."""
        return self.plan.info.latency_bound if self.mode == "live" else None

    @property
    def gives_up(self) -> bool:
        """Whether what is under way is to be dropped."""
        return self.life.drops or self._run.stop.aborting

    def too_old(self, frame: Frame, now: float) -> bool:
        """Whether a frame has outlived the bound by `now`, monotonic seconds."""
        bound = self.bound
        return bound is not None and self.age(frame, now) > bound

    @staticmethod
    def age(frame: Frame, now: float) -> float:
        """Seconds since a frame came, at the monotonic time `now`."""
        return max(0.0, now - frame.arrived_at)

    def dropped(self, count: int, stage: str) -> None:
        """Count frames as dropped because it failed, or else because it was stopped."""
        self.counter.dropped(count, stage, "failed" if self.error is not None else "stopped")

    def give_credit(self) -> None:
        """A frame that a batch took is through: another one may be taken."""
        with self._run.ready:
            self.in_flight -= 1
            if self.in_flight == self.credits - 1:  # else it had some before
                self.note()
                self._run.ready.notify_all()

    def note(self) -> None:
        """Say whether a frame can be taken, and whether more may come; `run.ready` is held."""
        if self.waits:
            self.board.waiting.add(self)
        else:
            self.board.waiting.discard(self)
        # Of one that is over a frame may still be taken: whether it is exhausted is looked at behind the last.
        self.board.ended |= self.slot.ended or self.slot.closed or self.life.drops

    # From the device --------------------------------------------------------------------------------------------------
    @property
    def waits(self) -> bool:
        """Whether a frame can be taken for a batch."""
        return len(self.slot) > 0 and self.in_flight < self.credits

    @property
    def looks_next(self) -> bool:
        """Whether a model looks at the next frame; else it passes by the engines."""
        sample = self.slot.peek()
        return sample is not None and bool(sample.looks)

    def may_come(self, now: float) -> bool:
        """Whether a frame to take may come soon: not of a stream that is over, rests or is out of credit, nor of a
        camera of which nothing is to be expected.
        """
        if self.slot.ended or self.life.rests or self.in_flight >= self.credits:
            return False
        return self.mode == "file" or self.arrivals.expected(now)

    @property
    def exhausted(self) -> bool:
        """Whether there will be no more frames to take."""
        # A closed slot of a stream that is not given up: its decoder still has to count what it holds.
        return (self.slot.ended and not len(self.slot)) or (self.slot.closed and self.gives_up)

    def in_time(self, now: float) -> bool:
        """Whether the next frame can be given out before it is too old, as far as those before it tell; `run.ready` is
        held, as in what follows.
        """
        sample = self.slot.peek()
        return sample is not None and not self.too_old(sample.frame, now + self.way.expected)

    def pass_over(self) -> None:
        """Drop the next frame: looked at, it would take the time of one that can still be given out."""
        self._arrived(self.slot.skip())
        self.counter.dropped(1, "slot", "old")
        self.way.forget()

    def take(self) -> Sample | None:
        """The next frame for a batch."""
        sample = self.slot.take()
        if sample is None:
            return None
        self.in_flight += 1
        self.note()
        self._arrived(sample)
        return sample

    def _arrived(self, sample: Sample | None) -> None:
        if sample is not None and self.mode == "live":
            self.arrivals.arrived(sample.frame.arrived_at)

    def hand_over(self, pending: Pending) -> None:
        """Give a frame that was taken to the fusing thread, its predictions under way."""
        self.pending.put(pending)
        self.counter.waiting("slot", len(self.slot))
        self.counter.waiting("emit", self.in_flight)

    def drained(self) -> None:
        """No more frames will be handed over. Twice is allowed."""
        self.apply(Drained())


def _note(held: weakref.ref[Stream]) -> None:
    stream = held()
    if stream is not None:
        stream.note()
