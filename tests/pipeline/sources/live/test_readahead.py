"""What lay ready when a connection was opened is dated by its stamps; what comes in time is left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

import av
import pytest

from pipeline.sources.live.readahead import Read, dated

PERIOD = 0.04
PICTURES, SOUND = 0, 1


def packet(stamp: float | None, stream: int = PICTURES) -> av.Packet:
    with av.open("/dev/null", "w", format="null") as out:
        for _ in range(stream + 1):
            track = out.add_stream("mpeg4", rate=25)
        made = av.Packet(b"picture")
        made.stream = track
    made.time_base = Fraction(1, 90_000)
    made.pts = None if stamp is None else round(stamp * 90_000)
    return made


def reads(ready: int, live: int, period: float = PERIOD, odd: dict[int, float] | None = None) -> list[Read]:
    """Packets that lie ready at 100 s, and then one a period."""
    made = []
    for n in range(ready + live):
        now = 100.0 + period * max(n - ready + 1, 0) + 1e-5 * n
        before = 100.0 + period * max(n - ready, 0) + 1e-5 * n
        made.append(Read(packet(7 + period * n + (odd or {}).get(n, 0.0)), before, now))
    return made


def times(given: list[Read]) -> list[float]:
    return [read.now for read in dated(iter(given), PICTURES)]


@pytest.mark.parametrize("period", [0.02, 0.04, 0.25, 1.0])
@pytest.mark.parametrize("ready", [0, 1, 7, 75])
def test_what_lay_ready_came_when_its_stamps_say(ready: int, period: float) -> None:
    given = reads(ready, 10, period)
    first = 100.0 + period - period * ready
    wanted = [first + period * n for n in range(ready + 10)]
    assert times(given) == pytest.approx(wanted, abs=0.002)


@pytest.mark.parametrize("odd", [{20: 3.0}, {20: -3.0}, dict.fromkeys(range(20, 75), -0.5), {0: 400.0}])
def test_an_odd_stamp_and_a_clock_that_was_set_make_nothing_older(odd: dict[int, float]) -> None:
    given = reads(60, 10, odd=odd)
    assert times(given)[0] == pytest.approx(100.0 + PERIOD - PERIOD * 60, abs=3 * PERIOD)


def test_packets_without_stamps_are_left_as_they_are() -> None:
    given = [Read(packet(None), read.before, read.now) for read in reads(5, 5)]
    assert times(given) == [read.now for read in given]


def test_sound_waits_for_nothing() -> None:
    sound = Read(packet(7.0, SOUND), 100.0, 100.0)
    seen = list(dated(iter([*reads(3, 0), sound]), PICTURES))
    assert seen[0] is sound


def test_what_came_before_an_error_is_handed_on() -> None:
    def broken() -> Iterator[Read]:
        yield from reads(5, 0)
        raise ConnectionResetError

    handed_on = dated(broken(), PICTURES)
    assert len(list(islice(handed_on, 5))) == 5
    with pytest.raises(ConnectionResetError):
        next(handed_on)
