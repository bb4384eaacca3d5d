"""Time to contact from growth: known motion in, seconds out, and an uncertainty that holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.ahead.growth import Size, growth

TIMES = np.arange(0, 2.001, 1 / 15)


def sizes(contact: float, metres: float = 1500.0) -> np.ndarray:
    """Pixels of what is `contact` seconds away at the end and comes nearer at a constant speed."""
    return metres / (contact + TIMES[-1] - TIMES)


@given(st.floats(0.5, 30))
def test_the_seconds_to_contact_of_a_constant_speed_are_exact(contact: float) -> None:
    found = growth(TIMES, Size(sizes(contact)))
    assert found is not None
    assert found.contact == pytest.approx(contact, rel=1e-6)


def test_what_falls_back_has_no_contact() -> None:
    found = growth(TIMES, Size(sizes(3.0)[::-1].copy()))
    assert found is not None
    assert found.rate < 0
    assert found.contact == np.inf


@pytest.mark.parametrize("contact", [1.0, 2.0, 4.0])
def test_the_uncertainty_is_that_of_the_errors(contact: float) -> None:
    random = np.random.default_rng(0)
    off = []
    for _ in range(300):
        found = growth(TIMES, Size(sizes(contact) * random.normal(1, 0.02, len(TIMES))))
        assert found is not None
        off.append((found.rate - 1 / contact) / found.sigma)
    assert 0.6 < np.std(off) < 1.7
    assert abs(np.mean(off)) < 0.4


def test_a_look_that_is_wrong_hardly_counts() -> None:
    wrong = sizes(2.0)
    wrong[-6] *= 1.5
    found = growth(TIMES, Size(wrong))
    assert found is not None
    assert found.contact == pytest.approx(2.0, abs=0.15)


def test_sizes_that_disagree_make_unsure() -> None:
    agreed = growth(TIMES, Size(sizes(2.0)), Size(sizes(2.0)))
    apart = growth(TIMES, Size(sizes(2.0)), Size(np.full(len(TIMES), 80.0)))
    assert agreed is not None
    assert apart is not None
    assert apart.sigma > 5 * agreed.sigma


def test_what_is_farther_than_the_near_end_is_nearer_to_contact_by_as_much() -> None:
    found = growth(TIMES, Size(sizes(2.2), deep=0.1))
    assert found is not None
    assert found.contact == pytest.approx(2.0, rel=1e-6)


def test_too_few_looks_say_nothing() -> None:
    assert growth(TIMES[-4:], Size(sizes(2.0)[-4:])) is None
