"""Track numbers: one object keeps its own through motion, crossings and gaps, and no two boxes ever share one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.tracking import Tracker, TrackingOptions
from pipeline.frame import Box

RATE = 25.0
CLASSES = {"person": 11, "car": 13, "truck": 14, "bus": 15}


def box(
    x: float, y: float = 100.0, width: float = 40.0, height: float = 30.0, label: str = "car", origin: str = "unet"
) -> Box:
    return Box(x, y, x + width, y + height, CLASSES[label], label, 0.9, origin)


def numbers(tracker: Tracker, frame: int, *boxes: Box) -> list[int | None]:
    return [b.track for b in tracker.update(boxes, frame / RATE)]


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
    tracker = Tracker(TrackingOptions(min_iou=min_iou, reach=0.0))
    numbers(tracker, 0, box(0))
    assert numbers(tracker, 1, box(20)) == [second]  # IoU 1/3


def test_without_any_overlap_it_is_another_object_even_at_a_bound_of_zero():
    tracker = Tracker(TrackingOptions(min_iou=0.0))
    numbers(tracker, 0, box(0))
    assert numbers(tracker, 1, box(500)) == [2]


@pytest.mark.parametrize(("reach", "second"), [(0.3, 1), (0.0, 2)])
def test_a_small_object_that_moves_further_than_it_is_large_keeps_its_number(reach, second):
    tracker = Tracker(TrackingOptions(reach=reach))
    numbers(tracker, 0, box(0, width=10, height=8))
    assert numbers(tracker, 1, box(9, width=10, height=8)) == [second]


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


def test_of_two_boxes_of_one_object_the_likelier_goes_on():
    tracker = Tracker(TrackingOptions())
    numbers(tracker, 0, replace(box(10), score=0.7))
    doubtful, likely = replace(box(10, label="truck"), score=0.3), replace(box(11), score=0.7)
    (found,) = [b for b in tracker.update([doubtful, likely], 1 / RATE) if b.track == 1]
    assert found.score == 0.7


# Belief -------------------------------------------------------------------------------------------------------------
def test_a_doubtful_object_is_believed_once_it_was_found_often_enough_in_a_row():
    tracker, doubtful = Tracker(TrackingOptions(confirm_hits=3, confirm_score=0.6)), replace(box(10), score=0.4)
    for i, found in enumerate([True, True, False, True, True, True, True, False, True]):
        believed = tracker.update([doubtful] if found else [], i / RATE)
        if i in {5, 6, 8}:  # a gap after that is bridged
            assert ([b.track for b in believed], tracker.tentative) == ([1], [])
        else:
            assert (believed, tracker.tentative) == ([], [doubtful] if found else [])


def test_a_sure_object_is_believed_at_once_and_from_then_on():
    tracker = Tracker(TrackingOptions(confirm_score=0.6))
    for i, score in enumerate([0.6, 0.2, 0.2]):
        assert [b.track for b in tracker.update([replace(box(10), score=score)], i / RATE)] == [1]


def test_noise_is_not_confirmed_by_noise_that_is_near():
    """Grown boxes find objects that are believed only."""
    tracker = Tracker(TrackingOptions(reach=0.3, confirm_hits=2))
    doubtful = [replace(box(x, width=10, height=8), score=0.4) for x in (0, 9, 18)]
    assert [tracker.update([each], i / RATE) for i, each in enumerate(doubtful)] == [[], [], []]


def shown(tracker, scores, start=0):
    """The track number that is shown after each score of a box that stays; None where it is tentative."""
    result = []
    for i, score in enumerate(scores, start):
        found = tracker.update([replace(box(10), score=score)], i / RATE)
        assert len(found) + len(tracker.tentative) == 1
        result.append(found[0].track if found else None)
    return result


def test_an_object_that_always_scores_low_is_not_believed():
    options = TrackingOptions(confirm_hits=3, confirm_margin=0.1, keep_margin=0.05)
    assert shown(Tracker(options, None, 0.3), [0.39] * 30) == [None] * 30
    assert shown(Tracker(options, None, 0.3), [0.41] * 4) == [None, None, 1, 1]
    assert shown(Tracker(options, None, 0.2), [0.31] * 4) == [None, None, 1, 1]  # to ask for less gives more
    assert shown(Tracker(options, None, 0.3), [0.31, 0.35, 0.35, 0.6]) == [None, None, None, 1]


def test_an_object_is_left_out_while_its_scores_are_low_and_keeps_its_number():
    tracker = Tracker(TrackingOptions(confirm_margin=0.1, keep_margin=0.05), None, 0.3)
    assert shown(tracker, [0.5] * 8) == [None, None] + [1] * 6
    faded = shown(tracker, [0.31] * 20, 8)
    assert faded[0] == 1  # one look does not do it
    assert faded[-1] is None
    assert shown(tracker, [0.5] * 8, 28)[-1] == 1


def test_what_is_seen_of_stills_is_believed():
    tracker = Tracker(TrackingOptions().of_stills(), None, 0.3)
    assert shown(tracker, [0.3, 0.3]) == [1, 1]


# Faint boxes --------------------------------------------------------------------------------------------------------
def faint(x, **options):
    return replace(box(x, **options), score=0.15)


def test_a_believed_object_goes_on_by_faint_boxes_for_a_while():
    tracker = Tracker(TrackingOptions(faint_hits=3))
    numbers(tracker, 0, box(10))
    for i in range(1, 6):
        found = tracker.update([], i / RATE, [faint(10)])
        if i <= 3:
            assert [(b.track, b.score) for b in found] == [(1, 0.15)]
            assert tracker.unclaimed == []
        else:
            assert (found, tracker.unclaimed) == ([], [faint(10)])
    assert numbers(tracker, 6, box(10)) == [1]
    assert [b.track for b in tracker.update([], 7 / RATE, [faint(10)])] == [1]  # it was found: the count begins anew


@pytest.mark.parametrize(
    ("options", "other"),
    [
        ({}, faint(60)),
        ({}, faint(10, label="person")),
        ({}, faint(10, origin="localizer")),
        ({"faint_hits": 0}, faint(10)),
        ({"enabled": False}, faint(10)),
    ],
)
def test_a_faint_box_of_something_else_begins_nothing_and_carries_nothing_on(options, other):
    tracker = Tracker(TrackingOptions(**options))
    tracker.update([box(10)], 0.0)
    assert tracker.update([], 1 / RATE, [other]) == []
    assert (tracker.unclaimed, tracker.tentative) == ([other], [])


def test_what_was_found_needs_no_faint_box_and_what_is_not_believed_has_none():
    tracker = Tracker(TrackingOptions())
    tracker.update([box(10), replace(box(300), score=0.4)], 0.0)
    (found,) = tracker.update([box(10)], 1 / RATE, [faint(10), faint(300)])
    assert (found.track, found.score) == (1, box(10).score)
    assert tracker.unclaimed == [faint(10), faint(300)]


# Steadied -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("speed", [0, 4, -9])
def test_what_moves_evenly_is_said_to_be_where_it_is(speed):
    """Steadied boxes do not lag."""
    tracker = Tracker(TrackingOptions(gain=0.5))
    for i in range(20):
        (found,) = tracker.update([box(300 + speed * i)], i / RATE)
        assert (found.x1, found.y1, found.x2, found.y2) == pytest.approx((300 + speed * i, 100, 340 + speed * i, 130))


def test_boxes_that_tremble_do_so_less_and_are_nearer_to_the_truth():
    random = np.random.default_rng(0)
    said, measured = [], []
    tracker = Tracker(TrackingOptions())
    for i in range(200):
        x = float(random.normal(0, 2))
        (found,) = tracker.update([box(100 + 3 * i + x)], i / RATE)
        said.append(found.x1 - 100 - 3 * i)
        measured.append(x)
    assert np.abs(np.diff(said, 2)).mean() < 0.6 * np.abs(np.diff(measured, 2)).mean()
    assert np.std(said) < np.std(measured)


@pytest.mark.parametrize("step", [1, 3, 8])
def test_the_further_apart_the_looks_are_the_less_what_was_expected_counts(step):
    tracker = Tracker(TrackingOptions(gain=0.65))
    for i in range(4):
        tracker.update([box(100)], step * i / RATE)
    (found,) = tracker.update([box(110)], 4 * step / RATE)
    assert found.x1 == pytest.approx(110 - 10 * 0.35**step)


def test_boxes_of_stills_are_as_the_model_gives_them():
    tracker = Tracker(TrackingOptions().of_stills())
    for i, x in enumerate([100, 104, 101, 107, 99]):
        (found,) = tracker.update([replace(box(x), score=0.1)], i / RATE)
        assert (found.x1, found.score) == (x, 0.1)


def test_an_object_is_what_most_of_its_boxes_say():
    tracker, said = Tracker(TrackingOptions()), []
    for i, label in enumerate(["truck", "truck", "car", "truck", "bus", "bus", "bus", "bus"]):
        (found,) = tracker.update([box(10, label=label)], i / RATE)
        assert found.track == 1
        said.append(found.label)
    assert said[:5] == ["truck"] * 5
    assert said[-1] == "bus"


def test_without_votes_a_box_keeps_its_class():
    """As in a folder of pictures: what stands where a truck stood in the one before may well be a car."""
    tracker = Tracker(TrackingOptions(vote=False))
    said = [
        tracker.update([box(10, label=label)], i / RATE)[0].label for i, label in enumerate(["truck", "car", "bus"])
    ]
    assert said == ["truck", "car", "bus"]


def test_classes_that_are_not_taken_for_each_other_are_objects_apart():
    tracker = Tracker(TrackingOptions())
    assert numbers(tracker, 0, box(10)) == [1]
    assert numbers(tracker, 1, box(10, label="person"), box(10, label="bus")) == [2, 1]


def test_without_tracks_every_box_is_believed():
    tracker = Tracker(TrackingOptions(enabled=False))
    assert tracker.update([replace(box(10), score=0.1)], 0.0) == [replace(box(10), score=0.1)]


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
def test_no_two_boxes_of_a_frame_share_a_number_and_a_number_keeps_its_kind(frames, steps):
    tracker, kinds, time = Tracker(TrackingOptions()), {}, 0.0
    for boxes, step in zip(frames, steps, strict=False):
        time += step
        found = tracker.update(boxes, time)
        assert len({b.track for b in found}) == len(found)
        for b in found:
            assert kinds.setdefault(b.track, (b.class_id, b.origin)) == (b.class_id, b.origin)
    assert sorted(kinds) == list(range(1, len(kinds) + 1))
