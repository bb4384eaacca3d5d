"""Which frames go together, and for how long the first of them may wait."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime import batching
from pipeline.runtime.batching import LONGEST_WINDOW, SHORTEST_WINDOW, ArrivalRate, batch_window, round_robin


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(batching).failed == 0


# The window ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("what", "periods", "engine_time", "window"),
    [
        ("files never wait", [], 0.01, 0.0),
        ("what the engine leaves of a period", [0.040], 0.015, 0.025),
        ("the shortest period counts, not the slowest stream", [0.040, 1.0, 0.100], 0.015, 0.025),
        ("an engine slower than the stream", [0.040], 0.060, SHORTEST_WINDOW),
        ("a slow stream alone", [5.0], 0.01, LONGEST_WINDOW),
        ("an engine that has not run yet", [1 / 30], 0.0, 1 / 30),
        ("a burst", [0.0], 0.01, SHORTEST_WINDOW),
    ],
)
def test_how_long_a_batch_waits(what, periods, engine_time, window):
    assert batch_window(periods, engine_time) == pytest.approx(window), what


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 10), st.floats(0, 100))
def test_another_stream_never_makes_a_batch_wait_longer(periods, engine_time, another):
    window = batch_window(periods, engine_time)
    assert SHORTEST_WINDOW <= window <= LONGEST_WINDOW
    assert batch_window([*periods, another], engine_time) <= window


# The rate -----------------------------------------------------------------------------------------------------------
def arrivals(*times: float) -> ArrivalRate:
    rate = ArrivalRate()
    for time in times:
        rate.arrived(time)
    return rate


@pytest.mark.parametrize(
    ("what", "times", "now", "period"),
    [
        ("nothing yet", [], 1.0, None),
        ("one frame has no period", [1.0], 1.0, None),
        ("an even stream", [1.0, 1.04, 1.08], 1.1, 0.04),
        ("a jittering one is counted, not differenced", [1.0, 1.07, 1.08, 1.11, 1.16], 1.2, 0.04),
        ("all at once", [1.0, 1.0, 1.0], 1.0, 0.0),
        ("silent for just two seconds", [1.0, 1.04], 3.04, 0.04),
        ("silent for longer", [1.0, 1.04], 3.05, None),
        ("frames of long ago do not count", [0.0, 0.1, 10.0, 10.5], 10.6, 0.5),
        ("back after a silence", [0.0, 0.1, 10.0], 10.0, None),
    ],
)
def test_the_period_of_a_live_stream(what, times, now, period):
    found = arrivals(*times).period(now)
    assert found == (None if period is None else pytest.approx(period)), what


def test_memory_stays_within_the_span():
    rate = ArrivalRate(span=2.0)
    for i in range(10_000):
        rate.arrived(i / 30)
    assert len(rate._times) <= 2 * 30 + 1
    assert rate.period(10_000 / 30) == pytest.approx(1 / 30)


# Turns --------------------------------------------------------------------------------------------------------------
@given(
    ready=st.sets(st.integers(0, 9), min_size=1).map(sorted),
    start=st.integers(0, 10),
    count=st.integers(1, 12),
)
def test_a_batch_takes_each_ready_stream_once_in_turn(ready, start, count):
    taken = round_robin(ready, start, count)
    assert len(taken) == len(set(taken)) == min(count, len(ready))
    assert set(taken) <= set(ready)
    turns = [(i - start) % 10 if start < 10 else i for i in taken]
    assert turns == sorted(turns)


@given(streams=st.integers(1, 9), count=st.integers(1, 4), busy=st.lists(st.integers(0, 2**9 - 1), max_size=30))
def test_no_stream_is_taken_twice_before_another_that_was_ready_all_the_while(streams, count, busy):
    start, since = 0, dict.fromkeys(range(streams), 0)
    for mask in busy:
        ready = [i for i in range(streams) if mask >> i & 1 or i == 0]  # stream 0 is always ready
        taken = round_robin(ready, start, count)
        start = (taken[-1] + 1) % streams
        for i in taken:
            since[i] += 1
        if 0 in taken:
            since = dict.fromkeys(range(streams), 0)
        assert max(since.values()) <= 1, "stream 0 starved"
