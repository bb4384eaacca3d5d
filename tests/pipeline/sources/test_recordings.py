"""Recordings as cameras and owners make them: what comes out is held to what FFprobe says of what goes in."""

from __future__ import annotations

import math
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.errors import RoadlensError
from pipeline.sources.resolve import resolve_source
from tests.pipeline.recordings import FRAMES, Kitchen, Track, available, grey, header, probed, written

pytestmark = pytest.mark.skipif(not available(), reason="ffmpeg and ffprobe are not installed")

X264 = "-c:v libx264 -preset ultrafast -threads 1"

CODED = {  # name of the file → how FFmpeg makes it of the base clip
    "plain.mp4": "-i {base} -c copy",
    "late.mp4": f"-i {{base}} {X264} -bf 3 -c:a copy",
    "sound-first.mp4": f"-i {{base}} -map 0:a -map 0:v {X264} -bf 3 -c:a copy",
    "sound-first.ts": f"-i {{base}} -map 0:a -map 0:v {X264} -bf 3 -c:a copy",
    "late.mkv": f"-i {{base}} {X264} -bf 2 -c:a copy",
    "late.avi": f"-i {{base}} {X264} -bf 3 -c:a mp3",
    "motion.avi": "-i {base} -c:v mjpeg -q:v 3 -c:a pcm_s16le",
    "stereo.avi": "-i {base} -c:v mjpeg -q:v 3 -ac 2 -c:a pcm_s16le",
    "pcm.mov": f"-i {{base}} {X264} -c:a pcm_s16be",
    "adts.ts": "-i {base} -c copy",
    "mp2.mpg": "-i {base} -c:v mpeg1video -c:a mp2",
    "ac3.ts": f"-i {{base}} {X264} -c:a ac3",
    "opus.mkv": f"-i {{base}} {X264} -c:a libopus",
    "flac.mkv": f"-i {{base}} {X264} -c:a flac",
    "vorbis.webm": "-i {base} -c:v libvpx -deadline realtime -cpu-used 8 -c:a libvorbis",
    "mpeg4.mp4": "-i {base} -c:v mpeg4 -bf 2 -c:a copy",
    "silent.mp4": "-i {plain} -c copy",
    "offset.ts": "-i {base} -c copy -output_ts_offset 100",
    "wrapping.ts": "-i {base} -c copy -output_ts_offset 95443",
    "fast.mp4": f"-i {{plain}} {X264} -r 50",
    "ntsc.mp4": f"-i {{plain}} {X264} -r 30000/1001",
    "slow.mp4": f"-i {{plain}} {X264} -r 5",
    "variable.mkv": f"-i {{plain}} -vf select=not(between(n\\,5\\,20)) -fps_mode vfr {X264}",
    "odd.mp4": f"-i {{plain}} -vf scale=158:94 {X264}",
    "422.mp4": f"-i {{plain}} {X264} -pix_fmt yuv422p",
    "444.mkv": f"-i {{plain}} {X264} -pix_fmt yuv444p",
    "deep.mp4": "-i {plain} -c:v libx265 -x265-params log-level=error -preset ultrafast -pix_fmt yuv420p10le",
    "gray.mkv": "-i {plain} -c:v ffv1 -pix_fmt gray",
    "full.mp4": f"-i {{plain}} {X264} -pix_fmt yuvj420p",
    "fields.mp4": f"-i {{plain}} {X264} -flags +ildct+ilme -x264-params tff=1",
    "prores.mov": "-i {base} -c:v prores_ks -profile:v 3 -c:a pcm_s24le",
    "deep444.mkv": "-i {plain} -c:v ffv1 -pix_fmt yuv444p12le",
    "raw422.avi": "-i {plain} -c:v v210",
    "rgb.mkv": "-i {plain} -c:v ffv1 -pix_fmt bgr0",
    "old.mpg": "-i {plain} -c:v mpeg2video -flags +ildct+ilme -bf 2",
    "trimmed.mp4": "-ss 0.5 -i {base} -c copy",
    "annexb.h264": "-i {plain} -c copy -bsf:v h264_mp4toannexb",
    "moving.gif": "-i {plain} -vf fps=10",
}  # fmt: skip


def sounding(track: Track) -> float:
    """Seconds from the first packet that is heard to the last one."""
    times = [float(packet["pts_time"]) for packet in track.kept if "pts_time" in packet]
    return max(times) - min(times)


@pytest.mark.seconds
@pytest.mark.parametrize("name", CODED)
def test_every_picture_its_time_and_its_sound_come_out(
    name: str, kitchen: Kitchen, tmp_path: Path, segmenter: Path
) -> None:
    clip = kitchen.ffmpeg(CODED[name], name)
    given = probed(clip)
    frames, video = written(clip, tmp_path, segmenter)
    made = probed(video)
    times, shown = given["video"].times, made["video"].times
    assert frames == len(times) == len(shown)
    if clip.suffix != ".h264":  # which holds no times
        known = [place for place, time in enumerate(times) if not math.isnan(time)]  # FFprobe gives some up at an end
        assert len(known) >= FRAMES - 2 or len(known) == len(times)
        expected = [times[place] - times[known[0]] for place in known]
        assert [shown[place] - shown[known[0]] for place in known] == pytest.approx(expected, abs=0.0021)
    assert ("audio" in made) == ("audio" in given)
    if "audio" in given:
        assert sounding(made["audio"]) == pytest.approx(sounding(given["audio"]), abs=0.12)
    assert made["video"].header["pix_fmt"] in ("yuv420p", "yuvj420p", "yuv444p")


