"""A procedural street: the world as a pure function of (seed, time), its projection, and its drawing.

Picture and label come from the very same polygons and cut-outs, painted from far to near, so the label is exact; the
picture alone has soft edges. Nothing is kept from frame to frame: any frame can be drawn at any time.

The road's middle is the graph of a smooth function, so the world has two coordinates: `s`, metres along, and `x`, metres
to the right of the middle of the camera's lane. Camera coordinates: X right, Y down, Z ahead, metres, pinhole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from pipeline.frame import Box
from pipeline.scene_models import PAINTS, Part, VehicleKind, cyclist, pedestrian, vehicle
from pipeline.scene_textures import (
    GROUND_HALF_WIDTH,
    GROUND_PERIOD,
    HAZE,
    ROAD_LEFT,
    ROAD_RIGHT,
    WALK_LEFT,
    WALK_RIGHT,
    Color,
    Facade,
    Float,
    Picture,
    Sprite,
    bushes,
    facades,
    garden_wall,
    ground_levels,
    hedge,
    sky,
    tree_line,
    trees,
)

MIN_SIDE, MAX_SIDE = 16, 8192
"""Pixels."""
MAX_TRAFFIC = 16

CLASS = {info.name: info.id for info in CITYSCAPES_CLASSES}
CAMERA_HEIGHT = 1.4
SIGHT = 190.0
"""Metres; what is farther is not drawn."""
PLOT = 20.0
"""Metres of street that a house or a garden takes."""
CROSSING = 140.0
"""Metres from one zebra crossing to the next."""
FIRST_THING = 32
"""Slots below are class ids of what is not counted; from here on each thing in sight has one of its own."""

_SUBPIXEL = 4
_OUT = 30_000.0


@dataclass(frozen=True, slots=True)
class Thing:
    """A counted object in sight: its class and the number that stays with it."""

    class_id: int
    track: int


@dataclass(frozen=True, slots=True)
class Plot:
    """What stands beside the street, on one side, from `start` to `end` metres along it."""

    kind: str
    start: float
    end: float
    setback: float
    style: int
    front: str
    greens: tuple[tuple[float, float, float, int], ...]
    """Trees (height above 2.5 m) and bushes: metres along, metres behind the pavement, height, style."""


@lru_cache(maxsize=1024)
def plot(seed: int, side: int, cell: int) -> Plot:
    """The plot on the left (-1) or right (1), from cell·PLOT on."""
    rng = np.random.default_rng((seed, 20, side + 1, cell))
    chance = rng.uniform()
    kind = "house" if chance < 0.74 else "park"
    start, end = cell * PLOT, (cell + 1) * PLOT
    terraced = rng.uniform() < 0.7
    setback = 0.1 if terraced else rng.uniform(0.8, 2.6)
    greens: list[tuple[float, float, float, int]] = []
    front = "none"
    if kind == "house":
        if not terraced:
            start, end = start + rng.uniform(0.5, 2), end - rng.uniform(1, 3.5)
            front = ("none", "hedge", "wall")[int(rng.integers(3))]
            greens += [(end + 1.2, 2.0 + rng.uniform(0, 3), rng.uniform(3.5, 7), int(rng.integers(6)))]
    else:
        front = ("hedge", "wall", "fence", "none")[int(rng.integers(4))]
        for k in range(int(rng.integers(5, 8))):
            height = rng.uniform(6.5, 11.5) if k < 5 else rng.uniform(1.2, 2.2)
            greens.append((start + rng.uniform(0, PLOT), rng.uniform(0.9, 9), height, int(rng.integers(6))))
        greens += [(start + PLOT * (k + 0.5) / 3, 10.0, rng.uniform(9, 13), int(rng.integers(6))) for k in range(3)]
    return Plot(kind, start, end, setback, int(rng.integers(12)), front, tuple(sorted(greens, reverse=True)))


@lru_cache(maxsize=64)
def crossing(seed: int, index: int) -> float:
    """Metres along the road of a zebra crossing's near edge."""
    return index * CROSSING + float(np.random.default_rng((seed, 21, index)).uniform(0, 40))


@lru_cache(maxsize=2048)
def chances(seed: int, *key: int) -> tuple[float, ...]:
    """Eight numbers in 0 to 1 that belong to a place or an object."""
    return tuple(np.random.default_rng((seed, 22, *key)).uniform(size=8).tolist())


def cells(near: float, far: float, length: float) -> range:
    """The indices of the cells of a length that reach into near … far."""
    return range(max(math.floor(near / length), 0), math.floor(far / length) + 1)


