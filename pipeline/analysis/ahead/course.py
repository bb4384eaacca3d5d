"""Where the boxes of a track were: its course through the picture."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.ahead.growth import Growth
from pipeline.frame import Box

Float = NDArray[np.float64]

VEHICLES = frozenset({"car", "truck", "bus", "train"})
PEOPLE = frozenset({"person", "rider"})

KEPT = 90
"""Looks that are remembered: three seconds at thirty frames a second."""

EDGE = 0.006
"""Share of the picture from its edge within which a box is taken to be cut off by it."""


class Look(NamedTuple):
    """A box of a track: pixels, right and bottom exclusive; and which of its sides the picture's edge cuts off."""

    time: float
    x1: float
    y1: float
    x2: float
    y2: float
    beside: bool
    """Left or right."""
    over: bool
    """At the top."""
    under: bool
    """At the bottom: then its foot is not seen."""

    @property
    def tall(self) -> float:
        """Pixels from top to foot."""
        return self.y2 - self.y1

    @property
    def wide(self) -> float:
        """Pixels from left to right."""
        return self.x2 - self.x1


class Course:
    """The last looks at one object.

    Attributes:
        track, label: of its newest box.
        newest: the newest look.
        looks: how many there were.
        across: (seconds, metres, standard deviation) of where it was to the right, the newest last.
        learned: when something was last learned of it, and how high it was then in pixels.
        grown: when it was last found out how it grows, and how.
    """

    __slots__ = ("_count", "_table", "across", "grown", "label", "learned", "looks", "newest", "track")

    def __init__(self, track: int, label: str) -> None:
        self.track, self.label = track, label
        self.looks = self._count = 0
        self._table = np.empty((2 * KEPT, 8))
        self.newest = Look(0.0, 0.0, 0.0, 0.0, 0.0, False, False, False)
        self.across: deque[tuple[float, float, float]] = deque(maxlen=KEPT)
        self.learned = (float("-inf"), 0.0)
        self.grown: tuple[float, Growth | None] = (float("-inf"), None)

    @property
    def vehicle(self) -> bool:
        return self.label in VEHICLES

    @property
    def seen(self) -> float:
        """Seconds for which it has been looked at, as far as that is remembered."""
        return self.newest.time - float(self._table[0, 0])

    def add(self, box: Box, time: float, width: int, height: int) -> None:
        """Look at its newest box, in a picture of this size."""
        self.label = box.label
        right, bottom = width * EDGE, height * EDGE
        beside = box.x1 < right or box.x2 > width - right
        look = Look(time, box.x1, box.y1, box.x2, box.y2, beside, box.y1 < bottom, box.y2 > height - bottom)
        if self._count == 2 * KEPT:
            self._table[:KEPT] = self._table[KEPT:]
            self._count = KEPT
        self._table[self._count] = self.newest = look
        self._count += 1
        self.looks += 1

    def table(self, since: float) -> Float:
        """(N, 8) float64: the looks from a time on, fields as `Look` has them; not to be written to."""
        known = self._table[: self._count]
        return known[int(np.searchsorted(known[:, 0], since)) :]
