"""Average precision against its definition, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics.detection import average_precision, judge


def precision_by_force(scores: list[float], right: list[bool], wanted: int) -> float:
    """At each of 101 recalls the best precision of any cut-off that reaches it."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    cuts = [(sum(right[i] for i in order[: n + 1]), n + 1) for n in range(len(order))]
    reached = [max((hits / said for hits, said in cuts if hits * 100 >= wanted * r), default=0.0) for r in range(101)]
    return sum(reached) / 101


# Divisors of 100, so that the recalls reached and those asked for are equal as fractions, too.
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=12, unique_by=lambda p: p[0]),
    st.sampled_from([20, 25, 50]),
)
def test_average_precision_against_its_definition(found, wanted):
    right = [r for _, r in found]
    scores = [s for s, _ in found]
    assert average_precision(np.array(scores), np.array(right, bool), wanted) == pytest.approx(
        precision_by_force(scores, right, wanted)
    )


def test_average_precision_of_known_answers():
    ranks = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(ranks, np.array([1, 1, 1, 1], bool), 4) == pytest.approx(1)
    # Precision 1 up to recall ½ (51 of the 101 recalls), then 3/4 at recall 3/4 for 25 of them, then nothing.
    assert average_precision(ranks, np.array([1, 1, 0, 1], bool), 4) == pytest.approx((51 + 25 * 0.75) / 101)
    assert average_precision(np.array([]), np.array([], bool), 4) == 0
    assert math.isnan(average_precision(ranks, np.array([0, 0, 0, 0], bool), 0))


def test_each_true_box_is_found_once_and_what_is_not_sure_counts_for_nothing():
    truth = np.array([[0, 0, 10, 10], [100, 0, 120, 20], [50, 50, 60, 60]], float)
    sure = np.array([True, True, False])
    boxes = np.array([
        [0, 0, 10, 9],        # 0.9 of the first
        [0, 0, 10, 10],       # all of it, but later: already taken
        [100, 0, 120, 11],    # 0.55 of the second
        [51, 51, 55, 55],     # inside the one that is not sure
        [200, 200, 210, 210], # nowhere
    ], float)  # fmt: skip
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    found = judge(boxes, scores, truth, sure, np.array([0.5, 0.75, 0.95]))
    assert found[:, 0].tolist() == [1, 0, 1, -1, 0]
    assert found[:, 1].tolist() == [1, 0, 0, -1, 0]
    # What the first has no right to at a strict level is free for the second.
    assert found[:, 2].tolist() == [0, 1, 0, -1, 0]


def test_judging_without_boxes_or_without_truth():
    none = np.zeros((0, 4))
    levels = np.array([0.5])
    assert judge(none, np.zeros(0), np.array([[0, 0, 1, 1.0]]), np.array([True]), levels).shape == (0, 1)
    assert judge(np.array([[0, 0, 1, 1.0]]), np.ones(1), none, np.zeros(0, bool), levels).tolist() == [[0]]
