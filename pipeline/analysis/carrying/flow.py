"""How a picture moved between two frames, by the optical flow of their small luma, and what it moves along.

OpenCV's fastest dense flow (DIS, Kroeger et al., ECCV 2016, its ultrafast preset) on 160×96 pixels: 0.14 ms of one core
of an AMD EPYC, and 0.2 to 0.3 ms for making the small luma of a 720p frame. The motion vectors that FFmpeg's decoders
export are not cheaper: of a 720p H.264 recording 3,500 come a frame, which PyAV hands out in 1.5 to 4 ms. Nor do they
say which frame they point to, and what comes from a GPU's decoder, a folder or a drawing has none.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

WIDTH, HEIGHT = 160, 96
"""Size of the small luma, in pixels; the whole frame squashed into it."""

CHANGED = 24
"""Grey levels beyond which a pixel of the small luma is another one."""

CUT = 0.4
"""Share of the picture that is another one after a cut. In the development footage 0.30 was the most from frame to
frame, and pictures of different footage differed in 0.55 at least (measured for `pipeline.analysis.smoothing`)."""

_STILL = 0.5
"""Pixels of a class map below which nothing is moved."""


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Where what is in one frame was in another one.

    Attributes:
        flow: (HEIGHT, WIDTH, 2) float32: what is at (x, y) in the one was at (x + flow[y, x, 0], y + flow[y, x, 1]) in
            the other; pixels of the small luma, x right, y down. None where nothing moved, or where moving the other
            frame does not make it more like the one than it is.
    """

    flow: Float32 | None

    def carry(self, seen: Sequence[UInt8 | None], hidden: UInt8 | None = None) -> list[UInt8 | None]:
        """Maps of the other frame, as ones of the one.

        Args:
            seen: each (h, w) uint8, the whole frame squashed into it, or None; all of one size.
            hidden: (h, w), 255 where the maps say nothing and must not be moved, else 0; None where they say something
                of every pixel.

        Returns:
            For each, (h, w) uint8: each pixel has the value of the pixel that it came from; one that came from outside
            the frame that of the nearest inside. The given arrays where nothing moved; None for None.
        """
        height, width = next((each.shape for each in seen if each is not None), (HEIGHT, WIDTH))
        if self.flow is None or float(np.abs(self.flow).max()) * width / WIDTH < _STILL:
            return list(seen)
        columns, rows = _places(width, height)
        x, y = cv2.split(cv2.resize(self.flow, (width, height), interpolation=cv2.INTER_LINEAR))
        places = cv2.scaleAdd(x, width / WIDTH, columns), cv2.scaleAdd(y, height / HEIGHT, rows)
        edge = None if hidden is None else cv2.bitwise_or(hidden, _remapped(hidden, *places))
        moved = list[UInt8 | None]()
        for each in seen:
            result = None if each is None else _remapped(each, *places)
            if each is not None and result is not None and edge is not None:
                cv2.copyTo(each, edge, result)
            moved.append(result)
        return moved

    def shift(self, x1: float, y1: float, x2: float, y2: float) -> tuple[float, float]:
        """How far a part of the other frame has come, right and down, in shares of the frame's width and height; the
        median over it.

        Args:
            x1, y1, x2, y2: the part, in shares of the width and height.
        """
        if self.flow is None:
            return 0.0, 0.0
        left, right = _span(x1, x2, WIDTH)
        top, bottom = _span(y1, y2, HEIGHT)
        part = self.flow[top:bottom, left:right].reshape(-1, 2)
        dx, dy = np.median(part, axis=0).tolist()
        return -dx / WIDTH, -dy / HEIGHT


def motion(now: UInt8, other: UInt8) -> Motion:
    """Where what is in the frame `now` was in another one.

    Args:
        now, other: (HEIGHT, WIDTH) uint8, their small luma.
    """
    still = cv2.norm(now, other, cv2.NORM_L1)
    if still == 0:
        return Motion(None)
    flow = cast("Float32", _estimator().calc(now, other, cast("Float32", None)))  # None: a new one
    columns, rows = _places(WIDTH, HEIGHT)
    x, y = cv2.split(flow)
    moved = cv2.remap(other, cv2.add(x, columns), cv2.add(y, rows), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Motion(flow) if cv2.norm(now, moved, cv2.NORM_L1) < still else Motion(None)


def is_cut(now: UInt8, before: UInt8) -> bool:
    """Whether the picture is another one than in the frame before.

    Args:
        now, before: (HEIGHT, WIDTH) uint8, their small luma.
    """
    change = cv2.blur(cv2.absdiff(now, before), (5, 5))
    _, another = cv2.threshold(change, CHANGED, 255, cv2.THRESH_BINARY)
    return cv2.countNonZero(another) > CUT * now.size


def _remapped(seen: UInt8, x: NDArray[Any], y: NDArray[Any]) -> UInt8:
    return cast("UInt8", cv2.remap(seen, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))


def _span(begin: float, end: float, size: int) -> tuple[int, int]:
    first = min(max(int(begin * size), 0), size - 1)
    return first, min(max(int(end * size), first + 1), size)


@lru_cache(maxsize=8)
def _places(width: int, height: int) -> tuple[Float32, Float32]:
    """The column and the row of every pixel, each (height, width) float32."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return columns.copy(), rows.copy()


_estimators = threading.local()


def _estimator() -> cv2.DISOpticalFlow:
    """This thread's: it keeps its buffers, and is not for two threads at once."""
    if not hasattr(_estimators, "dis"):
        _estimators.dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    return cast("cv2.DISOpticalFlow", _estimators.dis)
