"""The own car at the lower edge of the picture, kept in mind: it goes with the camera.

A segmenter that knows the own car says 255 there, and takes a part of it for a road or a car when light falls on it or
the sun goes. What was the own car in a share of the last looks is it in all of them. Two bounds of that share find it
(Canny's hysteresis, IEEE PAMI 8, 1986): regions of the lower bound that reach the lower edge and hold enough of the
upper one. Whatever is beneath a pixel of it is the own car, too.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE
from pipeline.frame import Rect

UInt8 = NDArray[np.uint8]

_LOWEST = 0.4
"""Share of the picture's height in which it is looked for, from the lower edge up."""

_BLOCK = 2.0
"""Seconds of looks that are counted together; those of the block before and of this one so far count."""

SETTLED = 2 * _BLOCK
"""Seconds after which it does not matter when it began."""

_LEAST_LOOKS, _EARLY, _PERIOD = 3, 10, 0.2
"""Looks before anything is believed; looks up to which it is found anew at each; seconds between that from then on."""

_SOMETIMES, _OFTEN, _CORE = 0.2, 0.5, 0.1
"""Shares of the looks: of a pixel that may be the own car and of one that is; and the share of a region's pixels that
are."""

_GAP = 0.1
"""Share of the width across which it goes on, to its next part or to the picture's edge."""

_RIM = 2
"""Rows above what was found that are its, too: its edge is a blend of both."""


class OwnCar:
    """Remembers where the class maps of one stream show the own car, look by look in order."""

    def __init__(self) -> None:
        self._before = self._now = np.zeros((0, 0), np.uint16)
        self._looks_before = self._looks = 0
        self._block = self._moment = -1
        self._crop: Rect | None = None
        self._mask: NDArray[np.bool_] | None = None

    def fill(self, class_map: UInt8, confidence: UInt8 | None, crop: Rect, time: float) -> tuple[UInt8, UInt8 | None]:
        """What is to be shown of a look.

        Args:
            class_map: (h, w) uint8 class ids, 255 where the segmenter sees none of them.
            confidence: (h, w) uint8, or None.
            crop: what the segmenter saw of the frame, in its pixels.
            time: of the look, seconds on the stream's timeline.

        Returns:
            The class map with 255 on the own car, and the confidence with 0 where that was added. The given arrays are
            not written to.
        """
        self._count(class_map, crop, time)
        moment = int(time // _PERIOD)
        if moment != self._moment or self._looks_before + self._looks <= _EARLY:
            self._moment, self._mask = moment, self._found(class_map.shape[1])
        if self._mask is None:
            return class_map, confidence
        first = len(class_map) - len(self._mask)
        added = self._mask & (class_map[first:] != IGNORE)
        class_map = class_map.copy()
        class_map[first:][added] = IGNORE
        if confidence is not None:
            confidence = confidence.copy()
            confidence[first:][added] = 0
        return class_map, confidence

    def _count(self, class_map: UInt8, crop: Rect, time: float) -> None:
        lower = class_map[len(class_map) - round(len(class_map) * _LOWEST) :]
        block = int(time // _BLOCK)
        if crop != self._crop or lower.shape != self._now.shape or not 0 <= block - self._block <= 1:
            self._before = self._now = np.zeros(lower.shape, np.uint16)
            self._looks_before = self._looks = 0
            self._crop, self._block, self._mask = crop, block, None
        if block != self._block:
            self._before, self._looks_before = self._now, self._looks
            self._now, self._looks, self._block = np.zeros(lower.shape, np.uint16), 0, block
        self._now = self._now + (lower == IGNORE)
        self._looks += 1

    def _found(self, width: int) -> NDArray[np.bool_] | None:
        looks = self._looks_before + self._looks
        if looks < _LEAST_LOOKS:
            return None
        seen = self._before + self._now
        maybe = seen >= _SOMETIMES * looks
        if not maybe[-2:].any():
            return None
        count, parts = cv2.connectedComponents(maybe.astype(np.uint8))
        area, core = (np.bincount(parts[which], minlength=count) for which in (maybe, seen >= _OFTEN * looks))
        own = (np.bincount(parts[-2:].ravel(), minlength=count) > 0) & (core >= _CORE * np.maximum(area, 1))
        own[0] = False  # what is around them
        if not own.any():
            return None
        below = np.maximum.accumulate(own[parts], 0)
        below[:-_RIM] |= below[_RIM:]
        gap = round(width * _GAP) | 1
        edged = cv2.copyMakeBorder(below.astype(np.uint8), 0, 0, gap, gap, cv2.BORDER_CONSTANT, value=1)
        closed = cv2.morphologyEx(edged, cv2.MORPH_CLOSE, np.ones((1, gap), np.uint8))
        return np.asarray(closed[:, gap:-gap] > 0, np.bool_)
