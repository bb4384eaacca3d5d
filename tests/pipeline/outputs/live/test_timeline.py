from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.outputs.live.timeline import OutputTimeline


def test_the_networks_jitter_does_not_reach_the_viewers() -> None:
    line = OutputTimeline(100.0)
    late = [0.0, 0.03, -0.02, 0.1, 0.0, 0.2, 0.0]
    shown = [line.picture(7 + i / 25, 101 + i / 25 + by) for i, by in enumerate(late)]
    assert shown == pytest.approx([1 + i / 25 for i in range(len(late))])


def test_cards_fill_an_absence_and_pictures_follow_them() -> None:
    line = OutputTimeline(0.0)
    assert line.picture(50.0, 1.0) == 1.0
    cards = [line.card(1.5 + i / 5) for i in range(10)]
    assert cards == pytest.approx([1.5 + i / 5 for i in range(10)])
    assert line.picture(53.0, 4.0) == pytest.approx(4.0), "the source's timeline went on by as much"
    assert line.picture(53.04, 4.05) == pytest.approx(4.04)


def test_a_source_that_begins_anew_is_laid_on_the_clock() -> None:
    line = OutputTimeline(0.0)
    line.picture(1000.0, 10.0)
    assert line.picture(0.0, 11.0) == pytest.approx(11.0)
    assert line.picture(0.04, 11.04) == pytest.approx(11.04)


def test_a_drifting_camera_stays_near_the_clock() -> None:
    line = OutputTimeline(0.0)
    for i in range(100_000):
        now = i / 25
        assert abs(line.picture(now * 1.001, now) - now) <= 0.501


@given(
    st.lists(
        st.tuples(st.booleans(), st.floats(0, 5), st.floats(-1e6, 1e6)),
        max_size=60,
    )
)
def test_time_only_grows(steps: list[tuple[bool, float, float]]) -> None:
    line, now, before = OutputTimeline(0.0), 0.0, -1.0
    for is_card, passed, time in steps:
        now += passed
        shown = line.card(now) if is_card else line.picture(time, now)
        assert shown > before
        before = shown
