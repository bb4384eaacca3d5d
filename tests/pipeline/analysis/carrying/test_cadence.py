"""How far apart looks may be, by what the looks so far taught."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.carrying.cadence import LONGEST, Cadence, CarryingOptions


def settled(agreement: dict[str, float], *, both: bool = True, options: CarryingOptions | None = None) -> int:
    """The cadence after many looks that agree alike, however far apart."""
    cadence, gap = Cadence(options or CarryingOptions(), both), 1
    for _ in range(60):
        gap = cadence.learn(gap, agreement)
    return gap


@pytest.mark.parametrize(
    ("agreement", "gap"),
    [
        ({"map": 1.0}, LONGEST),
        ({"map": 0.5}, 1),
        ({"map": 1.0, "boxes": 0.3}, 1),
        ({"map": 1.0, "boxes": 1.0}, LONGEST),
    ],
)
def test_the_worse_of_map_and_boxes_decides(agreement: dict[str, float], gap: int) -> None:
    assert settled(agreement) == gap


def test_where_looks_from_both_sides_fill_they_may_be_further_apart() -> None:
    assert settled({"map": 0.97}) > settled({"map": 0.97}, both=False) >= 1


def test_more_agreement_asked_for_means_more_looks() -> None:
    gaps = [settled({"map": 0.96}, options=CarryingOptions(agreement=share)) for share in (0.95, 0.98, 0.995)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > gaps[-1]


def test_it_grows_by_one_frame_a_look_and_falls_at_once() -> None:
    cadence, gaps = Cadence(CarryingOptions(), both=True), [1]
    for _ in range(LONGEST + 2):
        gaps.append(cadence.learn(gaps[-1], {"map": 0.9999}))
    assert gaps == [*range(1, LONGEST + 1), *[LONGEST] * 3]
    assert cadence.learn(LONGEST, {"map": 0.2}) == 1


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40), st.booleans())
def test_it_is_a_number_of_frames_whatever_is_seen(looks: list[tuple[float, float]], both: bool) -> None:
    cadence, gap = Cadence(CarryingOptions(), both), 1
    for of_map, of_boxes in looks:
        before, gap = gap, cadence.learn(gap, {"map": of_map, "boxes": of_boxes})
        assert 1 <= gap <= min(LONGEST, before + 1)


def test_a_cut_teaches_nothing() -> None:
    cadence = Cadence(CarryingOptions(), both=True)
    for gap in range(1, 5):
        cadence.learn(gap, {"map": 0.999})
    assert cadence.learn(5, {}) == 6
