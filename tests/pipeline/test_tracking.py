"""Track numbers: one object keeps its own through motion, crossings and gaps, and no two boxes ever share one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frame import Box
from pipeline.tracking import Tracker, TrackingOptions, iou_matrix

RATE = 25.0


def box(
    x: float, y: float = 100.0, width: float = 40.0, height: float = 30.0, label: str = "car", origin: str = "unet"
) -> Box:
    return Box(x, y, x + width, y + height, {"car": 13, "person": 11}[label], label, 0.9, origin)


def numbers(tracker: Tracker, frame: int, *boxes: Box) -> list[int | None]:
    return [b.track for b in tracker.update(boxes, frame / RATE)]


# Overlap ------------------------------------------------------------------------------------------------------------
rectangles = st.tuples(*[st.integers(-20, 20)] * 2, *[st.integers(0, 20)] * 2).map(
    lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3])
)


@given(st.lists(rectangles, max_size=4), st.lists(rectangles, max_size=4))
def test_iou_against_counted_pixels(left, right):
    def pixels(r: tuple[int, int, int, int]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(r[0], r[2]) for y in range(r[1], r[3])}

    found = iou_matrix(np.array(left, float).reshape(-1, 4), np.array(right, float).reshape(-1, 4))
    assert found.shape == (len(left), len(right))
    for (i, a), (j, b) in itertools.product(enumerate(left), enumerate(right)):
        union = len(pixels(a) | pixels(b))
        expected = len(pixels(a) & pixels(b)) / union if union else 0
        assert found[i, j] == pytest.approx(expected)


# Numbers ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("speed", [0, 3, 12, -12, 20])
def test_a_moving_object_keeps_its_number(speed):
    tracker = Tracker(TrackingOptions())
    assert [numbers(tracker, i, box(200 + speed * i)) for i in range(20)] == [[1]] * 20


def test_an_object_that_comes_nearer_keeps_its_number():
    tracker = Tracker(TrackingOptions())
    for i in range(30):
        size = 20 * 1.08**i
        assert numbers(tracker, i, box(300 - size / 2, 200 - size / 2, size, size)) == [1]


def test_two_of_a_class_that_meet_and_part_keep_their_numbers():
    tracker = Tracker(TrackingOptions())
    for i in range(41):
        left, right = box(10 * i), box(400 - 10 * i, 104)
        assert numbers(tracker, i, left, right) == [1, 2], i


def test_classes_that_cross_keep_their_numbers_whatever_the_order_of_the_boxes():
    tracker = Tracker(TrackingOptions())
    for i in range(41):
        car, person = box(10 * i), box(400 - 10 * i, label="person")
        order = (car, person) if i % 2 else (person, car)
        found = dict(zip((b.label for b in order), numbers(tracker, i, *order), strict=True))
        assert found == {"person": 1, "car": 2}, i


def test_models_that_see_the_same_object_number_it_apart():
    tracker = Tracker(TrackingOptions())
    for i in range(5):
        assert numbers(tracker, i, box(5 * i), box(5 * i, origin="localizer")) == [1, 2]


@pytest.mark.parametrize("gap", [1, 5, 20])
def test_a_short_gap_is_bridged_where_the_object_should_be(gap):
    tracker = Tracker(TrackingOptions())
    for i in range(8):
        numbers(tracker, i, box(6 * i))
    for i in range(8, 8 + gap):
        assert numbers(tracker, i) == []
    assert numbers(tracker, 8 + gap, box(6 * (8 + gap))) == [1]


def test_a_gap_longer_than_the_memory_ends_a_track():
    tracker = Tracker(TrackingOptions(keep_seconds=0.5))
    numbers(tracker, 0, box(0))
    for i in range(1, 14):
        numbers(tracker, i)
    assert numbers(tracker, 14, box(0)) == [2]


def test_a_step_longer_than_the_memory_does_not():
    """Of footage at half a frame a second, or of a model that looks every two seconds, every step is that long."""
    tracker = Tracker(TrackingOptions(keep_seconds=1.0))
    assert [tracker.update([box(4 * i)], 2.0 * i)[0].track for i in range(4)] == [1] * 4


def test_a_new_object_gets_a_new_number_and_a_number_never_comes_back():
    tracker = Tracker(TrackingOptions())
    assert numbers(tracker, 0, box(0)) == [1]
    assert numbers(tracker, 1, box(0), box(300)) == [1, 2]
    assert numbers(tracker, 2, box(300)) == [2]
    assert numbers(tracker, 3, box(600), box(300)) == [3, 2]


@pytest.mark.parametrize(("min_iou", "second"), [(0.0, 1), (0.2, 1), (0.3, 1), (0.4, 2), (1.0, 2)])
def test_the_smallest_overlap_of_the_same_object(min_iou, second):
    tracker = Tracker(TrackingOptions(min_iou=min_iou))
    numbers(tracker, 0, box(0))
    assert numbers(tracker, 1, box(20)) == [second]  # IoU 1/3


def test_without_any_overlap_it_is_another_object_even_at_a_bound_of_zero():
    tracker = Tracker(TrackingOptions(min_iou=0.0))
    numbers(tracker, 0, box(0))
    assert numbers(tracker, 1, box(500)) == [2]


def test_the_best_overlap_wins():
    tracker = Tracker(TrackingOptions())
    numbers(tracker, 0, box(0))
    assert numbers(tracker, 1, box(15), box(2), box(-12)) == [2, 1, 3]


def test_switched_off_it_numbers_nothing():
    tracker = Tracker(TrackingOptions(enabled=False))
    assert numbers(tracker, 0, box(0), box(100)) == [None, None]


def test_trackers_of_one_stream_share_their_numbers_and_a_resumed_run_goes_on_counting():
    shared = itertools.count(41)
    first, second = Tracker(TrackingOptions(), shared), Tracker(TrackingOptions(), shared)
    assert numbers(first, 0, box(0)) == [41]
    assert numbers(second, 0, box(0)) == [42]
    assert numbers(first, 1, box(0), box(200)) == [41, 43]


def test_a_time_that_stands_still_divides_by_nothing():
    tracker = Tracker(TrackingOptions())
    assert [numbers(tracker, 0, box(2 * i)) for i in range(3)] == [[1]] * 3


def test_everything_but_the_number_stays_as_it_was():
    given_boxes = [box(0), box(100, label="person")]
    found = Tracker(TrackingOptions()).update(given_boxes, 0.0)
    assert [replace(b, track=None) for b in found] == given_boxes


# Expectation --------------------------------------------------------------------------------------------------------
def test_an_object_is_expected_where_its_motion_takes_it_until_it_is_forgotten():
    tracker = Tracker(TrackingOptions(keep_seconds=1.0))
    for i in range(10):
        numbers(tracker, i, box(5 * i, 100 + i))
    last = 9 / RATE
    assert tracker.expected(1, last + 0.4) == pytest.approx((95, 119, 135, 149))
    assert tracker.expected(1, last + 1.01) is None
    assert tracker.expected(2, last) is None


def test_one_wild_box_does_not_throw_the_expectation_far():
    tracker = Tracker(TrackingOptions(min_iou=0.05))
    for i in range(10):
        numbers(tracker, i, box(100))
    numbers(tracker, 10, box(120))
    x1, *_ = tracker.expected(1, 11 / RATE) or (0,)
    assert abs(x1 - 120) <= 0.3 * 20 + 1e-6


frames = st.lists(
    st.lists(
        st.builds(
            box,
            st.integers(0, 120),
            st.integers(0, 60),
            st.integers(1, 60),
            st.integers(1, 60),
            st.sampled_from(["car", "person"]),
            st.sampled_from(["unet", "localizer"]),
        ),
        max_size=5,
    ),
    max_size=12,
)


@given(frames=frames, steps=st.lists(st.floats(0, 1.5), min_size=12, max_size=12))
def test_no_two_boxes_of_a_frame_share_a_number_and_a_number_keeps_its_class(frames, steps):
    tracker, kinds, time = Tracker(TrackingOptions()), {}, 0.0
    for boxes, step in zip(frames, steps, strict=False):
        time += step
        found = tracker.update(boxes, time)
        assert len({b.track for b in found}) == len(found)
        for b in found:
            assert kinds.setdefault(b.track, (b.class_id, b.origin)) == (b.class_id, b.origin)
    assert sorted(kinds) == list(range(1, len(kinds) + 1))
