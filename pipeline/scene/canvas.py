"""What the drive is painted on: colours, classes and haze by distance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from pipeline.frame import Box
from pipeline.scene.cover import Cover, Region
from pipeline.scene.houses import HousePaint, houses
from pipeline.scene.paint import HAZE, RIM, Picture, Sprite, Surface, as_picture, garden_wall
from pipeline.scene.plants import Plant, bushes, hedge, trees
from pipeline.scene.solids import Color
from pipeline.scene.street import SIGHT

CLASS = {info.name: info.id for info in CITYSCAPES_CLASSES}
CAMERA_HEIGHT = 1.4
NEAR = 2.0
"""Metres; what is nearer is not drawn."""
LARGE = 40_000
"""Pixels from which on plants are placed to whole pixels."""
SMALL = 128
"""Pixels up to which a plant is drawn in one."""
FIRST_THING = 32
"""Slots below are class ids of what is not counted; from here on each thing in sight has one of its own."""
SUBPIXEL = 4
"""Bits behind the point of a corner's coordinates: 1/16 pixel."""

Stroke = Callable[[], None]
"""Draws something."""


def haze(z: float) -> float:
    """Share of haze in what is z metres away."""
    return 0.72 * (1 - math.exp(-max(z - 10.0, 0.0) / 185))


def hazed(color: Color, z: float) -> Color:
    """A colour seen from z metres away."""
    return mixed(color, haze_steps(z))


def haze_steps(z: float) -> int:
    """The haze z metres away in 128ths."""
    return round(128 * haze(z))


@lru_cache(maxsize=4096)
def mixed(color: Color, steps: int) -> Color:
    """The colour with as much haze as the steps say."""
    share = steps / 128
    r, g, b = (round(min(own, 255) * (1 - share) + far * share) for own, far in zip(color, HAZE, strict=True))
    return (r, g, b)


@lru_cache(maxsize=256)
def _haze_table(steps: int, light: int) -> Picture:
    """(256, 1, 4) look-up table for RGBA: a share of haze in 32nds, a brightness in percent; alpha stays."""
    own = np.arange(256.0)[:, None, None]
    table = np.repeat(own, 4, 2)
    table[..., :3] = own * (light / 100) * (1 - steps / 32) + np.array(HAZE) * (steps / 32)
    return np.clip(table, 0, 255).astype(np.uint8)


@lru_cache(maxsize=384)
def _hazy_surface(surface: Surface, across: int, down: int, steps: int, light: int) -> Picture:
    return as_picture(cv2.LUT(surface.shrunk(across, down), _haze_table(steps, light)))


@lru_cache(maxsize=384)
def _hazy_sprite(sprite: Sprite, level: int, steps: int) -> Picture:
    return as_picture(cv2.LUT(sprite.levels[level], _haze_table(steps, 100)))


@lru_cache(maxsize=32)
def ring(corners: int, turn: float) -> NDArray[np.float64]:
    """(corners, 2): a regular polygon of radius 1 in pixels (y down), turned anticlockwise by radians."""
    angles = turn + np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([np.cos(angles), -np.sin(angles)], 1)


@dataclass(frozen=True, slots=True)
class Paint:
    """The textures of one town at one resolution."""

    houses: tuple[HousePaint, ...]
    trees: tuple[Plant, ...]
    bushes: tuple[Plant, ...]
    fronts: dict[str, tuple[Surface, float, str]]
    """Surface, metres high, class."""

    @classmethod
    def mix(cls, seed: int, detail: float) -> Paint:
        fronts = {
            "hedge": (hedge(seed, detail), 1.1, "vegetation"),
            "wall": (garden_wall(seed, detail), 1.15, "wall"),
        }
        return cls(houses(seed, detail), trees(seed, detail), bushes(seed, detail), fronts)


class Lens(NamedTuple):
    """How the camera sees: size of the picture, focal length and height of the horizon from the top, all in pixels."""

    width: int
    height: int
    focal: float
    horizon: float


