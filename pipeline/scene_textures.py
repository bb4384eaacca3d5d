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


@dataclass(frozen=True, slots=True)
class HousePaint:
    """A house: its front to the eaves, its roof (of `height` metres up and ROOF_DEPTH back) if any, its gable."""

    front: Surface
    roof: Surface | None
    gable: Surface
    plain: Color
    """The gable's from afar."""


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


@dataclass(frozen=True, slots=True)
class _Wall:
    """A wall being painted: `scale` pixels a metre, `height` metres."""

    pixels: Float
    scale: float
    height: float
    plaster: Color

    def box(self, x1: float, y1: float, x2: float, y2: float, color: Color) -> None:
        """A rectangle in metres: x from the left, y from the ground up."""
        left, top = round(x1 * self.scale), round((self.height - y2) * self.scale)
        right, bottom = round(x2 * self.scale) - 1, round((self.height - y1) * self.scale) - 1
        cv2.rectangle(self.pixels, (left, top), (max(right, left), max(bottom, top)), color, -1)

    def shade(self, factor: float) -> Color:
        """The plaster, darker or brighter."""
        return _dim(self.plaster, factor)


def _dim(color: Color, factor: float) -> Color:
    return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))


@lru_cache(maxsize=4)
def houses(seed: int, detail: float, count: int = 12) -> tuple[HousePaint, ...]:
    """A town's worth of houses."""
    return tuple(_house(np.random.default_rng((seed, 2, k)), detail, PLASTER[k % len(PLASTER)]) for k in range(count))


def _house(rng: np.random.Generator, detail: float, plaster: Color) -> HousePaint:
    scale = FACADE_SCALE * detail
    bays, floors = int(rng.integers(5, 8)), int(rng.integers(2, 5))
    bay, storey, ground_floor = rng.uniform(2.6, 3.3), rng.uniform(2.9, 3.4), rng.uniform(3.4, 4.0)
    roof = rng.uniform(1.6, 2.8) if rng.uniform() < 0.75 else 0.0
    width, height = bays * bay, ground_floor + floors * storey + roof
    rows, columns = round(height * scale), round(width * scale)
    stain = fractal_noise(rng, rows, columns, (4, 8), 4)
    grain = rng.standard_normal((rows, columns)).astype(np.float32)
    wall = tone(*plaster) + (5 * stain + 3 * grain)[..., None]
    if rng.uniform() < 0.3:
        wall -= ((np.arange(rows) / scale % 0.25 < 0.06) * np.float32(10))[:, None, None]
    wall *= np.linspace(1.05, 0.9, rows, dtype=np.float32)[:, None, None]

    paint = _Wall(wall, scale, height, plaster)
    box, shade = paint.box, paint.shade
    eaves = height - roof
    if roof:
        tile = TILES[int(rng.integers(len(TILES)))]
        band = wall[: round(roof * scale)]
        band[:] = tone(*tile) + (5 * stain + 4 * grain)[: len(band), :, None]
        band -= ((np.arange(len(band)) / scale % 0.4 < 0.1) * np.float32(9))[:, None, None]
        for k in range(bays):
            if rng.uniform() < 0.45 and roof > 1.8:
                _window(rng, paint, k * bay + bay / 2, eaves + 0.35, 0.95, 1.05, shade(1.05))
    box(0, eaves - 0.45, width, eaves - 0.3, shade(0.72))
    box(0, eaves - 0.3, width, eaves, shade(1.12))
    box(0, 0, width, 0.6, shade(0.62))
    trim = (205, 202, 194) if rng.uniform() < 0.6 else shade(0.78)
    wide, tall = rng.uniform(1.05, 1.5), rng.uniform(1.55, 1.95)
    balcony = int(rng.integers(bays)) if rng.uniform() < 0.5 else -1
    for floor in range(floors):
        base = ground_floor + floor * storey
        if floor == 0:
            box(0, base - 0.12, width, base, shade(1.1))
            box(0, base - 0.24, width, base - 0.12, shade(0.75))
        for k in range(bays):
            _window(rng, paint, (k + 0.5) * bay, base + 0.75, wide, tall, trim)
            if k == balcony:
                box((k + 0.5) * bay - 1.1, base + 0.05, (k + 0.5) * bay + 1.1, base + 0.22, shade(0.6))
                for bar in np.arange(-1.05, 1.06, 0.15):
                    box((k + 0.5) * bay + bar, base + 0.2, (k + 0.5) * bay + bar + 0.04, base + 1.15, (52, 52, 54))
                box((k + 0.5) * bay - 1.1, base + 1.1, (k + 0.5) * bay + 1.1, base + 1.17, (48, 48, 50))
    _ground_floor(rng, paint, bays, bay, ground_floor)
    box(width - 0.12, 0, width - 0.02, eaves - 0.3, shade(0.6))
    painted, cut = to_bytes(wall), round(roof * scale)
    covered = Surface(painted[:cut], width, roof) if roof else None
    gable = _gable(rng, scale, plaster, height, eaves)
    return HousePaint(Surface(painted[cut:], width, eaves), covered, gable, gable.mean)


