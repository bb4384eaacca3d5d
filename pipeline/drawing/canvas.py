"""What is drawn on: the planes of one picture, or ink that a GPU lays over them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.drawing.contrast import FONT, Stroke
from pipeline.pictures.planes import CHROMA_SHIFT, UInt8, plane

if TYPE_CHECKING:
    from engines.cuda.nv12 import Ink


_WHOLE = (255, 255, 255)
_TILE = 32  # as `engines.cuda.nv12` has it, which brings torch
SHIFT = 4
"""Fractional bits of the coordinates handed to OpenCV's drawing functions."""


class Rect(NamedTuple):
    """A part of the picture, in pixels; right and bottom exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def _sides(rect: Rect, out: int, thickness: int) -> tuple[tuple[int, int, int, int], ...]:
    """Left, top, width and height of the sides of a rectangle that is larger by `out` on every side."""
    left, top, right, bottom = rect.left - out, rect.top - out, rect.right + out, rect.bottom + out
    across, down = min(thickness, right - left), min(thickness, bottom - top)
    return (
        (left, top, right - left, down), (left, bottom - down, right - left, down), (left, top, across, bottom - top),
        (right - across, top, across, bottom - top),
    )  # fmt: skip


class Canvas:
    """The planes of one output frame, drawn on in the coordinates of the full-size picture.

    Colours are (Y, Cb, Cr). Lines are drawn on each plane at that plane's own resolution; the casing of a line has the
    luma `black` and the chroma of its core.

    Args:
        luma: (height, width) uint8.
        chroma: planes of one channel, or one plane of both.
        shift: log2 of the chroma's subsampling, across and down.
    """

    def __init__(self, luma: UInt8, chroma: tuple[UInt8, ...], shift: tuple[int, int]) -> None:
        self.luma, self.chroma = luma, chroma
        self.height, self.width = luma.shape
        self.across, self.down = shift
        self.interleaved = chroma[0].ndim == 3

    @classmethod
    def of(cls, image: av.VideoFrame) -> Canvas:
        """The planes of a frame of a blendable format."""
        chroma = tuple(plane(image, index) for index in range(1, len(image.planes)))
        return cls(plane(image, 0), chroma, CHROMA_SHIFT[image.format.name])

    def fill(self, x: int, y: int, width: int, height: int, color: tuple[int, int, int]) -> None:
        """A filled rectangle; what lies outside the picture is cut off."""
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, self.width), min(y + height, self.height)
        if left >= right or top >= bottom:
            return
        self.luma[top:bottom, left:right] = color[0]
        rows = slice(top >> self.down, -(-bottom >> self.down))
        columns = slice(left >> self.across, -(-right >> self.across))
        for chroma, level in zip(self.chroma, self._levels(color), strict=True):
            chroma[rows, columns] = level

    def _levels(self, color: tuple[int, int, int]) -> tuple[int | tuple[int, int], ...]:
        return (color[1:],) if self.interleaved else color[1:][: len(self.chroma)]

    def frame(self, rect: Rect, color: tuple[int, int, int], black: int, stroke: Stroke) -> None:
        """The sides of a rectangle, the core of the line inwards from its edge, the casing on both sides of it."""
        for x, y, width, height in _sides(rect, stroke.casing, stroke.core + 2 * stroke.casing):
            self.fill(x, y, width, height, (black, *color[1:]))
        for x, y, width, height in _sides(rect, 0, stroke.core):
            self.luma[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = color[0]

    def polylines(
        self, curves: Sequence[NDArray[np.float32]], color: tuple[int, int, int], black: int, stroke: Stroke
    ) -> None:
        """Closed curves, each (N, 2) float32 x, y in pixels, the picture's upper left corner being (0, 0)."""
        if not curves:
            return
        points = fixed(curves, 0, 0)
        # The casing's edge is not softened: it is dark, and thick soft lines take more than all the rest.
        cv2.polylines(self.luma, points, True, (black,), stroke.cased, cv2.LINE_8, SHIFT)
        edge = cv2.LINE_AA if stroke.soft else cv2.LINE_8
        cv2.polylines(self.luma, points, True, (color[0],), stroke.core, edge, SHIFT)
        points = fixed(curves, self.across, self.down)
        thickness = stroke.cased if self.across == self.down == 0 else stroke.cased // 2 + 1
        for chroma, level in zip(self.chroma, self._levels(color), strict=True):
            cv2.polylines(
                chroma, points, True, level if isinstance(level, tuple) else (level,), thickness, cv2.LINE_8, SHIFT
            )

    def text(self, x: int, baseline: int, text: str, luma: int, size: float) -> None:
        """Text on the luma plane only: it takes the hue of what is behind it."""
        cv2.putText(self.luma, text, (x, baseline), FONT, size, (luma,), max(1, round(size * 2)), cv2.LINE_AA)


