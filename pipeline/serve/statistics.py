"""How each stream does, over its last seconds: rate, frame age, and the classes' shares of the picture over time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from pipeline.frame import Analysis

SPAN = 3.0
"""Seconds over which rate and age are taken."""

AREA_PERIOD = 1.0
"""Seconds between two points of the areas."""

AREA_POINTS = 300
"""Points of the areas that are kept: five minutes."""


class AreaPoint(msgspec.Struct, frozen=True):
    """The classes' shares of one picture.

    Attributes:
        number: rises by one from point to point.
        at: wall clock of the capture, Unix seconds.
        area: share of the picture by class name, of the classes present.
    """

    number: int
    at: float
    area: dict[str, float]


class Pace(msgspec.Struct, frozen=True):
    """How a stream does now.

    Attributes:
        fps: analyses a second over the last `SPAN` seconds.
        age_p50_ms, age_p99_ms: time from leaving the decoder to the outputs, over the same; None without any.
    """

    fps: float = 0.0
    age_p50_ms: float | None = None
    age_p99_ms: float | None = None


@dataclass(slots=True, eq=False)
class _Stream:
    ages: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=1024))
    area: deque[AreaPoint] = field(default_factory=lambda: deque(maxlen=AREA_POINTS))
    began: float = 0.0
    points: int = 0
    last_point: float = float("-inf")


class StreamStatistics:
    """A sink, shared by all streams, that remembers their last seconds.

    Args:
        monotonic: clock in seconds.
    """

    name = "statistics"

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._streams: dict[str, _Stream] = {}
        self._lock = threading.Lock()

    def consume(self, analysis: Analysis) -> None:
        """Remember when it came, how old it was and what it showed."""
        now = self._monotonic()
        with self._lock:
            stream = self._streams.setdefault(analysis.frame.stream, _Stream(began=now))
            stream.ages.append((now, analysis.age))
            if now - stream.last_point >= AREA_PERIOD and analysis.class_map is not None:
                stream.last_point = now
                stream.points += 1
                stream.area.append(AreaPoint(stream.points, analysis.frame.captured_at, dict(analysis.area)))

    def pace(self, name: str) -> Pace:
        """Rate and age of a stream over the last seconds."""
        now = self._monotonic()
        with self._lock:
            stream = self._streams.get(name)
            ages = sorted(age for at, age in stream.ages if at > now - SPAN) if stream is not None else []
            span = SPAN if stream is None else min(SPAN, max(now - stream.began, 0.5))
        if not ages:
            return Pace()
        return Pace(
            round(len(ages) / span, 1),
            round(ages[len(ages) // 2] * 1000, 1),
            round(ages[min(len(ages) - 1, int(len(ages) * 0.99))] * 1000, 1),
        )

    def area(self, name: str, after: int = 0) -> list[AreaPoint]:
        """The points of a stream after the one numbered `after`, oldest first; all of them after a number that there
        has not been yet: it is of a stream that had its name before.
        """
        with self._lock:
            stream = self._streams.get(name)
            if stream is None:
                return []
            return [p for p in stream.area if p.number > after or after > stream.points]

    def forget(self, stream: str) -> None:
        """The stream is gone."""
        with self._lock:
            self._streams.pop(stream, None)