class Road:
    """The course of the road: y(s), metres to the right of a straight line; its slope is the heading."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng((seed, 23))
        self.waves = [(slope, length, rng.uniform(0, 2 * math.pi)) for slope, length in ((0.13, 130.0), (0.05, 47.0))]

    def heading(self, s: float) -> float:
        """Slope of the road against the straight line."""
        return sum(slope * math.sin(s / length + phase) for slope, length, phase in self.waves)

    def bend(self, s: float, ahead: NDArray[np.floating]) -> NDArray[np.floating]:
        """How far the road, `ahead` metres from s, lies to the right of where it heads at s."""
        total = -self.heading(s) * ahead
        for slope, length, phase in self.waves:
            total = total - slope * length * (np.cos((s + ahead) / length + phase) - math.cos(s / length + phase))
        return total


class _Canvas:
    """Picture and slots (which class or thing each pixel belongs to), and the view they are drawn from."""

    def __init__(self, picture: Picture, slots: Picture, focal: float, horizon: float) -> None:
        self.picture, self.slots = picture, slots
        self.height, self.width = slots.shape
        self.focal, self.horizon = focal, horizon
        self.things: list[Thing] = []

    def project(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """(..., 3) camera coordinates with Z > 0 → (..., 2) pixels; a pixel's middle is at a half."""
        scale = self.focal / points[..., 2:]
        return points[..., :2] * scale + np.array((self.width / 2, self.horizon))

    def polygon(self, pixels: NDArray[np.floating], color: Color | None, slot: int | None) -> None:
        """A convex polygon, (K, 2) in pixels, into the picture (soft-edged) and the slots."""
        corners = np.clip((pixels - 0.5) * 16, -_OUT * 16, _OUT * 16).astype(np.int32)
        if color is not None:
            cv2.fillConvexPoly(self.picture, corners, color, cv2.LINE_AA, _SUBPIXEL)
        if slot is not None:
            cv2.fillConvexPoly(self.slots, corners, slot, cv2.LINE_8, _SUBPIXEL)

    def upright(self, x1: float, x2: float, low: float, high: float, z: float, color: Color, slot: int | None) -> None:
        """A rectangle facing the camera, from `low` to `high` metres above the ground."""
        u1, u2 = (self.width / 2 + self.focal * x / z for x in (x1, x2))
        v1, v2 = (self.horizon + self.focal * (CAMERA_HEIGHT - y) / z for y in (high, low))
        self.polygon(np.array([(u1, v1), (u2, v1), (u2, v2), (u1, v2)]), hazed(color, z), slot)

    def thing(self, class_name: str, track: int) -> int | None:
        """A slot for one more thing, or None when there are too many."""
        if FIRST_THING + len(self.things) > 255:
            return None
        self.things.append(Thing(CLASS[class_name], track))
        return FIRST_THING + len(self.things) - 1

    def region(self, pixels: NDArray[np.floating], margin: int = 1) -> tuple[int, int, int, int] | None:
        """The part of the picture (x1, y1, x2, y2) that holds these points, or None."""
        x1, y1 = np.floor(pixels.min(0)).astype(int) - margin
        x2, y2 = np.ceil(pixels.max(0)).astype(int) + margin
        x1, y1, x2, y2 = max(int(x1), 0), max(int(y1), 0), min(int(x2), self.width), min(int(y2), self.height)
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def haze(z: float) -> float:
    """Share of haze in what is z metres away."""
    return 0.72 * (1 - math.exp(-max(z - 6.0, 0.0) / 190))


def hazed(color: Sequence[float], z: float) -> Color:
    """A colour seen from z metres away."""
    share = haze(z)
    r, g, b = (round(min(own, 255) * (1 - share) + far * share) for own, far in zip(color, HAZE))
    return (r, g, b)


@lru_cache(maxsize=128)
def _haze_table(steps: int, light: int) -> Picture:
    """(256, 1, 3) look-up table for a share of haze in 64ths and a brightness in percent."""
    own = np.arange(256, dtype=np.float32)[:, None, None] * (light / 100)
    return np.clip(own * (1 - steps / 64) + np.float32(HAZE) * (steps / 64), 0, 255).astype(np.uint8)


def _through_haze(picture: Picture, z: float, light: float = 1.0) -> Picture:
    return cv2.LUT(picture, _haze_table(round(64 * haze(z)), round(100 * light)))


