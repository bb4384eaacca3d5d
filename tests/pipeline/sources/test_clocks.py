from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.clocks import ArrivalClock, Pace

PERIOD = 0.04


def play(clock: ArrivalClock, reads: list[tuple[float, float, float]]) -> list[float]:
    return [clock.arrived(*read) for read in reads]


def punctual(count: int, start: float = 100.0, first: int = 0) -> list[tuple[float, float, float]]:
    """pts, begin and end of reads that each wait for their packet."""
    times = [start + PERIOD * (first + n) for n in range(count)]
    return [(PERIOD * (first + n), t - PERIOD + 0.001, t) for n, t in enumerate(times)]


def test_a_packet_that_was_waited_for_arrived_when_it_was_read() -> None:
    assert play(ArrivalClock(), punctual(5)) == pytest.approx([100, 100.04, 100.08, 100.12, 100.16])


def test_a_packet_that_lay_in_the_socket_arrived_when_it_was_due() -> None:
    clock = ArrivalClock()
    play(clock, punctual(10))
    # The reader gets no time for half a second and then reads all at once.
    late = [(PERIOD * n, 100.9, 100.9) for n in range(10, 22)]
    assert play(clock, late) == pytest.approx([100 + PERIOD * n for n in range(10, 22)])


def test_a_delay_that_stays_while_the_reader_waits_for_data_is_how_the_stream_comes() -> None:
    clock = ArrivalClock()
    play(clock, punctual(10))
    moved = [(pts, begin + 0.3, end + 0.3) for pts, begin, end in punctual(120, first=10)]
    ages = [end - arrived for (_, _, end), arrived in zip(moved, play(clock, moved), strict=True)]
    assert ages[0] == pytest.approx(0.3)
    assert ages[-1] == pytest.approx(0, abs=1e-9)


def test_a_reader_that_stays_behind_is_not_forgiven() -> None:
    clock = ArrivalClock()
    play(clock, punctual(10))
    behind = [(PERIOD * n, 101 + PERIOD * n, 101 + PERIOD * n) for n in range(10, 200)]
    ages = [end - arrived for (_, _, end), arrived in zip(behind, play(clock, behind), strict=True)]
    assert ages == pytest.approx([1.0] * len(ages))


def test_timestamps_that_run_too_slowly_are_not_believed() -> None:
    clock = ArrivalClock()
    reads = [(PERIOD * n, 100 + 0.1 * n + 0.001, 100 + 0.1 * (n + 1)) for n in range(150)]
    ages = [end - arrived for (_, _, end), arrived in zip(reads, play(clock, reads), strict=True)]
    assert max(ages) > 1
    assert ages[-40:] == [0] * 40


def test_what_ffmpeg_holds_back_counts() -> None:
    arrived = play(ArrivalClock(held_back=1), punctual(5))
    assert arrived[1:] == pytest.approx([100, 100.04, 100.08, 100.12])


def test_timestamps_that_begin_anew_begin_anew() -> None:
    clock = ArrivalClock()
    play(clock, punctual(10))
    assert clock.arrived(5000.0, 100.4, 100.44) == 100.44
    assert clock.arrived(5000.04, 100.45, 100.48) == pytest.approx(100.48)
    assert clock.arrived(None, 100.5, 100.52) == 100.52


@given(
    pauses=st.lists(st.tuples(st.floats(0, 3), st.floats(-1, 1)), min_size=1, max_size=100),
    held_back=st.integers(0, 3),
)
def test_nothing_arrives_after_it_was_read(pauses: list[tuple[float, float]], held_back: int) -> None:
    clock, now, pts = ArrivalClock(held_back), 50.0, 7.0
    for pause, step in pauses:
        before, now, pts = now, now + pause, pts + step
        assert clock.arrived(pts, before, now) <= now + 1e-9


def test_a_player_late_by_more_than_a_second_does_not_hurry() -> None:
    pace = Pace()
    assert pace.due(0, 10.0) == 10.0
    assert pace.due(0.5, 10.1) == 10.5
    assert pace.due(1.0, 15.0) == 15.0
    assert pace.due(1.04, 15.0) == 15.04
    assert pace.due(900.0, 15.1) == 15.1
