"""Trees, bushes and hedges, as sprites."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.scene.paint import Float, Sprite, Surface, fractal_noise, to_bytes, tone


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
