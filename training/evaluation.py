"""Segmentation metrics over a whole split: one confusion matrix, IoU read off it at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE

UInt8 = NDArray[np.uint8]


def confusion_matrix(label: UInt8, prediction: UInt8, classes: int) -> NDArray[np.int64]:
    """(C, C) int64 counts: row = true class, column = predicted class; pixels labelled 255 are left out.

    Args:
        label: uint8 class ids of any shape, 255 ignored.
        prediction: uint8 class ids of the same shape.
    """
    known = label != IGNORE
    pairs = label[known].astype(np.int64) * classes + prediction[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class Scores:
    """What one confusion matrix says.

    Attributes:
        iou: (C,) float64, intersection over union of each class; NaN where a class occurs in neither label nor
            prediction.
        mean_iou: mean of `iou` over the classes that occur.
        accuracy: share of labelled pixels that are right.
    """

    iou: NDArray[np.float64]
    mean_iou: float
    accuracy: float

    @classmethod
    def from_confusion(cls, matrix: NDArray[np.int64]) -> Scores:
        hits = np.diag(matrix).astype(np.float64)
        union = matrix.sum(0) + matrix.sum(1) - hits
        iou = np.full(len(hits), np.nan)
        np.divide(hits, union, out=iou, where=union > 0)
        mean = float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")
        return cls(iou, mean, float(hits.sum() / max(matrix.sum(), 1)))
