"""Novelty of figures whose distribution is known."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from engines.errors import ModelError
from engines.novelty.distance import LEAST_SPREAD, Distance, figures, fit
from engines.novelty.familiar import FEWEST

NAMES = ("a", "b", "c")
MEANS, SPREADS = np.array([0.5, 0.3, 0.0]), np.array([0.05, 0.05, 0.0])
ALIKE = 0.8
"""The correlation of the first two; the third is never seen."""


def drawn(count: int, seed: int = 0) -> np.ndarray:
    """(count, 3) figures, normally distributed."""
    normal = np.random.default_rng(seed).standard_normal((count, 3))
    normal[:, 1] = ALIKE * normal[:, 0] + np.sqrt(1 - ALIKE**2) * normal[:, 1]
    return np.asarray(MEANS + SPREADS * normal)


def test_the_figures_of_a_picture_are_what_was_worked_out_by_hand() -> None:
    class_map = np.zeros((4, 8), np.uint8)
    class_map[:1] = 7  # a quarter
    confidence = np.full((4, 8), 51, np.uint8)
    np.testing.assert_allclose(figures(class_map, confidence, [7, 0, 3]), [0.5, np.sqrt(0.75), 0, 0.2])
    np.testing.assert_allclose(figures(class_map, None, [0]), [np.sqrt(0.75)])


def test_what_is_as_in_training_has_a_novelty_about_one_and_one_in_a_hundred_is_above_the_limit() -> None:
    familiar = fit(drawn(2000), NAMES, "drawn")
    distance = Distance(familiar)
    held_back = np.array([distance.of(row) for row in drawn(2000, seed=1)])
    # Two of the three figures vary: the mean square is 2/3.
    assert np.sqrt((held_back**2).mean()) == pytest.approx(np.sqrt(2 / 3), rel=0.05)
    assert (held_back > familiar.limit).mean() == pytest.approx(0.01, abs=0.008)
    assert (familiar.pictures, familiar.source) == (2000, "drawn")
    np.testing.assert_allclose(familiar.means, MEANS, atol=0.005)
    np.testing.assert_allclose(familiar.spreads, SPREADS, atol=0.003)
    assert familiar.correlations[0] == pytest.approx(ALIKE, abs=0.03)


def test_against_what_goes_together_is_farther_than_along_it() -> None:
    distance = Distance(fit(drawn(2000), NAMES, "drawn"))
    along, against = (distance.of(MEANS + step * SPREADS * [1, sign, 0]) for sign, step in ((1, 2.0), (-1, 2.0)))
    # Of two figures of correlation r, both off by s spreads: s²·2/(1 ± r).
    assert along == pytest.approx(2 * np.sqrt(2 / (1 + ALIKE) / 3), rel=0.05)
    assert against == pytest.approx(2 * np.sqrt(2 / (1 - ALIKE) / 3), rel=0.05)
    assert distance.of(MEANS) == pytest.approx(0, abs=0.1)


def test_a_class_that_was_never_seen_counts_by_the_least_spread() -> None:
    distance = Distance(fit(drawn(2000), NAMES, "drawn"))
    assert distance.of(MEANS + np.array([0, 0, 5 * LEAST_SPREAD])) == pytest.approx(5 / np.sqrt(3), rel=0.05)


def test_few_pictures_are_refused_and_as_many_as_needed_are_not() -> None:
    with pytest.raises(ModelError, match=rf"told by {FEWEST} pictures at least; there are 99\."):
        fit(drawn(FEWEST - 1), NAMES, "drawn")
    assert np.isfinite(Distance(fit(drawn(FEWEST), NAMES, "drawn")).of(MEANS))


def test_one_class_that_always_fills_the_picture_is_no_figure_to_divide_by() -> None:
    familiar = fit(np.ones((FEWEST, 1)), ("road",), "road")
    assert Distance(familiar).of(np.array([1.0])) == 0
    assert Distance(familiar).of(np.array([0.0])) > 50
    assert familiar.limit > 0


def test_correlations_that_contradict_each_other_are_refused() -> None:
    familiar = msgspec.structs.replace(fit(drawn(2000), NAMES, "drawn"), correlations=(1.0, 1.0, -1.0))
    with pytest.raises(ModelError, match="contradict each other"):
        Distance(familiar)
