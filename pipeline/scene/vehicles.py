"""What moves in the synthetic street: vehicles as painted solids, people and cyclists as jointed cut-outs.

Model coordinates in metres: x right, y up, z forward; a vehicle stands on y = 0 with its middle at x = z = 0.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from pipeline.scene.solids import RUBBER, Builder, Color, Point, Solid

VehicleKind = Literal["hatchback", "saloon", "estate", "suv", "van", "truck", "bus"]

PAINTS: tuple[Color, ...] = (
    (176, 180, 184), (44, 46, 50), (208, 209, 208), (96, 100, 106), (42, 58, 96), (132, 30, 32), (30, 32, 36),
    (138, 142, 146), (58, 70, 84), (190, 192, 190), (70, 92, 130), (74, 24, 30), (60, 78, 64), (118, 108, 96),
)  # fmt: skip
LIVERIES: tuple[Color, ...] = (
    (196, 160, 58),
    (150, 46, 42),
    (214, 214, 210),
    (52, 84, 128),
    (70, 110, 84),
    (188, 186, 180),
)
"""Of trucks and buses."""

GLASS: Color = (40, 47, 53)
GLOSS: Color = (104, 117, 126)
TRIM: Color = (40, 41, 43)


@dataclass(frozen=True, slots=True)
class _Car:
    length: float = 4.15
    width: float = 1.78
    height: float = 1.47
    shoulder: float = 0.93
    bonnet: float = 0.82
    nose: float = 0.66
    deck: float = 0.93
    cabin: tuple[float, float, float, float] = (0.1, 0.55, 2.0, 2.95)
    """Metres from the rear: foot and top of the rear window, top and foot of the windscreen."""
    taper: float = 0.69
    """Width of the roof against that of the body."""
    wheel: float = 0.31


_CARS: dict[VehicleKind, _Car] = {
    "hatchback": _Car(),
    "saloon": _Car(4.65, 1.82, 1.44, 0.92, 0.82, 0.66, 0.96, (0.75, 1.35, 2.4, 3.3), 0.68),
    "estate": _Car(4.7, 1.82, 1.48, 0.94, 0.83, 0.67, 0.94, (0.08, 0.4, 2.5, 3.35), 0.72),
    "suv": _Car(4.5, 1.88, 1.69, 1.08, 1.0, 0.8, 1.08, (0.08, 0.38, 2.3, 3.1), 0.74, 0.36),
    "van": _Car(4.9, 1.92, 1.95, 1.12, 1.05, 0.85, 1.12, (0.02, 0.1, 3.0, 3.95), 0.86, 0.34),
}


@lru_cache(maxsize=16)
def vehicle(kind: VehicleKind, coarse: bool = False) -> Solid:
    """The solid of a kind of vehicle, looking in the direction z; `coarse` has a quarter of the faces."""
    if kind == "truck":
        return _truck(coarse)
    if kind == "bus":
        return _bus(coarse)
    return _coarse_car(_CARS[kind]) if coarse else _car(_CARS[kind])


def _profile(half: float, scale: float, top: float) -> list[tuple[float, float]]:
    w, rise = half * scale, top - 0.42
    return [
        (0.9 * w, 0.2),
        (0.985 * w, 0.42),
        (w, 0.42 + 0.3 * rise),
        (w, 0.42 + 0.62 * rise),
        (0.985 * w, 0.42 + 0.85 * rise),
        (0.94 * w, top),
    ]


def _cabin(build: Builder, c: _Car) -> tuple[list[list[Point]], list[Point], list[Point]]:
    """The part above the shoulder; returns its flanks, back and windscreen, for the windows."""
    foot, top, rear = 0.93 * c.width / 2, c.taper * c.width / 2, -c.length / 2
    z1, z2, z3, z4 = (rear + z for z in c.cabin)
    low, edge, roof, crest = c.shoulder - 0.03, c.height - 0.03, c.height, rear + c.cabin[1] + 0.25
    back = [(-foot, low, z1), (foot, low, z1), (top, edge, z2), (-top, edge, z2)]
    screen = [(foot, low, z4), (-foot, low, z4), (-top, edge, z3), (top, edge, z3)]
    sides = [[(s * foot, low, z1), (s * foot, low, z4), (s * top, edge, z3), (s * top, edge, z2)] for s in (1, -1)]
    for quad in (*sides, back, screen):
        build.face(quad, paint=1.0, outline=True)
    for z in (z2, z3):
        lid = [(-top, edge, z), (top, edge, z), (0.9 * top, roof, crest), (-0.9 * top, roof, crest)]
        build.face(lid, paint=1.0, outline=True)
    return sides, back, screen


def _car(c: _Car) -> Solid:
    build = Builder(c.length, c.height)
    half, rear, front = c.width / 2, -c.length / 2, c.length / 2
    z4 = rear + c.cabin[3]
    for sign in (1, -1):  # mirrors first: what the body covers of them is not seen
        inner, outer = sign * (half - 0.02), sign * (half + 0.2)
        for z in (z4 - 0.5, z4 - 0.38):
            y = c.shoulder
            mirror = [(inner, y, z), (outer, y + 0.02, z), (outer, y + 0.15, z), (inner, y + 0.14, z)]
            build.face(mirror, paint=0.8, outline=True, ahead=1 if z > z4 - 0.4 else -1)
    build.treads(half - 0.03, rear + 0.72, c.wheel, 0.2)
    build.treads(half - 0.03, front - 0.78, c.wheel, 0.2)
    for z, lean in ((rear + 0.3, -0.05), (front - 0.3, 0.05)):
        under = [(-0.7, 0.14, z), (0.7, 0.14, z), (0.7, 0.3, z + lean), (-0.7, 0.3, z + lean)]
        build.face(under, RUBBER, outline=True)
    rings = [
        (rear, _profile(half, 0.9, c.deck - 0.05)),
        (rear + 0.16, _profile(half, 0.985, c.deck)),
        (rear + 0.9, _profile(half, 1.0, c.shoulder)),
        (rear + c.cabin[3], _profile(half, 1.0, c.shoulder - 0.02)),
        (front - 0.35, _profile(half, 0.97, c.bonnet)),
        (front, _profile(half, 0.84, c.nose)),
    ]
    build.loft(rings, [(TRIM, 0.35, 0.8), (TRIM, 1.0, 0.8), (TRIM, 1.0, 0.92), (TRIM, 1.0, 1.02), (TRIM, 1.0, 1.16)])
    for z in (rear + 0.74, front - 0.8):
        build.wheel(half + 0.012, z, c.wheel)
    sides, back, screen = _cabin(build, c)
    for quad in sides:
        for left, right in ((0.05, 0.47), (0.51, 0.9)):
            build.quad(quad, left, right, 0.12, 0.88, GLASS)
            build.quad(quad, left, right, 0.6, 0.88, GLOSS, 0.8)
    for quad in (back, screen):
        build.quad(quad, 0.05, 0.95, 0.06, 0.92, GLASS)
        build.quad(quad, 0.09, 0.91, 0.55, 0.9, GLOSS, 0.85)
        for seat in (0.27, 0.73):
            build.quad(quad, seat - 0.1, seat + 0.1, 0.06, 0.5, (24, 27, 30))
    _car_ends(build, c, half, rear - 0.012, front + 0.012)
    for sign in (1, -1):
        x = sign * (half + 0.02)
        for low, high, a, b in (
            (c.shoulder - 0.18, c.shoulder - 0.14, rear + 1.35, rear + 1.5),
            (0.4, c.shoulder - 0.04, z4 - 1.12, z4 - 1.09),
        ):
            build.face([(x, low, a), (x, low, b), (x, high, b), (x, high, a)], TRIM)
    return build.solid(c.width)


def _car_ends(build: Builder, c: _Car, half: float, tail: float, face: float) -> None:
    """Lights, plates, bumpers and grille."""
    top = c.deck - 0.1
    build.patch((0.2, 0.78 * half), (0.2, 0.33), tail, TRIM)
    build.patch((0.0, 0.8 * half), (0.44, 0.465), tail, (30, 30, 32))
    build.patch((0.6 * half, 0.885 * half), (top - 0.24, top), tail, (156, 22, 24), 1.2)
    build.patch((0.62 * half, 0.8 * half), (top - 0.11, top - 0.03), tail, (226, 74, 60), 1.2)
    build.patch((0.62 * half, 0.8 * half), (top - 0.22, top - 0.15), tail, (214, 200, 190), 1.1)
    build.plate((top - 0.26, top - 0.15), tail, (222, 222, 216), 1.2)
    build.patch((-0.34, 0.34), (top - 0.1, top - 0.06), tail, (150, 152, 154), 1.1, both=False)
    build.patch((0.42 * half, 0.8 * half), (c.nose - 0.14, c.nose - 0.01), face, (228, 233, 236), 1.25)
    build.patch((0.46 * half, 0.62 * half), (c.nose - 0.12, c.nose - 0.03), face, (250, 250, 246), 1.3)
    build.patch((-0.44 * half, 0.44 * half), (c.nose - 0.17, c.nose - 0.02), face, (26, 27, 29), both=False)
    build.patch((-0.42 * half, 0.42 * half), (c.nose - 0.1, c.nose - 0.085), face, (150, 152, 154), both=False)
    build.plate((0.36, 0.46), face, (226, 226, 220), 1.2)
    build.patch((-0.7 * half, 0.7 * half), (0.22, 0.33), face, TRIM, both=False)


def _coarse_car(c: _Car) -> Solid:
    build = Builder(c.length, c.height)
    half, rear, front = c.width / 2, -c.length / 2, c.length / 2
    for z in (rear + 0.1, front - 0.1):
        _end(build, half - 0.06, 0.0, 0.3, z, RUBBER, 0)

    def profile(scale: float, top: float) -> list[tuple[float, float]]:
        return [(0.93 * half * scale, 0.2), (half * scale, 0.5), (0.96 * half * scale, top)]

    rings = [
        (rear, profile(0.96, c.deck)),
        (rear + c.cabin[3], profile(1.0, c.shoulder)),
        (front, profile(0.88, c.nose)),
    ]
    build.loft(rings, [(TRIM, 0.6, 0.85), (TRIM, 1.0, 1.0)])
    for z in (rear + 0.74, front - 0.8):
        build.wheel(half + 0.012, z, c.wheel, coarse=True)
    sides, back, screen = _cabin(build, c)
    for quad in sides:
        build.quad(quad, 0.06, 0.9, 0.12, 0.88, GLASS, 1.15)
    for quad in (back, screen):
        build.quad(quad, 0.05, 0.95, 0.08, 0.92, GLASS, 1.15)
    top, tail, face = c.deck - 0.1, rear - 0.012, front + 0.012
    build.patch((0.6 * half, 0.885 * half), (top - 0.24, top), tail, (166, 30, 30), 1.2)
    build.plate((top - 0.26, top - 0.15), tail, (222, 222, 216), 1.2)
    build.patch((0.42 * half, 0.8 * half), (c.nose - 0.14, c.nose - 0.01), face, (236, 240, 242), 1.25)
    build.patch((-0.42 * half, 0.42 * half), (c.nose - 0.16, c.nose - 0.03), face, (34, 35, 37), both=False)
    build.plate((0.36, 0.46), face, (226, 226, 220), 1.2)
    return build.solid(c.width)


def _sides(
    build: Builder,
    half: float,
    low: float,
    high: float,
    rear: float,
    front: float,
    color: Color,
    paint: float,
    step: float,
) -> None:
    """Flanks in pieces of at most `step` metres (so that what is behind the camera can be left out) and a roof."""
    cuts = np.linspace(rear, front, max(math.ceil((front - rear) / step), 1) + 1)
    for a, b in itertools.pairwise(cuts.tolist()):
        for sign in (1, -1):
            x = sign * half
            build.face([(x, low, a), (x, low, b), (x, high, b), (x, high, a)], color, paint, True)
        build.face([(-half, high, a), (half, high, a), (half, high, b), (-half, high, b)], color, paint, True)


def _end(
    build: Builder, half: float, low: float, high: float, z: float, color: Color, paint: float, light: float = 1.0
) -> None:
    build.face([(-half, low, z), (half, low, z), (half, high, z), (-half, high, z)], color, paint, True, light)


def _truck(coarse: bool) -> Solid:
    length, half, height = 8.2, 1.22, 3.5
    build = Builder(length, height)
    rear, front = -length / 2, length / 2
    axles = (rear + 1.4, rear + 2.5, front - 1.1)
    for z in axles:
        build.treads(half - 0.04, z, 0.48, 0.34)
    _sides(build, half - 0.3, 0.55, 1.0, rear + 0.1, front - 0.4, (44, 44, 46), 0, 20.0 if coarse else 1.5)
    _end(build, half - 0.3, 0.55, 1.0, rear + 0.1, (40, 40, 42), 0)
    for z in axles:
        build.wheel(half - 0.02, z, 0.48, coarse)
    _sides(build, half - 0.06, 0.6, 2.75, front - 2.0, front, TRIM, 1.0, 20.0 if coarse else 1.5)
    _end(build, half - 0.06, 0.6, 2.75, front, TRIM, 1.0)
    _sides(build, half, 0.98, height, rear, front - 2.15, (150, 150, 148), 0.55, 20.0 if coarse else 1.5)
    _end(build, half, 0.98, height, front - 2.15, (150, 150, 148), 0.55)
    _end(build, half, 0.98, height, rear, (150, 150, 148), 0.55)
    tail, face = rear - 0.02, front + 0.02
    build.patch((-0.02, 0.02), (1.05, height - 0.08), tail, (110, 110, 110), both=False)
    build.patch((0.28, 0.32), (1.1, height - 0.15), tail, (150, 150, 150))
    build.patch((half - 0.08, half), (0.98, height), tail, (150, 150, 150))
    build.patch((-half, half), (height - 0.09, height), tail, (150, 150, 150), both=False)
    build.patch((-half, half), (0.86, 1.02), tail, (70, 70, 72), both=False)
    build.patch((-1.05, 1.05), (0.45, 0.57), tail, (186, 186, 180), both=False)
    build.patch((0.72, 1.12), (0.74, 0.88), tail, (170, 26, 26), 1.2)
    build.plate((0.66, 0.8), tail, (220, 220, 214))
    build.patch((0.0, half - 0.15), (1.55, 2.5), face, GLASS)
    build.patch((0.05, half - 0.2), (2.05, 2.45), face, GLOSS, 0.85)
    build.patch((0.0, 0.75), (0.85, 1.4), face, (34, 35, 37))
    build.patch((-half + 0.08, half - 0.08), (0.36, 0.66), face, (58, 59, 61), both=False)
    build.patch((0.78, 1.08), (0.72, 0.92), face, (230, 234, 236), 1.25)
    build.plate((0.62, 0.74), face, (224, 224, 218))
    build.patch((half - 0.02, half + 0.2), (1.7, 2.2), front - 0.2, TRIM)
    for sign in (1, -1):
        x = sign * (half - 0.05)
        build.face(
            [(x, 1.6, front - 1.1), (x, 1.6, front - 0.15), (x, 2.5, front - 0.25), (x, 2.5, front - 1.1)], GLASS
        )
    return build.solid(2 * half)


def _bus(coarse: bool) -> Solid:
    length, half, height = 11.5, 1.26, 3.05
    build = Builder(length, height)
    rear, front = -length / 2, length / 2
    for z in (rear + 3.0, front - 2.6):
        build.treads(half - 0.04, z, 0.48, 0.3)
    _sides(build, half, 0.32, height, rear, front, TRIM, 1.0, 20.0 if coarse else 1.5)
    _end(build, half, 0.32, height, rear, TRIM, 1.0)
    _end(build, half, 0.32, height, front, TRIM, 1.0)
    for z in (rear + 3.0, front - 2.6):
        build.wheel(half + 0.02, z, 0.48, coarse)
    panes = np.linspace(rear + 0.3, front - 0.3, 9).tolist()
    for a, b in itertools.pairwise(panes):
        for sign in (1, -1):
            x = sign * (half + 0.015)
            build.face([(x, 1.35, a + 0.06), (x, 1.35, b - 0.06), (x, 2.5, b - 0.06), (x, 2.5, a + 0.06)], GLASS)
            build.face(
                [(x, 2.0, a + 0.06), (x, 2.0, b - 0.06), (x, 2.5, b - 0.06), (x, 2.5, a + 0.06)], GLOSS, light=0.8
            )
    tail, face = rear - 0.02, front + 0.02
    build.patch((0.0, half - 0.2), (1.75, 2.6), tail, GLASS)
    build.patch((0.0, half - 0.28), (2.2, 2.55), tail, GLOSS, 0.8)
    build.patch((-0.8, 0.8), (0.75, 1.4), tail, (60, 61, 63), both=False)
    build.patch((half - 0.26, half - 0.06), (0.7, 1.5), tail, (164, 26, 26), 1.2)
    build.patch((-half, half), (0.32, 0.55), tail, TRIM, both=False)
    build.patch((0.0, half - 0.1), (0.95, 2.5), face, GLASS)
    build.patch((0.05, half - 0.15), (1.8, 2.45), face, GLOSS, 0.85)
    build.patch((-0.95, 0.95), (2.58, 2.9), face, (30, 30, 30), both=False)
    build.patch((-0.6, 0.6), (2.66, 2.82), face, (236, 170, 60), 1.2, both=False)
    build.patch((half - 0.5, half - 0.12), (0.55, 0.75), face, (230, 234, 236), 1.25)
    build.patch((-half, half), (0.32, 0.5), face, TRIM, both=False)
    build.plate((0.5, 0.62), face, (224, 224, 218))
    return build.solid(2 * half)
