"""Run lengths of masks, as COCO and CVAT have them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def run_lengths(flat: NDArray[np.bool_]) -> list[int]:
    """How many pixels are outside, then inside, and so on in turn; the first number may be 0.

    >>> run_lengths(np.array([True, True, False])), run_lengths(np.array([False, True]))
    ([0, 2, 1], [1, 1])
    """
    turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: list[int] = np.diff(turns, prepend=0, append=flat.size).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths
