"""How well track numbers keep to true objects: IDF1 (Ristani et al., ECCV Workshops 2016), HOTA (Luiten et al., IJCV
2021) and switches (Bernardin and Stiefelhagen, 2008), by their published formulas. IDF1 and switches agree with
motmetrics 1.4 to the third digit on the six drives of `tests.benchmarks.tracking`. Needs scipy.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

RIGHT = 0.5
"""IoU from which on a box is right, for IDF1 and switches."""

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""IoUs that HOTA is the mean over."""


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One frame: ids of the n true objects, numbers of the m boxes that are said, and their IoU, (n, m); 0 where two
    cannot be one.
    """

    true: Sequence[Hashable]
    said: Sequence[Hashable]
    overlap: Float


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """A sequence with ids as places: of each frame the rows and columns, and how often each id is there."""

    frames: list[tuple[list[int], list[int], Float]]
    true: Float
    said: Float

    @classmethod
    def of(cls, frames: Iterable[Compared]) -> _Places:
        rows: dict[Hashable, int] = {}
        columns: dict[Hashable, int] = {}
        placed = list[tuple[list[int], list[int], Float]]()
        for each in frames:
            true = [rows.setdefault(number, len(rows)) for number in each.true]
            said = [columns.setdefault(number, len(columns)) for number in each.said]
            placed.append((true, said, each.overlap))
        counts = [np.bincount([i for frame in placed for i in frame[k]], minlength=1).astype(float) for k in (0, 1)]
        return cls(placed, counts[0], counts[1])


def _assigned(gain: Float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-gain)
    return rows, columns


def idf1(frames: Iterable[Compared]) -> float:
    """2 IDTP / (objects + boxes): each true object is given one number for the whole sequence, as well as can be."""
    places = _Places.of(frames)
    together = np.zeros((len(places.true), len(places.said)))
    for rows, columns, overlap in places.frames:
        together[np.ix_(rows, columns)] += overlap >= RIGHT
    right = together[_assigned(together)].sum()
    return float(2 * right / max(1.0, places.true.sum() + places.said.sum()))


def hota(frames: Iterable[Compared]) -> float:
    """The mean over `ALPHAS` of √(DetA · AssA)."""
    places = _Places.of(frames)
    shared = np.zeros((len(places.true), len(places.said)))
    for rows, columns, overlap in places.frames:
        union = overlap.sum(0)[None] + overlap.sum(1)[:, None] - overlap
        shared[np.ix_(rows, columns)] += np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    either = places.true[:, None] + places.said
    alike = shared / np.maximum(either - shared, 1e-9)
    hits = np.zeros((len(ALPHAS), *shared.shape))
    for rows, columns, overlap in places.frames:
        if overlap.size:
            i, j = _assigned(alike[np.ix_(rows, columns)] * overlap)
            right = overlap[i, j] >= ALPHAS[:, None] - 1e-9
            hits[:, np.array(rows)[i], np.array(columns)[j]] += right
    found = hits.sum((1, 2))
    detection = found / np.maximum(places.true.sum() + places.said.sum() - found, 1)
    association = (hits**2 / np.maximum(either - hits, 1)).sum((1, 2)) / np.maximum(found, 1)
    return float(np.sqrt(detection * association).mean())


def switches(frames: Iterable[Compared]) -> int:
    """How often a true object that had a number has another one; what it had before is matched first."""
    numbers: dict[Hashable, Hashable] = {}
    count = 0
    for each in frames:
        gain = np.where(each.overlap >= RIGHT, each.overlap, 0.0)
        before = np.array([[numbers.get(one) == other for other in each.said] for one in each.true], bool)
        if not gain.size:
            continue
        for i, j in zip(*_assigned(gain + 2 * (before & (gain > 0))), strict=True):
            if gain[i, j] > 0:
                one, other = each.true[i], each.said[j]
                count += numbers.get(one, other) != other
                numbers[one] = other
    return count
