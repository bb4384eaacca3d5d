"""Whether a model is as often right as it says it is sure: the expected calibration error.

Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599), eq. 3: over bins of confidence, the
mean of |share that is right − mean confidence|, each bin weighing what falls into it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

BINS = 15
"""Of equal width, from 0 to 1; as many as in the paper."""


def confidence_counts(confidence: NDArray[np.floating] | NDArray[np.uint8], right: NDArray[np.bool_]) -> Float:
    """What falls into each bin: (BINS, 3) float64, how many, how many of them right, the sum of their confidence.

    Args:
        confidence: any shape; float 0 to 1, or uint8 with 255 for certain.
        right: of the same shape, whether what was said is so.
    """
    sure = np.asarray(confidence, np.float64).ravel()
    if confidence.dtype == np.uint8:
        sure = sure / 255
    # A bin is open below and closed above, as in the paper.
    bins = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    columns = [np.bincount(bins, weights, BINS) for weights in (None, right.ravel().astype(np.float64), sure)]
    return np.stack(columns, axis=1).astype(np.float64)


def calibration_error(counts: Float) -> float:
    """The expected calibration error of (BINS, 3) counts, summed over pictures; NaN where they are of nothing."""
    number, right, sure = counts.T
    return float(np.abs(right - sure).sum() / number.sum()) if number.sum() else float("nan")
