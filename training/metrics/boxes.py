"""Scores of boxes, one a picture.

Boxes are (N, 4) xyxy, right and bottom exclusive, in one unit throughout: fractions or pixels. An IoU does not change
when x and y are stretched, so fractions of a squashed picture will do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


def overlaps(boxes: Float, truth: Float) -> tuple[Float, Float]:
    """Areas of intersection and of union of pairs of boxes: (N, 4), (N, 4) → (N,), (N,) float64.

    A box whose edges are crossed over has no area.
    """
    boxes, truth = np.asarray(boxes, np.float64), np.asarray(truth, np.float64)

    def area(corners: Float) -> Float:
        width, height = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
        product: Float = np.maximum(width, 0) * np.maximum(height, 0)
        return product

    shared = np.concatenate(
        [np.maximum(boxes[:, :2], truth[:, :2]), np.minimum(boxes[:, 2:], truth[:, 2:])], axis=1
    )  # fmt: skip
    intersection = area(shared)
    return intersection, area(boxes) + area(truth) - intersection


def paired_iou(boxes: Float, truth: Float) -> Float:
    """Intersection over union of pairs of boxes: (N, 4), (N, 4) → (N,); 0 where neither has an area."""
    intersection, union = overlaps(boxes, truth)
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def box_scores(intersection: Float, union: Float, right: Bool | None = None) -> dict[str, float]:
    """The scores of one box a picture, by name; NaN where there is no picture.

    - `mean_iou`: of the pictures' IoUs.
    - `pooled_iou`: the sum of all intersections over the sum of all unions, in which large objects count more; other
      projects call this one the mean IoU.
    - `accuracy_iou_50`, `accuracy_iou_75`: share of the pictures whose IoU is at least one half, or three quarters.
    - `class_gated_iou`: mean IoU where a picture whose class is wrong counts 0; given with `right` only.

    Args:
        intersection, union: (N,) areas; see `overlaps`.
        right: (N,) whether the picture's class was found, too.
    """
    iou = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    scores = {
        "mean_iou": _mean(iou),
        "pooled_iou": ratio(intersection, union),
        "accuracy_iou_50": _mean(iou >= 0.5),
        "accuracy_iou_75": _mean(iou >= 0.75),
    }
    return scores if right is None else scores | {"class_gated_iou": _mean(iou * right)}


def mask_overlaps(found: Bool, truth: Bool) -> tuple[Float, Float]:
    """What Dice coefficients are made of: (n, h, w), (n, h, w) bool → twice the shared cells and the sum of both
    masks' cells, (n,), (n,) float64."""
    shared, both = (found & truth).sum((1, 2)), found.sum((1, 2)) + truth.sum((1, 2))
    return 2 * shared.astype(np.float64), both.astype(np.float64)


def dice_scores(twice_shared: Float, both: Float) -> dict[str, float]:
    """Dice coefficients from what `mask_overlaps` gives; NaN where there is no picture.

    - `pooled_dice`: of all pictures together, in which large objects count more.
    - `mean_dice`: of the pictures' own; 1 where both masks are empty.
    """
    each = np.divide(twice_shared, both, out=np.ones_like(both), where=both > 0)
    return {"pooled_dice": ratio(twice_shared, both), "mean_dice": _mean(each)}


def average_precision(scores: Float, right: Bool, positives: int | None = None) -> float:
    """Area under precision over recall, taken at each find (no interpolation); NaN where there is nothing to find.

    Args:
        scores: (N,), higher is surer. Finds of the same score count as one.
        right: (N,) bool, whether the find is right: the object is there, or its box fits.
        positives: how many objects there are; those that are right, if left out.
    """
    positives = int(right.sum()) if positives is None else positives
    if positives == 0:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    last_of_score = np.append(np.diff(scores[order]) != 0, True)
    found = hits[last_of_score]
    precision = found / (np.flatnonzero(last_of_score) + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / positives)


def yes_accuracy(scores: Float, truth: Bool) -> float:
    """Share of pictures of which a score of at least one half says right whether there is one.

    NaN where all of them have one, or none: who always says the same would be right each time.

    Args:
        scores: (N,) 0 to 1.
        truth: (N,) bool.
    """
    return float(((scores >= 0.5) == truth).mean()) if truth.any() and not truth.all() else float("nan")


def _mean(values: Float | Bool) -> float:
    return float(values.mean()) if len(values) else float("nan")


def ratio(above: Float, below: Float) -> float:
    """The sum of all of one over the sum of all of the other; NaN where that is 0."""
    return float(above.sum() / below.sum()) if below.sum() > 0 else float("nan")
