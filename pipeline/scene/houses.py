"""Houses, their windows, doors and shops, as painted surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from pipeline.scene.paint import (
    FACADE_SCALE,
    PLASTER,
    SIGNS,
    TILES,
    Color,
    Float,
    Surface,
    _dim,
    fractal_noise,
    to_bytes,
    tone,
)


@dataclass(frozen=True, slots=True)
class HousePaint:
    """A house: its front to the eaves, its roof (of `height` metres up and ROOF_DEPTH back) if any, its gable."""

    front: Surface
    roof: Surface | None
    gable: Surface
    plain: Color
    """The gable's from afar."""


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
