"""A procedural drive through a town: each frame a picture, its exact label and the boxes of what is in it.

Picture and label come from the very same polygons and cut-outs, painted from far to near, so the label is exact; the
picture alone has soft edges. Before that everything is gone through from near to far, and what nearer walls hide is
left out (`pipeline.scene_cover`). Nothing is kept from frame to frame: any frame can be drawn at any time, and is
always the same. The world is in `pipeline.scene_world`, its paint in `pipeline.scene_textures`, vehicles and people in
`pipeline.scene_models`.

Camera coordinates: X right, Y down, Z ahead, in metres; a pinhole, level, CAMERA_HEIGHT above the road.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from pipeline.frame import Box
from pipeline.scene_cover import Cover, Region
from pipeline.scene_models import CORNERS, Color, Figure, cyclist, pedestrian, vehicle
from pipeline.scene_textures import (
    GROUND_HALF_WIDTH,
    GROUND_PERIOD,
    HAZE,
    RIM,
    ROAD_LEFT,
    ROAD_RIGHT,
    ROOF_DEPTH,
    WALK_LEFT,
    WALK_RIGHT,
    Float,
    HousePaint,
    Picture,
    Plant,
    Sprite,
    Surface,
    as_picture,
    bushes,
    garden_wall,
    ground_levels,
    hedge,
    houses,
    sky,
    tree_line,
    trees,
)
from pipeline.scene_world import (
    PLOT,
    SIGHT,
    STRIPES,
    Cyclist,
    Green,
    House,
    Lamp,
    Plot,
    Sign,
    Signal,
    Vehicle,
    Walker,
    World,
    Zebra,
)

MIN_SIDE, MAX_SIDE = 16, 8192
"""Pixels."""
MAX_TRAFFIC = 16

CLASS = {info.name: info.id for info in CITYSCAPES_CLASSES}
CAMERA_HEIGHT = 1.4
NEAR = 2.0
"""Metres; what is nearer is not drawn."""
LARGE = 40_000
"""Pixels from which on plants are placed to whole pixels."""
SMALL = 128
"""Pixels up to which a plant is drawn in one."""
PLAIN = 90.0
"""Metres from which on the ends of houses are of one colour."""
COARSE = 0.018
"""Metres a pixel from which on a vehicle is drawn with few faces."""
LIGHT: dict[int, float] = {1: 0.97, -1: 0.88}
"""Brightness of the house fronts of either side."""
FIRST_THING = 32
"""Slots below are class ids of what is not counted; from here on each thing in sight has one of its own."""

_BEHIND = 24.0
"""Metres behind the camera up to which places are known."""
_GROUND_END = 380.0
"""Metres; the ground beyond looks like the ground there."""
_STRETCH = math.log(1.6)
"""A piece of a surface along the street reaches at most 1.6 times as far as it begins."""
_SUBPIXEL = 4
"""Bits behind the point of a corner's coordinates: 1/16 pixel."""

Stroke = Callable[[], None]
"""Draws something."""


def haze(z: float) -> float:
    """Share of haze in what is z metres away."""
    return 0.72 * (1 - math.exp(-max(z - 10.0, 0.0) / 185))


def hazed(color: Color, z: float) -> Color:
    """A colour seen from z metres away."""
    return _mixed(color, _steps(z))


def _steps(z: float) -> int:
    """The haze z metres away in 128ths."""
    return round(128 * haze(z))


@lru_cache(maxsize=4096)
def _mixed(color: Color, steps: int) -> Color:
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
def _ring(corners: int, turn: float) -> NDArray[np.float64]:
    """(corners, 2): a regular polygon of radius 1 in pixels (y down), turned anticlockwise by radians."""
    angles = turn + np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([np.cos(angles), -np.sin(angles)], 1)