def _gable(rng: np.random.Generator, scale: float, plaster: Color, height: float, eaves: float) -> Surface:
    """A house's end up to the ridge: bare but for stains and a few windows."""
    width = 11.0
    rows, columns = round(height * scale), round(width * scale)
    streaks = fractal_noise(rng, rows, columns, (2, 24), 3)
    wall = tone(*plaster) + (5 * fractal_noise(rng, rows, columns, (5, 5), 4) + 3 * streaks)[..., None]
    wall += rng.standard_normal((rows, columns, 1)).astype(np.float32) * 3
    wall *= np.linspace(1.04, 0.86, rows, dtype=np.float32)[:, None, None]
    wall[-max(round(0.6 * scale), 1) :] *= 0.7
    paint = _Wall(wall, scale, height, plaster)
    for column in rng.uniform(1.5, width - 1.5, int(rng.integers(0, 3))):
        for base in np.arange(4.2, eaves - 2, 3.1):
            _window(rng, paint, float(column), float(base), 0.9, 1.3, (150, 146, 138))
    return Surface(to_bytes(wall), width, height)


def _window(
    rng: np.random.Generator, paint: _Wall, middle: float, base: float, wide: float, tall: float, trim: Color
) -> None:
    box = paint.box
    left, right = middle - wide / 2, middle + wide / 2
    box(left - 0.13, base - 0.1, right + 0.13, base + tall + 0.13, trim)
    box(left - 0.18, base - 0.16, right + 0.18, base - 0.08, (112, 108, 104))
    glass = rng.uniform(0.7, 1.25)
    for k in range(5):  # the sky is mirrored in the upper panes
        tone = glass * (1 + 0.13 * k)
        box(
            left,
            base + tall * k / 5,
            right,
            base + tall * (k + 1) / 5,
            (int(50 * tone), int(58 * tone), int(66 * tone)),
        )
    if rng.uniform() < 0.45:
        curtain = int(rng.uniform(130, 190))
        if rng.uniform() < 0.5:
            box(left, base, left + 0.25 * wide, base + tall, (curtain, curtain, curtain - 8))
            box(right - 0.25 * wide, base, right, base + tall, (curtain, curtain, curtain - 8))
        else:
            box(left, base + tall * rng.uniform(0.35, 0.8), right, base + tall, (curtain, curtain - 2, curtain - 12))
    frame = (196, 194, 188) if rng.uniform() < 0.8 else (88, 70, 58)
    box(middle - 0.04, base, middle + 0.04, base + tall, frame)
    box(left, base + 0.66 * tall, right, base + 0.66 * tall + 0.07, frame)
    box(left - 0.06, base + tall, right + 0.06, base + tall + 0.07, (84, 80, 76))


def _ground_floor(rng: np.random.Generator, paint: _Wall, bays: int, bay: float, tall: float) -> None:
    """Shops of two or three bays, or flats with a door."""
    door = int(rng.integers(bays))
    shops = rng.uniform() < 0.5
    first = 0
    while first < bays:
        count = min(int(rng.integers(2, 4)), bays - first)
        if shops and rng.uniform() < 0.8:
            _shop(rng, paint, first * bay, (first + count) * bay, tall)
        else:
            for k in range(first, first + count):
                if k == door:
                    _door(paint, (k + 0.5) * bay)
                else:
                    _window(rng, paint, (k + 0.5) * bay, 1.25, 1.2, 1.55, paint.shade(1.1))
        first += count


