"""Where the vehicles and people of the synthetic street truly are, in metres."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipeline.scene.canvas import NEAR
from pipeline.scene.street import SIGHT, Cyclist, Vehicle, Walker, World
from pipeline.scene.vehicles import vehicle

_STEP = 0.02
"""Seconds over which a speed is measured."""


class Place(NamedTuple):
    """Where something is.

    Attributes:
        distance: metres from the camera to its nearest end, along where the camera looks.
        across: metres from the camera to its middle, to the right.
        closing: metres a second by which the distance falls.
    """

    distance: float
    across: float
    closing: float

    @property
    def contact(self) -> float:
        """Seconds until the distance is nothing, at this speed; infinite where it does not fall."""
        return self.distance / self.closing if self.closing > 0 else math.inf


def places(world: World, time: float) -> dict[int, Place]:
    """Where everything with a track number is at a time (seconds from the start), by that number."""
    earlier = max(time - _STEP, 0.0)
    later = earlier + _STEP
    before = {track: distance for track, distance, _ in _ends(world, earlier)}
    after = {track: distance for track, distance, _ in _ends(world, later)}
    return {
        track: Place(distance, across, (before.get(track, distance) - after.get(track, distance)) / _STEP)
        for track, distance, across in _ends(world, time)
    }


def _ends(world: World, time: float) -> Iterator[tuple[int, float, float]]:
    """Track, distance and place across of each vehicle and person ahead."""
    s = world.camera(time)
    things = [placed for placed in world.ahead(time) if isinstance(placed, Vehicle | Walker | Cyclist)]
    middles = np.array([placed.s - s for placed in things])
    bends = (world.road.bend(s, middles) - world.sway(time)).tolist()
    for placed, middle, bend in zip(things, middles.tolist(), bends, strict=True):
        half = vehicle(placed.kind).length / 2 if isinstance(placed, Vehicle) else 0.0
        if NEAR <= middle <= SIGHT:
            yield placed.track, middle - half, placed.x + bend
            if isinstance(placed, Cyclist):
                yield placed.rider_track, middle, placed.x + bend
