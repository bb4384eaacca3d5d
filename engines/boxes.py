"""Geometry of boxes: (n, 4) xyxy, right and bottom exclusive, in one unit throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME_CLASS, ANY_CLASS = 0.6, 0.85
"""IoU at which two boxes of one look of a model are one object: of one class, and of two."""

FAR_LESS = 0.5
"""Of two boxes of two classes the one with less than this share of the other's score is an error; nearer together they
may be what they say (a person who may be a rider), or either may be the right one, and both stay."""

Boxes = NDArray[Any]
Float = NDArray[np.float64]


def intersections(first: Boxes, second: Boxes) -> Float:
    """Areas that each of n boxes shares with each of m: (n, 4), (m, 4) → (n, m) float64."""
    one, other = np.asarray(first, np.float64)[:, None], np.asarray(second, np.float64)[None]
    shared = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    area: Float = shared.clip(0).prod(-1)
    return area


def areas(boxes: Boxes) -> Float:
    """(n, 4) → (n,) float64; 0 for a box whose sides are crossed over."""
    boxes = np.asarray(boxes, np.float64)
    found: Float = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    return found


def iou_matrix(first: Boxes, second: Boxes) -> Float:
    """Intersection over union of each of n boxes with each of m: (n, 4), (m, 4) → (n, m); 0 where neither has area."""
    shared = intersections(first, second)
    union = areas(first)[:, None] + areas(second) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def suppress(boxes: Boxes, scores: NDArray[Any], labels: NDArray[Any], overlap: float) -> NDArray[np.int64]:
    """The boxes that stay when each takes away those less likely of its class that it overlaps too much.

    Args:
        boxes: (n, 4).
        scores: (n,).
        labels: (n,) class ids.
        overlap: least IoU at which two boxes are one object.

    Returns:
        (k,) places of those that stay, in falling order of score.
    """
    order = np.argsort(-scores, kind="stable")
    # The triangle above the diagonal: what stands before another in the order.
    same = (iou_matrix(boxes[order], boxes[order]) >= overlap) & (labels[order][:, None] == labels[order])
    kept: list[int] = []
    for place in range(len(order)):
        if not same[kept, place].any():
            kept.append(place)
    return order[np.array(kept, np.int64)]


def distinct(boxes: Boxes, scores: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.int64]:
    """The boxes that tell of different objects, in falling order of score.

    That is `suppress` within a class at `SAME_CLASS`, and without the boxes that another of any class puts in the
    shade; see `ANY_CLASS` and `FAR_LESS`.
    """
    kept = suppress(boxes, scores, labels, SAME_CLASS)
    likely = scores[kept]
    shaded = (iou_matrix(boxes[kept], boxes[kept]) >= ANY_CLASS) & (likely < FAR_LESS * likely[:, None])
    return kept[~shaded.any(0)]
