"""Where things stand on the road: distance and place across, from the foot of a box and the horizon.

The road is taken for a plane. What stands on it at a distance Z has its foot f·H/Z below the horizon (f focal length in
pixels, H height of the camera): that is its distance. Places across need the height only: at the row of a foot, H
metres are as many pixels as the row is below the horizon.

The horizon is found while driving, from two things that are independent of each other:

- known sizes: a car is 1.5 m high, give or take, so that the horizon lies H / 1.5 heights of its box above its foot
  (Hoiem et al., "Putting Objects in Perspective", IJCV 80, 2008);
- motion: the foot of whatever comes nearer or falls back moves in proportion to its height in the picture, whatever
  that is in metres, and where the height would be nothing lies the horizon. Its outer side moves likewise away from the
  point that the camera drives to.

Each is a measurement of a filter with one state, which also says how sure it is (Kalman, 1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.analysis.ahead.course import Course, Look
from pipeline.analysis.ahead.options import AheadValues

USUAL_HEIGHT = 1.35
"""Metres of a camera of which nothing is known, give or take a fifth: it stands in no distance, but in lanes."""

_USUAL_FOCAL = 0.95
"""Focal length over the width of the picture of such a camera: 55°."""

_CAR, _CAR_SIGMA = 1.52, 0.12
"""Metres that a car is high, and the standard deviation."""

OVERHANG = 0.7
"""Metres from the rear end of a vehicle to where its wheels touch the road, which is the foot of its box."""

_LEARNED_EVERY = 0.5
"""Seconds between two measurements by one object: those between would be wrong in the same way."""

_GROWN = 1.3
"""How much an object must have grown or shrunk for its motion to say where the horizon is."""

_UNSURE = 0.25
"""Standard deviation of a distance, over the distance, beyond which none is given."""

_FARTHEST = 120.0
"""Metres."""


class Measure(NamedTuple):
    """A figure and its standard deviation."""

    value: float
    sigma: float


@dataclass(slots=True)
class _Filtered:
    """A row or column of the picture that hardly moves, in pixels, and what it drifts by in a second."""

    value: float
    variance: float
    drift: float
    time: float | None = None

    @property
    def sigma(self) -> float:
        return math.sqrt(self.variance)

    def measure(self, value: float, sigma: float, time: float) -> None:
        """Take in a measurement; one that is far from what it may be counts for nothing."""
        if self.time is not None:
            self.variance += self.drift**2 * max(time - self.time, 0.0)
        self.time = time
        whole = self.variance + sigma**2
        off = value - self.value
        if off * off > 9.0 * whole:
            return
        gain = self.variance / whole
        self.value += gain * off
        self.variance *= 1 - gain


class Ground:
    """The road of one stream as its camera sees it.

    Args:
        options: what is known of the camera.
        width, height: of the picture in pixels.
    """

    def __init__(self, options: AheadValues, width: int, height: int) -> None:
        self.size = width, height
        known = options.camera_height is not None and options.field_of_view is not None
        self.measured = known
        self.camera = USUAL_HEIGHT if options.camera_height is None else options.camera_height
        self._camera_sigma = 0.2 if options.camera_height is None else 0.03
        view = options.field_of_view
        self.focal = _USUAL_FOCAL * width if view is None else 0.5 * width / math.tan(math.radians(view) / 2)
        at, sigma = (0.5, 0.1) if options.horizon is None else (options.horizon, 0.015)
        self._row = _Filtered(at * height, (sigma * height) ** 2, 0.003 * height)
        self._column = _Filtered(0.5 * width, (0.04 * width) ** 2, 0.001 * width)

    # Learning -------------------------------------------------------------------------------------------------------
    def teaches(self, course: Course) -> bool:
        """Whether something may be learned from an object by now."""
        look = course.newest
        return (
            look.time - course.learned[0] >= _LEARNED_EVERY
            and not (look.over or look.under or look.beside)
            and look.tall >= 0.025 * self.size[1]
        )

    def learn(self, course: Course) -> None:
        """Learn from an object of which all is seen."""
        look, size = course.newest, course.learned[1]
        course.learned = look.time, look.tall
        if course.label == "car":
            self._by_size(look, look.tall)
        if max(look.tall, size) > 1.1 * min(look.tall, size) and course.seen > _LEARNED_EVERY:
            self._by_motion(course)

    def _by_size(self, look: Look, tall: float) -> None:
        if look.wide > 2.2 * tall:  # seen from the side: more of it may be hidden than is seen
            return
        above = tall * self.camera / _CAR
        share = math.hypot(_CAR_SIGMA / _CAR, self._camera_sigma)
        sigma = math.hypot(above * share, 0.006 * self.size[1], 0.03 * tall)
        self._row.measure(look.y2 - above, 2.0 * sigma, look.time)

    def _by_motion(self, course: Course) -> None:
        table = course.table(course.newest.time - 3.0)
        table = table[(table[:, 5:] == 0).all(1)]
        if len(table) < 8:
            return
        tall = table[:, 4] - table[:, 2]
        if tall.max() < _GROWN * tall.min():
            return
        time, drifts = course.newest.time, 0.006 * self.size[1]
        foot = _where_nothing_is_left(tall, table[:, 4])
        self._row.measure(foot.value, 2.0 * math.hypot(foot.sigma, drifts), time)
        # The outer side is that of the near end; the inner one that of the far end, where a flank is seen.
        outer = 1 if table[-1, 1] + table[-1, 3] < 2 * self._column.value else 3
        middle = _where_nothing_is_left(tall, table[:, outer])
        # Bends of the road move it, too, for longer than a vehicle is seen: it counts little.
        self._column.measure(middle.value, 8.0 * math.hypot(middle.sigma, 0.02 * self.size[0]), time)

    # Saying where something is --------------------------------------------------------------------------------------
    def below(self, foot: float) -> Measure:
        """How far the row of a foot is below the horizon, in pixels."""
        return Measure(foot - self._row.value, self._row.sigma)

    def distance(self, look: Look, *, vehicle: bool) -> Measure | None:
        """Metres to the near end of what stands on the road; None where that is not known well enough."""
        if not self.measured or look.under:
            return None
        below, horizon_sigma = self.below(look.y2)
        if below <= 0:
            return None
        foot_sigma = math.hypot(1.0, 0.02 * look.tall)
        wheels = self.focal * self.camera / below
        share = math.hypot(foot_sigma / below, horizon_sigma / below, self._camera_sigma, 0.02)
        metres = wheels - (OVERHANG if vehicle else 0.0)
        if share > _UNSURE or not 0.5 < metres < _FARTHEST:
            return None
        return Measure(metres, math.hypot(share * wheels, 0.3 if vehicle else 0.0))

    def roughly(self, look: Look) -> float:
        """Metres to what stands on the road by a camera as most are, where nothing is known of this one; infinite above
        the horizon."""
        below = look.y2 - self._row.value
        return self.focal * self.camera / below if below > 0 else math.inf

    def across(self, column: float, foot: float) -> Measure:
        """Metres to the right of where the camera drives, of a column at the row of a foot below the horizon."""
        below, horizon_sigma = self.below(foot)
        below = max(below, 1.0)
        metres = (column - self._column.value) * self.camera / below
        return Measure(metres, math.hypot(self._column.sigma * self.camera / below, metres * horizon_sigma / below))

    def tall(self, look: Look) -> float:
        """Metres that something is high; infinite above the horizon."""
        below = look.y2 - self._row.value
        return look.tall * self.camera / below if below > 0 else math.inf


def _where_nothing_is_left(tall: np.ndarray, place: np.ndarray) -> Measure:
    """Where a place that moves in proportion to a height is when the height is nothing, by least squares."""
    middle, spread = float(tall.mean()), float(tall.var())
    slope = float(((tall - middle) * (place - place.mean())).mean()) / spread
    left = place - place.mean() - slope * (tall - middle)
    noise = max(float(left.std()), 0.7)
    # Neighbouring looks are wrong alike: as many as a fifth of them tell something new.
    told = max(len(tall) / 5, 1.0)
    return Measure(float(place.mean()) - slope * middle, noise * math.sqrt((1 + middle**2 / spread) / told))
