"""Playlists to which more is added, with what goes wrong with them: FFmpeg's segments, handed out by a real server."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.frame import Frame
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.connection import Reconnect
from pipeline.sources.live.playlist import PlaylistPace
from pipeline.sources.resolve import resolve_source
from pipeline.state import StateChange
from tests.footage import read_number, write_clip
from tests.pipeline.recordings import available
from tests.pipeline.sources.live.test_camera import Watched
from tests.pipeline.web import Moving, Part, Server, segments

needs_ffmpeg = pytest.mark.skipif(not available(), reason="FFmpeg's commands are not installed")

A_SECOND = 25
"""Pictures of a segment."""

OPTIONS = LiveOptions(
    open_timeout=30, read_timeout=5, latency_bound=2.0, reconnect=Reconnect(first=0.1, longest=0.5, at_start="wait")
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a` and `b` are two encoders: twelve seconds of numbered pictures in segments, by clocks of their own."""
    where = tmp_path_factory.mktemp("playlists")
    for name, options in (
        ("a", ""), ("near", "-output_ts_offset 9"), ("far", "-output_ts_offset 500"), ("b", "-output_ts_offset 0.04")
    ):  # fmt: skip
        (where / name).mkdir()
        clip = where / f"{name}.mp4"
        write_clip(clip, frames=12 * A_SECOND, size=(160, 96), gop=A_SECOND, numbered=True, seed=len(name))
        segments(clip, where / name, options)
    return where


def parts(name: str, numbers: Sequence[int], discontinuity: bool = False) -> list[Part]:
    return [Part(f"{name}/{n:05d}.ts", discontinuity and n == numbers[0]) for n in numbers]


@dataclass
class Situation:
    """A playlist.

    Attributes:
        parts: its segments.
        gone: those that the server does not have.
        anew: see `Moving`.
        late: see `Moving`.
        path: how its address is spelt.
        reconnects: how often it is connected anew.
    """

    parts: list[Part]
    gone: set[str] = field(default_factory=set)
    anew: int | None = None
    late: dict[int, float] = field(default_factory=dict)
    path: str = "live.m3u8"
    reconnects: int = 0


SITUATIONS = {
    "steady": Situation(parts("a", range(8))),
    "no word in its address says what it is": Situation(parts("a", range(8)), path="watch?id=7"),
    "a segment lost": Situation(parts("a", range(10)), {"a/00004.ts"}),
    "two segments lost": Situation(parts("a", range(10)), {"a/00004.ts", "a/00005.ts"}),
    "a segment late": Situation(parts("a", range(9)), late={5: 1.5}),
    "a clock set 3 s on": Situation(parts("a", range(6)) + parts("near", range(5), discontinuity=True)),
    "a clock set on by far": Situation(parts("a", range(6)) + parts("far", range(5), discontinuity=True)),
    "a clock set back": Situation(parts("far", range(6)) + parts("a", range(5), discontinuity=True)),
    "an encoder that begins anew": Situation(parts("a", range(8)) + parts("b", range(7)), anew=8, reconnects=1),
}


@needs_ffmpeg
@pytest.mark.slow
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_playlist_goes_on_whatever_happens_to_it(folder: Path, situation: str) -> None:
    given = SITUATIONS[situation]
    playlist = Moving(given.parts, anew=given.anew, ends=True, late=given.late)
    name = given.path.partition("?")[0]
    web = Server(folder, gone=given.gone, pages={name: playlist})
    with web, Watched(web.url(given.path), OPTIONS) as watched:
        watched.until(lambda: watched.source.state.final)
    asked = [path for _, path, _ in web.asked]
    look = len(asked) - asked[::-1].index(name)  # the last look, whether it is over, may open a segment that was missed
    served = {path for path in asked[:look] if path.endswith(".ts") and path not in given.gone}
    counts, frames = watched.source.counts, watched.frames
    numbers = [read_number(frame.image.to_ndarray(format="gray")) for frame in frames]
    if given.anew is not None:
        # FFmpeg asks for the next segment while it reads one, and leaves it where the list by then begins anew.
        first = next((k for k, (a, b) in enumerate(pairwise(numbers)) if b <= a), 0)
        if numbers[first] == (given.anew - 1) * A_SECOND - 1:
            served.discard(given.parts[given.anew - 1].name)
    # The books: what was on the wire, once or again, = what came out + what did not, by reason.
    assert counts.packets - counts.skipped["again"] == len(served) * A_SECOND, (counts, served)
    not_decoded = sum(counts.skipped.values()) + counts.decode_errors
    assert counts.packets == len(frames) + sum(counts.dropped.values()) + not_decoded, (counts, len(frames))
    # Nearly all of them come out, also behind what went wrong.
    assert len(frames) >= 0.9 * len(served) * A_SECOND, (len(frames), served, counts)
    assert "behind" not in counts.skipped
    # Each picture once, in the order of its encoder; time goes as fast as it does.
    encoders = len({part.name.partition("/")[0] for part in given.parts})
    assert sum(b <= a for a, b in pairwise(numbers)) == encoders - 1, numbers
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    passed = frames[-1].arrived_at - frames[0].arrived_at - playlist.waited
    # The last pictures of an encoder come when it is known that no more follow: by its clock they are not late.
    assert frames[-1].time - frames[0].time == pytest.approx(passed, abs=1.5 + 3 * given.reconnects)
    assert {c.cause for c in watched.changes if c.state.value in {"stalled", "backing_off"}} <= {"silent"}
    assert watched.states[-1] == "ended"
    assert watched.source.reconnects == given.reconnects


