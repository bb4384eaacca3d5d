"""Average precision of boxes: every box said of a split by its score, right where it meets a true one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engines.boxes import intersections, iou_matrix

Float = NDArray[np.float64]

COCO_LEVELS = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())
"""Overlaps that COCO averages over: 0.50, 0.55 … 0.95."""

_INSIDE = 0.5
"""A box that no true one answers for is neither right nor wrong if this share of it lies in one that is not sure."""


def judge(
    boxes: Float, scores: Float, truth: Float, sure: NDArray[np.bool_], levels: Float
) -> NDArray[np.int8]:  # fmt: skip
    """Which boxes of one class on one picture are right: (n, L) int8, 1 right, 0 wrong, −1 not counted.

    In falling order of score each takes the true box that it overlaps most of those still free.

    Args:
        boxes: (n, 4) xyxy.
        scores: (n,).
        truth: (m, 4) in the same unit.
        sure: (m,) whether a true box is to be found; one that is not may be found or not.
        levels: (L,) least IoU.
    """
    verdict = np.zeros((len(boxes), len(levels)), np.int8)
    order = np.argsort(-scores, kind="stable")
    overlap = iou_matrix(boxes, truth[sure])
    area = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    unsure = truth[~sure]
    inside = intersections(boxes, unsure) >= _INSIDE * np.maximum(area, 1e-12)[:, None]
    near = iou_matrix(boxes, unsure)
    for place, level in enumerate(levels):
        free = np.ones(int(sure.sum()), bool)
        for number in order:
            fits = np.where(free, overlap[number], -1.0)
            best = int(fits.argmax()) if len(fits) else -1
            if best >= 0 and fits[best] >= level:
                free[best] = False
                verdict[number, place] = 1
            elif (inside[number] | (near[number] >= level)).any():
                verdict[number, place] = -1
    return verdict


def average_precision(scores: Float, right: NDArray[np.bool_], wanted: int) -> float:
    """Mean over 101 recalls, 0 to 1, of the best precision reached at that recall or a higher one (COCO's AP).

    Args:
        scores: (n,) of the boxes that count.
        right: (n,) whether each is right.
        wanted: true boxes to be found.

    Returns:
        NaN where there is nothing to be found.
    """
    if not wanted:
        return float("nan")
    if not len(scores):
        return 0.0
    hits = np.cumsum(right[np.argsort(-scores, kind="stable")])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    # In whole numbers: a recall of 7 in 20 is to be one of 0.35.
    places = np.searchsorted(hits * 100, np.arange(101) * wanted, side="left")
    return float(np.append(best, 0.0)[places].mean())
