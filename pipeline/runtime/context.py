"""What all threads of a run share: one value, given to each worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from engines.loading import Degraded
from pipeline.analysis.carrying.cadence import CarryingOptions
from pipeline.analysis.fuse import FuseOptions
from pipeline.metrics import Metrics
from pipeline.runtime.placement import Placer
from pipeline.runtime.plan import LoadedModel
from pipeline.runtime.stageclock import StageClock
from pipeline.state import StateChange


class StopSignal:
    """Whether a run is to stop, since when, and whether what is under way is finished or dropped.

    Args:
        ready: notified when the signal is given.
        monotonic: clock in seconds.
    """

    def __init__(self, ready: threading.Condition, monotonic: Callable[[], float]) -> None:
        self._ready, self._monotonic = ready, monotonic
        self._stopping, self._aborting = threading.Event(), threading.Event()
        self._since = 0.0

    def stop(self) -> None:
        """Read no further; what has been read is finished. Twice is allowed."""
        if not self._stopping.is_set():
            self._since = self._monotonic()
            self._stopping.set()
        with self._ready:
            self._ready.notify_all()

    def abort(self) -> None:
        """Read no further, and drop what is under way."""
        self._aborting.set()
        self.stop()

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be read."""
        return self._stopping.is_set()

    @property
    def aborting(self) -> bool:
        """Whether what is under way is to be dropped."""
        return self._aborting.is_set()

    @property
    def seconds(self) -> float:
        """Since the run was told to stop; 0 while it was not."""
        return self._monotonic() - self._since if self._stopping.is_set() else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class RunContext:
    """The circumstances of a run. It knows no stream and no worker: one that did would keep sources and encoders, with
    their threads and memory, until the garbage collector comes by.

    Attributes:
        models: what looks at the frames.
        fuse: how predictions become boxes and tracks.
        placer: which device looks at a stream.
        metrics: where counters and times go; None for none.
        monotonic: clock in seconds.
        idle: whether the run goes on when all streams are over.
        observe: told the state changes of streams whose sources do not say them.
        degraded: told what could not be had.
        ready: guards slots, lifecycles, frames in flight and the devices' lists; notified when any of them changes.
        stop: whether the run is to stop.
        carrying: what stands between the frames that a model looks at.
        turns: taken to fuse and to draw, by as many streams at a time as half the cores. What does that calls OpenCV a
            hundred times a frame, each call lets go of Python's lock, and the more threads wait for it, the longer it
            takes to get it back: of 16 streams on two cores, each frame cost 1.3 times what it cost of one.
    """

    models: tuple[LoadedModel, ...]
    fuse: FuseOptions
    placer: Placer
    metrics: Metrics | None
    monotonic: Callable[[], float]
    idle: bool
    observe: Callable[[StateChange], None]
    degraded: Callable[[Degraded], None]
    ready: threading.Condition
    stop: StopSignal
    carrying: CarryingOptions
    turns: threading.Semaphore

    def clock(self) -> StageClock:
        """A clock for one thread; what it measures is in the metrics, too."""
        return StageClock() if self.metrics is None else StageClock(self.metrics.stage)

    @property
    def in_flight(self) -> int:
        """Batches that every engine computes at once, at least."""
        return max(1, min((e.in_flight for m in self.models for e in m.engines), default=8))