@needs_ffmpeg
@pytest.mark.slow
def test_a_playlist_to_which_nothing_is_added_is_not_shown_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    playlist = Moving(parts("a", range(5)))
    web = Server(folder, pages={"live.m3u8": playlist})
    with web, caplog.at_level(logging.INFO), Watched(web.url("live.m3u8"), OPTIONS) as watched:
        watched.until(lambda: watched.source.counts.skipped["again"] >= 5 * A_SECOND)
        assert len(watched.frames) <= 5 * A_SECOND
        playlist.began = time.monotonic() - 2
        playlist.parts += parts("a", range(5, 8))
        watched.until(lambda: len(watched.frames) >= 7 * A_SECOND)
    numbers = [read_number(frame.image.to_ndarray(format="gray")) for frame in watched.frames]
    assert numbers == sorted(set(numbers))
    reasons = {c.reason for c in watched.changes if c.state.value == "backing_off"}
    assert any("no pictures are added to the playlist" in reason for reason in reasons)
    said = [r.getMessage() for r in caplog.records if "no pictures are added" in r.getMessage()]
    assert len(said) == 1, said


@needs_ffmpeg
@pytest.mark.slow
def test_a_web_address_shows_itself_to_be_a_playlist_that_moves_on(folder: Path) -> None:
    changes: list[StateChange] = []
    playlist = Moving(parts("a", range(8)), ends=True)
    with Server(folder, pages={"watch": playlist}) as web:
        source = resolve_source(web.url("watch?v=1"), "cam", live=OPTIONS, observe=changes.append)
        source.open()
        assert source.mode == "live"
        frames = [item for item in source if isinstance(item, Frame)]
        source.close()
    assert len(frames) >= 7 * A_SECOND
    assert [c.state.value for c in changes if c.state.value != "backing_off"][-2:] == ["connecting", "ended"]


def test_a_segment_that_is_late_makes_what_follows_late_and_not_old() -> None:
    pace = PlaylistPace()
    due = [pace.due(n * 0.04, 10 + n * 0.04, 0.0) for n in range(25)]
    assert due == pytest.approx([10 + n * 0.04 for n in range(25)])
    assert pace.due(1.0, 11.7, 0.7) == pytest.approx(11.7), "the next segment came 0.7 s late"
    assert pace.due(1.04, 11.7, 0.0) == pytest.approx(11.74)
    assert pace.due(1.08, 12.5, 0.0) == pytest.approx(11.78), "what waited here is late"
    assert pace.late(1.12, 12.5) == pytest.approx(0.68)
    assert pace.due(1.12, 12.5, 0.0) == pytest.approx(11.82)
    assert pace.due(3.0, 12.6, 0.0) == pytest.approx(12.6), "a lost segment is not waited for"
    assert pace.jump == pytest.approx(1.88)
    assert pace.due(0.5, 12.7, 0.0) == pytest.approx(12.7), "a clock that was set back begins at once"


def test_a_playlist_of_a_picture_every_few_seconds_has_no_jumps() -> None:
    pace = PlaylistPace()
    assert [pace.due(5.0 * n, 10 + 5.0 * n, 0.0) for n in range(6)] == pytest.approx([10 + 5.0 * n for n in range(6)])
