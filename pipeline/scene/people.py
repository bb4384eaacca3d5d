"""People on foot and on bicycles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.scene.solids import Color, Float, dim
from pipeline.scene.vehicles import TRIM

COATS: tuple[Color, ...] = (
    (52, 56, 66), (96, 44, 46), (120, 118, 114), (40, 66, 92),
    (70, 84, 62), (150, 128, 96), (34, 34, 38), (160, 158, 152),
)  # fmt: skip
TROUSERS: tuple[Color, ...] = ((42, 50, 68), (48, 46, 46), (84, 78, 70), (30, 32, 36))
SKIN: tuple[Color, ...] = ((202, 158, 132), (176, 128, 100), (120, 84, 62))


STEPS = 48
"""Poses in a full turn of legs or pedals."""


_CHIN = 1.445
"""Metres; what lies above is the head."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A cut-out of convex polygons, to be drawn in order.

    Attributes:
        corners: (N, 2) float32 of all polygons one after another; metres, x right and y up from between the feet.
        parts: corners and colour of each polygon.
        head: (K, 2) float32, the corners of those that are the head.
    """

    corners: Float
    parts: tuple[tuple[int, Color], ...]
    head: Float


class _Body:
    def __init__(self) -> None:
        self.shapes: list[tuple[NDArray[np.floating], Color]] = []

    def polygon(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        self.shapes.append((np.array(points, np.float32), color))

    def limb(self, a: tuple[float, float], b: tuple[float, float], thick: tuple[float, float], color: Color) -> None:
        """From a to b, `thick` at either end."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        size = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / size / 2, dx / size / 2
        start, end = thick
        self.polygon(
            [
                (a[0] + nx * start, a[1] + ny * start),
                (b[0] + nx * end, b[1] + ny * end),
                (b[0] - nx * end, b[1] - ny * end),
                (a[0] - nx * start, a[1] - ny * start),
            ],
            color,
        )

    def ball(self, x: float, y: float, across: float, tall: float, color: Color) -> None:
        angles = np.linspace(0, 2 * np.pi, 10, endpoint=False)
        self.shapes.append((np.stack([x + across * np.cos(angles), y + tall * np.sin(angles)], 1), color))

    def torso(self, hip: float, low: float, wide: float, color: Color) -> None:
        """Hips to shoulders, one half in the light."""
        right = [(0.0, low), (hip, low), (wide, 1.34), (wide - 0.03, 1.41), (0.1, 1.48), (0.0, 1.48)]
        self.polygon([*right, *((-x, y) for x, y in right[:0:-1])], color)
        self.polygon(right, dim(color, 1.12))

    def figure(self) -> Figure:
        corners = np.concatenate([shape for shape, _ in self.shapes]).astype(np.float32)
        head = [shape for shape, _ in self.shapes if shape[:, 1].min() >= _CHIN]
        above = np.concatenate(head) if head else np.empty((0, 2))
        return Figure(corners, tuple((len(shape), color) for shape, color in self.shapes), above.astype(np.float32))


def pedestrian(style: int, phase: float, away: bool) -> Figure:
    """A walking person; `phase` in radians, one step each π; `away` shows the back."""
    return _pedestrian(style, round(phase * STEPS / math.tau) % STEPS, away)


def cyclist(style: int, phase: float) -> tuple[Figure, Figure]:
    """(bicycle, rider) seen from behind, pedalling; `phase` in radians."""
    return _cyclist(style, round(phase * STEPS / math.tau) % STEPS)


@lru_cache(maxsize=1024)
def _pedestrian(style: int, pose: int, away: bool) -> Figure:
    coat, trousers, skin = COATS[style % len(COATS)], TROUSERS[style % len(TROUSERS)], SKIN[style % len(SKIN)]
    hair = ((46, 34, 26), (92, 66, 42), (28, 26, 26), (128, 118, 104))[style % 4]
    swing = math.sin(math.tau * pose / STEPS)
    body = _Body()
    for side in (1, -1):
        step = side * swing
        foot = (side * 0.1 + 0.12 * step, 0.09 * max(-step, 0.0))
        knee = (side * 0.1 + 0.05 * step, 0.48 + 0.3 * foot[1])
        body.limb(knee, (foot[0], foot[1] + 0.05), (0.15, 0.11), dim(trousers, 0.9))
        body.limb((side * 0.085, 0.92), knee, (0.2, 0.155), trousers)
        body.limb((foot[0] - 0.04, foot[1] + 0.035), (foot[0] + 0.09, foot[1] + 0.035), (0.08, 0.07), (34, 30, 30))
    for side in (1, -1):
        hand = (side * 0.255 - 0.07 * swing * side, 0.86)
        body.limb((side * 0.205, 1.4), hand, (0.13, 0.1), dim(coat, 0.8))
        body.ball(*hand, 0.045, 0.05, skin)
    body.torso(0.19, 0.8 - 0.16 * (style % 5 == 1), 0.235, coat)
    if style % 3 == 0:
        body.polygon(
            [(-0.15, 0.98), (0.15, 0.98), (0.15, 1.4), (-0.15, 1.4)], dim(COATS[(style + 3) % len(COATS)], 0.8)
        )
    body.limb((0, 1.44), (0, 1.54), (0.1, 0.1), skin)
    body.ball(0, 1.62, 0.1, 0.13, hair if away else skin)
    if not away:
        body.polygon([(-0.1, 1.64), (0, 1.69), (0.1, 1.64), (0.09, 1.72), (0, 1.765), (-0.09, 1.72)], hair)
    return body.figure()


@lru_cache(maxsize=512)
def _cyclist(style: int, pose: int) -> tuple[Figure, Figure]:
    coat, trousers, skin = COATS[(style + 2) % len(COATS)], TROUSERS[style % len(TROUSERS)], SKIN[style % len(SKIN)]
    turn = math.sin(math.tau * pose / STEPS)
    bicycle = _Body()
    bicycle.ball(0, 0.34, 0.045, 0.34, (24, 24, 26))
    bicycle.limb((0, 0.3), (0, 0.95), (0.06, 0.05), (60, 62, 66))
    bicycle.limb((-0.3, 1.02), (0.3, 1.02), (0.05, 0.05), (40, 40, 42))
    for side in (1, -1):
        bicycle.polygon(
            [(side * 0.05, 0.42), (side * 0.2, 0.42), (side * 0.2, 0.72), (side * 0.05, 0.72)], (62, 52, 44)
        )
        bicycle.limb(
            (side * 0.06, 0.28 + 0.16 * turn * side), (side * 0.2, 0.28 + 0.16 * turn * side), (0.05, 0.05), TRIM
        )
    bicycle.limb((-0.11, 0.9), (0.11, 0.9), (0.09, 0.09), (30, 28, 28))
    bicycle.ball(0, 0.66, 0.05, 0.05, (190, 30, 28))
    rider = _Body()
    for side in (1, -1):
        pedal = 0.3 + 0.16 * turn * side
        knee = (side * 0.15, 0.66 + 0.5 * (pedal - 0.3))
        rider.limb(knee, (side * 0.14, pedal), (0.14, 0.1), dim(trousers, 0.9))
        rider.limb((side * 0.1, 0.97), knee, (0.18, 0.15), trousers)
        rider.limb((side * 0.11, pedal), (side * 0.18, pedal), (0.08, 0.08), (34, 30, 30))
        rider.limb((side * 0.2, 1.38), (side * 0.29, 1.05), (0.11, 0.08), dim(coat, 0.8))
    rider.torso(0.17, 0.88, 0.225, coat)
    rider.ball(0, 1.57, 0.09, 0.12, skin)
    rider.ball(0, 1.63, 0.115, 0.1, ((190, 190, 186), (40, 44, 50), (160, 40, 40))[style % 3])
    return bicycle.figure(), rider.figure()