def _door(paint: _Wall, middle: float) -> None:
    paint.box(middle - 0.75, 0, middle + 0.75, 2.7, paint.shade(1.12))
    paint.box(middle - 0.55, 0, middle + 0.55, 2.5, (70, 52, 42))
    paint.box(middle - 0.4, 1.5, middle + 0.4, 2.3, (58, 62, 64))


def _shop(rng: np.random.Generator, paint: _Wall, left: float, right: float, tall: float) -> None:
    """Panes between pillars, wares behind them, a sign or an awning above."""
    box = paint.box
    base, top = float(rng.uniform(0.4, 0.8)), tall - 0.95
    entrance = rng.uniform(left + 0.4, right - 1.6)
    box(left + 0.35, base, right - 0.35, top, (92, 90, 86))
    x = left + 0.42
    while x < right - 0.9:
        wide = min(float(rng.uniform(0.8, 1.7)), right - 0.42 - x)
        glass = rng.uniform(0.75, 1.2)
        for k in range(6):
            shade = glass * (0.8 + 0.12 * k)
            low, high = base + 0.07 + (top - base - 0.14) * k / 6, base + 0.07 + (top - base - 0.14) * (k + 1) / 6
            box(x, low, x + wide - 0.1, high, (int(52 * shade), int(56 * shade), int(58 * shade)))
        for _ in range(7):
            at, high, size = (
                x + rng.uniform(0, max(wide - 0.45, 0.05)),
                base + rng.uniform(0.3, 1.5),
                rng.uniform(0.12, 0.38),
            )
            light = rng.uniform(45, 150)
            warm = (int(light), int(light * rng.uniform(0.8, 1)), int(light * rng.uniform(0.65, 1)))
            box(at, max(high - rng.uniform(0.2, 0.6), base + 0.1), min(at + size, x + wide - 0.1), high, warm)
        x += wide
    box(entrance, 0, entrance + 1.1, top, (70, 66, 62))
    box(entrance + 0.1, 0.1, entrance + 1.0, top - 0.1, (44, 46, 48))
    sign = SIGNS[int(rng.integers(len(SIGNS)))]
    if rng.uniform() < 0.35:
        for k in range(4):
            light = 1.05 - 0.1 * k
            box(left + 0.2, top - 0.25 * (k + 1) + 0.3, right - 0.2, top - 0.25 * k + 0.3, _dim(sign, light))
    else:
        start, end = left + rng.uniform(0.2, 0.8), right - rng.uniform(0.2, 0.8)
        box(start, tall - 0.82, end, tall - 0.32, sign)
        for letter in np.arange(start + 0.4, end - 0.5, 0.3):
            if rng.uniform() < 0.8:
                box(letter, tall - 0.68, letter + 0.18, tall - 0.46, (206, 200, 186))


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


@dataclass(frozen=True, slots=True)
class Plant:
    """A tree or bush: its parts, to be drawn in order, and all of it in one, which is cheaper where it is small."""

    parts: tuple[Sprite, ...]
    whole: Sprite


@lru_cache(maxsize=4)
def trees(seed: int, detail: float, count: int = 6) -> tuple[Plant, ...]:
    """Trees: trunk, crown."""
    return tuple(_tree(np.random.default_rng((seed, 3, k)), detail) for k in range(count))


@lru_cache(maxsize=4)
def bushes(seed: int, detail: float, count: int = 3) -> tuple[Plant, ...]:
    """Bushes, half again as wide as they are high."""
    return tuple(_bush(np.random.default_rng((seed, 4, k)), detail) for k in range(count))