class SyntheticScene:
    """A drive through a town. `frame(index)` is a pure function of the index and of what is given here.

    Args:
        width, height: pixels, MIN_SIDE to MAX_SIDE.
        fps: frames a second.
        seed: chooses everything.
        traffic: how many vehicles drive within sight, 0 to MAX_TRAFFIC.

    Attributes:
        focal: pixels; the field of view is 53° across at 16:9.
        horizon: its height in pixels from the top.
    """

    def __init__(
        self, width: int = 1280, height: int = 720, fps: Fraction | float = 25, seed: int = 0, traffic: int = 6
    ) -> None:
        self.width, self.height, self.fps = width, height, Fraction(fps)
        self.focal = max(width, height * 16 / 9)
        self.horizon = 0.44 * height
        self.world = World(seed, traffic)
        detail = 1.0 if self.focal > 900 else 0.5 if self.focal > 450 else 0.25
        self._paint = _Paint.mix(seed, detail)
        self._backdrop = _Backdrop(self, seed)
        self._ground = _Ground(self, seed, detail)

    def frame(self, index: int) -> tuple[Picture, Picture, tuple[Box, ...]]:
        """Draw one frame.

        Returns:
            picture: (H, W, 3) uint8 RGB.
            label: (H, W) uint8 trainIds of `CITYSCAPES_CLASSES`; every pixel has one.
            boxes: the visible part of every vehicle, person and bicycle, parked ones too; `track` stays with an object.
        """
        canvas = self._draw(index, labelled=True)
        return self._developed(canvas), canvas.label(), tuple(canvas.boxes())

    def picture(self, index: int) -> Picture:
        """Draw the picture of a frame alone, (H, W, 3) uint8 RGB: the same one, for less."""
        return self._developed(self._draw(index, labelled=False))

    def _draw(self, index: int, labelled: bool) -> _Canvas:
        canvas = _Canvas(self.width, self.height, self.focal, self.horizon, labelled)
        view = _View(canvas, self.world, float(index / self.fps), self._paint)
        strokes = list(view.strokes())
        self._backdrop.draw(canvas, view.heading)
        self._ground.draw(canvas, view)
        for stroke in reversed(strokes):
            stroke()
        return canvas

    def _developed(self, canvas: _Canvas) -> Picture:
        picture = cv2.cvtColor(canvas.picture, cv2.COLOR_RGBA2RGB)
        if self.focal > 450:  # a lens is not as sharp as a polygon
            picture = cv2.GaussianBlur(picture, (3, 3), 0)
        return as_picture(picture)


@dataclass(frozen=True, slots=True)
class _Paint:
    """The textures of one town at one resolution."""

    houses: tuple[HousePaint, ...]
    trees: tuple[Plant, ...]
    bushes: tuple[Plant, ...]
    fronts: dict[str, tuple[Surface, float, str]]
    """Surface, metres high, class."""

    @classmethod
    def mix(cls, seed: int, detail: float) -> _Paint:
        fronts = {
            "hedge": (hedge(seed, detail), 1.1, "vegetation"),
            "wall": (garden_wall(seed, detail), 1.15, "wall"),
        }
        return cls(houses(seed, detail), trees(seed, detail), bushes(seed, detail), fronts)


class _Canvas:
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
            cv2.fillConvexPoly(self.picture, corners, color, cv2.LINE_AA, _SUBPIXEL)
        if slot is not None and self.slots is not None:
            cv2.fillConvexPoly(self.slots, corners, slot, cv2.LINE_8, _SUBPIXEL)

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
        self.polygon(_ring(corners, turn) * (scale * radius) + middle, hazed(color, z), slot)

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
            cv2.fillConvexPoly(keep, corners, round(share), cv2.LINE_8, _SUBPIXEL)
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
        cv2.fillConvexPoly(inside, corners, 255, cv2.LINE_8, _SUBPIXEL)
        if self.slots is not None:
            cv2.fillConvexPoly(self.slots[y1:y2, x1:x2], corners, slot, cv2.LINE_8, _SUBPIXEL)
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


class _Backdrop:
    """Sky, and the trees where the town ends."""

    def __init__(self, scene: SyntheticScene, seed: int) -> None:
        self.focal, self.turn = scene.focal, math.ceil(0.2 * scene.focal)
        rows, width = min(math.ceil(scene.horizon) + 1, scene.height), scene.width + 2 * self.turn
        self.picture = cv2.cvtColor(sky(seed, width, rows), cv2.COLOR_RGB2RGBA)
        self.slots = np.full((rows, width), CLASS["sky"], np.uint8)
        tops = scene.horizon - scene.focal * 11 / 240 * tree_line(seed, width)
        below = np.arange(rows)[:, None] + 0.5 > tops
        self.picture[below, :3] = hazed((58, 74, 46), 150)
        self.slots[below] = CLASS["vegetation"]

    def draw(self, canvas: _Canvas, heading: float) -> None:
        left = min(max(self.turn + round(heading * self.focal), 0), 2 * self.turn)
        rows = len(self.slots)
        canvas.picture[:rows] = self.picture[:, left : left + canvas.width]
        if canvas.slots is not None:
            canvas.slots[:rows] = self.slots[:, left : left + canvas.width]


class _Ground:
    """Road, pavements and grass: a texture looked up per pixel, in bands of rows with a fitting resolution each."""

    def __init__(self, scene: SyntheticScene, seed: int, detail: float) -> None:
        self.first = math.ceil(scene.horizon)
        rows = np.arange(self.first, scene.height)
        self.true_z = scene.focal * CAMERA_HEIGHT / (rows + 0.5 - scene.horizon)
        self.z = np.minimum(self.true_z, _GROUND_END)
        columns = (np.arange(scene.width) + 0.5 - scene.width / 2) / scene.focal
        self.bands = []
        nearer = 0.0
        for level in ground_levels(seed, detail):
            inside = np.flatnonzero((self.z >= nearer) & (self.z < level.reach))
            nearer = level.reach
            if len(inside):
                a, b = int(inside[0]), int(inside[-1]) + 1
                base = (columns * self.z[a:b, None] + GROUND_HALF_WIDTH) * level.across - 0.5
                self.bands.append((a, b, level, base.astype(np.float32)))
        share = np.array([haze(min(depth, 160.0)) for depth in self.z.tolist()])  # as far as the trees behind
        share = np.broadcast_to(share[share > 0.004][:, None, None], (int((share > 0.004).sum()), scene.width, 4))
        self.keep = np.round(255 * (1 - share)).astype(np.uint8)
        self.add = np.round(np.array((*HAZE, 0)) * share).astype(np.uint8)

    def draw(self, canvas: _Canvas, view: _View) -> None:
        shift = view.bend(self.z)
        for a, b, level, base in self.bands:
            seen = canvas.cover.visible(0, self.first + a, canvas.width, self.first + b)
            if not seen:
                continue
            left, _, right, _ = seen
            map_x = base[:, left:right] - (shift[a:b, None] * level.across).astype(np.float32)
            along = ((view.s + self.z[a:b]) % GROUND_PERIOD * level.along).astype(np.float32)
            map_y = np.repeat(along[:, None], right - left, 1)
            part = canvas.picture[self.first + a : self.first + b, left:right]
            cv2.remap(level.texture, map_x, map_y, cv2.INTER_LINEAR, dst=part, borderMode=cv2.BORDER_REPLICATE)
        far = canvas.picture[self.first : self.first + len(self.keep)]
        if len(far):
            cv2.add(cv2.multiply(far, self.keep, scale=1 / 255), self.add, dst=far)
        if canvas.slots is not None:
            self._label(canvas, canvas.slots, shift)

    def _label(self, canvas: _Canvas, slots: Picture, shift: NDArray[np.floating]) -> None:
        slots[self.first :] = CLASS["terrain"]
        v = np.arange(self.first, canvas.height)
        for left, right, name in (
            (WALK_LEFT, WALK_RIGHT, "sidewalk"),
            (ROAD_LEFT, ROAD_RIGHT, "road"),
        ):
            # pixels whose middle lies between the edges, row by row
            edges = (canvas.width / 2 + canvas.focal * (x + shift) / self.true_z - 0.5 for x in (left, right))
            u1, u2 = (np.clip(np.ceil(edge), -9, canvas.width + 9) for edge in edges)
            corners = np.concatenate([np.stack([u1, v], 1), np.stack([u2 - 1, v], 1)[::-1]])
            cv2.fillPoly(slots, [corners.astype(np.int32)], CLASS[name])


