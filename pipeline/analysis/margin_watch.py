"""The bars of one stream, looked for while it is read: what `pipeline.analysis.margins` finds in what was seen."""

from __future__ import annotations

from collections.abc import Iterable

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.margins import LEAST_SAMPLES, Margins, find_margins
from pipeline.frame import Rect
from pipeline.pictures.picture import Picture
from pipeline.pictures.planes import plane

UInt8 = NDArray[np.uint8]

_WIDEST = 1280
"""Columns of a luma plane that are looked at, about; wider ones are thinned."""

_EARLY, _PERIOD, _LATER = 20, 0.25, 1.0
"""Seconds between samples: of so many the first, and of those behind them."""

_REMEMBERED = 240
"""Samples that are remembered at least, and half of those remembered at most."""

_GROWTH = 1.4
"""Every look has so many times the samples of the one before."""

_LIT, _CHANGED, _DOUBTED = 16, 0.1, 0.003
"""Levels by which a bar changes where it shows a picture; share of the bars in which that takes them back, and in which
they are looked at again."""


class MarginWatch:
    """Looks at the luma of one stream's frames, a few times a second.

    Bars are cut off once they were seen in `LEAST_SAMPLES` samples, and given back with the first sample in which
    something else is to be seen in them.

    Attributes:
        margins: what is no picture, in pixels of the full-size frame; the crop has even corners, as chroma has.
    """

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.step = max(1, round(width / _WIDEST))
        self.margins = self._whole = Margins(Rect(0, 0, width, height))
        self._next: float | None = None
        self._last = float("-inf")
        self._forget()

    def _forget(self) -> None:
        self._low: list[UInt8] = []
        self._high: list[UInt8] = []
        self._seen, self._samples, self._look_at = 0, 0, LEAST_SAMPLES
        self.margins = self._whole

    def learn(self, images: Iterable[av.VideoFrame]) -> None:
        """Look at pictures of the stream from any times, ahead of its frames."""
        for image in images:
            if (image.width, image.height) == self.size:
                self._add(self._luma(image))
        if self._samples >= LEAST_SAMPLES:
            self._look()

    def watch(self, image: av.VideoFrame, time: float) -> Margins:
        """What is no picture by now.

        Args:
            image: the stream's next frame.
            time: seconds on the stream's timeline.
        """
        if self._next is not None and self._last <= time < self._next:
            self._last = time
            return self.margins
        self._last, self._next = time, time + (_PERIOD if self._seen < _EARLY else _LATER)
        self._seen += 1
        luma = self._luma(image)
        if self.margins is not self._whole:
            lit = self._lit(luma)
            if lit > _CHANGED:
                self._forget()
            elif lit > _DOUBTED:
                self._look_at = 0
        self._add(luma)
        if self._samples >= self._look_at:
            self._look()
            self._look_at = int(self._samples * _GROWTH) + 1
        return self.margins

    def _luma(self, image: av.VideoFrame) -> UInt8:
        return np.ascontiguousarray(plane(Picture.of(image).on_host(), 0)[:: self.step, :: self.step])

    def _add(self, luma: UInt8) -> None:
        if self._samples % _REMEMBERED == 0:  # what was seen before the last so many is forgotten
            self._low, self._high = [luma, *self._low[:1]], [luma, *self._high[:1]]
        else:
            self._low[0] = np.asarray(cv2.min(self._low[0], luma), np.uint8)
            self._high[0] = np.asarray(cv2.max(self._high[0], luma), np.uint8)
        self._samples += 1

    def _extremes(self) -> tuple[UInt8, UInt8]:
        low, high = self._low[0], self._high[0]
        if len(self._low) > 1:
            low, high = np.minimum(low, self._low[1]), np.maximum(high, self._high[1])
        return low, high

    def _look(self) -> None:
        found, (width, height), step = find_margins(*self._extremes()), self.size, self.step
        x1, y1, x2, y2 = found.crop
        crop = Rect(
            -(-x1 * step // 2) * 2,
            -(-y1 * step // 2) * 2,
            width if x2 == -(-width // step) else (x2 - (step > 1)) * step // 2 * 2,
            height if y2 == -(-height // step) else (y2 - (step > 1)) * step // 2 * 2,
        )
        panels = tuple(tuple((x * step, y * step) for x, y in panel) for panel in found.panels)
        self.margins = self._whole if crop == self._whole.crop and not panels else Margins(crop, panels)

    def _lit(self, luma: UInt8) -> float:
        """Share of what was found to be bars in which a sample shows what was not there before."""
        low, high = self._extremes()
        lit = (luma.astype(np.int16) > high.astype(np.int16) + _LIT) | (luma + np.int16(_LIT) < low)
        outside = np.ones(luma.shape, np.uint8)
        x1, y1, x2, y2 = (value // self.step for value in self.margins.crop)
        outside[y1:y2, x1:x2] = 0
        for panel in self.margins.panels:
            cv2.fillPoly(outside, [np.array(panel, np.int32) // self.step], 1)
        return float(lit[outside > 0].mean())
