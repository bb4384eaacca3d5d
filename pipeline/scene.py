"""A procedural drive through a town: each frame a picture, its exact label and the boxes of what is in it.

Picture and label come from the very same polygons and cut-outs, painted from far to near, so the label is exact; the
picture alone has soft edges. Nothing is kept from frame to frame: any frame can be drawn at any time, and is always
the same. The world is in `pipeline.scene_world`, its paint in `pipeline.scene_textures`, vehicles and people in
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
    Side,
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


def haze(z: float) -> float:
    """Share of haze in what is z metres away."""
    return 0.72 * (1 - math.exp(-max(z - 10.0, 0.0) / 185))


def hazed(color: Color, z: float) -> Color:
    """A colour seen from z metres away."""
    return _mixed(color, round(128 * haze(z)))


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
        time = float(index / self.fps)
        canvas = _Canvas(self.width, self.height, self.focal, self.horizon)
        view = _View(canvas, self.world, time, self._paint)
        self._backdrop.draw(canvas, view.heading)
        self._ground.draw(canvas, view)
        view.draw()
        picture = cv2.cvtColor(canvas.picture, cv2.COLOR_RGBA2RGB)
        if self.focal > 450:  # a lens is not as sharp as a polygon
            picture = cv2.GaussianBlur(picture, (3, 3), 0)
        return as_picture(picture), canvas.label(), tuple(canvas.boxes())


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
    """Picture and slots (which class or thing each pixel belongs to), and the camera they are drawn through.

    The picture is RGBA while it is drawn, its alpha meaning nothing: OpenCV warps four channels twice as fast as three.
    """

    def __init__(self, width: int, height: int, focal: float, horizon: float) -> None:
        self.width, self.height, self.focal, self.horizon = width, height, focal, horizon
        self.picture = np.empty((height, width, 4), np.uint8)
        self.slots = np.empty((height, width), np.uint8)
        self._centre = np.array((width / 2, horizon), np.float32)
        self._left, self._right = 0, width
        self._things: list[tuple[int, int, tuple[int, int, int, int]]] = []

    def thing(self, class_name: str, track: int, region: tuple[int, int, int, int]) -> int | None:
        """A slot for one more counted thing that will be drawn inside a region; None when there are too many."""
        if FIRST_THING + len(self._things) > 255:
            return None
        self._things.append((CLASS[class_name], track, region))
        return FIRST_THING + len(self._things) - 1

    def clip(self, side: int, limit: float) -> None:
        """Let surfaces and plants reach only so far out on one side (X/Z); infinite: as far as the picture."""
        self._left, self._right = 0, self.width
        if side > 0 and limit < math.inf:
            self._right = min(math.ceil(self.width / 2 + limit * self.focal) + 1, self.width)
        elif limit < math.inf:
            self._left = max(math.floor(self.width / 2 - limit * self.focal) - 1, 0)

    def label(self) -> Picture:
        """(H, W) uint8 class ids."""
        table = np.arange(256, dtype=np.uint8)
        table[FIRST_THING : FIRST_THING + len(self._things)] = [class_id for class_id, _, _ in self._things]
        return as_picture(cv2.LUT(self.slots, table))

    def boxes(self) -> Iterator[Box]:
        """What is left to see of each thing after all that was drawn before it."""
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

    def region(self, pixels: NDArray[np.floating], margin: int = 1) -> tuple[int, int, int, int] | None:
        """The part of the picture (x1, y1, x2, y2; exclusive) that holds these points, or None."""
        left, top, width, height = cv2.boundingRect(pixels.astype(np.float32))
        x1, y1 = max(left - margin, self._left), max(top - margin, 0)
        x2, y2 = min(left + width + margin, self._right), min(top + height + margin, self.height)
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def polygon(self, pixels: NDArray[np.floating], color: Color | None, slot: int | None) -> None:
        """A convex polygon, (K, 2) in pixels, into the picture (soft-edged) and the slots."""
        corners = (pixels * 16 - 8).astype(np.int32)
        if color is not None:
            cv2.fillConvexPoly(self.picture, corners, color, cv2.LINE_AA, _SUBPIXEL)
        if slot is not None:
            cv2.fillConvexPoly(self.slots, corners, slot, cv2.LINE_8, _SUBPIXEL)

    def upright(self, x1: float, x2: float, low: float, high: float, z: float, color: Color, slot: int | None) -> None:
        """A rectangle facing the camera, from `low` to `high` metres above the ground."""
        scale = self.focal / z
        u1, u2 = self.width / 2 + scale * x1, self.width / 2 + scale * x2
        v1, v2 = self.horizon + scale * (CAMERA_HEIGHT - high), self.horizon + scale * (CAMERA_HEIGHT - low)
        self.polygon(np.array(((u1, v1), (u2, v1), (u2, v2), (u1, v2))), hazed(color, z), slot)

    def disc(
        self, x: float, height: float, radius: float, corners: int, turn: float, z: float, color: Color, slot: int
    ) -> None:
        """A regular polygon facing the camera, its middle `height` metres above the ground."""
        scale = self.focal / z
        middle = (self.width / 2 + scale * x, self.horizon + scale * (CAMERA_HEIGHT - height))
        self.polygon(_ring(corners, turn) * (scale * radius) + middle, hazed(color, z), slot)

    def darken(self, pixels: NDArray[np.floating], keep: float) -> None:
        """Multiply the picture inside a convex polygon."""
        region = self.region(pixels)
        if region is None:
            return
        x1, y1, x2, y2 = region
        part = self.picture[y1:y2, x1:x2]
        mask = np.zeros(part.shape[:2], np.uint8)
        corners = ((pixels - (x1 + 0.5, y1 + 0.5)) * 16).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, 255, cv2.LINE_8, _SUBPIXEL)
        cv2.copyTo(cv2.convertScaleAbs(part, alpha=keep), mask, part)

    def surface(
        self,
        surface: Surface,
        shares: tuple[float, float],
        quad: NDArray[np.floating],
        z: float,
        slot: int,
        light: float,
        outline: NDArray[np.floating] | None = None,
    ) -> None:
        """The part of a surface between two shares of its length, onto a quad in pixels (top left, top right, bottom
        right, bottom left of that part), or what of it lies in a convex outline; sampled at a fitting resolution."""
        region = self.region(quad)
        if region is None:
            return
        x1, y1, x2, y2 = region
        rows, columns = surface.picture.shape[:2]
        wide = max(abs(float(quad[1, 0] - quad[0, 0])), 1e-3)
        tall = max(float(quad[3, 1] - quad[0, 1]), 1e-3)
        across = math.floor(math.log2(max(columns * (shares[1] - shares[0]) / wide, 1)))
        down = math.floor(math.log2(max(rows / tall, 1)))
        texture = _hazy_surface(surface, min(across, 6), min(down, 6), round(32 * haze(z)), round(100 * light))
        rows, columns = texture.shape[0] - 2 * RIM, texture.shape[1] - 2 * RIM
        rim = RIM - 0.5
        a, b = shares[0] * columns + rim, shares[1] * columns + rim
        source = np.array(((a, rim), (b, rim), (b, rows + rim), (a, rows + rim)), np.float32)
        corner = (x1 + 0.5, y1 + 0.5)
        matrix = cv2.getPerspectiveTransform(source, (quad - corner).astype(np.float32))
        inside = np.zeros((y2 - y1, x2 - x1), np.uint8)
        rim_pixels = ((quad if outline is None else outline) - corner) * 16
        cv2.fillConvexPoly(inside, rim_pixels.astype(np.int32), 255, cv2.LINE_8, _SUBPIXEL)
        warped = cv2.warpPerspective(texture, matrix, inside.shape[::-1], flags=cv2.INTER_LINEAR)
        self._stamp(region, as_picture(warped), inside, slot)

    def plant(self, plant: Plant, x: float, z: float, height: float, slot: int) -> None:
        """A plant of some metres' height, standing on the ground."""
        scale = self.focal / z
        foot_u, foot_v = self.width / 2 + x * scale, self.horizon + CAMERA_HEIGHT * scale
        for sprite in plant:
            left, right, top, bottom = (share * height * scale for share in sprite.place)
            x1, x2 = max(math.floor(foot_u + left), self._left), min(math.ceil(foot_u + right), self._right)
            y1, y2 = max(math.floor(foot_v - top), 0), min(math.ceil(foot_v - bottom), self.height)
            if x1 >= x2 or y1 >= y2:
                continue
            rows = sprite.levels[0].shape[0]
            level = min(math.floor(math.log2(max(rows / (top - bottom), 1))), len(sprite.levels) - 1)
            colors = _hazy_sprite(sprite, level, round(32 * haze(z)))
            step_u, step_v = (right - left) / colors.shape[1], (top - bottom) / colors.shape[0]
            u, v = foot_u + left, foot_v - top
            if (x2 - x1) * (y2 - y1) > LARGE:
                # Twice as fast, but to whole pixels: what is this large moves by many from frame to frame.
                a, b = math.floor((x1 - u) / step_u), math.ceil((x2 - u) / step_u)
                c, d = math.floor((y1 - v) / step_v), math.ceil((y2 - v) / step_v)
                a, b, c, d = max(a, 0), min(b, colors.shape[1]), max(c, 0), min(d, colors.shape[0])
                u1, u2, v1, v2 = (round(w) for w in (u + a * step_u, u + b * step_u, v + c * step_v, v + d * step_v))
                scaled = cv2.resize(colors[c:d, a:b], (max(u2 - u1, 1), max(v2 - v1, 1)))
                x1, y1, x2, y2 = max(x1, u1), max(y1, v1), min(x2, u2), min(y2, v2)
                cut = scaled[y1 - v1 : y2 - v1, x1 - u1 : x2 - u1]
            else:
                matrix = np.array(((step_u, 0, u + step_u / 2 - 0.5 - x1), (0, step_v, v + step_v / 2 - 0.5 - y1)))
                cut = cv2.warpAffine(colors, matrix, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR)
            if cut.size:
                opaque = cv2.threshold(cv2.extractChannel(cut, 3), 127, 255, cv2.THRESH_BINARY)[1]
                self._stamp((x1, y1, x2, y2), as_picture(cut), as_picture(opaque), slot)

    def _stamp(self, region: tuple[int, int, int, int], picture: Picture, mask: Picture, slot: int) -> None:
        """Copy a picture and a slot into a region where the mask is set."""
        x1, y1, x2, y2 = region
        cv2.copyTo(picture, mask, self.picture[y1:y2, x1:x2])
        cv2.copyTo(np.full(mask.shape, slot, np.uint8), mask, self.slots[y1:y2, x1:x2])