class SyntheticScene:
    """A drive through a town. `frame(index)` is a pure function of the index and of what is given here.

    Args:
        width, height: pixels, MIN_SIDE to MAX_SIDE.
        fps: frames a second.
        seed: chooses everything.
        traffic: how many vehicles drive within sight, 0 to MAX_TRAFFIC.
    """

    def __init__(
        self, width: int = 1280, height: int = 720, fps: Fraction | float = 25, seed: int = 0, traffic: int = 6
    ) -> None:
        self.width, self.height, self.fps, self.seed, self.traffic = width, height, Fraction(fps), seed, traffic
        self.focal = max(width, height * 16 / 9)
        self.horizon = 0.44 * height
        self.road = Road(seed)
        self.detail = 1.0 if self.focal > 900 else 0.5 if self.focal > 450 else 0.25
        self._prepare_sky()
        self._prepare_ground()

    def _prepare_sky(self) -> None:
        self._sky_rows = math.ceil(self.horizon) + 1
        turn = math.ceil(0.2 * self.focal)
        width = self.width + 2 * turn
        self._sky = sky(self.seed, width, self._sky_rows)
        self._sky_slots = np.full((self._sky_rows, width), CLASS["sky"], np.uint8)
        tops = self.horizon - self.focal * 11 / 240 * tree_line(self.seed, width)
        below = np.arange(self._sky_rows)[:, None] + 0.5 > tops
        self._sky[below] = hazed((58, 74, 46), 150)
        self._sky_slots[below] = CLASS["vegetation"]
        self._sky_middle = turn

    def _prepare_ground(self) -> None:
        first = math.ceil(self.horizon)
        rows = np.arange(first, self.height)
        self._row_z = self.focal * CAMERA_HEIGHT / (rows + 0.5 - self.horizon)
        z = np.minimum(self._row_z, 380).astype(np.float32)
        columns = (np.arange(self.width, dtype=np.float32) + np.float32(0.5 - self.width / 2)) / np.float32(self.focal)
        self._bands: list[tuple[int, int, Picture, float, float, Float]] = []
        nearer = 0.0
        for level in ground_levels(self.seed, self.detail):
            inside = np.flatnonzero((z >= nearer) & (z < level.reach))
            nearer = level.reach
            if len(inside):
                a, b = int(inside[0]), int(inside[-1]) + 1
                base = columns * z[a:b, None] * np.float32(level.across)
                base += np.float32(GROUND_HALF_WIDTH * level.across - 0.5)
                self._bands.append((a, b, level.texture, level.along, level.across, base))
        share = np.array([haze(float(depth)) for depth in z])
        self._hazy_rows = int((share > 0.02).sum())
        share = share[: self._hazy_rows, None, None]
        self._haze_keep = np.round(256 * (1 - share)).astype(np.uint16)
        self._haze_add = np.round(256 * share * np.array(HAZE)).astype(np.uint16)

    def travelled(self, time: float) -> float:
        """Metres along the road of the camera, `time` seconds after the start."""
        return 400 + 97 * (self.seed % 31) + 10.5 * time - 4 * math.cos(0.31 * time + self.seed)

    def frame(self, index: int) -> tuple[Picture, Picture, tuple[Box, ...]]:
        """One frame.

        Returns:
            picture: (H, W, 3) uint8 RGB.
            label: (H, W) uint8 trainIds of `CITYSCAPES_CLASSES`; every pixel has one.
            boxes: the visible part of every vehicle, person and bicycle, parked ones too; `track` stays with an object.
        """
        time = float(index / self.fps)
        picture = np.empty((self.height, self.width, 3), np.uint8)
        slots = np.empty((self.height, self.width), np.uint8)
        view = _View(self, _Canvas(picture, slots, self.focal, self.horizon), time)
        view.sky()
        view.ground()
        for _, draw in sorted(view.scenery(), key=lambda item: -item[0]):
            draw()
        picture = cv2.GaussianBlur(picture, (3, 3), 0.55) if self.focal > 450 else picture
        things = view.canvas.things
        table = np.arange(256, dtype=np.uint8)
        table[FIRST_THING : FIRST_THING + len(things)] = [thing.class_id for thing in things]
        boxes = tuple(_visible(slots, things, view.extents))
        return picture, cv2.LUT(slots, table), boxes


def _visible(slots: Picture, things: Sequence[Thing], extents: dict[int, tuple[int, int, int, int]]) -> Iterator[Box]:
    """Boxes of what is left of each thing after all that stands before it."""
    for k, thing in enumerate(things):
        extent = extents.get(FIRST_THING + k)
        if extent is None:
            continue
        x1, y1, x2, y2 = extent
        left, top, width, height = cv2.boundingRect(cv2.compare(slots[y1:y2, x1:x2], FIRST_THING + k, cv2.CMP_EQ))
        if width:
            corner = (float(x1 + left), float(y1 + top), float(x1 + left + width), float(y1 + top + height))
            name = CITYSCAPES_CLASSES[thing.class_id].name
            yield Box(*corner, thing.class_id, name, 1.0, "synthetic", thing.track)


Item = tuple[float, Callable[[], None]]
"""Metres ahead, and what draws it."""


