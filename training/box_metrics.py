"""Scores of boxes, one a picture, and what pictures drawn anew would make of them.

Boxes are (N, 4) xyxy, right and bottom exclusive, in one unit throughout: fractions or pixels. An IoU does not change
when x and y are stretched, so fractions of a squashed picture will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.evaluation import Interval

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]


class Figure(msgspec.Struct, frozen=True):
    """A measured figure with its 95 % interval: pictures drawn with replacement."""

    value: float
    interval: Interval

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.interval.low:.4f} to {self.interval.high:.4f})"


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


def box_figures(boxes: Float, truth: Float, right: Bool | None = None) -> dict[str, Figure]:
    """The scores of one box a picture, by name.

    - `mean_iou`: of the pictures' IoUs.
    - `pooled_iou`: the sum of all intersections over the sum of all unions, in which large objects count more; other
      projects call this one the mean IoU.
    - `accuracy_iou_50`, `accuracy_iou_75`: share of the pictures whose IoU is at least one half, or three quarters.
    - `class_gated_iou`: mean IoU where a picture whose class is wrong counts 0; given with `right` only.

    Args:
        boxes: found.
        truth: true.
        right: whether the picture's class was found, too.
    """
    intersection, union = overlaps(boxes, truth)
    iou = paired_iou(boxes, truth)
    figures = {
        "mean_iou": bootstrap_mean(iou),
        "pooled_iou": bootstrap_ratio(intersection, union),
        "accuracy_iou_50": bootstrap_mean(iou >= 0.5),
        "accuracy_iou_75": bootstrap_mean(iou >= 0.75),
    }
    if right is not None:
        figures["class_gated_iou"] = bootstrap_mean(iou * right)
    return figures


def dice_figures(found: Bool, truth: Bool) -> dict[str, Figure]:
    """Dice coefficients of masks: (N, h, w) and (N, h, w) bool.

    - `pooled_dice`: twice the shared area of all pictures over the sum of all areas.
    - `mean_dice`: of the pictures' own; 1 where both masks are empty.
    """
    shared = (found & truth).sum((1, 2)).astype(np.float64)
    areas = found.sum((1, 2)) + truth.sum((1, 2)).astype(np.float64)
    each = np.divide(2 * shared, areas, out=np.ones_like(areas), where=areas > 0)
    return {"pooled_dice": bootstrap_ratio(2 * shared, areas), "mean_dice": bootstrap_mean(each)}


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


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float], pictures: int, resamples: int = 1000, seed: int = 0
) -> Figure:
    """A figure of N pictures, and the 95 % interval of what it would be of N pictures drawn with replacement.

    Args:
        statistic: of the pictures with these indices.
        pictures: N.
        resamples: how often N pictures are drawn.
        seed: of the draws, which depend on it and N only.
    """
    draws = np.random.default_rng(seed).integers(0, max(pictures, 1), (resamples, pictures))
    low, high = np.nanpercentile([statistic(draw) for draw in draws], [2.5, 97.5]) if pictures else (np.nan, np.nan)
    value = statistic(np.arange(pictures)) if pictures else float("nan")
    return Figure(value, Interval(float(low), float(high)))


def bootstrap_mean(values: Float | Bool) -> Figure:
    """The mean of a value a picture, (N,), with its interval."""
    each = np.asarray(values, np.float64)
    return bootstrap(lambda draw: float(each[draw].mean()), len(each))


def bootstrap_ratio(above: Float, below: Float) -> Figure:
    """The ratio of two sums over pictures, (N,) and (N,), with its interval; 0 where the lower sum is."""
    return bootstrap(lambda draw: float(above[draw].sum() / max(below[draw].sum(), 1e-12)), len(above))


def figure_rows(figures: Mapping[str, Figure]) -> list[str]:
    """The rows of a Markdown table: name, value, interval."""
    return [
        f"| {name} | {figure.value:.4f} | {figure.interval.low:.4f} to {figure.interval.high:.4f} |"
        for name, figure in figures.items()
    ]
