"""Cameras of every kind, by every protocol and with every codec, with the bound as it is by default.

Of each: what was sent, counted by the camera, is what came out and what was dropped, by reason; the state, and the one
line of the log. All cameras of a kind are read at once, in slow motion (`situations.SLOW`), so that a machine that is
busy does not make them late. What a busy machine may still do, frames superseded by newer ones, is no failure.
"""

from __future__ import annotations

import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from tests.pipeline.sources.live.situations import PICTURES, Films, Outcome, Situation, run

AT_ONCE = 40
SHARE = 0.5
"""Of the frames that are young enough, so many at least are given out; the rest may be superseded."""


@dataclass(frozen=True)
class Row:
    """Cameras that differ in protocol and codec only.

    Attributes:
        kind: what they do.
        ways: protocol and codec, `rtsp/tcp h264 b2`.
        script: what they do, in terms of the scriptable cameras.
        skipped: packets without a frame, by reason; what the decoder keeps at the end goes by the codec.
        old: frames that are rightly too old, at most. FFmpeg takes seven of H.264 without B-frames to find out what
            comes.
        resets: times at which the clock begins anew; None for ever so many.
        lossy: whether packets are lost on the way: how many of the damaged pictures come out is the decoder's affair.
        line: in the only line of the log.
        steady: whether the time of the frames passes as ours does.
    """

    kind: str
    ways: str
    script: dict[str, object] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    old: int = 6
    resets: int | None = 0
    lossy: bool = False
    line: str = ""
    steady: bool = True
    slow: float = 3.0


KEPT = {"b1": 1, "b2": 1, "b3": 1, "pyramid": 2}
"""Frames that a decoder keeps at the end, by the order of pictures; MPEG-4's hands out all, see `kept`."""


def kept(film: str) -> int:
    return 0 if film.startswith("mpeg4") else KEPT.get(film.partition(" ")[2], 0)


def night(at: float) -> float:
    """25 frames a second, then 4."""
    return at if at < 1.6 else 1.6 + (at - 1.6) * 6.25


def asleep(at: float) -> float:
    """25 frames a second, then one in two and a half seconds."""
    return at if at < 1.6 else 1.6 + (at - 1.6) * 62


def morning(at: float) -> float:
    """4 frames a second, then 25."""
    return at * 6.25 if at < 0.4 else 2.5 + (at - 0.4)


