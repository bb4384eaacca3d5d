"""How long each stage takes, in wall time and in CPU time of the thread that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class StageTime:
    """Sums over the calls of one stage: seconds of wall time, seconds of the calling thread's CPU time."""

    calls: int = 0
    wall: float = 0.0
    cpu: float = 0.0


class StageClock:
    """Adds up stage times; each thread of the runtime owns one, so that nothing is locked.

    Args:
        observe: called with (stage, wall seconds) after each measurement.
        wall: clock in seconds.
        cpu: CPU time of the calling thread in seconds.

    >>> clock, timings = StageClock(), {}
    >>> with clock.measure("resize", timings):
    ...     _ = sum(range(100))
    >>> clock.times["resize"].calls, list(timings)
    (1, ['resize'])
    """

    def __init__(
        self,
        observe: Callable[[str, float], None] = lambda _stage, _seconds: None,
        wall: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self.times: dict[str, StageTime] = {}
        self._observe, self._wall, self._cpu = observe, wall, cpu

    def measure(self, stage: str, timings: dict[str, float] | None = None) -> _Measured:
        """Time a block as one call of `stage`: `with clock.measure("fuse"):`. Its milliseconds are added to `timings`
        when given.
        """
        return _Measured(self, stage, timings)

    def add(self, stage: str, wall: float, cpu: float) -> None:
        """A call of `stage` took so many seconds, and so many of CPU time."""
        total = self.times.get(stage)
        if total is None:
            total = self.times[stage] = StageTime()
        total.calls += 1
        total.wall += wall
        total.cpu += cpu
        self._observe(stage, wall)

    def now(self) -> tuple[float, float]:
        """Both clocks."""
        return self._wall(), self._cpu()


class _Measured:
    """A block that is timed; a class, for `contextlib`'s generators take ten times as long, several times a frame."""

    __slots__ = ("_clock", "_cpu", "_stage", "_timings", "_wall")

    def __init__(self, clock: StageClock, stage: str, timings: dict[str, float] | None) -> None:
        self._clock, self._stage, self._timings = clock, stage, timings

    def __enter__(self) -> None:
        self._wall, self._cpu = self._clock.now()

    def __exit__(self, *_: object) -> None:
        wall, cpu = self._clock.now()
        wall -= self._wall
        if self._timings is not None:
            self._timings[self._stage] = self._timings.get(self._stage, 0.0) + wall * 1000
        self._clock.add(self._stage, wall, cpu - self._cpu)


def merged(clocks: list[StageClock]) -> dict[str, StageTime]:
    """The sums over several threads' clocks."""
    result: dict[str, StageTime] = {}
    for clock in clocks:
        for stage, times in list(clock.times.items()):  # its thread may be meeting another stage just now
            total = result.setdefault(stage, StageTime())
            total.calls += times.calls
            total.wall += times.wall
            total.cpu += times.cpu
    return result
