from __future__ import annotations

import random
from itertools import pairwise

import pytest

from pipeline.sources.live.stamps import ClockSteps

PERIOD = 0.04


def told(stamps: list[float]) -> list[tuple[float, bool]]:
    clock = ClockSteps()
    return [clock.believed(stamp, 50 + n * PERIOD) for n, stamp in enumerate(stamps)]


@pytest.mark.parametrize("odd", [1.5, 3.0, 400.0])
def test_one_early_stamp_redefines_nothing(odd: float) -> None:
    stamps = [n * PERIOD for n in range(20)]
    stamps[10] += odd
    believed = told(stamps)
    assert [time for time, _ in believed] == pytest.approx([n * PERIOD for n in range(20)])
    assert not any(stepped for _, stepped in believed)


def test_a_clock_that_was_set_forward_is_believed_with_the_third_picture() -> None:
    believed = told([n * PERIOD + (3 if n >= 10 else 0) for n in range(20)])
    assert [n for n, (_, stepped) in enumerate(believed) if stepped] == [12]
    assert [time for time, _ in believed[10:14]] == pytest.approx([0.4, 0.44, 3.48, 3.52])


def test_a_pause_in_which_time_passed_is_no_step() -> None:
    clock = ClockSteps()
    assert clock.believed(0.0, 50.0) == (0.0, False)
    assert clock.believed(5.0, 55.0) == (5.0, False)


def test_a_clock_that_was_set_back_is_believed_at_once() -> None:
    believed = told([n * PERIOD - (3 if n >= 10 else 0) for n in range(20)])
    assert [n for n, (_, stepped) in enumerate(believed) if stepped] == [10]
    assert believed[10][0] == pytest.approx(0.4 - 3)


def test_pictures_that_are_shown_in_another_order_than_they_arrive_in_are_no_step() -> None:
    """One in 2.5 s, P-frames ahead of two B-frames: (shown, arrived) in the order in which they are shown."""
    clock = ClockSteps()
    shown = [(2.5 * n, 2.5 * (n - 2 if n % 3 == 0 else n + 1)) for n in range(1, 12)]
    for seconds, arrived in shown:
        assert clock.believed(seconds, arrived, held=7.5) == (seconds, False)


def test_careless_stamps_cost_no_time() -> None:
    wrong = random.Random(3)
    believed = told([n * PERIOD + wrong.uniform(-0.1, 0.1) for n in range(500)])
    assert not any(stepped for _, stepped in believed)
    assert all(a <= b for (a, _), (b, _) in pairwise(believed))
    assert believed[-1][0] == pytest.approx(499 * PERIOD, abs=0.11)
