"""The fit of the learning curve."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.pet_learning_curve import fit


def test_a_power_law_is_found_again() -> None:
    boxes = np.array([42.0, 83, 166])
    assert fit(boxes, 1.7 * boxes**-0.35) == pytest.approx((1.7, 0.35))