def bursts(at: float) -> float:
    """Five frames, a pause of 0.6 s."""
    return at + 0.6 * (int(at * 25 + 1e-6) // 5)


def set_by(seconds: float) -> Callable[[float], float]:
    """A clock that is set after 2 s."""
    return lambda at: at + (seconds if at > 2.0 else 0.0)


def fast(factor: float) -> Callable[[float], float]:
    return lambda at: factor * at


def reports_jump(seconds: float) -> Callable[[float], float]:
    """A wall clock that is set after 2 s, which the sender reports show."""
    first: dict[int, float] = {}

    def ntp(unix: float) -> float:
        began = first.setdefault(threading.get_ident(), unix)  # each camera sends in a thread of its own
        return unix + (seconds if unix - began > 2.0 else 0.0)

    return ntp


def noise(n: int, pieces: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Every fifth picture is damaged in its second half."""
    return tuple(map(damaged, pieces)) if n % 5 == 2 else pieces


def damaged(piece: bytes) -> bytes:
    spoilt = bytearray(piece)
    for at in range(len(piece) // 2, len(piece) - 2, 7):
        spoilt[at] ^= 0x55
    return bytes(spoilt) if len(piece) > 60 else piece


ALL = "rtsp/tcp h264; rtsp/udp h264 b2; ts/tcp h264 b3; rtsp/tcp mjpeg; rtsp/tcp hevc; ts/udp mpeg4; rtsp/udp hevc b2"
SOME = "rtsp/tcp h264; rtsp/udp h264 b2; ts/tcp h264 b3"
RTSP = "h264; h264 b1; h264 b2; h264 b3; h264 pyramid; hevc; hevc b2; mjpeg; mpeg4; mpeg4 b1"
TS = "h264; h264 b2; hevc; mpeg4"


def by(way: str, films: str) -> str:
    return ";".join(f"{way} {film.strip()}" for film in films.split(";"))


ORDERS = [
    *(Row("plain", by(f"rtsp/{way}", RTSP)) for way in ("tcp", "udp")),
    *(Row("plain", by(f"ts/{way}", TS)) for way in ("tcp", "udp")),
    Row("plain", "ts/http h264; ts/http h264 b3; ts/pipe h264; ts/pipe h264 b3; mjpeg/http mjpeg"),
    # FFmpeg takes 3 s of an FLV without sound to find out what comes, or the 1 s that it is told.
    Row("without sound", "flv/tcp h264; flv/tcp h264 b3", old=88),
    Row("without sound", "flv/http h264; flv/http h264 b3; rtmp h264; rtmp h264 b3", old=40),
]
RATES = [  # FFmpeg hands out the last pictures as soon as the connection is closed, and not a period later
    Row("25 fps, then 4", ALL, {"time": night, "count": 60}, old=8, steady=False),
    Row("announces 25 fps, gives 1", ALL, {"time": fast(25), "count": 12}, old=8, steady=False, slow=1.0),
    Row("25 fps, then one in 2.5 s", SOME, {"time": asleep, "count": 44}, old=8, steady=False, slow=1.0),
    Row("4 fps, then 25", SOME, {"time": morning}, old=10, steady=False),
    Row("frames in bunches", SOME, {"time": bursts, "count": 60}, old=8, steady=False),
]
CARELESS = {n: random.Random(n).uniform(-0.1, 0.1) for n in range(PICTURES)}
CLOCKS = [
    Row("set back by 0.5 s", ALL, {"stamp": set_by(-0.5)}, resets=1),
    Row("set back by 2 s", ALL, {"stamp": set_by(-2)}, resets=1),
    Row("set back by 9 s", ALL, {"stamp": set_by(-9)}, resets=1),
    Row("set forward by 3 s", ALL, {"stamp": set_by(3)}, resets=1),
    Row("one stamp 3 s ahead", ALL, {"odd": {50: 3.0}}),
    Row("three stamps 3 s ahead", SOME, {"odd": {20: 3.0, 40: 3.0, 60: 3.0}}),
    Row("one stamp 3 s behind", ALL, {"odd": {50: -3.0}}, resets=2),
    Row("stamps that stand", SOME, {"stamp": lambda _at: 0.0}, old=8, steady=False),
    Row("stamps that run backwards", SOME, {"stamp": lambda at: 10 - at}, resets=None, steady=False),
    Row("stamps up to 0.1 s wrong", SOME, {"odd": CARELESS}, old=12),
    Row("5 % too fast", SOME, {"stamp": fast(1.05)}),
    Row("5 % too slow", SOME, {"stamp": fast(0.95)}),
    Row("RTP stamps wrap", "rtsp/tcp h264; rtsp/udp hevc; rtsp/tcp mjpeg", {"stamp": lambda t: t + 47_706}),
    Row("MPEG-TS stamps wrap", "ts/tcp h264; ts/udp h264 b2", {"stamp": lambda t: t + 95_431.7}),
]
REPORTS = [
    *(
        Row(f"sound: {sound}", f"rtsp/{way} h264", {"sound": sound, "reports": 0.5})
        for sound in ("pcmu", "pcma", "g726", "aac")
        for way in ("tcp", "udp")
    ),
    *(
        Row(f"a report {by:+} s", "rtsp/tcp h264", {"sound": "pcmu", "reports": 0.5, "ntp": reports_jump(by)}, resets=1)
        for by in (3, -3)
    ),
    Row("reports without sound", "rtsp/tcp h264 b2; rtsp/udp hevc", {"reports": 0.5, "ntp": reports_jump(3)}),
]
GOP_CACHE = "; rtmp h264 b2; flv/http h264; rtsp/tcp mjpeg"
LOSSY = "rtsp/udp h264; rtsp/tcp mjpeg; ts/udp h264; rtsp/udp hevc"
SETS = "rtsp/tcp h264; rtsp/tcp hevc; rtsp/udp mpeg4"
LOSSES = [
    Row("the first key frame comes late", SOME + "; rtsp/tcp hevc; ts/udp mpeg4", {"first": 7}, {"start": 3}),
    Row("parameter sets in the description", SETS, {"sets": "sdp"}),
    Row("parameter sets in band", SETS, {"sets": "band"}),
    Row("the same, and late", "rtsp/tcp h264; rtsp/udp hevc", {"sets": "band", "first": 3}, {"start": 7}),
    Row("pictures lost", LOSSY, {"lose": lambda n, _k: n % 13 == 5}, lossy=True),
    Row("parts of key frames lost", LOSSY, {"lose": lambda n, k: n % 10 == 0 and k == 3}, lossy=True),
    Row("the first key frames lost", LOSSY, {"lose": lambda n, _k: n in {0, 10}}, lossy=True),
    Row("a media server begins with the last 2 s", SOME + GOP_CACHE, {"hold": lambda n: 2.0 * (n == 0)}, old=56),
    Row("damaged pictures", ALL, {"change": noise}, lossy=True),
    Row("the network stands still for 0.5 s", ALL, {"hold": lambda n: 0.5 if n == 50 else 0.0}, old=20),
    Row("the network stands still for 2 s", SOME, {"hold": lambda n: 2.0 if n == 40 else 0.0}, old=56),
]
SERVERS = [
    Row(
        "FFmpeg", "ffmpeg/ts/tcp h264; ffmpeg/ts/tcp h264 b3; ffmpeg/ts/tcp hevc b2; ffmpeg/ts/udp h264 pyramid", old=8
    ),
    Row("FFmpeg", "ffmpeg/rtmp h264; ffmpeg/rtmp h264 b3; ffmpeg/flv/http h264 b2", old=40),
]
ENDS = [
    Row("falls silent", ALL, {"end": "silent", "count": 50}, line="nothing has come from"),
    Row("says good-bye", "rtsp/tcp h264; rtsp/udp h264 b2", {"end": "bye", "count": 50}),
]


@pytest.fixture(scope="session")
def films() -> Iterator[Films]:
    with tempfile.TemporaryDirectory() as folder:
        yield Films(Path(folder))


@pytest.mark.slow
def test_every_codec_and_order_of_pictures_by_every_protocol(films: Films) -> None:
    hold(ORDERS, films)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rates", "clocks", "reports", "losses", "ends", "servers"])
def test_cameras(kind: str, films: Films) -> None:
    kinds = {"rates": RATES, "clocks": CLOCKS, "reports": REPORTS, "losses": LOSSES, "ends": ENDS, "servers": SERVERS}
    hold(kinds[kind], films)


def hold(rows: list[Row], films: Films) -> None:
    """Each situation is right; what a machine that stood still may have caused is looked at a second time."""
    cases = [(row, *way.strip().split(" ", 1)) for row in rows for way in row.ways.split(";")]
    for attempt in range(2):
        situations = [
            Situation(f"{row.kind}, {way} {film}", way, film, row.script, slow=row.slow) for row, way, film in cases
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            outcomes = list(pool.map(lambda situation: run(situation, films), situations))
        late = []
        for case, situation, outcome in zip(cases, situations, outcomes, strict=True):
            row, way, film = case
            said = f"{situation.name}: {outcome.said()}"
            check_books(row, film, outcome, said)
            check_words(row, way, outcome, said)
            if not check_frames(row, film, outcome):
                late.append((case, said))
        if not late:
            return
        assert attempt == 0, "\n".join(said for _, said in late)
        cases = [case for case, _ in late]


def check_books(row: Row, film: str, outcome: Outcome, said: str) -> None:
    """What was sent is what came out and what was dropped; this never goes by the machine's load."""
    counts, sent = outcome.counts, outcome.sent
    assert len(sent) == row.script.get("count", PICTURES), said
    gone = sum(counts.dropped.values()) + sum(counts.skipped.values()) + counts.decode_errors
    assert counts.packets == len(outcome.frames) + gone, said
    whole = sum(not one.lost for one in sent)
    assert whole <= counts.packets <= sum(one.packets > 0 for one in sent), said
    if not row.lossy:
        # Where the clock is set, the decoder's order of pictures says nothing of what it kept and what it lost.
        skipped = dict(counts.skipped)
        skipped["end"] = skipped.get("end", 0) + skipped.pop("undecoded", 0)
        wanted = {**row.skipped, "end": kept(film)}
        assert +Counter(skipped) == +Counter(wanted), said
        assert counts.decode_errors == 0, said
    assert all(a.pts < b.pts for a, b in pairwise(outcome.frames)), said
    assert [f.index for f in outcome.frames] == sorted({f.index for f in outcome.frames}), said


def check_words(row: Row, way: str, outcome: Outcome, said: str) -> None:
    """The states, and the one line."""
    silent = row.line != "" or way.endswith("ts/udp")
    states = ["connecting", "streaming", *["stalled"] * silent, "backing_off"]
    if way == "ts/pipe":
        assert [c.state.value for c in outcome.changes] == ["connecting", "streaming", "ended"], said
        assert outcome.lines == [], said
        return
    assert [c.state.value for c in outcome.changes] == [*states, "ended"], said
    assert {c.cause for c in outcome.changes[2:-1]} == {"silent" if silent else "ended"}, said
    assert len(outcome.lines) == 1, said
    assert outcome.changes[2].reason in outcome.lines[0], said
    assert row.line in outcome.lines[0], said


def check_frames(row: Row, film: str, outcome: Outcome) -> bool:
    """Whether frames came out as they should of a machine that never stood still."""
    frames, counts = outcome.frames, outcome.counts
    decoded = len(frames) + sum(counts.dropped.values())
    if counts.dropped["old"] > row.old or len(frames) < SHARE * (decoded - row.old):
        return False
    if row.lossy:
        return len(frames) > 0
    passed = frames[-1].arrived_at - frames[0].arrived_at
    slower = float(frames[-1].time - frames[0].time) - passed
    return row.resets in {None, counts.resets} and (not row.steady or abs(slower) < 0.5)