class _View:
    """The world seen at one moment, drawn onto a canvas."""

    def __init__(self, canvas: _Canvas, world: World, time: float, paint: _Paint) -> None:
        self.canvas, self.world, self.time, self.paint = canvas, world, time, paint
        self.s = world.camera(time)
        self.heading = world.road.heading(self.s)
        self.sway = 0.12 * math.sin(0.43 * time + world.seed % 7)
        self._bend = self.bend(np.arange(-_BEHIND, SIGHT + 2 * PLOT)).tolist()

    def bend(self, ahead: NDArray[np.floating]) -> NDArray[np.floating]:
        """Camera X of the middle of the camera's lane, `ahead` metres away."""
        return self.world.road.bend(self.s, ahead) - self.sway

    def across(self, s: float, x: float) -> float:
        """Camera X of the place (s, x): from a table by the metre, as this is asked hundreds of times a frame."""
        place = min(max(s - self.s + _BEHIND, 0.0), len(self._bend) - 1.001)
        step = int(place)
        near = self._bend[step]
        bend: float = near + (self._bend[step + 1] - near) * (place - step)
        return x + bend

    def outside(self, x: float, z: float, half_width: float) -> bool:
        """Whether something at camera X, z metres ahead at its farthest, is beside the picture."""
        return z < NEAR or z > SIGHT or (abs(x) - half_width) * self.canvas.focal > z * (self.canvas.width / 2 + 2)

    def strokes(self) -> Iterator[Stroke]:
        """All that stands on the ground and is not hidden by walls, from near to far."""
        # A plot's depth is its far end: what is beyond is drawn before it, what stands beside it on the street after.
        items: list[tuple[float, Callable[[], Iterator[Stroke]]]] = []
        for side in (1, -1):
            plots = [(plot.end - self.s, plot) for plot in self.world.plots(self.s, side)]
            items += [(depth, partial(self._plot, plot)) for depth, plot in plots if depth >= NEAR]
        zebras = []
        for placed in self.world.ahead(self.time):
            if isinstance(placed, Zebra):
                zebras.append(placed)
            else:
                items.append((placed.s - self.s, partial(self._placed, placed)))
        for _, strokes in sorted(items, key=lambda item: item[0]):
            yield from strokes()
        for zebra in zebras:
            yield partial(self._zebra, zebra)

    def _placed(self, placed: Green | Lamp | Sign | Signal | Vehicle | Walker | Cyclist) -> Iterator[Stroke]:
        """What stands, drives or walks on the street."""
        z, x = placed.s - self.s, self.across(placed.s, placed.x)
        match placed:
            case Green():
                yield from self._green(placed)
            case Lamp():
                if self._in_sight(x, z, 2.5, 8.1):
                    yield partial(self._lamp, placed, x, z)
            case Sign():
                if self._in_sight(x, z, 0.5, 3.1):
                    yield partial(self._sign, placed, x, z)
            case Signal():
                if self._in_sight(x, z, 0.5, 3.5):
                    yield partial(self._signal, placed, x, z)
            case Vehicle():
                solid = vehicle(placed.kind)
                angle = self._angle(placed)
                half_width = (solid.width + abs(math.sin(angle)) * solid.length) / 2 + 0.35
                if self._in_sight(x, z, half_width, solid.height, solid.length / 2 + 0.35):
                    yield partial(self._vehicle, placed, x, z, angle)
            case Walker():
                if self._in_sight(x, z, 0.6, 2.0):
                    yield partial(self._walker, placed, x, z)
            case Cyclist():
                if self._in_sight(x, z, 0.6, 1.9):
                    yield partial(self._cyclist, placed, x, z)

    def _angle(self, placed: Vehicle) -> float:
        """How far a vehicle is turned to the right against where the camera looks, in radians."""
        return self.world.road.heading(placed.s) - self.heading + (math.pi if placed.turned else 0)

    def _in_sight(self, x: float, z: float, half_width: float, height: float, half_length: float = 0.4) -> bool:
        """Whether anything in a box on the ground is in the picture and not hidden; all in metres, generously."""
        if self.outside(x, z + half_length, half_width):
            return False
        canvas = self.canvas
        near, far = max(z - half_length, 0.5), z + half_length
        left, right, up = x - half_width, x + half_width, height - CAMERA_HEIGHT
        u1 = canvas.width / 2 + canvas.focal * left / (near if left < 0 else far)
        u2 = canvas.width / 2 + canvas.focal * right / (far if right < 0 else near)
        v1 = canvas.horizon - canvas.focal * up / (near if up > 0 else far)
        v2 = canvas.horizon + canvas.focal * CAMERA_HEIGHT / near
        return canvas.cover.visible(int(u1) - 2, int(v1) - 2, int(u2) + 3, int(v2) + 3) is not None

    # Beside the street

    def _plot(self, plot: Plot) -> Iterator[Stroke]:
        inset = plot.x + math.copysign(0.15, plot.x)
        if plot.front == "fence":
            yield partial(self._fence, plot.start, plot.end, inset)
        elif plot.front != "none":
            surface, height, name = self.paint.fronts[plot.front]
            yield from self._panel(surface, plot.start, plot.end, (inset, inset), (height, 0), CLASS[name], 1.0)
        if plot.house:
            yield from self._house(plot.house)
            yield from self._gable(plot.house)
        for green in reversed(plot.greens):
            yield from self._green(green)

    def _green(self, green: Green) -> Iterator[Stroke]:
        z, x = green.s - self.s, self.across(green.s, green.x)
        if not self.outside(x, z, 0.5 * green.height):
            kinds = self.paint.trees if green.height > 2.5 else self.paint.bushes
            yield from self.canvas.plant(kinds[green.style % len(kinds)], x, z, green.height, CLASS["vegetation"])

    def _house(self, house: House) -> Iterator[Stroke]:
        """Front and roof."""
        paint = self.paint.houses[house.style % len(self.paint.houses)]
        eaves, light = paint.front.height, LIGHT[house.side]
        front = (house.x, house.x)
        yield from self._panel(paint.front, house.start, house.end, front, (eaves, 0), CLASS["building"], light)
        # A roof shows only where it is steeper than the line of sight over the eaves.
        steepness = paint.roof.height / ROOF_DEPTH if paint.roof else 0.0
        sight = max(abs(self.across(house.start, house.x)), abs(self.across(house.end, house.x)))
        if paint.roof and steepness * sight > eaves - CAMERA_HEIGHT:
            edges = (house.x + house.side * ROOF_DEPTH, house.x)
            heights = (eaves + paint.roof.height, eaves)
            yield from self._panel(paint.roof, house.start, house.end, edges, heights, CLASS["building"], light)

    def _gable(self, house: House) -> Iterator[Stroke]:
        """The end of a house that looks towards the camera."""
        canvas, paint = self.canvas, self.paint.houses[house.style % len(self.paint.houses)]
        z, x, wall = house.start - self.s, self.across(house.start, house.x), paint.gable
        if self.outside(x, z, 0):
            return
        rise = paint.roof.height if paint.roof else 0.0
        slant = ROOF_DEPTH if paint.roof else 0.0
        x1, x2 = sorted((x, x + house.side * wall.width))
        (left, peak), (right, foot) = canvas.point(x1, wall.height, z), canvas.point(x2, 0, z)
        ends = (x1 + slant, x2 - slant)
        (inner_left, eaves), (inner_right, _) = (canvas.point(at, wall.height - rise, z) for at in ends)
        quad = np.array(((left, peak), (right, peak), (right, foot), (left, foot)))
        region = canvas.region(quad)
        if not region or not (region := canvas.cover.visible(*region)):
            return
        outline = np.array(((left, eaves), (inner_left, peak), (inner_right, peak), (right, eaves), *quad[2:]))
        light = 0.82 * LIGHT[house.side]
        if z < PLAIN:
            yield partial(canvas.surface, region, wall, (0, 1), quad, z, CLASS["building"], light, outline)
        else:
            r, g, b = (round(value * light) for value in paint.plain)
            yield partial(canvas.polygon, outline, hazed((r, g, b), z), CLASS["building"])
        canvas.cover.add((left, eaves, foot), (right, eaves, foot))
        canvas.cover.add((inner_left, peak, foot), (inner_right, peak, foot))

    def _panel(
        self,
        surface: Surface,
        start: float,
        end: float,
        x: tuple[float, float],
        height: tuple[float, float],
        slot: int,
        light: float,
    ) -> Iterator[Stroke]:
        """A surface along the street, in pieces, so that each is sampled at a fitting resolution; x and height in
        metres of its upper and lower edge. One that is upright hides what is beyond."""
        z1, z2 = start - self.s, end - self.s
        bend1, bend2 = self.across(start, 0), self.across(end, 0)
        reach = 0.5 * self.canvas.width / self.canvas.focal + 0.02
        visible = max(z1, NEAR, 0.7 * min(abs(x[1] + bend1), abs(x[1] + bend2)) / reach)
        if visible >= z2:
            return
        pieces = max(math.ceil(math.log(z2 / visible) / _STRETCH), 1)
        canvas, edges = self.canvas, []
        for k in range(pieces + 1):
            z = visible * (z2 / visible) ** (k / pieces)
            share = (z - z1) / (z2 - z1)
            middle = bend1 + (bend2 - bend1) * share
            upper, lower = (canvas.point(side + middle, up, z) for side, up in zip(x, height, strict=True))
            edges.append((z, share, upper, lower))
        for (a, near, *left), (b, far, *right) in reversed([*itertools.pairwise(edges)]):
            quad = np.array((left[0], right[0], right[1], left[1]))
            region = canvas.region(quad)
            if region and (region := canvas.cover.visible(*region)):
                yield partial(canvas.surface, region, surface, (near, far), quad, (a + b) / 2, slot, light)
        if x[0] == x[1]:
            canvas.cover.add(*((*upper, lower[1]) for _, _, upper, lower in (edges[0], edges[-1])))

    def _fence(self, start: float, end: float, x: float) -> None:
        """Rails and posts: one looks through."""
        canvas, color = self.canvas, (66, 72, 70)
        z1, z2 = max(start - self.s, 2 * NEAR), end - self.s
        if z1 >= z2:
            return
        x1, x2 = self.across(self.s + z1, x), self.across(end, x)
        for low, high in ((0.15, 0.25), (0.55, 0.63), (0.95, 1.05)):
            y1, y2 = CAMERA_HEIGHT - low, CAMERA_HEIGHT - high
            rail = np.array(((x1, y1, z1), (x2, y1, z2), (x2, y2, z2), (x1, y2, z1)))
            canvas.polygon(canvas.project(rail), hazed(color, (z1 + z2) / 2), CLASS["fence"])
        for s in np.arange(end, start, -2.0).tolist():
            z = s - self.s
            if z > z1 and not self.outside(at := x1 + (x2 - x1) * (z - z1) / (z2 - z1), z, 0.1):
                canvas.upright(at - 0.04, at + 0.04, 0, 1.15, z, color, CLASS["fence"])

    # On the kerb

    def _lamp(self, lamp: Lamp, x: float, z: float) -> None:
        canvas = self.canvas
        metal: Color = (92, 96, 98)
        canvas.upright(x - 0.09, x + 0.09, 0, 1.2, z, metal, CLASS["pole"])
        canvas.upright(x - 0.06, x + 0.06, 1.2, 8.0, z, metal, CLASS["pole"])
        for inner, outer, low, high, color in ((0.0, 1.7, 7.95, 8.05, metal), (1.1, 1.9, 7.86, 8.06, (150, 152, 150))):
            ends = sorted((x - lamp.side * inner, x - lamp.side * outer))
            canvas.upright(ends[0], ends[1], low, high, z, color, CLASS["pole"])

    def _sign(self, sign: Sign, x: float, z: float) -> None:
        canvas = self.canvas
        canvas.upright(x - 0.04, x + 0.04, 0, 2.9, z, (126, 130, 132), CLASS["pole"])
        for corners, turn, radius, color in SIGNS[sign.kind % len(SIGNS)]:
            canvas.disc(x, 2.55, radius, corners, turn, z, color, CLASS["traffic sign"])

    def _signal(self, signal: Signal, x: float, z: float) -> None:
        canvas = self.canvas
        canvas.upright(x - 0.06, x + 0.06, 0, 3.3, z, (70, 74, 76), CLASS["pole"])
        canvas.upright(x - 0.2, x + 0.2, 2.35, 3.4, z, (30, 32, 32), CLASS["traffic light"])
        lamps: tuple[Color, ...] = ((70, 18, 16), (78, 56, 14), (60, 235, 150)) if signal.facing else ()
        for k, color in enumerate(lamps):
            canvas.disc(x, 3.2 - 0.32 * k, 0.12, 10, 0, z, color, CLASS["traffic light"])

    # On the road

    def _zebra(self, zebra: Zebra) -> None:
        near, far = max(zebra.s - self.s, 1.0), zebra.s - self.s + STRIPES
        if far < 1.5 or near > SIGHT:
            return
        for left in np.arange(ROAD_LEFT + 0.5, ROAD_RIGHT - 0.6, 1.0).tolist():
            places = ((left, near), (left + 0.5, near), (left + 0.5, far), (left, far))
            stripe = [(self.across(self.s + z, x), CAMERA_HEIGHT, z) for x, z in places]
            self.canvas.polygon(self.canvas.project(np.array(stripe)), hazed((190, 190, 187), near), None)

    def _vehicle(self, placed: Vehicle, x: float, z: float, angle: float) -> None:
        canvas, solid = self.canvas, vehicle(placed.kind)
        place = np.array((x, CAMERA_HEIGHT, z), np.float32)
        sin, cos = math.sin(angle), math.cos(angle)
        turn = np.array(((cos, 0, -sin), (0, -1, 0), (sin, 0, cos)), np.float32)
        self._shadow(place, turn, solid.width / 2, solid.length / 2)
        pixel = max(z - solid.length / 2, 1.0) / canvas.focal
        solid = vehicle(placed.kind, coarse=pixel > COARSE)
        seen = np.flatnonzero((solid.worth > pixel**2) & (solid.normal @ (turn @ -place) > solid.offset))
        corners = (solid.corners[seen].reshape(-1, 3) @ turn + place).reshape(-1, CORNERS, 3)
        if z - solid.length / 2 < 1:
            ahead = corners[..., 2].min(1) > 0.5
            corners, seen = corners[ahead], seen[ahead]
        pixels = canvas.project(corners)
        region = canvas.region(pixels.reshape(-1, 2)) if len(pixels) else None
        name = placed.kind if placed.kind in ("truck", "bus") else "car"
        slot = canvas.thing(name, placed.track, region) if region else None
        if slot is None:
            return
        paint = np.array(placed.paint, np.float32)
        color = np.minimum(solid.color[seen] + solid.paint[seen, None] * paint, 255)
        color += (np.array(HAZE, np.float32) - color) * haze(z)
        fixed = (pixels * 16 - 8).astype(np.int32)
        faces = zip(fixed, solid.count[seen].tolist(), color.tolist(), solid.outline[seen].tolist(), strict=True)
        for padded, count, tone, outline in faces:
            polygon = padded[:count]
            cv2.fillConvexPoly(canvas.picture, polygon, tone, cv2.LINE_AA, _SUBPIXEL)
            if outline and canvas.slots is not None:
                cv2.fillConvexPoly(canvas.slots, polygon, slot, cv2.LINE_8, _SUBPIXEL)

    def _shadow(self, place: Float, turn: Float, half_width: float, half_length: float) -> None:
        """The dark under a vehicle, soft towards its rim: on the picture only."""
        depth = float(place[2])
        if depth > 80:
            return
        near = max(-half_length, 1.5 - depth)
        rings = ((0.28, 0.88), (0.16, 0.82), (0.04, 0.75), (-0.12, 0.7)) if depth < 30 else ((0.08, 0.6),)
        drawn = []
        for margin, keep in rings:
            w, a, b = half_width + margin, near - margin, half_length + margin
            flat = np.array(((-w, 0, a), (w, 0, a), (w, 0, b), (-w, 0, b)), np.float32) @ turn + place
            if flat[:, 2].min() > 0.5:
                drawn.append((self.canvas.project(flat), keep))
        if drawn:
            self.canvas.darken(drawn)

    def _walker(self, walker: Walker, x: float, z: float) -> None:
        parts = pedestrian(walker.style, walker.phase, walker.away)
        self._figure([("person", walker.track, parts)], x, z, walker.size)

    def _cyclist(self, placed: Cyclist, x: float, z: float) -> None:
        bicycle, rider = cyclist(placed.style, placed.phase)
        self._figure([("bicycle", placed.track, bicycle), ("rider", placed.rider_track, rider)], x, z, 1.0)

    def _figure(self, layers: Sequence[tuple[str, int, Figure]], x: float, z: float, size: float) -> None:
        canvas = self.canvas
        scale = canvas.focal / z
        foot = np.array((canvas.width / 2 + x * scale, canvas.horizon + CAMERA_HEIGHT * scale))
        if scale > 30:
            flat = scale * _ring(10, 0) * (1, CAMERA_HEIGHT / z)
            canvas.darken([(foot + radius * flat, 0.86) for radius in (0.34, 0.24)])
        steps = _steps(z)
        for name, track, figure in layers:
            pixels = figure.corners * (scale * size * np.array((1, -1))) + foot
            region = canvas.region(pixels)
            slot = canvas.thing(name, track, region) if region else None
            if slot is None:
                continue
            fixed, end = (pixels * 16 - 8).astype(np.int32), 0
            for count, color in figure.parts:
                start, end = end, end + count
                polygon = fixed[start:end]
                cv2.fillConvexPoly(canvas.picture, polygon, _mixed(color, steps), cv2.LINE_AA, _SUBPIXEL)
                if canvas.slots is not None:
                    cv2.fillConvexPoly(canvas.slots, polygon, slot, cv2.LINE_8, _SUBPIXEL)


_RED, _WHITE, _BLUE, _YELLOW = (176, 30, 34), (228, 228, 224), (26, 70, 150), (232, 186, 40)
SIGNS: tuple[tuple[tuple[int, float, float, Color], ...], ...] = (
    ((10, 0, 0.36, _RED), (10, 0, 0.27, _WHITE)),
    ((3, math.pi / 2, 0.46, _RED), (3, math.pi / 2, 0.29, _WHITE)),
    ((4, math.pi / 4, 0.44, _WHITE), (4, math.pi / 4, 0.4, _BLUE)),
    ((10, 0, 0.36, _WHITE), (10, 0, 0.34, _BLUE)),
    ((4, 0, 0.46, _WHITE), (4, 0, 0.38, _YELLOW)),
)
"""Kinds of signs; of each plate: corners, turn in radians, radius in metres, colour."""
