"""The learning rate as a function of the step."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.loop.schedule import warmup_poly


@given(total=st.integers(1, 5000), warmup=st.integers(0, 500))
@settings(max_examples=100, deadline=None)
def test_schedule_climbs_then_falls_to_nothing(total: int, warmup: int) -> None:
    factors = [warmup_poly(step, total + warmup, warmup) for step in range(total + warmup + 1)]
    assert all(0 <= f <= 1 for f in factors)
    assert np.all(np.diff(factors[:warmup]) > 0)
    assert np.all(np.diff(factors[warmup:]) < 0)
    assert factors[-1] == 0