class Canvas:
    """Picture and, if it is to be labelled, slots (which class or thing each pixel belongs to), and the camera they are
    drawn through.

    The picture is RGBA while it is drawn, its alpha meaning nothing: OpenCV warps four channels twice as fast as three.
    """

    def __init__(self, width: int, height: int, focal: float, horizon: float, labelled: bool) -> None:
        self.width, self.height, self.focal, self.horizon = width, height, focal, horizon
        self.picture = np.empty((height, width, 4), np.uint8)
        self.slots = np.empty((height, width), np.uint8) if labelled else None
        self._centre = np.array((width / 2, horizon), np.float32)
        self.cover = Cover(width, height)
        self._things: list[tuple[int, int, Region]] = []
        self._private: list[tuple[str, int, NDArray[np.int32]]] = []

    def outside(self, x: float, z: float, half_width: float) -> bool:
        """Whether something at camera X, z metres ahead at its farthest, is beside the picture."""
        return z < NEAR or z > SIGHT or (abs(x) - half_width) * self.focal > z * (self.width / 2 + 2)

    def in_sight(self, x: float, z: float, half_width: float, height: float, half_length: float = 0.4) -> bool:
        """Whether anything in a box on the ground is in the picture and not hidden; all in metres, generously."""
        if self.outside(x, z + half_length, half_width):
            return False
        near, far = max(z - half_length, 0.5), z + half_length
        left, right, up = x - half_width, x + half_width, height - CAMERA_HEIGHT
        u1 = self.width / 2 + self.focal * left / (near if left < 0 else far)
        u2 = self.width / 2 + self.focal * right / (far if right < 0 else near)
        v1 = self.horizon - self.focal * up / (near if up > 0 else far)
        v2 = self.horizon + self.focal * CAMERA_HEIGHT / near
        return self.cover.visible(int(u1) - 2, int(v1) - 2, int(u2) + 3, int(v2) + 3) is not None

    def thing(self, class_name: str, track: int, region: Region) -> int | None:
        """A slot for one more counted thing that will be drawn inside a region; None when there are too many."""
        if FIRST_THING + len(self._things) > 255:
            return None
        self._things.append((CLASS[class_name], track, region))
        return FIRST_THING + len(self._things) - 1

    def label(self) -> Picture:
        """(H, W) uint8 class ids."""
        assert self.slots is not None
        table = np.arange(256, dtype=np.uint8)
        table[FIRST_THING : FIRST_THING + len(self._things)] = [class_id for class_id, _, _ in self._things]
        return as_picture(cv2.LUT(self.slots, table))

    def tracks(self) -> NDArray[np.int32]:
        """(H, W) int32: the track number of the thing that each pixel is of, 0 where it is of none."""
        assert self.slots is not None
        table = np.zeros(256, np.int32)
        table[FIRST_THING : FIRST_THING + len(self._things)] = [track for _, track, _ in self._things]
        return table[self.slots]

    def boxes(self) -> Iterator[Box]:
        """What is left to see of each thing after all that was drawn before it."""
        assert self.slots is not None
        for slot, (class_id, track, (x1, y1, x2, y2)) in enumerate(self._things, FIRST_THING):
            own = (self.slots[y1:y2, x1:x2] == slot).view(np.uint8)
            left, top, width, height = cv2.boundingRect(own)
            if width:
                corners = (float(x1 + left), float(y1 + top), float(x1 + left + width), float(y1 + top + height))
                name = CITYSCAPES_CLASSES[class_id].name
                yield Box(*corners, class_id, name, 1.0, "synthetic", track)

    def private(self, name: str, slot: int, pixels: NDArray[np.floating]) -> None:
        """A part of a thing that tells who it is: a `plate` or a `head`; its corners, (K, 2) in pixels."""
        self._private.append((name, slot, np.asarray(cv2.convexHull(np.round(pixels).astype(np.int32)), np.int32)))

    def private_boxes(self) -> Iterator[Box]:
        """What is left to see of each such part; the class is that of the thing."""
        assert self.slots is not None
        for name, slot, corners in self._private:
            region = self.region(corners[:, 0].astype(np.float32), 0)
            if region is None:
                continue
            x1, y1, x2, y2 = region
            inside = np.zeros((y2 - y1, x2 - x1), np.uint8)
            cv2.fillConvexPoly(inside, corners - np.array((x1, y1), np.int32), 1)
            inside &= (self.slots[y1:y2, x1:x2] == slot).view(np.uint8)
            left, top, width, height = cv2.boundingRect(inside)
            if width:
                class_id, track, _ = self._things[slot - FIRST_THING]
                place = (float(x1 + left), float(y1 + top), float(x1 + left + width), float(y1 + top + height))
                yield Box(*place, class_id, name, 1.0, "synthetic", track)

    def project(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 3) camera coordinates with Z > 0 → (..., 2) pixels; a pixel's middle is at a half."""
        return points[..., :2] * (self.focal / points[..., 2:]) + self._centre

    def point(self, x: float, height: float, z: float) -> tuple[float, float]:
        """Camera X, metres above the ground and metres ahead → pixels."""
        scale = self.focal / z
        return self.width / 2 + scale * x, self.horizon + scale * (CAMERA_HEIGHT - height)

    def region(self, pixels: NDArray[np.floating], margin: int = 1) -> Region | None:
        """The part of the picture (x1, y1, x2, y2; exclusive) that holds these points, or None."""
        left, top, width, height = cv2.boundingRect(pixels.astype(np.float32))
        x1, y1 = max(left - margin, 0), max(top - margin, 0)
        x2, y2 = min(left + width + margin, self.width), min(top + height + margin, self.height)
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def polygon(self, pixels: NDArray[np.floating], color: Color | None, slot: int | None) -> None:
        """A convex polygon, (K, 2) in pixels, into the picture (soft-edged) and the slots."""
        corners = (pixels * 16 - 8).astype(np.int32)
        if color is not None:
            cv2.fillConvexPoly(self.picture, corners, color, cv2.LINE_AA, SUBPIXEL)
        if slot is not None and self.slots is not None:
            cv2.fillConvexPoly(self.slots, corners, slot, cv2.LINE_8, SUBPIXEL)

    def upright(self, x1: float, x2: float, low: float, high: float, z: float, color: Color, slot: int | None) -> None:
        """A rectangle facing the camera, from `low` to `high` metres above the ground."""
        (u1, v1), (u2, v2) = self.point(x1, high, z), self.point(x2, low, z)
        self.polygon(np.array(((u1, v1), (u2, v1), (u2, v2), (u1, v2))), hazed(color, z), slot)

    def disc(
        self, x: float, height: float, radius: float, corners: int, turn: float, z: float, color: Color, slot: int
    ) -> None:
        """A regular polygon facing the camera, its middle `height` metres above the ground."""
        scale = self.focal / z
        middle = (self.width / 2 + scale * x, self.horizon + scale * (CAMERA_HEIGHT - height))
        self.polygon(ring(corners, turn) * (scale * radius) + middle, hazed(color, z), slot)

    def darken(self, rings: Sequence[tuple[NDArray[np.floating], float]]) -> None:
        """Multiply the picture inside convex polygons, of which each lies in the one before."""
        region = self.region(rings[0][0])
        if region is None:
            return
        x1, y1, x2, y2 = region
        keep = np.full((y2 - y1, x2 - x1), 255, np.uint8)
        share = 255.0
        for pixels, factor in rings:
            share *= factor
            corners = ((pixels - (x1 + 0.5, y1 + 0.5)) * 16).astype(np.int32)
            cv2.fillConvexPoly(keep, corners, round(share), cv2.LINE_8, SUBPIXEL)
        part = self.picture[y1:y2, x1:x2]
        cv2.multiply(part, cv2.cvtColor(keep, cv2.COLOR_GRAY2RGBA), part, 1 / 255)

    def surface(
        self,
        region: Region,
        surface: Surface,
        shares: tuple[float, float],
        quad: NDArray[np.floating],
        z: float,
        slot: int,
        light: float,
        outline: NDArray[np.floating] | None = None,
    ) -> None:
        """The part of a surface between two shares of its length, onto a quad in pixels (top left, top right, bottom
        right, bottom left of that part), or what of it lies in a convex outline; sampled at a fitting resolution. Only
        a region is drawn."""
        x1, y1, x2, y2 = region
        rows, columns = surface.picture.shape[:2]
        wide = max(abs(float(quad[1, 0] - quad[0, 0])), 1e-3)
        tall = max(float(quad[3, 1] - quad[0, 1]), 1e-3)
        across = round(math.log2(max(columns * (shares[1] - shares[0]) / wide, 1)))
        down = round(math.log2(max(rows / tall, 1)))
        texture = _hazy_surface(surface, min(across, 6), min(down, 6), round(32 * haze(z)), round(100 * light))
        rows, columns = texture.shape[0] - 2 * RIM, texture.shape[1] - 2 * RIM
        rim = RIM - 0.5
        a, b = shares[0] * columns + rim, shares[1] * columns + rim
        source = np.array(((a, rim), (b, rim), (b, rows + rim), (a, rows + rim)), np.float32)
        corner = (x1 + 0.5, y1 + 0.5)
        matrix = cv2.getPerspectiveTransform(source, (quad - corner).astype(np.float32))
        inside = np.zeros((y2 - y1, x2 - x1), np.uint8)
        corners = (((quad if outline is None else outline) - corner) * 16).astype(np.int32)
        cv2.fillConvexPoly(inside, corners, 255, cv2.LINE_8, SUBPIXEL)
        if self.slots is not None:
            cv2.fillConvexPoly(self.slots[y1:y2, x1:x2], corners, slot, cv2.LINE_8, SUBPIXEL)
        warped = cv2.warpPerspective(texture, matrix, inside.shape[::-1], flags=cv2.INTER_LINEAR)
        cv2.copyTo(warped, inside, self.picture[y1:y2, x1:x2])

    def plant(self, plant: Plant, x: float, z: float, height: float, slot: int) -> Iterator[Stroke]:
        """A plant of some metres' height, standing on the ground: its parts from near to far."""
        scale = self.focal / z
        foot_u, foot_v = self.width / 2 + x * scale, self.horizon + CAMERA_HEIGHT * scale
        for sprite in reversed(plant.parts) if height * scale > SMALL else (plant.whole,):
            left, right, top, bottom = (share * height * scale for share in sprite.place)
            place = (foot_u + left, foot_v - top, foot_u + right, foot_v - bottom)
            x1, y1, x2, y2 = place
            region = self.cover.visible(math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2))
            if region:
                yield partial(self._sprite, region, sprite, place, z, slot)

    def _sprite(
        self, region: Region, sprite: Sprite, place: tuple[float, float, float, float], z: float, slot: int
    ) -> None:
        """What lies in a region of a sprite whose picture reaches over a place (left, top, right, bottom)."""
        (x1, y1, x2, y2), (left, top, right, bottom) = region, place
        rows = sprite.levels[0].shape[0]
        level = min(round(math.log2(max(rows / (bottom - top), 1))), len(sprite.levels) - 1)
        colors = _hazy_sprite(sprite, level, round(32 * haze(z)))
        step_u, step_v = (right - left) / colors.shape[1], (bottom - top) / colors.shape[0]
        if (x2 - x1) * (y2 - y1) > LARGE:
            # Twice as fast, but to whole pixels: what is this large moves by many from frame to frame.
            a, b = math.floor((x1 - left) / step_u), math.ceil((x2 - left) / step_u)
            c, d = math.floor((y1 - top) / step_v), math.ceil((y2 - top) / step_v)
            a, b, c, d = max(a, 0), min(b, colors.shape[1]), max(c, 0), min(d, colors.shape[0])
            u1, u2 = round(left + a * step_u), round(left + b * step_u)
            v1, v2 = round(top + c * step_v), round(top + d * step_v)
            scaled = cv2.resize(colors[c:d, a:b], (max(u2 - u1, 1), max(v2 - v1, 1)))
            x1, y1, x2, y2 = max(x1, u1), max(y1, v1), min(x2, u2), min(y2, v2)
            cut = scaled[y1 - v1 : y2 - v1, x1 - u1 : x2 - u1]
        else:
            matrix = np.array(((step_u, 0, left + step_u / 2 - 0.5 - x1), (0, step_v, top + step_v / 2 - 0.5 - y1)))
            cut = cv2.warpAffine(colors, matrix, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR)
        if cut.size:
            opaque = cv2.threshold(cv2.extractChannel(cut, 3), 127, 255, cv2.THRESH_BINARY)[1]
            cv2.copyTo(cut, opaque, self.picture[y1:y2, x1:x2])
            if self.slots is not None:
                cv2.copyTo(np.full(opaque.shape, slot, np.uint8), opaque, self.slots[y1:y2, x1:x2])
