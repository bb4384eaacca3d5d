"""What is no picture of the road: found in the labels of the pairs, and drawn into views."""

from __future__ import annotations

import numpy as np
import pytest

from engines.classes import IGNORE
from training.data.void import VOID, draw_void, own_car

ROAD = np.zeros((64, 64), np.uint8)


def bonnet(label: np.ndarray, rows: int) -> np.ndarray:
    result = label.copy()
    result[-rows:] = IGNORE
    return result


def test_the_own_car_is_what_is_void_at_the_lower_edge_in_many_pictures():
    strip, post = bonnet(ROAD, 6), bonnet(ROAD, 6)
    strip[30:, :20] = IGNORE  # a strip for parking, joined to it, in one picture
    post[20:30, 30:34] = IGNORE
    labels = np.stack([bonnet(ROAD, 6)] * 6 + [strip, post])
    wanted = np.zeros_like(labels, bool)
    wanted[:, -6:] = True
    np.testing.assert_array_equal(own_car(labels), wanted)


def test_two_cars_that_the_camera_stood_in():
    labels = np.stack([bonnet(ROAD, 4)] * 5 + [bonnet(ROAD, 10)] * 5)
    found = own_car(labels)
    assert found[:5].sum((1, 2)).tolist() == [4 * 64] * 5
    assert found[5:].sum((1, 2)).tolist() == [10 * 64] * 5


def test_labels_without_a_bonnet_have_no_own_car():
    patch = ROAD.copy()
    patch[-10:, 10:24] = IGNORE  # less than the share of the edge that a car covers
    assert not own_car(np.stack([ROAD, patch, patch, patch])).any()


@pytest.mark.parametrize("seed", range(40))
def test_what_is_drawn_is_void_and_nothing_else_is(seed):
    rng = np.random.default_rng(seed)
    picture = rng.integers(60, 70, (96, 128, 3), np.uint8)
    label = rng.integers(0, 3, (96, 128), np.uint8)
    before = picture.copy(), label.copy()
    first, second = (draw_void(picture, label, np.random.default_rng(seed)) for _ in range(2))
    for mine, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, again)
    np.testing.assert_array_equal(picture, before[0])
    np.testing.assert_array_equal(label, before[1])
    view, truth = first
    assert view.shape == picture.shape
    assert view.dtype == truth.dtype == np.uint8
    kept = truth != VOID
    np.testing.assert_array_equal(truth[kept], label[kept])
    # Of the road only the soft edge of what is drawn, and lettering, are changed.
    assert (view[kept] != picture[kept]).any(-1).mean() < 0.4


def test_bonnets_lie_at_the_lower_edge_and_panels_come_as_well():
    views = [draw_void(np.full((96, 128, 3), 90, np.uint8), np.zeros((96, 128), np.uint8), np.random.default_rng(seed))
             for seed in range(200)]  # fmt: skip
    drawn = np.stack([label == VOID for _, label in views])
    assert drawn[:, -1].any(1).mean() > 0.6
    assert drawn.any((1, 2)).mean() > 0.7
    assert (drawn[:, 0].any(1)).mean() > 0.1