class InkCanvas:
    """Drawn on like a canvas, but on nothing: keeps the light of what is drawn (its colour times its cover) and the
    cover, 255 where it hides what is below. Every drawing function blends both alike, so that light + (1 − cover) ·
    picture is what the same calls would have made of the picture.

    Memory is kept from frame to frame; what was touched is cleared when it is taken.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._down, self._across = -(-height // _TILE), -(-width // _TILE)
        size, half = (self._down * _TILE, self._across * _TILE), (self._down * _TILE // 2, self._across * _TILE // 2)
        self._planes = tuple(np.zeros(shape, np.uint8) for shape in (size, size, (*half, 2), half))
        light, cover, chroma_light, chroma_cover = self._planes
        half_height, half_width = (height + 1) // 2, (width + 1) // 2
        self._light = Canvas(light[:height, :width], (chroma_light[:half_height, :half_width],), (1, 1))
        self._cover = Canvas(cover[:height, :width], (chroma_cover[:half_height, :half_width],), (1, 1))
        self._touched = np.zeros((self._down, self._across), bool)

    def fill(self, x: int, y: int, width: int, height: int, color: tuple[int, int, int]) -> None:
        """As `Canvas.fill`."""
        self._light.fill(x, y, width, height, color)
        self._cover.fill(x, y, width, height, _WHOLE)
        self._touch(x, y, x + width, y + height)

    def frame(self, rect: Rect, color: tuple[int, int, int], black: int, stroke: Stroke) -> None:
        """As `Canvas.frame`."""
        self._light.frame(rect, color, black, stroke)
        self._cover.frame(rect, _WHOLE, 255, stroke)
        for x, y, width, height in _sides(rect, stroke.casing, stroke.core + 2 * stroke.casing):
            self._touch(x, y, x + width, y + height)

    def polylines(
        self, curves: Sequence[NDArray[np.float32]], color: tuple[int, int, int], black: int, stroke: Stroke
    ) -> None:
        """As `Canvas.polylines`."""
        self._light.polylines(curves, color, black, stroke)
        self._cover.polylines(curves, _WHOLE, 255, stroke)
        around = stroke.cased + 4  # a chroma pixel and the softened edge
        for curve in curves:
            (left, top), (right, bottom) = curve.min(0), curve.max(0)
            self._touch(int(left) - around, int(top) - around, int(right) + around, int(bottom) + around)

    def text(self, x: int, baseline: int, text: str, luma: int, size: float) -> None:
        """As `Canvas.text`."""
        self._light.text(x, baseline, text, luma, size)
        self._cover.text(x, baseline, text, 255, size)
        (width, height), below = cv2.getTextSize(text, FONT, size, max(1, round(size * 2)))
        self._touch(x - 2, baseline - height - 4, x + width + 4, baseline + below + 4)

    def _touch(self, left: int, top: int, right: int, bottom: int) -> None:
        rows = slice(max(top, 0) // _TILE, max(bottom, 0) // _TILE + 1)
        columns = slice(max(left, 0) // _TILE, max(right, 0) // _TILE + 1)
        self._touched[rows, columns] = True

    def take(self) -> Ink:
        """What was drawn since the last time, and nothing is left."""
        from engines.cuda.nv12 import TILE_BYTES, Ink

        rows, columns = np.nonzero(self._touched)
        if not len(rows):
            return Ink(np.empty(0, np.int32), np.empty((0, TILE_BYTES), np.uint8))
        parts = []
        for own in self._planes:
            side = own.shape[0] // self._down
            tiles = own.reshape(self._down, side, self._across, side, *own.shape[2:])
            parts.append(tiles[rows, :, columns].reshape(len(rows), -1))
            tiles[rows, :, columns] = 0
        self._touched[:] = False
        used = parts[1].any(1) | parts[3].any(1)
        return Ink((rows * self._across + columns)[used].astype(np.int32), np.concatenate(parts, 1)[used])


def fixed(curves: Sequence[NDArray[np.float32]], across: int, down: int) -> list[NDArray[np.int32]]:
    """Curves on a plane that is subsampled by 2^across and 2^down, in OpenCV's numbers: a pixel's centre is whole."""
    one = 1 << SHIFT
    points = np.concatenate(curves) * np.array([one / (1 << across), one / (1 << down)], np.float32) - one / 2
    fixed = np.rint(points).astype(np.int32)
    ends = itertools.accumulate((len(curve) for curve in curves), initial=0)
    return [fixed[first:last] for first, last in itertools.pairwise(ends)]