class _View:
    """One frame being drawn."""

    def __init__(self, scene: SyntheticScene, canvas: _Canvas, time: float) -> None:
        self.scene, self.canvas, self.time = scene, canvas, time
        self.seed, self.detail, self.road = scene.seed, scene.detail, scene.road
        self.s = scene.travelled(time)
        self.heading = self.road.heading(self.s)
        self.sway = 0.12 * math.sin(0.43 * time + scene.seed)
        self.extents: dict[int, tuple[int, int, int, int]] = {}

    def across(self, s: float, x: float) -> float:
        """Camera X of the place (s, x)."""
        return x - self.sway + float(self.road.bend(self.s, np.array(s - self.s)))

    def sky(self) -> None:
        scene, canvas = self.scene, self.canvas
        left = scene._sky_middle + round(self.heading * scene.focal)
        left = min(max(left, 0), scene._sky.shape[1] - canvas.width)
        rows = min(scene._sky_rows, canvas.height)
        canvas.picture[:rows] = scene._sky[:rows, left : left + canvas.width]
        canvas.slots[:rows] = scene._sky_slots[:rows, left : left + canvas.width]

    def ground(self) -> None:
        scene, canvas = self.scene, self.canvas
        z = scene._row_z
        first = canvas.height - len(z)
        shift = self.road.bend(self.s, np.minimum(z, 380)) - self.sway
        for a, b, texture, along, across, base in scene._bands:
            map_x = base - (shift[a:b, None] * across).astype(np.float32)
            rows = ((self.s + np.minimum(z[a:b], 380)) % GROUND_PERIOD * along).astype(np.float32)
            map_y = np.repeat(rows[:, None], canvas.width, 1)
            part = canvas.picture[first + a : first + b]
            cv2.remap(texture, map_x, map_y, cv2.INTER_LINEAR, dst=part, borderMode=cv2.BORDER_REPLICATE)
        far = canvas.picture[first : first + scene._hazy_rows]
        far[:] = (far * scene._haze_keep + scene._haze_add) >> 8

        canvas.slots[first:] = CLASS["terrain"]
        v = np.arange(first, canvas.height)
        for left, right, name in (
            (WALK_LEFT, ROAD_LEFT, "sidewalk"),
            (ROAD_RIGHT, WALK_RIGHT, "sidewalk"),
            (ROAD_LEFT, ROAD_RIGHT, "road"),
        ):
            edges = [canvas.width / 2 + canvas.focal * (x + shift) / z - 0.5 for x in (left, right)]
            self._spans(v, edges[0], edges[1], CLASS[name])

    def _spans(self, v: NDArray[np.int_], left: NDArray[np.floating], right: NDArray[np.floating], slot: int) -> None:
        """Fill row after row the pixels whose middle lies between two edges."""
        corners = np.concatenate([np.stack([np.ceil(left), v], 1), np.stack([np.ceil(right) - 1, v], 1)[::-1]])
        cv2.fillPoly(self.canvas.slots, [np.clip(corners, -_OUT, _OUT).astype(np.int32)], slot)

    def scenery(self) -> Iterator[Item]:
        """All that stands on the ground, each with its depth."""
        for side in (-1, 1):
            for cell in cells(self.s, self.s + SIGHT, PLOT):
                yield from self._plot(side, cell)
            for cell in cells(self.s + 6, self.s + SIGHT, 10):
                yield from self._furniture(side, cell)
            yield from self._parked(side)
            yield from self._walkers(side)
        for index in cells(self.s - 10, self.s + SIGHT, CROSSING):
            yield from self._crossing(index)
        yield from self._traffic()
        yield from self._cyclists()

    # What stands still

    def _plot(self, side: int, cell: int) -> Iterator[Item]:
        land = plot(self.seed, side, cell)
        far = (cell + 1) * PLOT - self.s
        if far < 3:
            return
        edge = WALK_RIGHT if side > 0 else WALK_LEFT

        def draw() -> None:
            for s, behind, height, style in land.greens:
                if land.kind == "park" or behind > 0:
                    self._green(s, edge + side * behind, height, style)
            if land.kind == "house":
                self._house(side, land, edge + side * (0.1 + land.setback))
            front = edge + side * 0.15
            if land.front == "hedge":
                self._strip(hedge(self.seed, self.detail), cell * PLOT, far + self.s, front, 1.1, "vegetation")
            elif land.front == "wall":
                self._strip(garden_wall(self.seed, self.detail), cell * PLOT, far + self.s, front, 1.15, "wall")
            elif land.front == "fence":
                self._fence(cell * PLOT, far + self.s, front)

        yield far, draw

    def _house(self, side: int, land: Plot, x: float) -> None:
        front = facades(self.seed, self.detail)[land.style]
        light = 0.97 if side > 0 else 0.88
        z = land.start - self.s
        if z > 2:
            near = self.across(land.start, x)
            self.canvas.upright(
                near, near + side * 11, 0, front.height - 0.4, z, _dim(front.plain, 0.78 * light), CLASS["building"]
            )
            self.canvas.upright(near, near + side * 11, 0, 0.6, z, _dim(front.plain, 0.55 * light), CLASS["building"])
        self._panel(front, land.start, land.end, x, front.height, "building", light)

    def _strip(self, surface: Facade, start: float, end: float, x: float, height: float, name: str) -> None:
        self._panel(surface, start, end, x, height, name, 1.0)

    def _panel(
        self, surface: Facade, start: float, end: float, x: float, height: float, name: str, light: float
    ) -> None:
        """A textured upright surface along the street, in pieces so that each is sampled at a fitting resolution."""
        xs = (self.across(start, x), self.across(end, x))
        z1, z2 = start - self.s, end - self.s
        reach = 0.5 * self.canvas.width / self.canvas.focal + 0.02
        visible = max(z1, 2.0, 0.7 * min(abs(xs[0]), abs(xs[1])) / reach)
        cuts = [visible, *(c for c in (10 * 2 ** (k / 2) for k in range(9)) if visible < c < z2), z2]
        for a, b in zip(cuts[:-1], cuts[1:]):
            if b - a < 0.01:
                continue
            shares = ((a - z1) / (z2 - z1), (b - z1) / (z2 - z1))
            at = [xs[0] + (xs[1] - xs[0]) * share for share in shares]
            quad = self.canvas.project(np.array([(at[0], CAMERA_HEIGHT - height, a), (at[1], CAMERA_HEIGHT - height, b),
                                                 (at[1], CAMERA_HEIGHT, b), (at[0], CAMERA_HEIGHT, a)]))  # fmt: skip
            self._warp(surface, shares, quad, (a + b) / 2, CLASS[name], light)

    def _warp(
        self, surface: Facade, shares: Sequence[float], quad: NDArray[np.floating], z: float, slot: int, light: float
    ) -> None:
        """The part of a surface between two shares of its length, onto a quad (top near, top far, bottom far, near)."""
        canvas = self.canvas
        region = canvas.region(quad)
        if region is None:
            return
        canvas.polygon(quad, hazed(_dim(surface.plain, light), z), slot)
        rows, columns = surface.picture.shape[:2]
        wide = max(abs(quad[1, 0] - quad[0, 0]), 1e-3)
        tall = max(quad[3, 1] - quad[0, 1], 1e-3)
        across = math.floor(math.log2(max(columns * (shares[1] - shares[0]) / wide, 1)))
        down = math.floor(math.log2(max(rows / tall, 1)))
        texture = _through_haze(surface.shrunk(min(across, 6), min(down, 6)), z, light)
        rows, columns = texture.shape[:2]
        a, b = shares[0] * columns - 0.5, shares[1] * columns - 0.5
        source = np.array([(a, -0.5), (b, -0.5), (b, rows - 0.5), (a, rows - 0.5)], np.float32)
        x1, y1, x2, y2 = region
        matrix = cv2.getPerspectiveTransform(source, (quad - (x1 + 0.5, y1 + 0.5)).astype(np.float32))
        inside = np.zeros((y2 - y1, x2 - x1), np.uint8)
        corners = ((quad - (x1 + 0.5, y1 + 0.5)) * 16).astype(np.int32)
        cv2.fillConvexPoly(inside, corners, 255, cv2.LINE_8, _SUBPIXEL)
        warped = cv2.warpPerspective(
            texture, matrix, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        cv2.copyTo(warped, inside, canvas.picture[y1:y2, x1:x2])

    def _green(self, s: float, x: float, height: float, style: int) -> None:
        """A tree, or below 2.5 m a bush."""
        z = s - self.s
        if not 2 < z < SIGHT:
            return
        kinds = trees(self.seed, self.detail) if height > 2.5 else bushes(self.seed, self.detail)
        self._sprite(kinds[style % len(kinds)], self.across(s, x), z, height, CLASS["vegetation"])

    def _sprite(self, sprite: Sprite, x: float, z: float, height: float, slot: int) -> None:
        canvas = self.canvas
        scale = canvas.focal / z
        full = sprite.levels[0][1].shape
        size = np.array((height * full[1] / full[0], height)) * scale
        foot = np.array((canvas.width / 2 + x * scale, canvas.horizon + CAMERA_HEIGHT * scale))
        low = foot - size * (0.5, 1)
        region = canvas.region(np.stack([low, low + size]), 0)
        if region is None:
            return
        x1, y1, x2, y2 = region
        level = min(max(math.floor(math.log2(max(full[0] / size[1], 1))), 0), len(sprite.levels) - 1)
        picture, mask = sprite.levels[level]
        step = size / (mask.shape[1], mask.shape[0])
        move = low + step * 0.5 - 0.5 - (x1, y1)
        matrix = np.array([(step[0], 0, move[0]), (0, step[1], move[1])])
        area = (x2 - x1, y2 - y1)
        cut = cv2.warpAffine(mask, matrix, area, flags=cv2.INTER_LINEAR)
        cut = cv2.threshold(cut, 127, 255, cv2.THRESH_BINARY)[1]
        leaves = cv2.warpAffine(
            _through_haze(picture, z), matrix, area, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        cv2.copyTo(leaves, cut, canvas.picture[y1:y2, x1:x2])
        np.copyto(canvas.slots[y1:y2, x1:x2], slot, where=cut > 0)

    def _fence(self, start: float, end: float, x: float) -> None:
        """Posts and rails: drawn post by post, so that one looks through."""
        for k in range(math.floor(end / 0.5), math.floor(start / 0.5), -1):
            s = k * 0.5
            z = s - self.s
            if z > 4:
                at = self.across(s, x)
                post = k % 4 == 0
                self.canvas.upright(
                    at - 0.03, at + (0.05 if post else 0.02), 0, 1.25 if post else 1.1, z, (66, 72, 70), CLASS["fence"]
                )

    def _furniture(self, side: int, cell: int) -> Iterator[Item]:
        """Street trees, lamps and signs, one place every ten metres."""
        chance = chances(self.seed, 1, side + 1, cell)
        s = cell * 10 + 2 + 2 * chance[0]
        z = s - self.s
        if z < 4:
            return
        kerb = ROAD_RIGHT if side > 0 else ROAD_LEFT
        leafy = chances(self.seed, 2, side + 1, cell // 9)[0] < 0.6
        x = kerb + side * 0.8
        if cell % 3 == 0:
            yield z, lambda: self._lamp(s, kerb + side * 0.5, side)
        elif leafy and chance[1] < 0.75:
            yield z, lambda: self._green(s, x, 6.5 + 3 * chance[2], int(6 * chance[3]))
        elif chance[1] > 0.62:
            yield z, lambda: self._sign(s, kerb + side * 0.45, int(5 * chance[4]) if side > 0 else -1)

    def _lamp(self, s: float, x: float, side: int) -> None:
        z, at = s - self.s, self.across(s, x)
        metal = (92, 96, 98)
        self.canvas.upright(at - 0.09, at + 0.09, 0, 1.2, z, metal, CLASS["pole"])
        self.canvas.upright(at - 0.06, at + 0.06, 1.2, 8.0, z, metal, CLASS["pole"])
        ends = sorted((at, at - side * 1.7))
        self.canvas.upright(ends[0], ends[1], 7.95, 8.05, z, metal, CLASS["pole"])
        head = sorted((at - side * 1.1, at - side * 1.9))
        self.canvas.upright(head[0], head[1], 7.86, 8.06, z, (150, 152, 150), CLASS["pole"])

    def _sign(self, s: float, x: float, kind: int) -> None:
        """A sign on its pole; a negative kind shows its back."""
        z, at = s - self.s, self.across(s, x)
        self.canvas.upright(at - 0.04, at + 0.04, 0, 2.9, z, (126, 130, 132), CLASS["pole"])
        red, white, blue = (176, 30, 34), (228, 228, 224), (26, 70, 150)
        faces: dict[int, tuple[tuple[int, float, Color], ...]] = {
            -1: ((10, 0.36, (128, 130, 130)),),
            0: ((10, 0.36, red), (10, 0.27, white)),
            1: ((3, 0.46, red), (3, 0.29, white)),
            2: ((4, 0.44, white), (4, 0.4, blue)),
            3: ((10, 0.36, white), (10, 0.34, blue)),
            4: ((-4, 0.46, white), (-4, 0.38, (232, 186, 40))),
        }
        for corners, radius, color in faces[kind]:
            turn = 0.0 if corners < 0 else math.pi / 2 if corners == 3 else math.pi / 4
            angles = turn + np.linspace(0, 2 * math.pi, abs(corners), endpoint=False)
            plate = np.stack(
                [at + radius * np.cos(angles), CAMERA_HEIGHT - 2.55 - radius * np.sin(angles), np.full(len(angles), z)],
                1,
            )
            self.canvas.polygon(
                self.canvas.project(plate), hazed(color, z), CLASS["traffic sign"] if kind >= 0 else CLASS["pole"]
            )

    def _crossing(self, index: int) -> Iterator[Item]:
        start = crossing(self.seed, index)
        z = start - self.s

        def stripes() -> None:
            near = max(z, 1.0)
            if z + 3.2 < 1.5:
                return
            for k in range(round((ROAD_RIGHT - ROAD_LEFT - 0.6) / 1.0)):
                x = ROAD_LEFT + 0.5 + k
                ends = (near + self.s, start + 3.2)
                places = [(x, ends[0]), (x + 0.5, ends[0]), (x + 0.5, ends[1]), (x, ends[1])]
                corners = [(self.across(s, px), CAMERA_HEIGHT, s - self.s) for px, s in places]
                self.canvas.polygon(self.canvas.project(np.array(corners)), hazed((190, 190, 187), z + 1.5), None)

        yield SIGHT + 100 - index, stripes
        if z > 3:
            for side, x in ((1, ROAD_RIGHT + 0.5), (-1, ROAD_LEFT - 0.5)):
                yield z, self._signal_drawer(start, x, side)

    def _signal_drawer(self, s: float, x: float, side: int) -> Callable[[], None]:
        def draw() -> None:
            z, at = s - self.s, self.across(s, x)
            self.canvas.upright(at - 0.06, at + 0.06, 0, 3.3, z, (70, 74, 76), CLASS["pole"])
            self.canvas.upright(at - 0.2, at + 0.2, 2.35, 3.4, z, (30, 32, 32), CLASS["traffic light"])
            lamps = ((70, 18, 16), (78, 56, 14), (60, 235, 150)) if side > 0 else ((34, 36, 36),) * 3
            for k, color in enumerate(lamps):
                angles = np.linspace(0, 2 * math.pi, 10, endpoint=False)
                disc = np.stack(
                    [
                        at + 0.12 * np.cos(angles),
                        CAMERA_HEIGHT - 3.2 + 0.32 * k - 0.12 * np.sin(angles),
                        np.full(10, z),
                    ],
                    1,
                )
                self.canvas.polygon(self.canvas.project(disc), hazed(color, z), CLASS["traffic light"])

        return draw

    # What drives and walks

    def _parked(self, side: int) -> Iterator[Item]:
        for bay in cells(self.s, self.s + 130, 6):
            chance = chances(self.seed, 3, side + 1, bay)
            full = chances(self.seed, 4, side + 1, bay // 12)[0]
            s = bay * 6 + 3.06
            blocked = any(abs(crossing(self.seed, k) + 1.6 - s) < 8 for k in cells(s - 60, s + 60, CROSSING))
            if chance[0] < 0.25 + 0.65 * full and not blocked:
                kind = _kind(chance[1], 0.0)
                x = (3.2 if side > 0 else -6.45) + 0.12 * (chance[2] - 0.5)
                turned = side < 0
                track = 100_000_000 * (1 if side > 0 else 2) + bay
                yield from self._vehicle(kind, s + 0.3 * (chance[3] - 0.5), x, turned, _paint(chance[4]), track)

    def _traffic(self) -> Iterator[Item]:
        ahead = (self.scene.traffic + 1) // 3
        for k in range(ahead):
            chance = chances(self.seed, 5, k)
            wave = 2 * math.pi * chance[0]
            gap = 15 + 21 * k + 5 * chance[1] + 3.5 * math.sin(0.23 * self.time + wave)
            x = 0.25 * (chance[2] - 0.5) + 0.1 * math.sin(0.4 * self.time + wave)
            kind = _kind(chance[3], 0.0 if k == 0 else 0.3)
            yield from self._vehicle(kind, self.s + gap, x, False, _paint(chance[4]), 300_000_000 + k)
        coming = self.scene.traffic - ahead
        if not coming:
            return
        spacing = max(SIGHT / coming, 14.0)
        moved = 10.0 * self.time
        for k in cells(self.s + moved - 6, self.s + moved + SIGHT, spacing):
            chance = chances(self.seed, 6, k)
            s = (k + 0.1 + 0.8 * chance[0] * max(0.0, 1 - 14 / spacing)) * spacing - moved
            yield from self._vehicle(
                _kind(chance[1], 0.22), s, -3.4 + 0.3 * (chance[2] - 0.5), True, _paint(chance[3]), 400_000_000 + k
            )

    def _vehicle(self, kind: VehicleKind, s: float, x: float, turned: bool, paint: Color, track: int) -> Iterator[Item]:
        solid = vehicle(kind)
        z = s - self.s
        if z + solid.length / 2 < 2.5 or z > SIGHT:
            return
        name = kind if kind in ("truck", "bus") else "car"

        def draw() -> None:
            canvas = self.canvas
            slot = canvas.thing(name, track)
            if slot is None:
                return
            angle = self.road.heading(s) - self.heading + (math.pi if turned else 0)
            place = np.float32((self.across(s, x), CAMERA_HEIGHT, z))
            sin, cos = math.sin(angle), math.cos(angle)
            turn = np.float32(((cos, 0, -sin), (0, -1, 0), (sin, 0, cos)))
            self._shadow(place, turn, solid.width / 2, solid.length / 2)
            corners = solid.corners @ turn + place
            seen = (corners[..., 2].min(1) > 0.5) & _facing(corners)
            pixels = canvas.project(corners[seen])
            region = canvas.region(pixels.reshape(-1, 2)) if len(pixels) else None
            if region is None:
                return
            self.extents[slot] = region
            share = solid.paint[seen, None]
            color = solid.color[seen] * (1 - share) + np.float32(paint) * share * solid.light[seen, None]
            color = np.minimum(color, 255) * (1 - haze(z)) + np.float32(HAZE) * haze(z)
            fixed = np.clip((pixels - 0.5) * 16, -_OUT * 16, _OUT * 16).astype(np.int32)
            area = _area(pixels)
            for polygon, tone, outline, size in zip(fixed, color.tolist(), solid.outline[seen].tolist(), area.tolist()):
                if outline:
                    cv2.fillConvexPoly(canvas.slots, polygon, slot, cv2.LINE_8, _SUBPIXEL)
                if outline or size > 1.2:
                    cv2.fillConvexPoly(canvas.picture, polygon, tone, cv2.LINE_AA, _SUBPIXEL)

        yield z, draw

    def _shadow(self, place: Float, turn: Float, half_width: float, half_length: float) -> None:
        """The dark under a vehicle: on the picture only."""
        canvas = self.canvas
        depth = float(place[2])
        if depth > 110:
            return
        near = max(-half_length, 1.5 - depth)
        for margin, keep in ((0.3, 0.8), (0.12, 0.62), (-0.08, 0.6)):
            w, a, b = half_width + margin, near - margin, half_length + margin
            flat = np.float32([(-w, 0, a), (w, 0, a), (w, 0, b), (-w, 0, b)]) @ turn + place
            if flat[:, 2].min() < 0.5:
                continue
            pixels = canvas.project(flat)
            region = canvas.region(pixels)
            if region is None:
                continue
            x1, y1, x2, y2 = region
            part = canvas.picture[y1:y2, x1:x2]
            mask = np.zeros(part.shape[:2], np.uint8)
            cv2.fillConvexPoly(
                mask, ((pixels - (x1 + 0.5, y1 + 0.5)) * 16).astype(np.int32), 255, cv2.LINE_8, _SUBPIXEL
            )
            cv2.copyTo(cv2.convertScaleAbs(part, alpha=keep), mask, part)

    def _walkers(self, side: int) -> Iterator[Item]:
        for stream, speed in enumerate((1.25, -1.35)):
            moved, spacing = speed * self.time, 17.0
            for k in cells(self.s - moved, self.s - moved + 75, spacing):
                chance = chances(self.seed, 7, side + 1, stream, k)
                if chance[0] < 0.35:
                    continue
                s = (k + 0.9 * chance[1]) * spacing + moved
                x = (ROAD_RIGHT + 1.5 + 1.6 * chance[2]) if side > 0 else (ROAD_LEFT - 1.5 - 1.6 * chance[2])
                phase = 2 * math.pi * chance[3] + 5.6 * self.time
                parts = pedestrian(int(64 * chance[4]), phase, speed > 0)
                track = 500_000_000 + 100_000_000 * (stream + (2 if side > 0 else 0)) + k
                yield from self._figure([("person", track, parts)], s, x, 0.93 + 0.12 * chance[5])

    def _cyclists(self) -> Iterator[Item]:
        speed, spacing = 4.4, 70.0
        moved = speed * self.time
        for k in cells(self.s - moved, self.s - moved + 90, spacing):
            chance = chances(self.seed, 8, k)
            s = (k + 0.9 * chance[0]) * spacing + moved
            bicycle, rider = cyclist(int(64 * chance[1]), 5 * self.time + 6 * chance[2])
            layers = [("bicycle", 900_000_000 + k, bicycle), ("rider", 1_000_000_000 + k, rider)]
            yield from self._figure(layers, s, 1.75 + 0.1 * math.sin(self.time + k), 1.0)

    def _figure(self, layers: Sequence[tuple[str, int, list[Part]]], s: float, x: float, size: float) -> Iterator[Item]:
        z = s - self.s
        if z < 2.5:
            return

        def draw() -> None:
            canvas = self.canvas
            scale = canvas.focal / z
            foot = np.array((canvas.width / 2 + self.across(s, x) * scale, canvas.horizon + CAMERA_HEIGHT * scale))
            stretch = np.array((scale * size, -scale * size))
            for name, track, parts in layers:
                region = canvas.region(np.concatenate([corners for corners, _ in parts]) * stretch + foot)
                slot = canvas.thing(name, track) if region else None
                if region is None or slot is None:
                    continue
                self.extents[slot] = region
                for corners, color in parts:
                    canvas.polygon(corners * stretch + foot, hazed(color, z), slot)

        yield z, draw


def _dim(color: Color, factor: float) -> Color:
    return (round(color[0] * factor), round(color[1] * factor), round(color[2] * factor))


def _kind(chance: float, heavy: float) -> VehicleKind:
    """A kind of vehicle; a share `heavy` are trucks and buses."""
    if chance < heavy:
        return "truck" if chance < 0.6 * heavy else "bus"
    rest = (chance - heavy) / (1 - heavy)
    kinds: tuple[VehicleKind, ...] = ("hatchback", "hatchback", "saloon", "estate", "suv", "hatchback", "saloon", "van")
    return kinds[min(int(rest * len(kinds)), len(kinds) - 1)]


def _paint(chance: float) -> Color:
    return PAINTS[min(int(chance * len(PAINTS)), len(PAINTS) - 1)]


def _facing(corners: Float) -> NDArray[np.bool_]:
    """Which polygons, (P, K, 3) in camera coordinates, show their outside."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    outside: NDArray[np.bool_] = (normal * a).sum(1) > 0
    return outside


def _area(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    x, y = pixels[..., 0], pixels[..., 1]
    return np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 2
