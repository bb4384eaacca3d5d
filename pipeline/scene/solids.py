"""Bodies of flat faces, and what builds them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
Float = NDArray[np.float32]
Point = tuple[float, float, float]

CORNERS = 12
"""Every polygon is stored with this many corners, the last one repeated."""
RUBBER: Color = (26, 26, 28)


@dataclass(frozen=True, slots=True)
class Solid:
    """A vehicle's surface, drawn in order.

    Attributes:
        corners: (P, CORNERS, 3) float32, anticlockwise seen from outside; the last one is repeated.
        count: (P,) int, how many corners a face really has.
        color: (P, 3) float32 and paint: (P,) float32: a face's colour is color + paint · the vehicle's own paint.
        normal: (P, 3) float32, outwards; offset: (P,) float32, normal · any corner.
        worth: (P,) float32: the face is worth drawing where a pixel is smaller than this many square metres.
        plate: (P,) bool: whether the face is a number plate.
        outline: (P,) bool: without these the silhouette would lack something; what lies on them need not be labelled.
        length, width, height: metres.
    """

    corners: Float
    count: NDArray[np.int_]
    color: Float
    paint: Float
    normal: Float
    offset: Float
    worth: Float
    outline: NDArray[np.bool_]
    plate: NDArray[np.bool_]
    length: float
    width: float
    height: float


DISCS: tuple[tuple[float, float, Color], ...] = (
    (1.18, 0.03, (18, 18, 20)),
    (1.0, 0.0, RUBBER),
    (0.62, 0.0, (138, 140, 142)),
    (0.3, 0.0, (84, 86, 88)),
)
"""Arch, tyre, rim, hub: radius against the tyre's, metres higher, colour."""


def _area_vector(corners: Float) -> Float:
    """(..., K, 3) polygons → (..., 3): along the normal, as long as the area is large (Newell)."""
    following = np.roll(corners, -1, -2)
    plus, minus = corners + following, corners - following
    parts = [minus[..., b] * plus[..., c] for b, c in ((1, 2), (2, 0), (0, 1))]
    return np.asarray(np.stack(parts, -1).sum(-2) / 2, np.float32)


