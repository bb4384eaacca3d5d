"""Scores of masks and class maps, by picture and over a whole split."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.metrics.soundness import require_ids

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float = NDArray[np.float64]


def at_size_of(labels: UInt8, maps: UInt8) -> UInt8:
    """(n, h, w) uint8 class ids by nearest neighbour at the size of (n, H, W) labels: (n, H, W)."""
    if maps.shape[1:] == labels.shape[1:]:
        return maps
    size = (labels.shape[2], labels.shape[1])
    resized = [cv2.resize(one, size, interpolation=cv2.INTER_NEAREST_EXACT) for one in maps]
    return np.stack(resized).astype(np.uint8, copy=False)


def confusions(labels: UInt8, maps: UInt8, classes: int, counted: NDArray[np.bool_] | None = None) -> Int64:
    """Confusion matrices by picture: (n, C, C) int64, row = true class, column = predicted class.

    Args:
        labels, maps: (n, H, W) uint8 class ids below `classes`.
        classes: C.
        counted: (n, H, W), which pixels; all if left out.

    Raises:
        SourceError, ModelError: an id that is not below `classes`; see `require_ids`.
    """
    require_ids(labels, maps, classes)
    number = len(labels)
    places = (np.arange(number)[:, None, None] * classes + labels) * classes + maps
    chosen = places.ravel() if counted is None else places[counted]
    return np.bincount(chosen, minlength=number * classes**2).reshape(number, classes, classes)


def jaccard(every: Int64, sure: Int64, ids: slice = slice(None)) -> Float:
    """The Jaccard index of each picture's binary masks, one a class, taken together: (n,) float64.

    A pixel is in the mask of the class that the network gives more than ½, and in none where there is no such class:
    the sum of all intersections over the sum of all unions. 1 where all masks are empty, as they should be.

    Args:
        every: (n, C, C) confusions of all pixels.
        sure: (n, C, C) confusions of those with a class above ½.
        ids: which classes have masks.
    """
    hits = np.diagonal(sure, axis1=1, axis2=2)[:, ids].sum(1)
    union = every.sum(2)[:, ids].sum(1) + sure.sum(1)[:, ids].sum(1) - hits
    found: Float = np.divide(hits, union, out=np.ones(len(every)), where=union > 0)
    return found