TURNS = {  # (a, b, c, d): what is at (x, y) is shown at (a·x + c·y, b·x + d·y); where the white corner then is
    "as it is": ((1, 0, 0, 1), "upper left"),
    "mirrored": ((-1, 0, 0, 1), "upper right"),
    "turned by half": ((-1, 0, 0, -1), "lower right"),
    "flipped": ((1, 0, 0, -1), "lower left"),
    "transposed": ((0, 1, 1, 0), "upper left"),
    "clockwise": ((0, 1, -1, 0), "upper right"),
    "transposed the other way": ((0, -1, -1, 0), "lower right"),
    "anticlockwise": ((0, -1, 1, 0), "lower left"),
}


def white_corner(video: Path, transposed: bool) -> str:
    width, height = (96, 160) if transposed else (160, 96)
    header = probed(video)["video"].header
    assert (header["width"], header["height"]) == (width, height)
    rows = grey(video, (width, height))
    bright = {
        f"{upper} {left}": rows[y][x]
        for upper, y in (("upper", height // 4), ("lower", 3 * height // 4))
        for left, x in (("left", width // 4), ("right", 3 * width // 4))
    }
    assert sum(level > 128 for level in bright.values()) == 1
    return max(bright, key=lambda corner: bright[corner])


@pytest.mark.seconds
@pytest.mark.parametrize("turn", TURNS)
def test_pictures_of_a_turned_camera_are_upright(turn: str, kitchen: Kitchen, tmp_path: Path, segmenter: Path) -> None:
    matrix, corner = TURNS[turn]
    _, video = written(kitchen.turned("turned.mp4", matrix), tmp_path, segmenter)
    assert white_corner(video, matrix[0] == 0) == corner


EXIF = ("upper left", "upper right", "lower right", "lower left") * 2
"""Where the white corner is shown, by Exif's orientation 1 to 8 (CIPA DC-008, 4.6.4)."""


@pytest.mark.seconds
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright(orientation: int, kitchen: Kitchen, tmp_path: Path, segmenter: Path) -> None:
    _, video = written(kitchen.photograph("photo.jpg", orientation), tmp_path, segmenter)
    assert white_corner(video, orientation > 4) == EXIF[orientation - 1]


@pytest.mark.seconds
@pytest.mark.parametrize(("aspect", "kept"), [("4/3", "4:3"), ("2/1", "2:1"), ("8/9", "8:9"), ("1/1", "1:1")])
def test_the_shape_of_pixels_is_kept(aspect: str, kept: str, kitchen: Kitchen, tmp_path: Path, segmenter: Path) -> None:
    clip = kitchen.ffmpeg(f"-i {{plain}} -vf setsar={aspect} {X264}", "wide.mp4")
    _, video = written(clip, tmp_path, segmenter)
    assert probed(video)["video"].header.get("sample_aspect_ratio", "1:1") == kept


FIELDS = {  # how an interlaced clip is coded → its name
    "-c:v libx264 -preset ultrafast -flags +ildct+ilme -x264-params tff=1": "upper.mp4",
    "-c:v libx264 -preset ultrafast -flags +ildct+ilme -x264-params bff=1": "lower.mp4",
    "-vf setfield=tff -c:v mpeg2video -flags +ildct+ilme": "upper.ts",
    "-vf setfield=bff -c:v mpeg2video -flags +ildct+ilme": "lower.mpg",
    "-vf setfield=tff,format=yuv422p10le -c:v prores_ks -flags +ildct+ilme": "upper.mov",
    "-c:v libx264 -preset ultrafast": "progressive.mp4",
}


@pytest.mark.seconds
@pytest.mark.parametrize("coding", FIELDS)
def test_fields_stay_fields_of_the_same_order(coding: str, kitchen: Kitchen, tmp_path: Path, segmenter: Path) -> None:
    clip = kitchen.ffmpeg(f"-i {{plain}} -r 25 {coding}", FIELDS[coding])
    _, video = written(clip, tmp_path, segmenter)
    assert fields(video) == fields(clip)
    assert fields(clip)[0] == (FIELDS[coding] != "progressive.mp4")


def fields(path: Path) -> tuple[bool, bool]:
    """Whether most pictures are of two fields, and whether the upper one is shown first, as FFmpeg's decoder says."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries",
               "frame=interlaced_frame,top_field_first", "-of", "csv=p=0", str(path)]  # fmt: skip
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    counted = Counter(tuple(value == "1" for value in line.rstrip(",").split(",")[:2]) for line in lines if line)
    (interlaced, upper), _ = counted.most_common(1)[0]
    return interlaced, upper


@pytest.mark.seconds
@pytest.mark.parametrize("offsets", [(100, 0), (0, 100), (0, 20_000), (50, 0, 30, 5)])
def test_clocks_that_restart_cost_neither_pictures_nor_sound(
    offsets: tuple[int, ...], kitchen: Kitchen, tmp_path: Path, segmenter: Path
) -> None:
    parts = [
        kitchen.ffmpeg(f"-i {{base}} -c copy -output_ts_offset {at}", f"{n}.ts", tmp_path)
        for n, at in enumerate(offsets)
    ]
    clip = kitchen.joined("joined.ts", *parts)
    frames, video = written(clip, tmp_path, segmenter)
    made = probed(video)
    assert frames == len(made["video"].times) == FRAMES * len(offsets)
    times = made["video"].times
    assert sounding(made["audio"]) == pytest.approx(times[-1] - times[0], abs=0.15)  # a pause is one of both
    assert len(made["audio"].kept) >= 75 * len(offsets)


def without_its_tail(data: bytes) -> bytes:
    """A power cut: the index is never written."""
    return data[: data.index(b"moov") - 4]


UNREADABLE: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {  # name → made how, what then, what is said
    "power-cut.mp4": ("-i {base} -c copy", without_its_tail, "its index (moov) is missing"),
    "power-cut.mov": ("-i {base} -c copy", without_its_tail, "untrunc"),
    "half-index.mp4": ("-i {base} -c copy", lambda data: data[:-200], "its index (moov) is cut off"),
    "half-copy.mp4": ("-i {base} -c copy -movflags faststart", lambda data: data[:300], "its index (moov) is cut off"),
    "garbled.mp4": (
        "-i {base} -c copy", lambda data: data.replace(b"trak", b"free").replace(b"mvhd", b"free"), "video"
    ),
    "lost-sectors.mp4": ("-i {base} -c copy", lambda data: data[64:], "not a video file FFmpeg can read"),
    "erased.mp4": ("-i {base} -c copy", lambda data: bytes(len(data)), "not a video file FFmpeg can read"),
    "notes.mp4": ("-i {base} -c copy", lambda _: b"Remember the milk.\n" * 99, "not a video file FFmpeg can read"),
    "empty.mp4": ("-i {base} -c copy", lambda _: b"", "is empty (0 bytes)"),
    "sound.mp4": ("-i {base} -vn -c copy", lambda data: data, "no video track"),
    "sound.wav": ("-i {base} -vn", lambda data: data, "no video track"),
    "head.mkv": ("-i {base} -c copy", lambda data: data[:300], "it is cut off, or the disk cannot be read"),
    "head.avi": ("-i {base} -c copy", lambda data: data[:2100], "head.avi"),
    "head.ts": ("-i {base} -c copy", lambda data: data[:188], "head.ts"),
}  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_said_in_one_sentence(
    name: str, kitchen: Kitchen, tmp_path: Path, segmenter: Path
) -> None:
    arguments, spoilt, said = UNREADABLE[name]
    clip = kitchen.ffmpeg(arguments, name)
    clip.write_bytes(spoilt(clip.read_bytes()))
    with pytest.raises(RoadlensError) as refused:
        written(clip, tmp_path, segmenter)
    sentence = str(refused.value)
    assert said in sentence
    assert name in sentence
    assert "\n" not in sentence
    assert not re.search(
        r"Errno|\d{6,}|Invalid data|processing input|0x[0-9a-f]+|av\.", sentence.replace(str(clip), "")
    )
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.seconds
@pytest.mark.parametrize("offsets", [(0, 20_000), (95_000, 0), (0, 90_000, 5)])
def test_a_clip_whose_clock_jumps_is_not_expected_to_take_days(offsets: tuple[int, ...], kitchen: Kitchen) -> None:
    parts = [kitchen.ffmpeg(f"-i {{base}} -c copy -output_ts_offset {at}", f"{n}.ts") for n, at in enumerate(offsets)]
    clip = kitchen.joined("joined.ts", *parts)
    assert float(header(clip)["duration"]) > 400, "what FFprobe makes of it"
    source = resolve_source(str(clip), "x")
    expected = source.open().expected_frames
    source.close()
    assert expected is None or expected < 10 * FRAMES * len(offsets)
    (recorded,) = source.counts.recorded
    assert abs(recorded.at - clip.stat().st_mtime) < 60


def test_a_hole_in_the_middle_costs_what_is_in_it(kitchen: Kitchen, tmp_path: Path, segmenter: Path) -> None:
    clip = kitchen.ffmpeg("-i {plain} -c copy", "hole.mp4")
    data = bytearray(clip.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    clip.write_bytes(data)
    frames, video = written(clip, tmp_path, segmenter)
    assert 0 < frames == len(probed(video)["video"].times) <= FRAMES
