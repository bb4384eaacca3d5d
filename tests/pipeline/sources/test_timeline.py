"""The timeline: what comes in continuous stays as it is, and nothing that comes in makes it run backwards."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.timeline import LONGEST_GAP, Timeline

MS, TS, PAL = Fraction(1, 1000), Fraction(1, 90_000), Fraction(1, 25)
time_bases = st.sampled_from([MS, TS, PAL, Fraction(1, 12_800), Fraction(1001, 30_000), Fraction(1, 1_200_000)])
stamps = st.one_of(st.none(), st.integers(-(2**62), 2**62), st.integers(-50, 50), st.integers(0, 10**7))


@given(
    line_base=time_bases,
    frame=st.integers(-1, 4000),
    pieces=st.lists(
        st.tuples(time_bases, st.lists(st.tuples(stamps, st.integers(-10, 5000)), min_size=1, max_size=8)), max_size=5
    ),
)
def test_whatever_comes_every_frame_lies_behind_the_one_before(line_base, frame, pieces):
    line = Timeline(line_base, frame)
    placed = []
    for time_base, frames in pieces:
        line.join_clip(frames[0][0], time_base)
        placed += [line.place(pts, time_base, duration) for pts, duration in frames]
    assert all(after > before for before, after in pairwise(placed))


@given(
    start=st.integers(-(10**9), 10**9),
    steps=st.lists(st.integers(1, 3600 * 1000), max_size=20),
    durations=st.lists(st.integers(0, 10_000), min_size=21, max_size=21),
)
def test_the_first_clip_keeps_its_own_times(start, steps, durations):
    own = [start]
    for step in steps:
        own.append(own[-1] + step)
    line = Timeline(MS, 40)
    assert [line.place(pts, MS, duration) for pts, duration in zip(own, durations, strict=False)] == own
    assert line.resets == 0
    assert line.place_packet(start, Fraction(1, 48_000)) == start


@pytest.mark.parametrize(
    ("what", "own", "placed", "resets"),
    [
        ("constant rate", [0, 40, 80, 120], [0, 40, 80, 120], 0),
        ("variable rate stays variable", [0, 20, 60, 160, 180], [0, 20, 60, 160, 180], 0),
        ("a start at a time of its own", [5000, 5040], [5000, 5040], 0),
        ("a start before zero", [-80, -40, 0], [-80, -40, 0], 0),
        ("a pause", [0, 40, 90_000, 90_040], [0, 40, 90_000, 90_040], 0),
        ("one repeated: the others stay in place", [0, 40, 40, 80, 120], [0, 40, 41, 80, 120], 0),
        ("three alike", [0, 40, 40, 40, 80], [0, 40, 41, 42, 80], 0),
        ("two swapped", [0, 80, 40, 120], [0, 80, 81, 120], 0),
        ("none at all", [None, None, None], [0, 40, 80], 0),
        ("missing in the middle", [100, None, None, 220], [100, 140, 180, 220], 0),
        ("missing first", [None, 40, 80], [0, 40, 80], 0),
        ("missing, then a time that it reached already", [0, None, 40, 80], [0, 40, 41, 80], 0),
        ("a reset to zero", [1000, 1040, 0, 40, 80], [1000, 1040, 1080, 1120, 1160], 1),
        ("a reset to a time of its own", [0, 40, 80, -700, -660], [0, 40, 80, 120, 160], 1),
        (
            "a reset, and a step back too short for one",
            [500, 540, 0, 40, 0, 40, 80],
            [500, 540, 580, 620, 621, 622, 660],
            1,
        ),
        ("a clock that is set forward by a day", [0, 40, 86_400_000, 86_400_040], [0, 40, 80, 120], 1),
        ("one wild time among good ones", [0, 40, 2**60, 120, 160], [0, 40, 80, 120, 160], 2),
    ],
)
def test_timestamps_that_lie(what, own, placed, resets):
    line = Timeline(MS, 40)
    assert [line.place(pts, MS) for pts in own] == placed, what
    assert line.resets == resets


def test_a_wrapped_counter_of_33_bits_goes_on_evenly_where_the_demuxer_did_not_unwrap_it():
    own = [(2**33 - 7200 + 3600 * i) % 2**33 for i in range(6)]
    line = Timeline(TS, 3600)
    placed = [line.place(pts, TS, 3600) for pts in own]
    assert placed == [own[0] + 3600 * i for i in range(6)]
    assert line.resets == 1


def test_the_longest_gap_is_still_a_gap_and_more_is_not():
    for gap, expected in ((LONGEST_GAP * 1000, LONGEST_GAP * 1000), (LONGEST_GAP * 1000 + 1, 40)):
        line = Timeline(MS, 40)
        line.place(0, MS)
        assert line.place(gap, MS) == expected


def test_a_new_piece_follows_after_the_last_frames_own_duration():
    line = Timeline(MS, 40)
    line.place(1000, MS, duration=500)
    assert line.place(0, MS) == 1500


def test_without_durations_a_new_piece_follows_after_the_last_step_but_not_after_a_pause():
    line = Timeline(MS, 40)
    for pts in (5000, 5100):
        line.place(pts, MS)
    assert line.place(0, MS) == 5200
    for pts in (60_000, 0):
        last = line.place(pts, MS)
    assert last == 5200 + 60_000 + 4 * 40


@pytest.mark.parametrize("other", [MS, TS, PAL, Fraction(1001, 30_000)])
@pytest.mark.parametrize("first_pts", [0, 12_345, -90, None])
def test_a_joined_clip_in_any_time_base_follows_the_last_frame(other, first_pts):
    line = Timeline(TS, 3600)
    for pts in (7200, 10_800):
        line.place(pts, TS, 3600)
    line.join_clip(first_pts, other)
    begin = first_pts or 0
    placed = [line.place(first_pts, other)] + [line.place(begin + 20 * i, other) for i in (1, 2)]
    assert placed[0] == 14_400
    for i, at in enumerate(placed):
        assert abs((at - 14_400) - 20 * i * other / TS) <= 1
    assert line.resets == 0


def test_sound_moves_with_its_pictures():
    line, rate = Timeline(TS, 3600), Fraction(1, 48_000)
    line.place(0, TS, 3600)
    assert line.place_packet(-1024, rate) == -1024
    line.join_clip(900_000, TS)  # a clip that begins at 10 s now begins at 0.04 s
    assert line.place_packet(480_000, rate) == 48_000 * 4 // 100
    line.place(900_000, TS, 3600)
    line.place(0, TS, 3600)  # its clock starts anew: what was 0 s is 0.08 s
    assert line.place_packet(0, rate) == 48_000 * 8 // 100


def test_sound_is_not_moved_by_a_repeated_timestamp():
    line = Timeline(MS, 40)
    for pts in (0, 40, 40, 80):
        line.place(pts, MS)
    assert line.place_packet(96_000, Fraction(1, 48_000)) == 96_000
