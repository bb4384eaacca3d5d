"""The synthetic drive: its address, its labels and boxes, and the clips that are made of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from engines.errors import UsageError
from pipeline.pictures.planes import plane
from pipeline.sources.synthetic import (
    SyntheticOptions,
    as_video_frame,
    parse_synthetic,
    synthetic_frames,
)
from tests.footage import cut_off, damage, draw_number, read_number, write_changing_clip, write_clip


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("synthetic:", SyntheticOptions()),
        ("synthetic:?", SyntheticOptions()),
        ("synthetic:?width=640&height=360", SyntheticOptions(width=640, height=360)),
        ("synthetic:?fps=30000/1001", SyntheticOptions(fps=Fraction(30000, 1001))),
        ("synthetic:?fps=12.5&seconds=0.4", SyntheticOptions(fps=Fraction(25, 2), seconds=0.4)),
        ("synthetic:?seed=3&traffic=0", SyntheticOptions(seed=3, traffic=0)),
        ("synthetic:?incidents=1", SyntheticOptions(incidents=True)),
    ],
)
def test_an_address_becomes_options(address: str, wanted: SyntheticOptions) -> None:
    assert parse_synthetic(address) == wanted


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("synthetics:", "no address"),
        ("synthetic:640x360", "no address"),
        ("synthetic:?widht=640", "did you mean 'width'"),
        ("synthetic:?Seed=1", "did you mean 'seed'"),
        ("synthetic:?colour=red", "the keys are width"),
        ("synthetic:?width=640&width=320", "twice"),
        ("synthetic:?width=0", "from 16 to"),
        ("synthetic:?width=-5", "from 16 to"),
        ("synthetic:?height=tall", "from 16 to"),
        ("synthetic:?height=", "from 16 to"),
        ("synthetic:?fps=0", "above 0"),
        ("synthetic:?fps=1/0", "above 0"),
        ("synthetic:?fps=nan", "a rate such as"),
        ("synthetic:?seconds=0", "above 0"),
        ("synthetic:?seconds=nan", "above 0"),
        ("synthetic:?seconds=inf", "above 0"),
        ("synthetic:?traffic=99", "from 0 to 16"),
        ("synthetic:?seed=1.5", "a whole number"),
        ("synthetic:?incidents=yes", "from 0 to 1"),
    ],
)
def test_a_wrong_address_is_refused_in_one_sentence(address: str, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_synthetic(address)
    message = str(refusal.value)
    assert said in message
    assert address in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("options", "frames"),
    [
        (SyntheticOptions(seconds=2), 50),
        (SyntheticOptions(seconds=1, fps=Fraction(30000, 1001)), 30),
        (SyntheticOptions(seconds=0.001), 1),
    ],
)
def test_length(options: SyntheticOptions, frames: int) -> None:
    assert options.frames == frames
    assert options.time_base * options.fps == 1


def test_frames_come_in_order_and_can_begin_anywhere() -> None:
    options = SyntheticOptions(width=64, height=48, fps=Fraction(10), seconds=0.5)
    frames = list(synthetic_frames(options))
    assert [frame.index for frame in frames] == [frame.pts for frame in frames] == [0, 1, 2, 3, 4]
    (last,) = synthetic_frames(options, start=4)
    np.testing.assert_array_equal(last.picture, frames[4].picture)
    np.testing.assert_array_equal(last.label, frames[4].label)


@pytest.mark.parametrize(
    "color", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 40, 30), (20, 160, 70), (30, 60, 220)]
)
def test_a_video_frame_is_bt709_in_limited_range_and_says_so(color: tuple[int, int, int]) -> None:
    frame = as_video_frame(np.full((18, 34, 3), color, np.uint8))
    assert (frame.format.name, frame.width, frame.height) == ("yuv420p", 34, 18)
    assert (frame.colorspace, frame.color_range) == (1, 1)  # AVCOL_SPC_BT709, AVCOL_RANGE_MPEG
    r, g, b = (value / 255 for value in color)
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b  # ITU-R BT.709-6, 3.2 and 4.1
    wanted = (16 + 219 * luma, 128 + 224 * (b - luma) / 1.8556, 128 + 224 * (r - luma) / 1.5748)
    planes = [np.asarray(plane).reshape(plane.height, plane.line_size)[:, : plane.width] for plane in frame.planes]
    assert [float(plane.mean()) for plane in planes] == pytest.approx(wanted, abs=1.5)


@pytest.mark.parametrize("size", [(64, 36), (33, 19)])
def test_a_video_frame_is_the_picture_that_swscale_makes(size: tuple[int, int]) -> None:
    small = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    picture = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    rgb = av.VideoFrame.from_ndarray(picture, format="rgb24")
    theirs = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    for index in range(3):
        off = np.abs(plane(as_video_frame(picture), index).astype(int) - plane(theirs, index))
        assert off.mean() < 1.5
        assert off.max() <= (1 if index == 0 else 12)


def _rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)


CLIPS = {
    "plain": ("a.mp4", {}),
    "B-frames": ("a.mp4", {"bframes": 2}),
    "variable rate": ("a.mp4", {"vfr": True, "bframes": 2}),
    "audio": ("a.mp4", {"audio": True}),
    "fragmented with audio": ("a.mp4", {"fragmented": True, "audio": True}),
    "late start": ("a.mp4", {"start_pts": 45_000, "bframes": 2, "audio": True}),
    "10 bit": ("a.mp4", {"pix_fmt": "yuv420p10le"}),
    "full range": ("a.mp4", {"full_range": True}),
    "odd size, 444": ("a.mp4", {"size": (321, 179), "pix_fmt": "yuv444p"}),
    "rotated": ("a.mov", {"rotation": 90}),
    "transport stream": ("a.ts", {"bframes": 1, "start_pts": 90_000}),
    "MPEG-4 part 2": ("a.mp4", {"codec": "mpeg4"}),
    "NTSC rate": ("a.mp4", {"fps": Fraction(30000, 1001)}),
}


@pytest.mark.seconds
@pytest.mark.parametrize(("name", "options"), CLIPS.values(), ids=CLIPS)
def test_a_clip_is_what_was_ordered(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    written = write_clip(tmp_path / name, frames=13, numbered=True, **options)  # type: ignore[arg-type]  # a table
    with av.open(str(tmp_path / name)) as clip:
        decoded = list(clip.decode(clip.streams.video[0]))
        assert [frame.pts for frame in decoded] == written
        assert [read_number(_rgb(frame)) for frame in decoded] == list(range(13))
        first = decoded[0]
        assert (first.width, first.height) == options.get("size", (320, 180))
        assert first.rotation == -int(str(options.get("rotation", 0)))  # FFmpeg counts anticlockwise
        assert any(frame.pict_type == av.video.frame.PictureType.B for frame in decoded) == ("bframes" in options)
        assert len(clip.streams.audio) == int("audio" in options)
        if "pix_fmt" in options:
            assert first.format.name == options["pix_fmt"]
        if "vfr" in options:
            assert len(set(np.diff(written))) == 3


def test_an_odd_size_in_420(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mkv", frames=3, size=(321, 179), codec="ffv1")
    with av.open(str(tmp_path / "a.mkv")) as clip:
        decoded = list(clip.decode(video=0))
    assert [(frame.width, frame.height, frame.format.name) for frame in decoded] == [(321, 179, "yuv420p")] * 3


def test_the_sound_is_as_long_as_the_picture(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", frames=50, audio=True)
    with av.open(str(tmp_path / "a.mp4")) as clip:
        samples = sum(frame.samples for frame in clip.decode(audio=0))
    assert samples / 48_000 == pytest.approx(2.0, abs=0.05)


def test_the_size_changes_in_the_middle(tmp_path: Path) -> None:
    written = write_changing_clip(tmp_path / "a.ts", [(320, 180), (160, 90), (320, 180)], frames=5)
    with av.open(str(tmp_path / "a.ts")) as clip:
        decoded = list(clip.decode(video=0))
    assert [frame.width for frame in decoded] == [320] * 5 + [160] * 5 + [320] * 5
    assert np.diff([frame.pts or 0 for frame in decoded]).tolist() == np.diff(written).tolist()


def test_cut_and_damaged_clips_lose_something(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.ts", frames=40)
    whole = (tmp_path / "a.ts").read_bytes()
    damage(tmp_path / "a.ts")
    damaged = (tmp_path / "a.ts").read_bytes()
    assert len(damaged) == len(whole)
    assert damaged != whole
    cut_off(tmp_path / "a.ts", 0.5)
    assert (tmp_path / "a.ts").read_bytes() == damaged[: len(whole) // 2]


@pytest.mark.parametrize("number", [0, 1, 1000, 65535])
@pytest.mark.parametrize("size", [(320, 180), (33, 17)])
def test_a_number_is_read_back(number: int, size: tuple[int, int]) -> None:
    grey = np.full((size[1], size[0], 3), 128, np.uint8)
    assert read_number(draw_number(grey, number)) == number
