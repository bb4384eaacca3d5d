"""Novelty: the distance of what a model says of a picture from what it says of those that it was trained on.

The figures are what the model itself gives: the share of the picture that each class has, and its mean confidence.
Figures of the picture (lightness, contrast, colour, edges) were tried and left out: they know another camera before
they know another world, so that a motorway by day, which the model reads well, came out newer than snow by night
(`tests/benchmarks/novelty.py`; what that measured stands in `pipeline/archive/labels/LABELS.md`).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError
from engines.novelty.familiar import FEWEST, Familiar

UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]

LEAST_SPREAD = 0.01
"""The spread of a figure, all of which are 0 to 1, at least: a class that is never seen has none."""


def figures(class_map: UInt8, confidence: UInt8 | None, ids: Sequence[int]) -> Float64:
    """The figures of a picture, (K,), each 0 to 1.

    The square root of a class's share makes rare and common classes spread alike.

    Args:
        class_map: (H, W) uint8 class ids as the model gives them: neither smoothed nor with anything taken out.
        confidence: (H, W) uint8, 255 = certain; None where the model gives none.
        ids: of the classes, in the order of the model's spec.
    """
    shares = np.bincount(class_map.ravel(), minlength=256)[list(ids)] / class_map.size
    found = np.sqrt(shares)
    return found if confidence is None else np.append(found, confidence.mean() / 255)


def fit(rows: Float64, names: tuple[str, ...], source: str) -> Familiar:
    """What is familiar, of the figures (N, K) of N pictures.

    Raises:
        ModelError: too few pictures.
    """
    if len(rows) < FEWEST:
        raise ModelError(f"What a model is familiar with is told by {FEWEST} pictures at least; there are {len(rows)}.")
    means, spreads = rows.mean(axis=0), rows.std(axis=0)
    scaled = (rows - means) / np.maximum(spreads, LEAST_SPREAD)
    known = Familiar(
        pictures=len(rows), source=source, figures=names, limit=1.0,
        means=_rounded(means, 5), spreads=_rounded(spreads, 5),
        correlations=_rounded((scaled.T @ scaled / len(rows))[np.tril_indices(len(names), -1)], 4),
    )  # fmt: skip
    distance = Distance(known)
    limit = float(np.quantile([distance.of(row) for row in rows], 0.99))
    return msgspec.structs.replace(known, limit=max(round(limit, 2), 0.01))


def _rounded(values: Float64, digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) for value in np.clip(values, -1, 1))


class Distance:
    """How far figures are from what is familiar: Mahalanobis' distance, over the root of the number of figures.

    √(zᵀ R⁻¹ z / K), z being the figures less their means in units of their spreads, and R their correlations, shrunk
    towards none as if K pictures more had been seen in which nothing goes together: ((N·R + K·I) / (N + K); the form of
    Ledoit and Wolf, 2004). About 1 for what is as it was in training, whatever the number of figures.

    Args:
        familiar: what is familiar.

    Raises:
        ModelError: its correlations are none that figures can have.
    """

    def __init__(self, familiar: Familiar) -> None:
        count = len(familiar.figures)
        self._means = np.array(familiar.means)
        self._spreads = np.maximum(np.array(familiar.spreads), LEAST_SPREAD)
        correlated = np.eye(count)
        correlated[np.tril_indices(count, -1)] = familiar.correlations
        correlated += np.tril(correlated, -1).T
        shrunk = (familiar.pictures * correlated + count * np.eye(count)) / (familiar.pictures + count)
        try:
            np.linalg.cholesky(shrunk)
        except np.linalg.LinAlgError:
            raise ModelError(
                "The correlations of what a model is familiar with contradict each other; `roadlens models "
                "familiarize` makes others."
            ) from None
        self._inverse = np.linalg.inv(shrunk) / count

    def of(self, found: Float64) -> float:
        """The novelty of a picture, by its figures, (K,); to three places."""
        scaled = (found - self._means) / self._spreads
        return round(float(np.sqrt(scaled @ self._inverse @ scaled)), 3)
