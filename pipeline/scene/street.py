"""The synthetic street as data: what stands, drives and walks where, a pure function of (seed, time).

The road's middle is the graph of a smooth function, so a place has two coordinates: `s`, metres along it, and `x`,
metres to the right of the middle of the camera's lane. Nothing here knows of pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.scene.incidents import crossing, lead_gap, moving_time, overtaking
from pipeline.scene.paint import ROAD_LEFT, ROAD_RIGHT, WALK_LEFT, WALK_RIGHT
from pipeline.scene.solids import Color
from pipeline.scene.vehicles import LIVERIES, PAINTS, VehicleKind

SIGHT = 190.0
"""Metres; what is farther is not drawn."""
PLOT = 20.0
"""Metres of street that a house or a garden takes."""
BAY = 6.0
"""Metres a parking bay, as painted on the ground."""
CROSSING = 140.0
"""Metres from one zebra crossing to the next, give or take."""
STRIPES = 3.2
"""Metres across a zebra crossing."""
LAMP_STEP = 10.0

Side = Literal[-1, 1]
"""Left, right."""
Front = Literal["none", "hedge", "wall", "fence"]


@dataclass(frozen=True, slots=True)
class Green:
    """A tree, or below 2.5 m a bush."""

    s: float
    x: float
    height: float
    style: int


@dataclass(frozen=True, slots=True)
class House:
    """A house whose front stands at x from `start` to `end`; it reaches away from the road."""

    start: float
    end: float
    x: float
    side: Side
    style: int


@dataclass(frozen=True, slots=True)
class Plot:
    """What stands on one side from `start` to `end`, beyond the pavement: to be drawn greens, house, front."""

    start: float
    end: float
    x: float
    greens: tuple[Green, ...]
    house: House | None
    front: Front


@dataclass(frozen=True, slots=True)
class Lamp:
    """A street lamp, its arm over the road."""

    s: float
    x: float
    side: Side


@dataclass(frozen=True, slots=True)
class Sign:
    """A traffic sign on a pole."""

    s: float
    x: float
    kind: int


@dataclass(frozen=True, slots=True)
class Signal:
    """A traffic light, facing the camera or away."""

    s: float
    x: float
    facing: bool


@dataclass(frozen=True, slots=True)
class Zebra:
    """A crossing's stripes, from s on."""

    s: float


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A vehicle with its middle at (s, x), looking along the road or, turned, against it."""

    s: float
    x: float
    kind: VehicleKind
    turned: bool
    paint: Color
    track: int


@dataclass(frozen=True, slots=True)
class Walker:
    """Somebody on the pavement; `phase` of the stride in radians; `away`: seen from behind."""

    s: float
    x: float
    style: int
    phase: float
    away: bool
    size: float
    track: int


@dataclass(frozen=True, slots=True)
class Cyclist:
    """Somebody on a bicycle, ahead of the camera and going the same way."""

    s: float
    x: float
    style: int
    phase: float
    track: int
    rider_track: int


Placed = Green | Lamp | Sign | Signal | Zebra | Vehicle | Walker | Cyclist


@lru_cache(maxsize=4096)
def chances(seed: int, *key: int) -> tuple[float, ...]:
    """Eight numbers in 0 to 1 that belong to a place or an object."""
    return tuple(np.random.default_rng((seed, 20, *key)).uniform(size=8).tolist())


def cells(near: float, far: float, length: float) -> range:
    """The indices of the cells of a length that reach into near … far; never negative."""
    return range(max(math.floor(near / length), 0), math.floor(far / length) + 1)


class Road:
    """The course of the road: y(s), metres to the right of a straight line; its slope is the heading."""

    def __init__(self, seed: int) -> None:
        phases = chances(seed, 0)
        self._waves = ((0.13, 130.0, 2 * math.pi * phases[0]), (0.05, 47.0, 2 * math.pi * phases[1]))
        """Greatest slope, wavelength / 2π in metres, phase."""

    def heading(self, s: float) -> float:
        """Slope of the road against the straight line, -0.18 to 0.18."""
        return sum(slope * math.sin(s / length + phase) for slope, length, phase in self._waves)

    def bend(self, s: float, ahead: NDArray[np.floating]) -> NDArray[np.floating]:
        """How far the road, `ahead` metres from s, lies to the right of where it heads at s."""
        total = -self.heading(s) * ahead
        for slope, length, phase in self._waves:
            total = total - slope * length * (np.cos((s + ahead) / length + phase) - math.cos(s / length + phase))
        return total


@lru_cache(maxsize=1024)
def _plot(seed: int, side: Side, cell: int) -> Plot:
    rng = np.random.default_rng((seed, 21, side + 1, cell))
    edge = WALK_RIGHT if side > 0 else WALK_LEFT
    start, end = cell * PLOT, (cell + 1) * PLOT
    built, terraced = rng.uniform() < 0.74, rng.uniform() < 0.65
    setback = -0.03 if terraced else rng.uniform(1.0, 2.8)
    first, last = (start, end) if terraced else (start + rng.uniform(0.5, 2), end - rng.uniform(1, 3.5))
    styles = rng.integers(12, size=12).tolist()
    front: Front = "none"
    greens: list[Green] = []
    if built:
        if not terraced:
            fronts: tuple[Front, ...] = ("none", "hedge", "wall", "fence")
            front = fronts[int(rng.integers(4))]
            greens.append(Green(last + 1.2, edge + side * rng.uniform(2, 5), rng.uniform(3.5, 7), styles[0]))
    else:
        gardens: tuple[Front, ...] = ("hedge", "wall", "fence", "none", "none")
        front = gardens[int(rng.integers(5))]
        for k in range(int(rng.integers(4, 7))):
            height = rng.uniform(6.5, 11.5) if k < 4 else rng.uniform(1.2, 2.2)
            greens.append(Green(start + rng.uniform(0, PLOT), edge + side * rng.uniform(0.9, 9), height, styles[k]))
        for k in range(2):
            backdrop = edge + side * 10
            greens.append(Green(start + PLOT * (k + 0.5) / 2, backdrop, rng.uniform(10, 14), styles[k + 8]))
    house = House(first, last, edge + side * setback, side, styles[11]) if built else None
    return Plot(start, end, edge, tuple(sorted(greens, key=lambda green: -green.s)), house, front)


class World:
    """Everything there is, by time.

    Args:
        seed: chooses everything.
        traffic: how many vehicles drive within sight.
        incidents: whether something happens (`pipeline.scene.incidents`); else the drive is a quiet one.
    """

    def __init__(self, seed: int, traffic: int, incidents: bool = False) -> None:
        self.seed, self.traffic, self.incidents = seed, traffic, incidents
        self.road = Road(seed)

    def camera(self, time: float) -> float:
        """Metres along the road of the camera, `time` seconds after the start."""
        time = moving_time(time) if self.incidents else time
        return 400 + 97 * (self.seed % 31) + 10.5 * time - 4 * math.cos(0.31 * time + self.seed % 7)

    def sway(self, time: float) -> float:
        """Metres that the camera is to the right of its lane's middle."""
        return 0.12 * math.sin(0.43 * time + self.seed % 7)

    def plots(self, s: float, side: Side) -> Iterator[Plot]:
        """The plots of one side within sight of s, from near to far."""
        for cell in cells(s, s + SIGHT, PLOT):
            yield _plot(self.seed, side, cell)

    def ahead(self, time: float) -> Iterator[Placed]:
        """All but the plots that may be within sight of the camera, in any order."""
        s = self.camera(time)
        for index in cells(s - 40, s + SIGHT, CROSSING):
            start = self._crossing(index)
            yield Zebra(start)
            yield Signal(start, ROAD_RIGHT + 0.5, facing=True)
            yield Signal(start, ROAD_LEFT - 0.5, facing=False)
        for side in (-1, 1):
            yield from self._furniture(s, side)
            yield from self._parked(s, side)
            yield from self._walkers(s, side, time)
        yield from self._leading(s, time)
        yield from self._oncoming(s, time)
        yield from self._cyclists(s, time)
        if self.incidents:
            yield from self._staged(s, time)

    def _staged(self, s: float, time: float) -> Iterator[Vehicle | Walker]:
        """Who cuts in, and who crosses the road."""
        if (passing := overtaking(time)) is not None:
            yield Vehicle(s + passing[0], passing[1], "saloon", False, PAINTS[5], 310_000_000)
        if (walking := crossing(time)) is not None:
            nearest, x = walking
            at = self.camera(nearest) + 14
            yield Walker(at, x, 5, 5.6 * time, True, 1.0, 910_000_000)

    def _crossing(self, index: int) -> float:
        return index * CROSSING + 40 * chances(self.seed, 1, index)[0]

    def _furniture(self, s: float, side: Side) -> Iterator[Placed]:
        """A place every ten metres: lamp, tree, sign or nothing."""
        kerb = ROAD_RIGHT if side > 0 else ROAD_LEFT
        for cell in cells(s, s + 150, LAMP_STEP):
            chance = chances(self.seed, 2, side + 1, cell)
            leafy = chances(self.seed, 3, side + 1, cell // 9)[0] < 0.6
            at = cell * LAMP_STEP + 2 + 2 * chance[0]
            if cell % 3 == 0:
                yield Lamp(at, kerb + side * 0.5, side)
            elif leafy and chance[1] < 0.75:
                yield Green(at, kerb + side * 0.8, 6.5 + 3 * chance[2], int(6 * chance[3]))
            elif chance[1] > (0.6 if side > 0 else 0.85):
                yield Sign(at, kerb + side * 0.45, int(5 * chance[4]))

    def _parked(self, s: float, side: Side) -> Iterator[Vehicle]:
        crossings = [self._crossing(index) + STRIPES / 2 for index in cells(s - 60, s + SIGHT, CROSSING)]
        for bay in cells(s - BAY, s + 95, BAY):
            chance = chances(self.seed, 4, side + 1, bay)
            full = (0.05, 0.3, 0.85)[int(3 * chances(self.seed, 5, side + 1, bay // 9)[0])]
            at = (bay + 0.5) * BAY + 0.3 * (chance[1] - 0.5)
            if chance[0] < full and all(abs(at - crossing) > 8 for crossing in crossings):
                x = (3.2 if side > 0 else -6.45) + 0.12 * (chance[2] - 0.5)
                track = (100_000_000 if side > 0 else 200_000_000) + bay
                kind = _kind(chance[3], 0)
                yield Vehicle(at, x, kind, side < 0, _paint(chance[4], kind), track)

    def _leading(self, s: float, time: float) -> Iterator[Vehicle]:
        """Vehicles before the camera; they keep about its pace."""
        for k in range((self.traffic + 1) // 3):
            chance = chances(self.seed, 6, k)
            wave = 2 * math.pi * chance[0]
            gap = 15 + 21 * k + 5 * chance[1] + 3.5 * math.sin(0.23 * time + wave)
            gap += lead_gap(time) if self.incidents else 0.0
            x = 0.25 * (chance[2] - 0.5) + 0.1 * math.sin(0.4 * time + wave)
            kind = _kind(chance[3], 0.3) if k else _kind(0.87 * chance[3], 0)  # no van right ahead: it hides the street
            yield Vehicle(s + gap, x, kind, False, _paint(chance[4], kind), 300_000_000 + k)

    def _oncoming(self, s: float, time: float) -> Iterator[Vehicle]:
        count = self.traffic - (self.traffic + 1) // 3
        if not count:
            return
        spacing, moved = max(SIGHT / count, 14.0), 10.0 * time
        for k in cells(s + moved - 6, s + moved + SIGHT, spacing):
            chance = chances(self.seed, 7, k)
            at = (k + 0.1) * spacing + 0.8 * chance[0] * (spacing - 13) - moved
            x = -3.4 + 0.3 * (chance[2] - 0.5)
            kind = _kind(chance[1], 0.22)
            yield Vehicle(at, x, kind, True, _paint(chance[3], kind), 400_000_000 + k)

    def _walkers(self, s: float, side: Side, time: float) -> Iterator[Walker]:
        spacing = 15.0
        for stream, speed in enumerate((1.25, -1.35)):
            moved = speed * time
            for k in cells(s - moved, s - moved + 75, spacing):
                chance = chances(self.seed, 8, side + 1, stream, k)
                if chance[0] < 0.35:
                    continue
                away = 1.4 + 1.7 * chance[2]
                track = 500_000_000 + 100_000_000 * (stream + (2 if side > 0 else 0)) + k
                yield Walker(
                    s=(k + 0.9 * chance[1]) * spacing + moved,
                    x=ROAD_RIGHT + away if side > 0 else ROAD_LEFT - away,
                    style=int(64 * chance[4]),
                    phase=2 * math.pi * chance[3] + 5.6 * time,
                    away=speed > 0,
                    size=0.93 + 0.12 * chance[5],
                    track=track,
                )

    def _cyclists(self, s: float, time: float) -> Iterator[Cyclist]:
        speed, spacing = 4.4, 70.0
        moved = speed * time
        for k in cells(s - moved, s - moved + 90, spacing):
            chance = chances(self.seed, 9, k)
            yield Cyclist(
                s=(k + 0.9 * chance[0]) * spacing + moved,
                x=1.75 + 0.1 * math.sin(time + k),
                style=int(64 * chance[1]),
                phase=5 * time + 6 * chance[2],
                track=900_000_000 + k,
                rider_track=1_000_000_000 + k,
            )


def _kind(chance: float, heavy: float) -> VehicleKind:
    """A kind of vehicle; a share `heavy` are trucks and buses."""
    if chance < heavy:
        return "truck" if chance < 0.6 * heavy else "bus"
    rest = (chance - heavy) / (1 - heavy)
    kinds: tuple[VehicleKind, ...] = ("hatchback", "saloon", "estate", "suv", "hatchback", "saloon", "estate", "van")
    return kinds[min(int(rest * len(kinds)), len(kinds) - 1)]


def _paint(chance: float, kind: VehicleKind) -> Color:
    paints = LIVERIES if kind in ("truck", "bus") else PAINTS
    return paints[min(int(chance * len(paints)), len(paints) - 1)]
