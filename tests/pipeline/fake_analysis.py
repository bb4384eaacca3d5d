"""Analyses for the tests of what goes out: a real (small, grey) picture, a class map of areas, two boxes."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from pipeline.frame import Analysis, Box, Frame

PICTURE = av.VideoFrame(64, 36, "yuv420p")


def areas(height: int = 32, width: int = 64, seed: int = 0) -> NDArray[np.uint8]:
    """A (height, width) uint8 class map of rectangles, some of it unknown (255)."""
    random = np.random.default_rng(seed)
    class_map = np.full((height, width), 10, np.uint8)
    class_map[height // 2 :] = 0
    for class_id in (*random.integers(0, 19, 6), 255):
        y, x = random.integers(0, height), random.integers(0, width)
        class_map[y : y + height // 4 + 1, x : x + width // 4 + 1] = class_id
    return class_map


def analysis(index: int = 0, stream: str = "drive", mode: str = "file", **changes: object) -> Analysis:
    """The analysis of frame `index` of a stream at 25 frames per second."""
    frame = Frame(
        stream=stream,
        index=index,
        pts=512 * index,
        time_base=Fraction(1, 12800),
        captured_at=1_700_000_000.123456 + index / 25,
        arrived_at=10.0 + index / 25,
        image=PICTURE,
    )
    values: dict[str, object] = {
        "models": ("cityscapes-unet",),
        "class_map": areas(seed=index),
        "classes": CITYSCAPES_CLASSES,
        "boxes": (
            Box(1.256, 2.0, 30.5, 20.25, 13, "car", 0.87654, "cityscapes-unet", track=7),
            Box(40.0, 3.0, 44.0, 12.0, 11, "person", 0.5, "cityscapes-unet"),
        ),
        "area": {"road": 0.51234567, "sky": 0.3},
        "timings": {"decode": 3.7123456, "infer": 18.25},
        "age": 0.0421,
    }
    return Analysis(frame=frame, mode=mode, **(values | changes))  # type: ignore[arg-type]  # a table of values
