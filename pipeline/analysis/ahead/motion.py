"""Whether the own car stands, from the pictures or from its speed, and whether it brakes hard, from its speed."""

from __future__ import annotations

from collections import deque

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.ahead.cases import Evidence, beyond
from pipeline.pictures.picture import Picture
from pipeline.pictures.planes import plane

LOOKED_EVERY = 0.2
"""Seconds between two looks at whether the picture stands still."""

_ROWS = tuple(0.20 + 0.04 * row for row in range(14))
"""Where the rows lie that are looked at, as shares of the height: above the own bonnet, below what stands over the
picture."""

_EDGE = 14
"""Grey levels to the pixel after the next from which on one is at an edge, whose motion shows."""

_LEAST_EDGES = 60
"""Pixels at edges, in either half of the picture, that are needed."""

_STILL = 0.5
"""Change of a pixel over the slope of its edge below which it has not moved: half a pixel."""

_STANDS = 0.65
"""Share of the edges, in either half, that have not moved where the car stands: what passes by covers the rest. Of cars
that drive it was 0.38 at most on films and motorways; with a panel burnt in up to 0.76 for a moment, and up to 0.93 in
slow traffic through drops on the glass, which stand still: there it is wrong."""

_STANDING_SPEED = 0.3
"""Metres a second."""

_BRAKING_SECONDS = 1.0
"""Seconds over which a speed is fitted."""


class Stillness:
    """Whether the picture stands still: the edges along some rows of it are where they were a moment ago."""

    def __init__(self) -> None:
        self._before: tuple[float, NDArray[np.int16]] | None = None
        self._said: Evidence | None = None

    def look(self, image: av.VideoFrame, time: float) -> Evidence | None:
        """Evidence that the own car stands; the last one between two looks, and none of a picture in GPU memory."""
        if Picture.of(image).in_gpu_memory:
            return None
        if self._before is not None and 0 <= time - self._before[0] < LOOKED_EVERY - 1e-6:
            return self._said
        luma = plane(image, 0)
        rows = luma[[int(share * luma.shape[0]) for share in _ROWS]].astype(np.int16)
        before, self._before = self._before, (time, rows)
        self._said = None
        if before is not None and before[1].shape == rows.shape and 0 < time - before[0] < 3 * LOOKED_EVERY:
            self._said = self._judged(before[1], rows)
        return self._said

    def _judged(self, before: NDArray[np.int16], now: NDArray[np.int16]) -> Evidence | None:
        slope = np.abs(now[:, 2:] - now[:, :-2])
        edges = slope > _EDGE
        still = 2 * np.abs(now[:, 1:-1] - before[:, 1:-1]) < _STILL * slope
        half = edges.shape[1] // 2
        shares = []
        for part in (slice(0, half), slice(half, None)):
            count = int(np.count_nonzero(edges[:, part]))
            if count < _LEAST_EDGES:
                return None
            shares.append(np.count_nonzero(edges[:, part] & still[:, part]) / count)
        least = min(shares)
        if least < _STANDS:
            return None
        figures = {"still_share": least, "still_limit": _STANDS}
        return Evidence(least, min(1.0, (least - _STANDS) / (1 - _STANDS) / 2 + 0.5), figures, "standing")


class Speeds:
    """The last speeds of the own car, where something knows them."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._known: deque[tuple[float, float]] = deque(maxlen=90)

    def add(self, time: float, speed: float) -> None:
        """Take in a speed in metres a second; one that is told again is no new one."""
        if self._known and (time <= self._known[-1][0] or time - self._known[-1][0] > _BRAKING_SECONDS):
            self._known.clear()
        self._known.append((time, speed))

    def standing(self) -> Evidence | None:
        """Evidence that the own car stands."""
        speed = self._known[-1][1]
        if speed > _STANDING_SPEED:
            return None
        return Evidence(-speed, 1.0, {"speed_mps": speed, "speed_limit_mps": _STANDING_SPEED}, "standing")

    def braking(self) -> Evidence | None:
        """Evidence that the own car brakes hard: the slope of its speed, fitted by a straight line."""
        since = self._known[-1][0] - _BRAKING_SECONDS
        table = np.array([entry for entry in self._known if entry[0] >= since])
        if len(table) < 3 or table[-1, 0] - table[0, 0] < 0.4 * _BRAKING_SECONDS:
            return None
        time, speed = table[:, 0] - table[:, 0].mean(), table[:, 1]
        spread = float(time @ time)
        slope = float(time @ speed) / spread
        wrong = speed - speed.mean() - slope * time
        sigma = max(float(np.sqrt(wrong @ wrong / (len(table) - 2) / spread)), 0.2)
        if -slope - sigma < self._limit:
            return None
        figures = {
            "braking_mps2": -slope, "braking_sigma_mps2": sigma, "braking_limit_mps2": self._limit,
            "speed_mps": float(speed[-1]),
        }  # fmt: skip
        return Evidence(-slope, beyond(-slope, self._limit, sigma), figures, f"braking with {-slope:.1f} m/s²")
