"""How far what was carried to a frame agrees with what a model sees there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.boxes import iou_matrix
from pipeline.frame import Box

UInt8 = NDArray[np.uint8]

BAND = 2
"""Pixels along the edges between classes that are not compared: where they lie is a matter of a pixel or two."""

SAME = 0.5
"""Least IoU at which two boxes are of one object."""


def of_maps(seen: UInt8, carried: UInt8) -> float:
    """Share of the pixels of the same class, of those that are more than `BAND` pixels from any edge of what was seen;
    1 where there are none.

    Args:
        seen, carried: (h, w) uint8 class ids.
    """
    square = np.ones((2 * BAND + 1, 2 * BAND + 1), np.uint8)
    inside = cv2.compare(cv2.erode(seen, square), cv2.dilate(seen, square), cv2.CMP_EQ)
    compared = cv2.countNonZero(cast("UInt8", inside))
    if not compared:
        return 1.0
    same = cv2.bitwise_and(cv2.compare(seen, carried, cv2.CMP_EQ), inside)
    return cv2.countNonZero(cast("UInt8", same)) / compared


def of_boxes(seen: Sequence[Box], carried: Sequence[Box]) -> float | None:
    """Mean IoU of the boxes that are on both sides: of one class, each the other's best, and sharing half of what they
    cover together. None where there are none such.

    What is on one side alone does not count: of a network's boxes a fifth to a third are not in the next frame,
    whoever looks at it.

    >>> of_boxes([Box(0, 0, 10, 10, 13, "car", 0.9, "m")], [Box(0, 0, 10, 8, 13, "car", 0.8, "m")])
    0.8
    >>> of_boxes([Box(0, 0, 10, 10, 13, "car", 0.9, "m")], [])
    """
    if not seen or not carried:
        return None
    corners = [np.array([(b.x1, b.y1, b.x2, b.y2) for b in each], np.float64) for each in (seen, carried)]
    overlap = iou_matrix(*corners)
    overlap[np.array([[a.label != b.label for b in carried] for a in seen])] = 0.0
    best = overlap[overlap.argmax(0), np.arange(len(carried))]
    mutual = (best >= SAME) & (overlap[overlap.argmax(0)].argmax(1) == np.arange(len(carried)))
    return float(best[mutual].mean()) if mutual.any() else None
