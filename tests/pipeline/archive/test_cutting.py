"""Moments cut out of clips: key frames, sound, the time of recording, and how a picture is turned."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")

from engines.errors import OutputError, SourceError
from pipeline.archive.find.cutting import cut
from tests.footage import read_number, write_clip

GOP, RATE = 12, 25


def numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.mark.seconds
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("bframes", "start_pts"), [(0, 90_000), (2, 90_000)])
@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (1.0, 1.4), (2.0, 9.0)])
def test_a_cut_begins_with_the_key_frame_before_it_and_goes_on_to_its_end(
    suffix: str, bframes: int, start_pts: int, start: float, end: float, tmp_path: Path
) -> None:
    clip = tmp_path / f"clip.{suffix}"
    write_clip(clip, frames=75, numbered=True, bframes=bframes, start_pts=start_pts, audio=True, gop=GOP)
    cut(clip, start, end, tmp_path / "cut.mp4", 1_700_000_000.0, "why")
    found = numbers(tmp_path / "cut.mp4")
    first, last = start * RATE, min(end * RATE, 74)
    assert first - GOP < found[0] <= first
    assert found == list(range(found[0], found[-1] + 1))
    assert int(last) <= found[-1] <= last + bframes + 1
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert container.metadata["comment"] == "why"
        assert container.metadata["creation_time"].startswith("2023-11-14T22:13:2")
        sound = container.streams.audio[0]
        assert sound.codec_context.name == "aac"
        assert float(sound.duration * sound.time_base) == pytest.approx(len(found) / RATE, abs=0.1)


def test_a_turned_picture_stays_turned(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", frames=30, rotation=90)
    cut(tmp_path / "clip.mp4", 0, 1, tmp_path / "cut.mp4", None, "why")
    turned = []
    for name in ("clip", "cut"):
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            turned.append(next(container.decode(video=0)).rotation)
    assert turned[0] == turned[1] != 0


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", frames=5)
    with pytest.raises(SourceError, match="does not exist"):
        cut(tmp_path / "gone.mp4", 0, 1, tmp_path / "cut.mp4", None, "why")
    write_clip(tmp_path / "clip.avi", frames=5, codec="ffvhuff")
    with pytest.raises(OutputError, match="an MP4 holds no ffvhuff"):
        cut(tmp_path / "clip.avi", 0, 1, tmp_path / "cut.mp4", None, "why")
    assert not (tmp_path / "cut.mp4").exists()
