"""What the synthetic street is painted with: ground, house fronts, leaves and sky, each made once from a seed.

All pictures are uint8 RGB. `detail` scales their resolution: 1.0 is meant for a frame 1280 pixels wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Float = NDArray[np.float32]
Color = tuple[int, int, int]

HAZE: Color = (212, 219, 222)
"""What everything fades to with distance."""

ROAD_LEFT, ROAD_RIGHT = -7.6, 4.3
"""Kerbs, metres to the right of the middle of the camera's lane."""
WALK_LEFT, WALK_RIGHT = -10.9, 7.6
"""Outer edges of the pavements."""
CENTRE_LINE = -1.75
"""Between the camera's lane and the oncoming one."""
GROUND_HALF_WIDTH = 24.0
GROUND_PERIOD = 48.0
"""Metres after which the ground's texture repeats; a whole number of lane dashes (12 m)."""
FACADE_SCALE = 32
"""Pixels a metre of a house front at detail 1."""


def fractal_noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[float, float], octaves: int, wrap: bool = False
) -> Float:
    """(height, width) float32 noise of about unit deviation: `cells` (down, across) in the coarsest octave, each
    further octave twice as fine and half as strong. With `wrap` the bottom joins the top."""
    total = np.zeros((height, width), np.float32)
    strength = 1.0
    for octave in range(octaves):
        rows, columns = (
            max(2, round(min(count * 2**octave, limit))) for count, limit in zip(cells, (height, width), strict=True)
        )
        grid = rng.standard_normal((rows, columns)).astype(np.float32)
        if wrap:
            grid = np.concatenate([grid[-2:], grid, grid[:2]])
            scaled = cv2.resize(grid, (width, round(height * (rows + 4) / rows)), interpolation=cv2.INTER_CUBIC)
            margin = (len(scaled) - height) // 2
            total += strength * scaled[margin : margin + height]
        else:
            total += strength * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        strength *= 0.55
    return total / np.float32(math.sqrt((1 - 0.55 ** (2 * octaves)) / (1 - 0.55**2)))


def to_bytes(pixels: NDArray[Any]) -> Picture:
    """Rounded and clipped to 0 to 255."""
    return (pixels + 0.5).clip(0, 255).astype(np.uint8)


def as_picture(pixels: NDArray[Any]) -> Picture:
    """What OpenCV returns, which its types call an array of anything; not copied."""
    return np.asarray(pixels, np.uint8)


def tone(r: float, g: float, b: float) -> Float:
    """A colour to paint with."""
    return np.array((r, g, b), np.float32)


@dataclass(frozen=True, slots=True)
class GroundLevel:
    """The ground at one resolution, for rows nearer than `reach` metres.

    `texture` is (rows + 1, columns, 4) RGBA: rows go forward along the road, the last repeats the first; columns go
    right from -GROUND_HALF_WIDTH. `along` and `across` are pixels a metre.
    """

    texture: Picture
    along: float
    across: float
    reach: float


