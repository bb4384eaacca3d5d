"""Footage as it comes: turned, cut off, damaged, changing size, in ten bits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from engines.errors import SourceError
from pipeline.contracts import SourceCounts, StreamInfo
from pipeline.frame import Frame
from pipeline.sources.resolve import resolve_source
from tests.footage import cut_off, damage, entitle, write_changing_clip, write_clip


def read(path: Path) -> tuple[StreamInfo, list[Frame], SourceCounts]:
    source = resolve_source(str(path), "x")
    try:
        info = source.open()
        frames = [item for item in source if isinstance(item, Frame)]
    finally:
        source.close()
    assert [f.index for f in frames] == list(range(len(frames)))
    assert all(before.pts < after.pts for before, after in pairwise(frames))
    # Every frame is what opening the stream promised, whatever the file does later.
    shapes = {(f.image.width, f.image.height, f.image.format.name) for f in frames}
    assert shapes == {(info.width, info.height, info.pixel_format)}
    return info, frames, source.counts


@pytest.mark.seconds
@pytest.mark.parametrize(("degrees", "size"), [(90, (180, 320)), (180, (320, 180)), (270, (180, 320))])
def test_turned_footage_is_upright(tmp_path: Path, degrees: int, size: tuple[int, int]) -> None:
    write_clip(tmp_path / "a.mp4", rotation=degrees)
    info, frames, _ = read(tmp_path / "a.mp4")
    assert (info.width, info.height) == size
    assert len(frames) == 25


def test_ten_bits_become_eight(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuv420p10le")
    info, frames, _ = read(tmp_path / "a.mkv")
    assert info.pixel_format == "yuv420p"
    assert len(frames) == 25


def test_a_change_of_size_is_scaled_to_the_first(tmp_path: Path) -> None:
    write_changing_clip(tmp_path / "a.ts", [(320, 180), (160, 90)])
    info, frames, _ = read(tmp_path / "a.ts")
    assert (info.width, info.height) == (320, 180)
    assert len(frames) == 24


@pytest.mark.seconds
@pytest.mark.parametrize(("name", "fragmented"), [("a.ts", False), ("a.mp4", True)])
def test_a_file_cut_off_gives_what_is_there(tmp_path: Path, name: str, fragmented: bool) -> None:
    write_clip(tmp_path / name, frames=50, fragmented=fragmented)
    cut_off(tmp_path / name, 0.6)
    _, frames, _ = read(tmp_path / name)
    assert 20 <= len(frames) < 50


def test_a_file_without_its_index_is_one_sentence(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=50)
    cut_off(tmp_path / "a.mp4", 0.6)
    with pytest.raises(SourceError, match=r"a\.mp4 cannot be opened: its index \(moov\) is missing") as caught:
        read(tmp_path / "a.mp4")
    assert "\n" not in str(caught.value)


def test_damage_in_the_middle_does_not_end_a_stream(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.ts", frames=50)
    damage(tmp_path / "a.ts")
    _, frames, _ = read(tmp_path / "a.ts")
    assert len(frames) >= 40
    assert frames[-1].time > 1.8


def test_tags_that_are_not_utf8_stop_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    write_clip(path)
    entitle(path, "Straße nach Köln".encode("latin-1"))
    _, frames, _ = read(path)
    assert len(frames) == 25