def _leaves(
    rng: np.random.Generator, height: int, width: int, clumps: NDArray[np.floating], leaf: float
) -> tuple[Float, NDArray[np.bool_]]:
    """Foliage, (height, width, 3), and where it is: heaps of leaves, light on top and dark below and between.

    `clumps` are rows of x, y, radius in pixels; `leaf` is the size of a leaf in pixels.
    """
    y, x = np.mgrid[:height, :width].astype(np.float32)
    clusters = fractal_noise(rng, height, width, (height / (7 * leaf), width / (7 * leaf)), 2)
    leaves = fractal_noise(rng, height, width, (height / (1.6 * leaf), width / (1.6 * leaf)), 3)
    nearest = np.full((height, width), -9, np.float32)
    light = np.zeros((height, width), np.float32)
    for cx, cy, radius in clumps[np.argsort(clumps[:, 1])].tolist():
        inside = 1 - np.hypot(x - cx, (y - cy) * 1.1) / radius + 0.12 * clusters
        light = np.where(inside > nearest, 0.5 + 0.26 * (cy - y) / radius + 0.15 * np.clip(inside, 0, 1), light)
        nearest = np.maximum(nearest, inside)
    where = nearest + 0.13 * leaves > 0.12
    low, high = clumps[:, 1].min(), clumps[:, 1].max()
    light += 0.26 * (high - y) / max(high - low, 1.0) + 0.1 * clusters + 0.2 * leaves
    green = np.array((84, 104, 50)) + np.array((10, 0, -4)) * rng.uniform(-1, 1)
    return (green * np.clip(light, 0.2, 1.5)[..., None]).astype(np.float32), where


def _tree(rng: np.random.Generator, detail: float) -> Plant:
    height, width = round(560 * detail), round(420 * detail)
    count = int(rng.integers(20, 30))
    angle, away = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    xs = (0.5 + 0.32 * away * np.cos(angle)) * width
    ys = (0.37 + 0.24 * away * np.sin(angle)) * height
    clumps = np.stack([xs, ys, rng.uniform(0.075, 0.13, count) * height], 1)
    picture, where = _leaves(rng, height, width, clumps, 6 * detail)
    trunk, twigs = np.zeros((2, height, width), np.uint8)
    lean = 0.5 + rng.uniform(-0.03, 0.03)
    corners = np.array(((0.474, 1), (0.526, 1), (lean + 0.016, 0.4), (lean - 0.016, 0.4))) * (width, height)
    cv2.fillConvexPoly(trunk, corners.round().astype(np.int32), 255)
    for tip in (0.3, 0.7):
        ends = (round(0.5 * width), round(0.68 * height)), (round(tip * width), round(0.4 * height))
        cv2.line(twigs, *ends, 255, max(round(6 * detail), 1))
    bark = np.array((80, 70, 60)) * (1 + 0.12 * fractal_noise(rng, height, width, (8, 60), 3))[..., None]
    bark = to_bytes(bark * np.linspace(1.6, 0.4, width)[:, None])
    twiggy = (twigs > 0) & ~where
    picture[twiggy] = bark[twiggy]
    crown = where | twiggy
    leaves = to_bytes(picture)
    below = (trunk > 0) & ~crown
    whole = Sprite.cut(np.where(below[..., None], bark, leaves), crown | below)
    return Plant((Sprite.cut(bark, trunk > 0), Sprite.cut(leaves, crown)), whole)


def _bush(rng: np.random.Generator, detail: float) -> Plant:
    height, width = round(180 * detail), round(270 * detail)
    count = 14
    xs = np.linspace(0.14, 0.86, count) * width
    ys = (0.8 - rng.uniform(0, 0.5, count) * np.sin(np.linspace(0.3, np.pi - 0.3, count))) * height
    clumps = np.stack([xs, ys, rng.uniform(0.16, 0.24, count) * height], 1)
    picture, where = _leaves(rng, height, width, clumps, 5 * detail)
    where[round(0.8 * height) :, round(0.16 * width) : round(0.84 * width)] = True
    whole = Sprite.cut(to_bytes(picture), where)
    return Plant((whole,), whole)


@lru_cache(maxsize=4)
def hedge(seed: int, detail: float) -> Surface:
    """A wall of leaves, 16 m long and 2 m high."""
    rng = np.random.default_rng((seed, 5))
    rows, columns = round(2 * 24 * detail), round(16 * 24 * detail)
    clump = fractal_noise(rng, rows, columns, (6, 48), 3)
    grain = rng.standard_normal((rows, columns)).astype(np.float32)
    light = np.linspace(1.1, 0.6, rows, dtype=np.float32)[:, None] * (1 + 0.14 * clump + 0.1 * grain)
    return Surface(to_bytes(tone(66, 86, 42) * light[..., None]), 16, 2)


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
