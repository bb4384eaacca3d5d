"""How long each stage takes, in wall time and in CPU time of the thread that runs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    @contextmanager
    def measure(self, stage: str, timings: dict[str, float] | None = None) -> Iterator[None]:
        """Time the block as one call of `stage`; its milliseconds are added to `timings` when given."""
        wall, cpu = self._wall(), self._cpu()
        try:
            yield
        finally:
            wall, cpu = self._wall() - wall, self._cpu() - cpu
            total = self.times.setdefault(stage, StageTime())
            total.calls += 1
            total.wall += wall
            total.cpu += cpu
            if timings is not None:
                timings[stage] = timings.get(stage, 0.0) + wall * 1000
            self._observe(stage, wall)


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
