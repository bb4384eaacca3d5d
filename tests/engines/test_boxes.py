"""Geometry of boxes against counted pixels, and suppression against its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.boxes import areas, distinct, intersections, iou_matrix, suppress

rectangles = st.tuples(*[st.integers(-20, 20)] * 2, *[st.integers(0, 20)] * 2).map(
    lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3])
)


def pixels(r: tuple[int, int, int, int]) -> set[tuple[int, int]]:
    return {(x, y) for x in range(r[0], r[2]) for y in range(r[1], r[3])}


@given(st.lists(rectangles, max_size=4), st.lists(rectangles, max_size=4))
def test_iou_against_counted_pixels(left, right):
    first, second = (np.array(boxes, float).reshape(-1, 4) for boxes in (left, right))
    found, shared = iou_matrix(first, second), intersections(first, second)
    assert found.shape == shared.shape == (len(left), len(right))
    assert areas(first).tolist() == [len(pixels(a)) for a in left]
    for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right)):
        union = len(pixels(a) | pixels(b))
        assert shared[i, j] == len(pixels(a) & pixels(b))
        assert found[i, j] == pytest.approx(len(pixels(a) & pixels(b)) / union if union else 0)


@given(st.lists(st.tuples(rectangles, st.integers(0, 9), st.integers(0, 1)), max_size=7))
def test_suppression_against_its_definition(found):
    boxes = np.array([box for box, _, _ in found], float).reshape(-1, 4)
    scores, labels = np.array([s for _, s, _ in found], float), np.array([label for _, _, label in found], int)
    left = sorted(range(len(found)), key=lambda i: -found[i][1])
    kept = []
    while left:
        best, *left = left
        kept.append(best)
        mine = pixels(found[best][0])
        left = [
            i for i in left
            if found[i][2] != found[best][2]
            or len(pixels(found[i][0]) & mine) < 0.5 * len(pixels(found[i][0]) | mine)
            or not (pixels(found[i][0]) | mine)
        ]  # fmt: skip
    assert suppress(boxes, scores, labels, 0.5).tolist() == kept


def test_a_truck_in_the_place_of_a_far_likelier_car_is_left_out_and_a_person_beside_a_rider_is_not():
    boxes = np.array([
        [0, 0, 10, 20], [0, 0, 10, 21],                   # a rider, and the same taken for a person
        [50, 0, 70, 10], [50, 0, 70, 11], [52, 0, 70, 11], # a truck, a car, and the car once more
        [50, 0, 70, 30],                                  # a bus that is another object
    ], float)  # fmt: skip
    scores, labels = np.array([0.4, 0.3, 0.4, 0.9, 0.5, 0.3]), np.array([12, 11, 14, 13, 13, 15])
    assert distinct(boxes, scores, labels).tolist() == [3, 0, 1, 5]
    assert distinct(boxes[:0], scores[:0], labels[:0]).tolist() == []
