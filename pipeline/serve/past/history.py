"""What each stream was doing and what was seen in it over the last day, in bounded memory; gone with the process."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Analysis
from pipeline.state import StateChange

PERIOD = 10
"""Seconds that are remembered as one."""

SPAN = 86_400
"""Seconds that are remembered."""

MOST_POINTS = 400
"""Points of an answer; further ones are put together."""

_MOST_NAMES = 256
"""Classes that are remembered of a stream: as many as a class map can have."""

_MOST_STATES = 1000


class TimelinePoint(msgspec.Struct, frozen=True):
    """What was seen in some seconds.

    Attributes:
        at: when they began, Unix seconds by this machine's clock.
        frames: frames analysed in them.
        area: mean share of the picture by class name, of the classes present.
        boxes: most boxes at once by label.
    """

    at: float
    frames: int
    area: dict[str, float]
    boxes: dict[str, int]


class TimelineState(msgspec.Struct, frozen=True):
    """A state that a source entered: when (Unix seconds), which, and why."""

    at: float
    state: str
    reason: str


class Timeline(msgspec.Struct, frozen=True):
    """A stream over time.

    Attributes:
        now: Unix seconds by this machine's clock.
        period: seconds of a point.
        points: those in which there were frames, oldest first.
        states: from the one that held at the beginning on, oldest first.
    """

    now: float
    period: int
    points: list[TimelinePoint]
    states: list[TimelineState]


class StreamHistory:
    """A sink, shared by all streams, that remembers a day of each. With 19 classes a stream takes less than 1 MB.

    Args:
        clock: Unix time in seconds.
    """

    name = "history"

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._states: dict[str, deque[TimelineState]] = {}
        self._lock = threading.Lock()

    def consume(self, analysis: Analysis) -> None:
        """Remember what was seen."""
        number = int(self._clock() // PERIOD)
        boxes: dict[str, int] = {}
        for box in analysis.boxes:
            boxes[box.label] = boxes.get(box.label, 0) + 1
        with self._lock:
            seen = self._seen.get(analysis.frame.stream)
            if seen is None:
                seen = self._seen[analysis.frame.stream] = _Seen()
            seen.add(number, analysis.area.items(), boxes.items())

    def changed(self, change: StateChange) -> None:
        """A source entered a state."""
        with self._lock:
            states = self._states.setdefault(change.stream, deque(maxlen=_MOST_STATES))
            states.append(TimelineState(change.at or self._clock(), change.state.value, change.reason))

    def timeline(self, stream: str, since: float, until: float, most: int = MOST_POINTS) -> Timeline:
        """What is remembered of a stream between two times, Unix seconds, in at most so many points."""
        now = self._clock()
        first, last = max(int(since // PERIOD), int((now - SPAN) // PERIOD) + 1), int(min(until, now) // PERIOD)
        together = max(1, math.ceil((last - first + 1) / max(most, 1)))
        with self._lock:
            seen = self._seen.get(stream)
            points = [] if seen is None else seen.points(first - first % together, last, together)
            states = list(self._states.get(stream, ()))
        before = [state for state in states if state.at < since][-1:]
        return Timeline(
            now, together * PERIOD, points, before + [state for state in states if since <= state.at <= until]
        )

    def forget(self, stream: str) -> None:
        """The stream is gone."""
        with self._lock:
            self._seen.pop(stream, None)
            self._states.pop(stream, None)


class _Seen:
    """A row for each period of a stream, used again after `SPAN`; a column for each name that came up."""

    def __init__(self) -> None:
        self._rows = SPAN // PERIOD
        self._numbers = np.full(self._rows, -1, np.int64)
        self._frames = np.zeros(self._rows, np.uint32)
        self._area, self._boxes = _Columns(self._rows, np.float32), _Columns(self._rows, np.uint16)

    def add(self, number: int, area: Iterable[tuple[str, float]], boxes: Iterable[tuple[str, int]]) -> None:
        row = number % self._rows
        if self._numbers[row] != number:
            self._numbers[row], self._frames[row] = number, 0
            self._area.clear(row)
            self._boxes.clear(row)
        self._frames[row] += 1
        for name, share in area:
            if (column := self._area.of(name)) is not None:
                column[row] += share
        for name, count in boxes:
            if (column := self._boxes.of(name)) is not None:
                column[row] = max(column[row], min(count, 65535))

    def points(self, first: int, last: int, together: int) -> list[TimelinePoint]:
        made = []
        known = np.sort(self._numbers[(self._numbers >= first) & (self._numbers <= last)])
        for numbers in np.split(known, np.flatnonzero(np.diff((known - first) // together)) + 1):
            if not len(numbers):
                continue
            rows = numbers % self._rows
            frames = int(self._frames[rows].sum())
            area = {name: round(float(sums.sum()) / frames, 5) for name, sums in self._area.at(rows)}
            boxes = {name: int(most.max()) for name, most in self._boxes.at(rows)}
            at = (first + (int(numbers[0]) - first) // together * together) * PERIOD
            made.append(
                TimelinePoint(
                    float(at), frames, {n: s for n, s in area.items() if s}, {n: c for n, c in boxes.items() if c}
                )
            )
        return made


class _Columns:
    """Numbers by row and by name."""

    def __init__(self, rows: int, kind: type[np.generic]) -> None:
        self._rows, self._kind = rows, kind
        self._columns: dict[str, NDArray[Any]] = {}

    def of(self, name: str) -> NDArray[Any] | None:
        """The column of a name; None where there are too many."""
        column = self._columns.get(name)
        if column is None and len(self._columns) < _MOST_NAMES:
            column = self._columns[name] = np.zeros(self._rows, self._kind)
        return column

    @property
    def bytes(self) -> int:
        return sum(column.nbytes for column in self._columns.values())

    def clear(self, row: int) -> None:
        for column in self._columns.values():
            column[row] = 0

    def at(self, rows: Sequence[int] | NDArray[np.int64]) -> Iterable[tuple[str, NDArray[Any]]]:
        """Each name with its numbers in some rows."""
        return ((name, column[rows]) for name, column in self._columns.items())