class Builder:
    """Collects the faces of a solid: x to the right, y ahead, z up, in metres."""

    def __init__(self, length: float, height: float) -> None:
        self.length, self.height = length, height
        self.faces: list[tuple[Float, int, Color, float, float, bool]] = []
        self.plates: set[int] = set()
        """Places in `faces`."""

    def face(
        self,
        points: Sequence[Point],
        color: Color = (0, 0, 0),
        paint: float = 0.0,
        outline: bool = False,
        light: float = 1.0,
        ahead: int = 0,
    ) -> None:
        """A flat polygon that looks outwards, or where `ahead` says, forwards (1) or back (-1); lit by its slope."""
        corners = np.array(points, np.float32)
        normal = _area_vector(corners)
        size = float(np.linalg.norm(normal))
        if size < 1e-6:
            return
        middle = corners.mean(0)
        depth = min(max(float(middle[2]), -0.25 * self.length), 0.25 * self.length)
        outwards = middle - np.array((0, 0.45 * self.height, depth))
        if normal @ outwards < 0 if not ahead else normal[2] * ahead < 0:
            corners, normal = corners[::-1], -normal
        _, up, forward = (normal / size).tolist()
        light *= 0.74 + 0.46 * max(up, 0.0) - 0.22 * max(-up, 0.0) + 0.1 * abs(forward)
        padded = np.concatenate([corners, np.repeat(corners[-1:], CORNERS - len(corners), 0)])
        self.faces.append((padded, len(points), color, paint, light, outline))

    def quad(
        self,
        quad: Sequence[Point],
        left: float,
        right: float,
        low: float,
        high: float,
        color: Color,
        light: float = 1.0,
    ) -> None:
        """A part of a four-cornered face (corners: low left, low right, high right, high left), by shares 0 to 1."""
        a, b, c, d = (np.array(p, float) for p in quad)

        def at(x: float, y: float) -> Point:
            p = (a * (1 - x) + b * x) * (1 - y) + (d * (1 - x) + c * x) * y
            return (float(p[0]), float(p[1]), float(p[2]))

        self.face([at(left, low), at(right, low), at(right, high), at(left, high)], color, light=light)

    def patch(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        z: float,
        color: Color,
        light: float = 1.15,
        both: bool = True,
    ) -> None:
        """An upright rectangle across the vehicle at z, and its mirror image."""
        for sign in (1, -1) if both else (1,):
            self.face(
                [(sign * x[0], y[0], z), (sign * x[1], y[0], z), (sign * x[1], y[1], z), (sign * x[0], y[1], z)],
                color,
                light=light,
            )

    def plate(self, y: tuple[float, float], z: float, color: Color, light: float = 1.15) -> None:
        """A number plate, 52 cm wide, across the vehicle at z."""
        self.plates.add(len(self.faces))
        self.patch((-0.26, 0.26), y, z, color, light, both=False)

    def loft(
        self, rings: Sequence[tuple[float, Sequence[tuple[float, float]]]], bands: Sequence[tuple[Color, float, float]]
    ) -> None:
        """A skin over mirrored profiles: (z, [(x, y) from below to the top]); `bands` colour, paint and light of each
        strip between two points of the profile; the lid and the two ends take them too."""
        for (z1, near), (z2, far) in itertools.pairwise(rings):
            for j, (color, paint, light) in enumerate(bands):
                (xa, ya), (xb, yb), (xc, yc), (xd, yd) = near[j], near[j + 1], far[j + 1], far[j]
                for sign in (1, -1):
                    corners = [(sign * xa, ya, z1), (sign * xb, yb, z1), (sign * xc, yc, z2), (sign * xd, yd, z2)]
                    self.face(corners, color, paint, True, light)
            (xa, ya), (xb, yb) = near[-1], far[-1]
            color, paint, light = bands[-1]
            self.face([(-xa, ya, z1), (xa, ya, z1), (xb, yb, z2), (-xb, yb, z2)], color, paint, True, light)
        for z, profile in (rings[0], rings[-1]):
            for j, (color, paint, light) in enumerate(bands):
                (xa, ya), (xb, yb) = profile[j], profile[j + 1]
                self.face([(-xa, ya, z), (xa, ya, z), (xb, yb, z), (-xb, yb, z)], color, paint, True, light)

    def wheel(self, x: float, z: float, radius: float, coarse: bool = False) -> None:
        """A pair of wheels on the flanks: arch, tyre, rim and hub."""
        for sign in (1, -1):
            for size, lift, color in DISCS[1:3] if coarse else DISCS:
                angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
                disc = [
                    (sign * x, radius + lift + size * radius * math.sin(a), z + size * radius * math.cos(a))
                    for a in angles
                ]
                self.face([(px, max(py, 0.0), pz) for px, py, pz in disc], color, outline=size <= 1, light=1.2)

    def treads(self, x: float, z: float, radius: float, wide: float) -> None:
        """The wheels' backs and fronts, seen below the bumper."""
        for sign in (1, -1):
            for offset in (-radius, radius):
                xs = sorted((sign * x, sign * (x - wide)))
                corners = [
                    (xs[0], 0.0, z + 0.4 * offset),
                    (xs[1], 0.0, z + 0.4 * offset),
                    (xs[1], radius, z + offset),
                    (xs[0], radius, z + offset),
                ]
                self.face(corners, RUBBER, outline=True)

    def solid(self, width: float) -> Solid:
        corners, counts, colors, paints, lights, outlines = zip(*self.faces, strict=True)
        shape = np.stack(corners).astype(np.float32)
        light, paint = np.array(lights, np.float32), np.array(paints, np.float32)
        area = _area_vector(shape)
        size = np.linalg.norm(area, axis=1)
        normal = area / size[:, None]
        return Solid(
            corners=shape,
            count=np.array(counts),
            color=np.array(colors, np.float32) * (np.clip(light, 0, 1.3) * (1 - paint))[:, None],
            paint=paint * light,
            normal=normal,
            offset=(normal * shape[:, 0]).sum(1),
            worth=size / np.where(outlines, np.float32(0.6), np.float32(4)),
            outline=np.array(outlines),
            plate=np.isin(np.arange(len(self.faces)), [*self.plates]),
            length=self.length,
            width=width,
            height=self.height,
        )


def dim(color: Color, factor: float) -> Color:
    """The colour in less light."""
    return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))
