"""How much two models disagree on a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.errors import UsageError

UInt8 = NDArray[np.uint8]


class Disagreement:
    """1 less the mean IoU of two class maps, over the classes that both models know by name and that either sees.

    Pixels to which one of them gives a class that the other does not know are left out.

    Args:
        classes: of the one model.
        others: of the other.

    Raises:
        UsageError: they have no class in common.
    """

    def __init__(self, classes: Sequence[ClassInfo], others: Sequence[ClassInfo]) -> None:
        shared = {info.name: place for place, info in enumerate(classes) if info.name in {o.name for o in others}}
        if not shared:
            raise UsageError(
                f"the second model has no class in common with the archive's: {_listed(others)} there, "
                f"{_listed(classes)} here; name one that knows the same classes"
            )
        self._count = len(classes)
        self._tables = [np.full(256, IGNORE, np.uint8), np.full(256, IGNORE, np.uint8)]
        for table, known in zip(self._tables, (classes, others), strict=True):
            for info in known:
                if info.name in shared:
                    table[info.id] = shared[info.name]

    def of(self, one: UInt8, other: UInt8) -> float:
        """The disagreement of a class map of the one and one of the other model, 0 to 1; 0 where no pixel can tell."""
        if other.shape != one.shape:
            other = np.asarray(cv2.resize(other, one.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
        first, second = self._tables[0][one], self._tables[1][other]
        known = (first != IGNORE) & (second != IGNORE)
        both = np.bincount(first[known][first[known] == second[known]], minlength=self._count)
        either = sum(np.bincount(each[known], minlength=self._count) for each in (first, second)) - both
        seen = either > 0
        return float(1 - (both[seen] / either[seen]).mean()) if seen.any() else 0.0


def _listed(classes: Sequence[ClassInfo]) -> str:
    return ", ".join(info.name for info in classes)
