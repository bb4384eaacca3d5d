"""A procedural street: the world as a pure function of (seed, time), its projection, and its drawing."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from pipeline.frame import Box

MIN_SIDE, MAX_SIDE, MAX_TRAFFIC = 16, 8192, 16


class SyntheticScene:
    """A first sketch, to be replaced."""

    def __init__(
        self, width: int = 1280, height: int = 720, fps: Fraction | float = 25, seed: int = 0, traffic: int = 6
    ) -> None:
        self.width, self.height, self.fps, self.seed, self.traffic = width, height, float(fps), seed, traffic
        self.focal = max(width, height * 16 / 9)
        self.horizon = 0.46 * height

    def frame(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[Box, ...]]:
        """Picture (H, W, 3) uint8 RGB, label (H, W) uint8, boxes of the things."""
        t = index / self.fps
        w, h, f = self.width, self.height, self.focal
        picture = np.empty((h, w, 3), np.uint8)
        label = np.empty((h, w), np.uint8)
        top = int(self.horizon)
        picture[:top], label[:top] = (150, 180, 210), 10
        picture[top:], label[top:] = (120, 115, 110), 1

        def put(points: list[tuple[float, float, float]], color: tuple[int, ...], class_id: int | None) -> None:
            xyz = np.array(points)
            uv = np.round(
                np.stack([w / 2 + f * xyz[:, 0] / xyz[:, 2], self.horizon + f * xyz[:, 1] / xyz[:, 2]], 1)
            ).astype(np.int32)
            cv2.fillConvexPoly(picture, uv, color)
            if class_id is not None:
                cv2.fillConvexPoly(label, uv, class_id)

        def block(
            x1: float, x2: float, z1: float, z2: float, high: float, color: tuple[int, ...], class_id: int
        ) -> None:
            side = x1 if x1 > 0 else x2
            shade = (color[0] // 2, color[1] // 2, color[2] // 2)
            if x1 > 0 or x2 < 0:
                put([(side, 1.4 - high, z1), (side, 1.4 - high, z2), (side, 1.4, z2), (side, 1.4, z1)], shade, class_id)
            put([(x1, 1.4 - high, z1), (x2, 1.4 - high, z1), (x2, 1.4, z1), (x1, 1.4, z1)], color, class_id)

        put([(-5.5, 1.4, 1), (-5.5, 1.4, 300), (5.5, 1.4, 300), (5.5, 1.4, 1)], (85, 85, 88), 0)
        travelled = 11 * t
        for k in range(int(travelled // 12) + 12, int(travelled // 12) - 1, -1):
            z = k * 12 - travelled
            if z + 4 > 1.5:
                near = max(z, 1.5)
                put(
                    [(-1.8, 1.4, near), (-1.8, 1.4, z + 4), (-1.65, 1.4, z + 4), (-1.65, 1.4, near)],
                    (225, 225, 220),
                    None,
                )
        for k in range(int(travelled // 20) + 10, int(travelled // 20) - 1, -1):
            rng = np.random.default_rng((self.seed, k))
            z = k * 20 - travelled
            for sign in (-1, 1):
                high, tree = rng.uniform(9, 18), rng.uniform() < 0.4
                color = (70, 90, 50) if tree else tuple(int(c) for c in rng.integers(110, 170, 3))
                edges = (9.5, 18) if sign > 0 else (-18, -9.5)
                block(edges[0], edges[1], max(z, 2), max(z + 17, 2.5), high, color, 8 if tree else 2)
        boxes: list[Box] = []
        for k in range(self.traffic, 0, -1):
            oncoming = k % 2
            z = (k * 23 - t * 20) % (self.traffic * 23) + 3 if oncoming else 9 + 11 * k + 3 * np.sin(t / 3 + k)
            x = -3.4 if oncoming else 0
            before = label.copy()
            rng = np.random.default_rng((self.seed, 7, k))
            label[label == 13] = 255
            block(x - 0.9, x + 0.9, z, z + 4, 1.5, tuple(int(c) for c in rng.integers(40, 200, 3)), 13)
            ys, xs = np.nonzero(label == 13)
            label[(label == 255) & (before == 13)] = 13
            if len(ys):
                boxes.append(
                    Box(
                        float(xs.min()),
                        float(ys.min()),
                        float(xs.max() + 1),
                        float(ys.max() + 1),
                        13,
                        CITYSCAPES_CLASSES[13].name,
                        1.0,
                        "synthetic",
                        k,
                    )
                )
        return picture, label, tuple(boxes)
