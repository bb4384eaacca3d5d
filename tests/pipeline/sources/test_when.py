"""When recordings were made: what `captured_at` says, held to what was written into the files by others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.contracts import SourceCounts
from pipeline.frame import Frame
from pipeline.sources.resolve import resolve_source
from tests.pipeline.recordings import FRAMES, Kitchen, available, header, written

pytestmark = pytest.mark.skipif(not available(), reason="ffmpeg and ffprobe are not installed")

TOKYO = timezone(timedelta(hours=9))
NOON = datetime(2024, 1, 15, 12, 0, 5, tzinfo=UTC)
SAID = "-metadata creation_time=2024-01-15T12:00:05Z"
APPLE = "com.apple.quicktime.creationdate"
CHANGED = datetime(2023, 6, 7, 8, 9, 10, tzinfo=UTC)


@pytest.fixture(autouse=True)
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine stands in Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(path: Path) -> tuple[list[Frame], SourceCounts]:
    source = resolve_source(str(path), "x")
    try:
        source.open()
        return [item for item in source if isinstance(item, Frame)], source.counts
    finally:
        source.close()


TOLD = {  # name of the file → how FFmpeg makes it, when it begins, what says so
    "said.mp4": (f"-i {{plain}} -c copy {SAID}", NOON, "metadata"),
    "said.mov": (f"-i {{base}} -c copy {SAID}", NOON, "metadata"),
    "said.mkv": (f"-i {{base}} -c copy {SAID}", NOON, "metadata"),
    "late.mp4": (f"-i {{plain}} -c copy {SAID} -output_ts_offset 5", NOON, "metadata"),
    "apple.mov": (
        f"-i {{plain}} -c copy {SAID} -movflags use_metadata_tags -metadata {APPLE}=2024-01-15T10:00:05+0200",
        datetime(2024, 1, 15, 8, 0, 5, tzinfo=UTC),
        "metadata",
    ),
    "dated.mov": (
        "-i {plain} -c copy -metadata date=2011-04-08T15:37:56+0900",
        datetime(2011, 4, 8, 15, 37, 56, tzinfo=TOKYO), "metadata",
    ),
    "old.avi": ("-i {plain} -c:v mjpeg -metadata date=2011-04-08T15:37:56",
                datetime(2011, 4, 8, 15, 37, 56, tzinfo=TOKYO), "metadata"),
    "repeating.avi": ("-i {plain} -c copy", CHANGED, "modified"),
    "year.mp4": ("-i {plain} -c copy -metadata date=2011", CHANGED, "modified"),
    "epoch.mp4": ("-i {plain} -c copy -metadata creation_time=1970-01-01T00:00:01Z", CHANGED, "modified"),
    "never-set.mkv": ("-i {plain} -c copy -metadata creation_time=1980-01-06T00:00:00Z", CHANGED, "modified"),
    "future.mp4": ("-i {plain} -c copy -metadata creation_time=2039-01-01T00:00:00Z", CHANGED, "modified"),
    "silent.ts": ("-i {base} -c copy", CHANGED, "modified"),
    "20240115_210005_F.mp4": ("-i {plain} -c copy", NOON, "name"),
    "20240115_210005_R.mp4": (
        "-i {plain} -c copy -metadata creation_time=1970-01-01T00:00:01Z", NOON, "name",
    ),
    "20200101_000000_F.mp4": (f"-i {{plain}} -c copy {SAID}", NOON, "metadata"),
}  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("name", TOLD)
def test_frames_have_the_time_of_the_recording(name: str, kitchen: Kitchen) -> None:
    arguments, begins, by = TOLD[name]
    clip = kitchen.ffmpeg(arguments, name)
    os.utime(clip, (CHANGED.timestamp(), CHANGED.timestamp()))
    length = float(header(clip)["duration"]) if by == "modified" else 0
    frames, counts = read(clip)
    assert (len(frames), counts.missing) == (FRAMES, 0)
    assert {frame.captured_from for frame in frames} == {by}
    first = begins.timestamp() - length  # a file is changed last when its recording ends
    times = [first + n / 25 for n in range(FRAMES - 1)]
    near = 0.03 if by == "modified" else 0.002  # of a transport stream's length FFmpeg's versions differ
    assert [frame.captured_at for frame in frames[:-1]] == pytest.approx(times, abs=near)
    assert [(r.clip, r.by) for r in counts.recorded] == [(name, by)]


def test_each_clip_of_a_trip_has_its_own_time(kitchen: Kitchen) -> None:
    trip = kitchen.folder / "trip"
    trip.mkdir()
    kitchen.ffmpeg(f"-i {{plain}} -c copy {SAID}", "1.mp4", trip)
    kitchen.ffmpeg("-i {plain} -c copy -metadata creation_time=2024-01-15T12:30:00Z", "2.mp4", trip)
    os.utime(kitchen.ffmpeg("-i {plain} -c copy", "3.mp4", trip), (CHANGED.timestamp(), CHANGED.timestamp()))
    frames, counts = read(trip)
    parked = datetime(2024, 1, 15, 12, 30, tzinfo=UTC).timestamp()
    assert frames[FRAMES - 1].captured_at == pytest.approx(NOON.timestamp() + 1.56, abs=0.002)
    assert frames[FRAMES].captured_at == parked
    assert frames[-1].captured_at == pytest.approx(CHANGED.timestamp() - 0.04, abs=0.01)
    assert [r.by for r in counts.recorded] == ["metadata", "metadata", "modified"]


@pytest.mark.parametrize("zone", ["", "+01:00"])
def test_photographs_have_the_time_that_their_camera_noted(zone: str, kitchen: Kitchen) -> None:
    photo = kitchen.photograph("photo.jpg", 1, "2024:01:15 14:30:05", zone)
    (frame,), _ = read(photo)
    taken = datetime(2024, 1, 15, 14, 30, 5, tzinfo=timezone(timedelta(hours=1)) if zone else TOKYO)
    assert (frame.captured_at, frame.captured_from) == (taken.timestamp(), "metadata")


@pytest.mark.seconds
@pytest.mark.parametrize("name", ["said.mkv", "20240115_210005_F.mp4"])
def test_what_is_written_keeps_the_time(name: str, kitchen: Kitchen, tmp_path: Path, segmenter: Path) -> None:
    _, video = written(kitchen.ffmpeg(TOLD[name][0], name), tmp_path, segmenter)
    assert header(video)["tags"]["creation_time"] == "2024-01-15T12:00:05.000000Z"
    assert '"captured_from":"' in (tmp_path / "o.jsonl").read_text()