@lru_cache(maxsize=4)
def ground_levels(seed: int, detail: float) -> tuple[GroundLevel, ...]:
    """The ground from fine (near) to coarse (far): seen at a slant, its rows shrink with distance squared."""
    rng = np.random.default_rng((seed, 1))
    across, along = 40 * detail, 24 * detail
    rows, columns = round(GROUND_PERIOD * along), round(2 * GROUND_HALF_WIDTH * across)
    x = (np.arange(columns, dtype=np.float32) + 0.5) / np.float32(across) - np.float32(GROUND_HALF_WIDTH)
    s = (np.arange(rows, dtype=np.float32) + 0.5) / np.float32(along)
    grain = rng.standard_normal((rows, columns)).astype(np.float32)
    blotch = fractal_noise(rng, rows, columns, (8, 8), 4, wrap=True)
    ground = np.empty((rows, columns, 3), np.float32)

    grass = (x < WALK_LEFT) | (x > WALK_RIGHT)
    ground[:, grass] = tone(86, 100, 58) + (9 * blotch + 8 * grain)[:, grass, None] * tone(1, 1, 0.7)
    walk = ((x >= WALK_LEFT) & (x < ROAD_LEFT)) | ((x > ROAD_RIGHT) & (x <= WALK_RIGHT))
    slabs = rng.normal(0, 3.5, (math.ceil(GROUND_PERIOD / 0.5), math.ceil(2 * GROUND_HALF_WIDTH / 0.5)))
    slab = slabs.astype(np.float32)[(s / 0.5).astype(int)[:, None], ((x + GROUND_HALF_WIDTH) / 0.5).astype(int)]
    joint = ((s % 0.5 < 0.035)[:, None] | ((x % 0.5) < 0.035)) * np.float32(14)
    pavement = slab + 4 * blotch + 3 * grain - joint
    ground[:, walk] = tone(131, 127, 122) + pavement[:, walk, None]
    road = (x >= ROAD_LEFT) & (x <= ROAD_RIGHT)
    tracks = sum(np.exp(-(((x - track) / 0.28) ** 2)) for track in (-4.3, -2.75, -0.75, 0.75))
    asphalt = 4.5 * blotch + 4.5 * grain - 6 * np.asarray(tracks, np.float32)
    ground[:, road] = tone(88, 90, 92) + asphalt[:, road, None]
    ground = _wear(rng, ground, along, across)

    def column(metres: float) -> int:
        return round((metres + GROUND_HALF_WIDTH) * across)

    def row(metres: float) -> int:
        return round(metres * along)

    for left, right, shade in (
        (ROAD_LEFT - 0.16, ROAD_LEFT, 158),
        (ROAD_RIGHT, ROAD_RIGHT + 0.16, 158),
        (ROAD_LEFT, ROAD_LEFT + 0.3, 74),
        (ROAD_RIGHT - 0.3, ROAD_RIGHT, 74),
    ):
        stone = ground[:, column(left) : column(right)]
        stone[:] = shade + 0.4 * (stone - stone.mean())
    paint = 196 + 10 * blotch + 5 * grain
    for start in np.arange(0, GROUND_PERIOD, 12):
        dash = np.s_[row(start) : row(start + 5), column(CENTRE_LINE - 0.08) : column(CENTRE_LINE + 0.08)]
        ground[dash] = paint[dash][..., None]
    for bay in np.arange(0, GROUND_PERIOD, 6):
        for left, right in ((1.95, ROAD_RIGHT), (ROAD_LEFT, -5.25)):
            line = np.s_[row(bay) : row(bay + 0.12), column(left) : column(right)]
            ground[line] = 0.55 * paint[line][..., None] + 0.45 * ground[line]
    fine = to_bytes(ground)

    levels, reach, squeeze = [], 9.0, 1
    while reach < math.inf:
        width = columns // (1 if reach < 30 else 2 if reach < 60 else 4)
        texture = cv2.resize(fine, (width, max(rows // squeeze, 1)), interpolation=cv2.INTER_AREA)
        texture = as_picture(cv2.cvtColor(np.concatenate([texture, texture[:1]]), cv2.COLOR_RGB2RGBA))
        if squeeze >= rows:
            reach = math.inf
        levels.append(GroundLevel(texture, (len(texture) - 1) / GROUND_PERIOD, width / 2 / GROUND_HALF_WIDTH, reach))
        reach, squeeze = reach * math.sqrt(2), squeeze * 2
    return tuple(levels)


def _wear(rng: np.random.Generator, ground: Float, along: float, across: float) -> Float:
    """Patches, manhole covers, cracks and oil on the road: what makes asphalt look like asphalt."""
    rows = len(ground)

    def at(x: float, s: float) -> tuple[int, int]:
        return round((x + GROUND_HALF_WIDTH) * across), round(s * along)

    for _ in range(7):
        x, s = rng.uniform(ROAD_LEFT + 0.5, ROAD_RIGHT - 2), rng.uniform(0, GROUND_PERIOD - 6)
        (left, top), (right, bottom) = at(x, s), at(x + rng.uniform(0.8, 2.2), s + rng.uniform(1, 5))
        ground[top:bottom, left:right] += np.float32(rng.uniform(-14, 7))
    for x in (-3.4, 0.4, 0.9):
        centre = at(x, rng.uniform(2, GROUND_PERIOD - 2))
        axes = (max(round(0.34 * across), 1), max(round(0.34 * along), 1))
        cv2.ellipse(ground, centre, axes, 0, 0, 360, (66, 66, 66), -1)
        cv2.ellipse(ground, centre, axes, 0, 0, 360, (104, 103, 100), max(round(0.05 * across), 1))
    for _ in range(14):
        x, s = rng.uniform(ROAD_LEFT + 0.4, ROAD_RIGHT - 0.4), rng.uniform(0, GROUND_PERIOD)
        steps = np.cumsum(rng.normal(0, 0.22, (14, 2)) + rng.normal(0, 0.12, 2), axis=0)
        line = np.array([at(x + dx, s + 1.6 * ds) for dx, ds in steps], np.int32)
        line[:, 1] = np.clip(line[:, 1], 0, rows - 1)
        cv2.polylines(ground, [line], False, (64, 64, 65), max(round(0.03 * across), 1), cv2.LINE_AA)
    return ground


@dataclass(slots=True, eq=False)
class Surface:
    """A flat thing with a picture on it: `width` × `height` metres, rows from the top down."""

    picture: Picture
    width: float
    height: float
    _smaller: dict[tuple[int, int], Picture] = field(default_factory=dict)

    @property
    def mean(self) -> Color:
        """The colour it has from afar."""
        r, g, b, _ = self.shrunk(16, 16).reshape(-1, 4).mean(0).round().astype(int).tolist()
        return (r, g, b)

    def shrunk(self, across: int, down: int) -> Picture:
        """The picture with its width halved `across` times and its height `down` times, RGBA, with a rim of RIM
        pixels that repeats the edge (so that sampling at the very edge finds a neighbour)."""
        key = (across, down)
        if key not in self._smaller:
            height, width = self.picture.shape[:2]
            size = (max(width >> across, 2), max(height >> down, 2))
            smaller = cv2.resize(self.picture, size, interpolation=cv2.INTER_AREA)
            rimmed = cv2.copyMakeBorder(smaller, RIM, RIM, RIM, RIM, cv2.BORDER_REPLICATE)
            self._smaller[key] = as_picture(cv2.cvtColor(rimmed, cv2.COLOR_RGB2RGBA))
        return self._smaller[key]


RIM = 6
"""Pixels around a surface's picture."""
ROOF_DEPTH = 2.2
"""Metres from the eaves back to the ridge."""

PLASTER: tuple[Color, ...] = (
    (188, 174, 148), (201, 193, 176), (168, 160, 148), (176, 150, 118), (158, 120, 98), (194, 186, 182),
    (150, 148, 142), (182, 164, 132), (140, 98, 80), (204, 198, 188), (164, 142, 124), (148, 154, 152),
)  # fmt: skip
TILES: tuple[Color, ...] = ((120, 78, 62), (98, 70, 60), (84, 84, 88), (104, 88, 78), (74, 76, 80))
SIGNS: tuple[Color, ...] = (
    (112, 50, 46),
    (54, 70, 98),
    (62, 84, 68),
    (150, 128, 76),
    (62, 60, 62),
    (128, 88, 58),
    (170, 164, 152),
)


def _dim(color: Color, factor: float) -> Color:
    return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A cut-out that faces the camera.

    Attributes:
        levels: RGBA pictures, each half the size of the one before; where alpha > 127 it is opaque.
        place: left, right (from the foot, right positive), top and bottom (from the foot, up positive) of the picture,
            as shares of the whole plant's height.
    """

    levels: tuple[Picture, ...]
    place: tuple[float, float, float, float]

    @classmethod
    def cut(cls, picture: Picture, opaque: NDArray[np.bool_]) -> Sprite:
        """The part of a plant's picture (its foot in the middle of the lower edge) where it is opaque."""
        rows, columns = opaque.shape
        x, y, width, height = cv2.boundingRect(opaque.astype(np.uint8))
        own = np.where(opaque, 255, 0).astype(np.uint8)
        levels = [np.dstack([picture, own])[y : y + height, x : x + width]]
        while min(levels[-1].shape[:2]) > 8:
            levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.uint8))
        left, right = (x - columns / 2) / rows, (x + width - columns / 2) / rows
        return cls(tuple(levels), (left, right, (rows - y) / rows, (rows - y - height) / rows))


@lru_cache(maxsize=4)
def garden_wall(seed: int, detail: float) -> Surface:
    """A wall of stones, 16 m long and 1.6 m high."""
    rng = np.random.default_rng((seed, 6))
    scale = 24 * detail
    rows, columns = round(1.6 * scale), round(16 * scale)
    y, x = np.arange(rows)[:, None] / scale, np.arange(columns)[None] / scale
    course = (y / 0.3).astype(int)
    joint = (y % 0.3 < 0.05) | ((x + 0.3 * (course % 2)) % 0.6 < 0.05)
    stain = fractal_noise(rng, rows, columns, (6, 40), 3) * 7 + rng.standard_normal((rows, columns)) * 3 - 16 * joint
    wall = tone(142, 134, 122) + stain.astype(np.float32)[..., None]
    wall[: max(round(0.14 * scale), 1)] += 18
    return Surface(to_bytes(wall), 16, 1.6)


def sky(seed: int, width: int, height: int) -> Picture:
    """(height, width, 3): overcast and bright, the horizon at the bottom."""
    rng = np.random.default_rng((seed, 7))
    height = max(height, 2)
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    blue = tone(214, 222, 227) * (1 - up) + tone(148, 178, 210) * up
    small = (max(height // 4, 2), max(width // 4, 2))
    cloud = fractal_noise(rng, *small, (3, 3 * small[1] / small[0]), 5)
    cover = cv2.resize(1 / (1 + np.exp(-2.2 * (cloud + 0.35))), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = cover.reshape(height, width, 1)
    relief = cv2.resize(cloud, (width, height)).reshape(height, width, 1)
    white = tone(232, 235, 236) + 9 * relief
    return to_bytes(blue * (1 - cover) + white * cover)


def tree_line(seed: int, width: int) -> Float:
    """(width,) float32 heights, 0 to 1: the far edge of the town."""
    rng = np.random.default_rng((seed, 8))
    return np.asarray((0.5 + 0.25 * fractal_noise(rng, 2, width, (2, 14), 5)[0]).clip(0.12, 1), np.float32)