class _Rows:
    """The house fronts of one side, from near to far, and what they hide.

    Directions are tangents: X/Z outwards and up.
    """

    def __init__(self, side: Side, reach: float) -> None:
        self.side, self.reach = side, reach
        self.walls: list[tuple[float, float, float]] = []

    def add(self, far: float, near: float, top: float) -> None:
        """A front that is seen from direction `far` out to `near`, at least up to `top`; signed X/Z."""
        inner, outer = self.side * far, self.side * near
        if self.walls and abs(self.walls[-1][0] - outer) < 1e-3:  # next door
            _, outer, before = self.walls[-1]
            self.walls.append((inner, outer, min(top, before)))
        else:
            self.walls.append((inner, outer, top))

    def limit(self, top: float) -> float:
        """What reaches up to `top` and stands beyond all fronts so far is hidden farther out than this direction."""
        hiding = (inner for inner, outer, high in self.walls if outer >= self.reach and high >= top)
        return min(hiding, default=math.inf)


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
            map_x = base - (shift[a:b, None] * level.across).astype(np.float32)
            along = ((view.s + self.z[a:b]) % GROUND_PERIOD * level.along).astype(np.float32)
            map_y = np.repeat(along[:, None], canvas.width, 1)
            part = canvas.picture[self.first + a : self.first + b]
            cv2.remap(level.texture, map_x, map_y, cv2.INTER_LINEAR, dst=part, borderMode=cv2.BORDER_REPLICATE)
        far = canvas.picture[self.first : self.first + len(self.keep)]
        if len(far):
            cv2.add(cv2.multiply(far, self.keep, scale=1 / 255), self.add, dst=far)

        canvas.slots[self.first :] = CLASS["terrain"]
        v = np.arange(self.first, canvas.height)
        for left, right, name in (
            (WALK_LEFT, WALK_RIGHT, "sidewalk"),
            (ROAD_LEFT, ROAD_RIGHT, "road"),
        ):
            # pixels whose middle lies between the edges, row by row
            edges = (canvas.width / 2 + canvas.focal * (x + shift) / self.true_z - 0.5 for x in (left, right))
            u1, u2 = (np.clip(np.ceil(edge), -9, canvas.width + 9) for edge in edges)
            corners = np.concatenate([np.stack([u1, v], 1), np.stack([u2 - 1, v], 1)[::-1]])
            cv2.fillPoly(canvas.slots, [corners.astype(np.int32)], CLASS[name])


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

    def draw(self) -> None:
        """All that stands on the ground, from far to near."""
        # A plot's depth is its far end: what is beyond is drawn before it, what stands beside it on the street after.
        items: list[tuple[float, Callable[[], None]]] = []
        for side in (-1, 1):
            items += self._plots(side)
        zebras = []
        for placed in self.world.ahead(self.time):
            if isinstance(placed, Zebra):
                zebras.append(placed)
            else:
                items.append((placed.s - self.s, self._drawer(placed)))
        for zebra in zebras:
            self._zebra(zebra)
        for _, draw in sorted(items, key=lambda item: -item[0]):
            draw()

    def _drawer(self, placed: Green | Lamp | Sign | Signal | Vehicle | Walker | Cyclist) -> Callable[[], None]:
        match placed:
            case Green():
                return partial(self._green, placed)
            case Lamp():
                return partial(self._lamp, placed)
            case Sign():
                return partial(self._sign, placed)
            case Signal():
                return partial(self._signal, placed)
            case Vehicle():
                return partial(self._vehicle, placed)
            case Walker():
                return partial(self._walker, placed)
            case Cyclist():
                return partial(self._cyclist, placed)

    # Beside the street

    def _plots(self, side: Side) -> Iterator[tuple[float, Callable[[], None]]]:
        rows = _Rows(side, 0.5 * self.canvas.width / self.canvas.focal)
        for plot in self.world.plots(self.s, side):
            far = plot.end - self.s
            if far < NEAR:
                continue
            # what the houses before this one leave to see, of each thing beyond
            greens = [
                (green, rows.limit((green.height - CAMERA_HEIGHT) / (green.s - self.s)))
                for green in plot.greens
                if green.s - self.s > NEAR
            ]
            gable = 0.0
            if house := plot.house:
                paint = self.paint.houses[house.style % len(self.paint.houses)]
                ends = [(max(s - self.s, 1.0), self.across(s, house.x)) for s in (house.start, house.end)]
                gable = rows.limit((paint.gable.height - CAMERA_HEIGHT) / ends[0][0])
                rows.add(
                    ends[1][1] / ends[1][0], ends[0][1] / ends[0][0], (paint.front.height - CAMERA_HEIGHT) / ends[1][0]
                )
            yield far, partial(self._plot, plot, greens, gable)

    def _plot(self, plot: Plot, greens: Sequence[tuple[Green, float]], gable: float) -> None:
        canvas, side = self.canvas, int(math.copysign(1, plot.x))
        for green, limit in greens:
            canvas.clip(side, limit)
            self._green(green)
        if plot.house:
            canvas.clip(side, gable)
            self._gable(plot.house)
            canvas.clip(side, math.inf)
            self._house(plot.house)
        canvas.clip(side, math.inf)
        inset = plot.x + side * 0.15
        if plot.front == "fence":
            self._fence(plot.start, plot.end, inset)
        elif plot.front != "none":
            surface, height, name = self.paint.fronts[plot.front]
            self._panel(surface, plot.start, plot.end, (inset, inset), (height, 0), CLASS[name], 1.0)

    def _green(self, green: Green) -> None:
        z, x = green.s - self.s, self.across(green.s, green.x)
        if not self.outside(x, z, 0.5 * green.height):
            kinds = self.paint.trees if green.height > 2.5 else self.paint.bushes
            self.canvas.plant(kinds[green.style % len(kinds)], x, z, green.height, CLASS["vegetation"])

    def _house(self, house: House) -> None:
        """Roof and front."""
        paint = self.paint.houses[house.style % len(self.paint.houses)]
        eaves, light = paint.front.height, LIGHT[house.side]
        # A roof shows only where it is steeper than the line of sight over the eaves.
        steepness = paint.roof.height / ROOF_DEPTH if paint.roof else 0.0
        sight = max(abs(self.across(house.start, house.x)), abs(self.across(house.end, house.x)))
        if paint.roof and steepness * sight > eaves - CAMERA_HEIGHT:
            edges = (house.x + house.side * ROOF_DEPTH, house.x)
            heights = (eaves + paint.roof.height, eaves)
            self._panel(paint.roof, house.start, house.end, edges, heights, CLASS["building"], light)
        self._panel(paint.front, house.start, house.end, (house.x, house.x), (eaves, 0), CLASS["building"], light)

    def _gable(self, house: House) -> None:
        """The end of a house that looks towards the camera."""
        canvas, paint = self.canvas, self.paint.houses[house.style % len(self.paint.houses)]
        z, x, wall = house.start - self.s, self.across(house.start, house.x), paint.gable
        if self.outside(x, z, 0):
            return
        rise = paint.roof.height if paint.roof else 0.0
        slant = ROOF_DEPTH if paint.roof else 0.0
        x1, x2 = sorted((x, x + house.side * wall.width))
        high, eaves = CAMERA_HEIGHT - wall.height, CAMERA_HEIGHT - wall.height + rise
        quad = np.array(((x1, high, z), (x2, high, z), (x2, CAMERA_HEIGHT, z), (x1, CAMERA_HEIGHT, z)))
        top = np.array(((x1, eaves, z), (x1 + slant, high, z), (x2 - slant, high, z), (x2, eaves, z)))
        outline = canvas.project(np.concatenate([top, quad[2:]]))
        light = 0.82 * LIGHT[house.side]
        if z < PLAIN:
            canvas.surface(wall, (0, 1), canvas.project(quad), z, CLASS["building"], light, outline)
        elif canvas.region(outline):
            r, g, b = (round(value * light) for value in wall.mean)
            canvas.polygon(outline, hazed((r, g, b), z), CLASS["building"])

    def _panel(
        self,
        surface: Surface,
        start: float,
        end: float,
        x: tuple[float, float],
        height: tuple[float, float],
        slot: int,
        light: float,
    ) -> None:
        """A surface along the street, in pieces, so that each is sampled at a fitting resolution; x and height in
        metres of its upper and lower edge."""
        z1, z2 = start - self.s, end - self.s
        bend1, bend2 = self.across(start, 0), self.across(end, 0)
        reach = 0.5 * self.canvas.width / self.canvas.focal + 0.02
        visible = max(z1, NEAR, 0.7 * min(abs(x[1] + bend1), abs(x[1] + bend2)) / reach)
        if visible >= z2:
            return
        pieces = max(math.ceil(math.log(z2 / visible) / _STRETCH), 1)
        cuts = (visible * (z2 / visible) ** (k / pieces) for k in range(pieces + 1))
        for a, b in itertools.pairwise(cuts):
            near, far = (a - z1) / (z2 - z1), (b - z1) / (z2 - z1)
            xa, xb = bend1 + (bend2 - bend1) * near, bend1 + (bend2 - bend1) * far
            high, low = CAMERA_HEIGHT - height[0], CAMERA_HEIGHT - height[1]
            quad = np.array(((x[0] + xa, high, a), (x[0] + xb, high, b), (x[1] + xb, low, b), (x[1] + xa, low, a)))
            self.canvas.surface(surface, (near, far), self.canvas.project(quad), (a + b) / 2, slot, light)

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

    def _lamp(self, lamp: Lamp) -> None:
        canvas, z, x = self.canvas, lamp.s - self.s, self.across(lamp.s, lamp.x)
        if self.outside(x, z, 2.5):
            return
        metal: Color = (92, 96, 98)
        canvas.upright(x - 0.09, x + 0.09, 0, 1.2, z, metal, CLASS["pole"])
        canvas.upright(x - 0.06, x + 0.06, 1.2, 8.0, z, metal, CLASS["pole"])
        for inner, outer, low, high, color in ((0.0, 1.7, 7.95, 8.05, metal), (1.1, 1.9, 7.86, 8.06, (150, 152, 150))):
            ends = sorted((x - lamp.side * inner, x - lamp.side * outer))
            canvas.upright(ends[0], ends[1], low, high, z, color, CLASS["pole"])

    def _sign(self, sign: Sign) -> None:
        canvas, z, x = self.canvas, sign.s - self.s, self.across(sign.s, sign.x)
        if self.outside(x, z, 0.5):
            return
        canvas.upright(x - 0.04, x + 0.04, 0, 2.9, z, (126, 130, 132), CLASS["pole"])
        for corners, turn, radius, color in SIGNS[sign.kind % len(SIGNS)]:
            canvas.disc(x, 2.55, radius, corners, turn, z, color, CLASS["traffic sign"])

    def _signal(self, signal: Signal) -> None:
        canvas, z, x = self.canvas, signal.s - self.s, self.across(signal.s, signal.x)
        if self.outside(x, z, 0.5):
            return
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

    def _vehicle(self, placed: Vehicle) -> None:
        canvas, solid = self.canvas, vehicle(placed.kind)
        z, x = placed.s - self.s, self.across(placed.s, placed.x)
        if self.outside(x, z + solid.length / 2, 1.5):
            return
        angle = self.world.road.heading(placed.s) - self.heading + (math.pi if placed.turned else 0)
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
            if outline:
                cv2.fillConvexPoly(canvas.slots, polygon, slot, cv2.LINE_8, _SUBPIXEL)

    def _shadow(self, place: Float, turn: Float, half_width: float, half_length: float) -> None:
        """The dark under a vehicle, soft towards its rim: on the picture only."""
        depth = float(place[2])
        if depth > 80:
            return
        near = max(-half_length, 1.5 - depth)
        rings = ((0.28, 0.88), (0.16, 0.82), (0.04, 0.75), (-0.12, 0.7)) if depth < 30 else ((0.08, 0.6),)
        for margin, keep in rings:
            w, a, b = half_width + margin, near - margin, half_length + margin
            flat = np.array(((-w, 0, a), (w, 0, a), (w, 0, b), (-w, 0, b)), np.float32) @ turn + place
            if flat[:, 2].min() > 0.5:
                self.canvas.darken(self.canvas.project(flat), keep)

    def _walker(self, walker: Walker) -> None:
        z, x = walker.s - self.s, self.across(walker.s, walker.x)
        if not self.outside(x, z, 0.6):
            parts = pedestrian(walker.style, walker.phase, walker.away)
            self._figure([("person", walker.track, parts)], x, z, walker.size)

    def _cyclist(self, placed: Cyclist) -> None:
        z, x = placed.s - self.s, self.across(placed.s, placed.x)
        if not self.outside(x, z, 0.6):
            bicycle, rider = cyclist(placed.style, placed.phase)
            self._figure([("bicycle", placed.track, bicycle), ("rider", placed.rider_track, rider)], x, z, 1.0)

    def _figure(self, layers: Sequence[tuple[str, int, Figure]], x: float, z: float, size: float) -> None:
        canvas = self.canvas
        scale = canvas.focal / z
        foot = np.array((canvas.width / 2 + x * scale, canvas.horizon + CAMERA_HEIGHT * scale))
        for radius in (0.34, 0.24) if scale > 30 else ():  # a shadow
            canvas.darken(foot + radius * scale * _ring(10, 0) * (1, CAMERA_HEIGHT / z), 0.86)
        for name, track, figure in layers:
            pixels = figure.corners * (scale * size * np.array((1, -1))) + foot
            region = canvas.region(pixels)
            slot = canvas.thing(name, track, region) if region else None
            if slot is None:
                continue
            fixed, end = (pixels * 16 - 8).astype(np.int32), 0
            for count, color in figure.parts:
                start, end = end, end + count
                cv2.fillConvexPoly(canvas.picture, fixed[start:end], hazed(color, z), cv2.LINE_AA, _SUBPIXEL)
                cv2.fillConvexPoly(canvas.slots, fixed[start:end], slot, cv2.LINE_8, _SUBPIXEL)


_RED, _WHITE, _BLUE, _YELLOW = (176, 30, 34), (228, 228, 224), (26, 70, 150), (232, 186, 40)
SIGNS: tuple[tuple[tuple[int, float, float, Color], ...], ...] = (
    ((10, 0, 0.36, _RED), (10, 0, 0.27, _WHITE)),
    ((3, math.pi / 2, 0.46, _RED), (3, math.pi / 2, 0.29, _WHITE)),
    ((4, math.pi / 4, 0.44, _WHITE), (4, math.pi / 4, 0.4, _BLUE)),
    ((10, 0, 0.36, _WHITE), (10, 0, 0.34, _BLUE)),
    ((4, 0, 0.46, _WHITE), (4, 0, 0.38, _YELLOW)),
)
"""Kinds of signs; of each plate: corners, turn in radians, radius in metres, colour."""
