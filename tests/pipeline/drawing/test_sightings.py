"""Where objects are in frames in which nobody found them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.drawing.sightings import Sightings
from pipeline.frame import Box

RATE = 25


def person(x: float, y: float = 100, width: float = 20, height: float = 60, label: str = "person") -> Box:
    return Box(x, y, x + width, y + height, 11, label, 0.5, "m")


def corners(boxes: list[Box]) -> list[tuple[float, float, float, float]]:
    return [(box.x1, box.y1, box.x2, box.y2) for box in boxes]


def walked(gaps: set[int], frames: int = 40, memory: float = 1.0) -> Sightings:
    """Somebody who walks two pixels a frame and is missed in some."""
    sightings = Sightings(memory)
    for index in range(frames):
        sightings.add([] if index in gaps else [person(100 + 2 * index)], index / RATE)
    return sightings


@pytest.mark.parametrize("gap", [1, 5, 24])
def test_between_two_sightings_nobody_is_missed(gap: int) -> None:
    """Up to the memory: of frames between two boxes a second apart each has the box on its way."""
    missed = set(range(8, 8 + gap))
    sightings = walked(missed)
    for index in missed:
        assert corners(sightings.between(index / RATE, lambda _: 0.0)) == [
            pytest.approx((100 + 2 * index, 100, 120 + 2 * index, 160))
        ]


def test_what_was_found_is_not_said_again() -> None:
    assert walked(set()).between(5 / RATE, lambda _: 9.0) == []


def test_a_gap_longer_than_the_memory_has_two_ends() -> None:
    sightings = walked(set(range(8, 30)), memory=0.5)
    assert sightings.between(18 / RATE, lambda _: 0.2) == []
    assert len(sightings.between(9 / RATE, lambda _: 0.2)) == 1
    assert len(sightings.between(28 / RATE, lambda _: 0.2)) == 1


@pytest.mark.parametrize(("index", "hold", "found"), [(6, 0.2, True), (4, 0.2, False), (4, 0.3, True), (34, 0.2, True)])
def test_before_the_first_and_after_the_last_sighting_somebody_goes_on(index: int, hold: float, found: bool) -> None:
    sightings = walked({*range(10), *range(30, 40)})
    expected = [pytest.approx((100 + 2 * index, 100, 120 + 2 * index, 160))] if found else []
    assert corners(sightings.between(index / RATE, lambda _: hold)) == expected


def test_how_long_depends_on_what_it_is() -> None:
    sightings = Sightings(1.0)
    for index in (0, 1):
        sightings.add([person(100), person(300, label="car")], index / RATE)
    left = sightings.between(0.5, lambda label: 1.0 if label == "person" else 0.1)
    assert [box.label for box in left] == ["person"]


def test_who_was_seen_once_stays_where_it_was_and_briefly() -> None:
    sightings = Sightings(1.0)
    sightings.add([person(100)], 0.4)
    assert sightings.between(0.6, lambda _: 1.0, once=0.1) == []
    assert corners(sightings.between(0.45, lambda _: 1.0, once=0.1)) == [(100, 100, 120, 160)]


def test_what_a_box_trembles_by_does_not_grow_over_a_second() -> None:
    sightings = Sightings(1.0)
    sightings.add([Box(100, 100, 120, 160, 11, "person", 0.9, "m")], 0.0)
    sightings.add([Box(99, 97, 121, 163, 11, "person", 0.9, "m")], 1 / RATE)
    (box,) = sightings.between(1.0, lambda _: 1.0)
    assert (box.x1 + box.x2, box.y1 + box.y2) == pytest.approx((220, 260))
    assert (box.x2 - box.x1, box.y2 - box.y1) == pytest.approx((22 * 1.6, 66 * 1.6))


def test_what_is_forgotten_is_gone_and_what_is_needed_is_not() -> None:
    sightings = walked(set(range(8, 30)))
    sightings.forget(20 / RATE)
    assert len(sightings.between(20 / RATE, lambda _: 0.0)) == 1
    sightings.forget(100.0)
    assert sightings.between(101.0, lambda _: 99.0) == []


@given(
    st.lists(st.tuples(st.booleans(), st.floats(-500, 1500), st.floats(1, 300)), min_size=1, max_size=30),
    st.floats(0, 2),
)
def test_boxes_that_are_said_are_boxes(steps: list[tuple[bool, float, float]], hold: float) -> None:
    sightings = Sightings(1.0)
    for index, (found, x, width) in enumerate(steps):
        sightings.add([person(x, width=width)] if found else [], index / RATE)
    for index in range(len(steps)):
        for box in sightings.between(index / RATE, lambda _: hold, hold):
            assert box.x2 > box.x1
            assert box.y2 > box.y1
