"""What the synthetic street is painted with: ground, house fronts, leaves and sky, each made once from a seed.

All pictures are uint8 RGB. `detail` scales their resolution: 1.0 is meant for a frame 1280 pixels wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

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
        rows, columns = (max(2, round(min(count * 2**octave, limit))) for count, limit in zip(cells, (height, width)))
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


def to_bytes(pixels: Float) -> Picture:
    """Rounded and clipped to 0 to 255."""
    return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class GroundLevel:
    """The ground at one resolution, for rows nearer than `reach` metres.

    `texture` is (rows + 1, columns, 3): rows go forward along the road, the last repeats the first; columns go right
    from -GROUND_HALF_WIDTH. `along` and `across` are pixels a metre.
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
    ground[:, grass] = np.float32((86, 100, 58)) + (9 * blotch + 8 * grain)[:, grass, None] * np.float32((1, 1, 0.7))
    walk = ((x >= WALK_LEFT) & (x < ROAD_LEFT)) | ((x > ROAD_RIGHT) & (x <= WALK_RIGHT))
    slabs = rng.normal(0, 3.5, (math.ceil(GROUND_PERIOD / 0.5), math.ceil(2 * GROUND_HALF_WIDTH / 0.5)))
    slab = slabs.astype(np.float32)[(s / 0.5).astype(int)[:, None], ((x + GROUND_HALF_WIDTH) / 0.5).astype(int)]
    joint = ((s % 0.5 < 0.035)[:, None] | ((x % 0.5) < 0.035)) * np.float32(14)
    pavement = slab + 4 * blotch + 3 * grain - joint
    ground[:, walk] = np.float32((131, 127, 122)) + pavement[:, walk, None]
    road = (x >= ROAD_LEFT) & (x <= ROAD_RIGHT)
    tracks = sum(np.exp(-(((x - track) / 0.28) ** 2)) for track in (-4.3, -2.75, -0.75, 0.75))
    asphalt = 4.5 * blotch + 4.5 * grain - 6 * np.asarray(tracks, np.float32)
    ground[:, road] = np.float32((88, 90, 92)) + asphalt[:, road, None]
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
    while reach < 400:
        width = columns // (1 if reach < 30 else 2 if reach < 60 else 4)
        texture = cv2.resize(fine, (width, max(rows // squeeze, 12)), interpolation=cv2.INTER_AREA)
        texture = np.concatenate([texture, texture[:1]])
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


@dataclass(slots=True)
class Facade:
    """A house front: `picture` (rows from the top down) covers `width` × `height` metres."""

    picture: Picture
    width: float
    height: float
    plain: Color
    _smaller: dict[tuple[int, int], Picture] = field(default_factory=dict)

    def shrunk(self, across: int, down: int) -> Picture:
        """The picture with its width halved `across` times and its height `down` times."""
        key = (across, down)
        if key not in self._smaller:
            height, width = self.picture.shape[:2]
            size = (max(width >> across, 2), max(height >> down, 2))
            self._smaller[key] = cv2.resize(self.picture, size, interpolation=cv2.INTER_AREA)
        return self._smaller[key]


PLASTER: tuple[Color, ...] = (
    (188, 174, 148), (201, 193, 176), (168, 160, 148), (176, 150, 118), (158, 120, 98), (194, 186, 182),
    (150, 148, 142), (182, 164, 132), (140, 98, 80), (204, 198, 188), (164, 142, 124), (148, 154, 152),
)  # fmt: skip
TILES: tuple[Color, ...] = ((120, 78, 62), (98, 70, 60), (84, 84, 88), (104, 88, 78), (74, 76, 80))
SIGNS: tuple[Color, ...] = ((150, 40, 38), (36, 70, 120), (44, 96, 66), (190, 150, 50), (60, 58, 62), (172, 92, 40))


@lru_cache(maxsize=4)
def facades(seed: int, detail: float, count: int = 12) -> tuple[Facade, ...]:
    """A town's worth of house fronts."""
    return tuple(_facade(np.random.default_rng((seed, 2, k)), detail, PLASTER[k % len(PLASTER)]) for k in range(count))


def _facade(rng: np.random.Generator, detail: float, plaster: Color) -> Facade:
    scale = FACADE_SCALE * detail
    bays, floors = int(rng.integers(5, 8)), int(rng.integers(2, 5))
    bay, storey, ground_floor = rng.uniform(2.6, 3.3), rng.uniform(2.9, 3.4), rng.uniform(3.4, 4.0)
    roof = rng.uniform(1.6, 2.8) if rng.uniform() < 0.75 else 0.0
    width, height = bays * bay, ground_floor + floors * storey + roof
    rows, columns = round(height * scale), round(width * scale)
    stain = fractal_noise(rng, rows, columns, (4, 8), 4)
    grain = rng.standard_normal((rows, columns)).astype(np.float32)
    wall = np.float32(plaster) + (5 * stain + 3 * grain)[..., None]
    if rng.uniform() < 0.3:
        wall -= ((np.arange(rows) / scale % 0.25 < 0.06) * np.float32(10))[:, None, None]
    wall *= np.linspace(1.05, 0.9, rows, dtype=np.float32)[:, None, None]

    def box(x1: float, y1: float, x2: float, y2: float, color: Color) -> None:
        """A rectangle in metres: x from the left, y from the ground up."""
        corner, other = (
            (round(x1 * scale), round((height - y2) * scale)),
            (round(x2 * scale), round((height - y1) * scale)),
        )
        cv2.rectangle(wall, corner, (max(other[0] - 1, corner[0]), max(other[1] - 1, corner[1])), color, -1)

    def shade(factor: float) -> Color:
        return (int(plaster[0] * factor), int(plaster[1] * factor), int(plaster[2] * factor))

    eaves = height - roof
    if roof:
        tile = TILES[int(rng.integers(len(TILES)))]
        band = wall[: round(roof * scale)]
        band[:] = np.float32(tile) + (5 * stain + 4 * grain)[: len(band), :, None]
        band -= ((np.arange(len(band)) / scale % 0.4 < 0.1) * np.float32(9))[:, None, None]
        for k in range(bays):
            if rng.uniform() < 0.45 and roof > 1.8:
                _window(rng, box, k * bay + bay / 2, eaves + 0.35, 0.95, 1.05, shade(1.05))
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
            _window(rng, box, (k + 0.5) * bay, base + 0.75, wide, tall, trim)
            if k == balcony:
                box((k + 0.5) * bay - 1.1, base + 0.05, (k + 0.5) * bay + 1.1, base + 0.22, shade(0.6))
                for bar in np.arange(-1.05, 1.06, 0.15):
                    box((k + 0.5) * bay + bar, base + 0.2, (k + 0.5) * bay + bar + 0.04, base + 1.15, (52, 52, 54))
                box((k + 0.5) * bay - 1.1, base + 1.1, (k + 0.5) * bay + 1.1, base + 1.17, (48, 48, 50))
    _ground_floor(rng, box, bays, bay, ground_floor, width, shade)
    box(width - 0.12, 0, width - 0.02, eaves - 0.3, shade(0.6))
    return Facade(to_bytes(wall), width, height, shade(0.95))


def _window(rng: np.random.Generator, box, middle: float, base: float, wide: float, tall: float, trim: Color) -> None:  # type: ignore[no-untyped-def]
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


def _ground_floor(rng: np.random.Generator, box, bays: int, bay: float, tall: float, width: float, shade) -> None:  # type: ignore[no-untyped-def]
    if rng.uniform() < 0.55:
        sign = SIGNS[int(rng.integers(len(SIGNS)))]
        for k in range(bays):
            box(k * bay + 0.2, 0.35, (k + 1) * bay - 0.2, tall - 0.85, (44, 48, 52))
            box(k * bay + 0.3, 1.5, (k + 1) * bay - 0.3, tall - 0.95, (72, 80, 86))
            for _ in range(3):
                x = k * bay + rng.uniform(0.4, bay - 1.0)
                tone = rng.uniform(0.5, 1.0)
                box(x, 0.5, x + 0.5, rng.uniform(0.9, 2.0), (int(150 * tone), int(130 * tone), int(110 * tone)))
            box((k + 0.5) * bay - 0.04, 0.35, (k + 0.5) * bay + 0.04, tall - 0.85, (30, 30, 32))
        box(0.2, tall - 0.8, width - 0.2, tall - 0.25, sign)
        for x in np.arange(1.0, width - 2, 3.4):
            box(x, tall - 0.62, x + 1.6, tall - 0.42, (226, 222, 210))
    else:
        door = int(rng.integers(bays))
        for k in range(bays):
            if k == door:
                box((k + 0.5) * bay - 0.75, 0, (k + 0.5) * bay + 0.75, 2.7, shade(1.12))
                box((k + 0.5) * bay - 0.55, 0, (k + 0.5) * bay + 0.55, 2.5, (70, 52, 42))
                box((k + 0.5) * bay - 0.4, 1.5, (k + 0.5) * bay + 0.4, 2.3, (58, 62, 64))
            else:
                _window(rng, box, (k + 0.5) * bay, 1.25, 1.2, 1.55, shade(1.1))


@dataclass(frozen=True, slots=True)
class Sprite:
    """A cut-out: `levels` of (picture, mask), each half the size of the one before; mask 255 = opaque."""

    levels: tuple[tuple[Picture, Picture], ...]

    @classmethod
    def from_picture(cls, picture: Picture, mask: Picture) -> Sprite:
        levels = [(picture, mask)]
        while min(levels[-1][1].shape) > 12:
            levels.append(tuple(cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in levels[-1]))  # type: ignore[arg-type]
        return cls(tuple(levels))


@lru_cache(maxsize=4)
def trees(seed: int, detail: float, count: int = 6) -> tuple[Sprite, ...]:
    """Trees with trunks, twice as many pixels high as they are wide at the crown's middle."""
    return tuple(_tree(np.random.default_rng((seed, 3, k)), detail) for k in range(count))


@lru_cache(maxsize=4)
def bushes(seed: int, detail: float, count: int = 3) -> tuple[Sprite, ...]:
    """Bushes: crowns down to the ground."""
    return tuple(_bush(np.random.default_rng((seed, 4, k)), detail) for k in range(count))


def _leaves(
    rng: np.random.Generator, picture: Float, mask: Picture, centres: Float, radius: float, leaf: float
) -> None:
    """Heaps of leaves around `centres` (x, y in pixels), darker below and inside, brighter on top."""
    low, high = centres[:, 1].min() - radius, centres[:, 1].max() + radius
    hue = rng.uniform(-8, 8)
    per = 130
    for depth in range(4):
        for cx, cy in centres[rng.permutation(len(centres))]:
            angle, away = rng.uniform(0, 2 * np.pi, per // 4), np.sqrt(rng.uniform(0, 1, per // 4)) * radius
            xs, ys = cx + away * np.cos(angle), cy + 0.85 * away * np.sin(angle) - depth * 0.06 * radius
            height = 1 - (ys - low) / (high - low)
            own = 1 - (ys - cy + radius) / (2 * radius)
            light = 0.42 + 0.3 * height + 0.28 * own + 0.06 * depth + rng.normal(0, 0.08, len(xs))
            for x, y, tone, size in zip(xs, ys, light, rng.uniform(0.5, 1.2, len(xs)) * leaf):
                color = (72 * tone + hue + 2, 92 * tone, 44 * tone)
                centre = (round(float(x)), round(float(y)))
                cv2.circle(picture, centre, max(round(float(size)), 1), color, -1)
                cv2.circle(mask, centre, max(round(float(size)), 1), 255, -1)


def _tree(rng: np.random.Generator, detail: float) -> Sprite:
    height, width = round(400 * detail), round(300 * detail)
    picture, mask = np.full((height, width, 3), (52, 66, 34), np.float32), np.zeros((height, width), np.uint8)
    middle = width / 2
    bark = (74, 64, 54)
    lean = rng.uniform(-0.03, 0.03) * width
    trunk = np.array([(middle - 0.026 * width, height), (middle + 0.026 * width, height),
                      (middle + lean + 0.016 * width, 0.4 * height), (middle + lean - 0.016 * width, 0.4 * height)])  # fmt: skip
    for canvas, color in ((picture, bark), (mask, 255)):
        cv2.fillConvexPoly(canvas, trunk.round().astype(np.int32), color)
        for side in (-1, 1):
            tip = (round(middle + side * 0.2 * width), round(0.38 * height))
            cv2.line(canvas, (round(middle), round(0.66 * height)), tip, color, max(round(5 * detail), 1))
    count = int(rng.integers(16, 24))
    angle, away = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    centres = np.stack([middle + 0.34 * width * away * np.cos(angle), (0.37 + 0.25 * away * np.sin(angle)) * height], 1)
    _leaves(rng, picture, mask, centres.astype(np.float32), 0.115 * height, 5.5 * detail)
    return Sprite.from_picture(to_bytes(picture), mask)


def _bush(rng: np.random.Generator, detail: float) -> Sprite:
    height, width = round(160 * detail), round(240 * detail)
    picture, mask = np.full((height, width, 3), (48, 62, 32), np.float32), np.zeros((height, width), np.uint8)
    count = 14
    xs = np.linspace(0.14, 0.86, count) * width
    ys = (0.82 - rng.uniform(0, 0.55, count) * np.sin(np.linspace(0.3, np.pi - 0.3, count))) * height
    _leaves(rng, picture, mask, np.stack([xs, ys], 1).astype(np.float32), 0.2 * height, 5 * detail)
    mask[round(0.8 * height) :, round(0.16 * width) : round(0.84 * width)] = 255
    return Sprite.from_picture(to_bytes(picture), mask)


@lru_cache(maxsize=4)
def hedge(seed: int, detail: float) -> Facade:
    """A wall of leaves, 16 m long and 2 m high."""
    rng = np.random.default_rng((seed, 5))
    rows, columns = round(2 * 24 * detail), round(16 * 24 * detail)
    clump, grain = (
        fractal_noise(rng, rows, columns, (6, 48), 3),
        rng.standard_normal((rows, columns)).astype(np.float32),
    )
    tone = np.linspace(1.1, 0.6, rows, dtype=np.float32)[:, None] * (1 + 0.14 * clump + 0.1 * grain)
    return Facade(to_bytes(np.float32((66, 86, 42)) * tone[..., None]), 16, 2, (56, 74, 36))


@lru_cache(maxsize=4)
def garden_wall(seed: int, detail: float) -> Facade:
    """A wall of stones, 16 m long and 1.6 m high."""
    rng = np.random.default_rng((seed, 6))
    scale = 24 * detail
    rows, columns = round(1.6 * scale), round(16 * scale)
    y, x = np.arange(rows)[:, None] / scale, np.arange(columns)[None] / scale
    course = (y / 0.3).astype(int)
    joint = (y % 0.3 < 0.05) | ((x + 0.3 * (course % 2)) % 0.6 < 0.05)
    tone = fractal_noise(rng, rows, columns, (6, 40), 3) * 7 + rng.standard_normal((rows, columns)) * 3 - 16 * joint
    wall = np.float32((142, 134, 122)) + tone.astype(np.float32)[..., None]
    wall[: max(round(0.14 * scale), 1)] += 18
    return Facade(to_bytes(wall), 16, 1.6, (134, 126, 116))


def sky(seed: int, width: int, height: int) -> Picture:
    """(height, width, 3): overcast and bright, the horizon at the bottom."""
    rng = np.random.default_rng((seed, 7))
    height = max(height, 2)
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    blue = np.float32((214, 222, 227)) * (1 - up) + np.float32((148, 178, 210)) * up
    small = (max(height // 4, 2), max(width // 4, 2))
    cloud = fractal_noise(rng, *small, (3, 3 * small[1] / small[0]), 5)
    cover = cv2.resize(1 / (1 + np.exp(-2.2 * (cloud + 0.35))), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = cover.reshape(height, width, 1)
    relief = cv2.resize(cloud, (width, height)).reshape(height, width, 1)
    white = np.float32((232, 235, 236)) + 9 * relief
    return to_bytes(blue * (1 - cover) + white * cover)


def tree_line(seed: int, width: int) -> Float:
    """(width,) float32 heights, 0 to 1: the far edge of the town."""
    rng = np.random.default_rng((seed, 8))
    return np.clip(0.5 + 0.25 * fractal_noise(rng, 2, width, (2, 14), 5)[0], 0.12, 1)
