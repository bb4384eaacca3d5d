"""What recordings hold beside pictures and sound, and what FFprobe finds of it in the MP4 that is written."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.contracts import AudioPacket, DataPacket
from pipeline.frame import Analysis
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.sources.resolve import resolve_source
from tests.pipeline.recordings import FRAMES, Kitchen, available, header, probed

pytestmark = pytest.mark.skipif(not available(), reason="ffmpeg and ffprobe are not installed")

FAST = VideoOptions(encoder="libx264", preset="ultrafast")
PLACE = "+52.5200+013.4050/"
TEXTS = [(0.2, "N 52.5200 E 13.4050"), (0.8, "50 km/h, naïve")]
CHAPTERS = [(0.0, 0.8, "home"), (0.8, 1.6, "straße")]

SUBTITLES = """1
00:00:00,200 --> 00:00:00,600
N 52.5200 E 13.4050

2
00:00:00,800 --> 00:00:01,200
50 km/h, naïve
"""
TAGS = f""";FFMETADATA1
title=To work
comment=rain; later sun
make=Viofo
model=A129
location={PLACE}
com.apple.quicktime.creationdate=2024-01-15T14:30:05+0100
[CHAPTER]
TIMEBASE=1/1000
START=0
END=800
title=home
[CHAPTER]
TIMEBASE=1/1000
START=800
END=1600
title=straße
"""


def carried(
    source: Path, out: Path, *, blurred: bool = False, upto: int | None = None, options: VideoOptions = FAST
) -> Path:
    """The MP4 that the writer makes of footage, without models; or its beginning, as a kill leaves it."""
    reading = resolve_source(str(source), "x")
    resume = None if upto is not None else VideoWriter.resume_point(out)
    writer = None
    try:
        writer = VideoWriter(out, reading.open(), options, resume)
        at = Fraction(-1) if resume is None else resume.time
        for item in reading:
            if isinstance(item, AudioPacket | DataPacket):
                if item.time < at:
                    continue
                (writer.consume_data if isinstance(item, DataPacket) else writer.consume_audio)(item)
            elif resume is None or item.index >= resume.frames:
                if item.index == upto:
                    return out
                writer.consume(replace(Analysis(item, "file"), anonymized=blurred))
        writer.finish()
    finally:
        if writer is not None:
            writer.close()
        reading.close()
    return out


def asked(path: Path, *what: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", *what, "-of", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not done.stderr, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def chapters(path: Path) -> list[tuple[float, float, str]]:
    return [
        (float(one["start_time"]), float(one["end_time"]), one["tags"]["title"])
        for one in asked(path, "-show_chapters")["chapters"]
    ]


def texts(path: Path) -> list[tuple[float, str]]:
    """When each text begins, and what it says: MP4's text is its length and UTF-8 (ETSI TS 126 245)."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        assert stream.codec_context.codec.canonical_name == "mov_text"
        packets = [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size > 2]
    return [(time, data[2 : 2 + int.from_bytes(data[:2], "big")].decode()) for time, data in packets]


def tracks(path: Path) -> list[tuple[str, str]]:
    """Kind and language of every track, the one that FFmpeg writes chapters as left out."""
    streams = asked(path, "-show_streams")["streams"]
    return [
        (s["codec_type"], s.get("tags", {}).get("language", "und"))
        for s in streams
        if (s["codec_type"], s["codec_tag_string"]) != ("data", "text")
    ]


@pytest.fixture
def owner(kitchen: Kitchen) -> Kitchen:
    (kitchen.folder / "said.srt").write_text(SUBTITLES)
    (kitchen.folder / "said.txt").write_text(TAGS)
    return kitchen


RICH = "-i {base} -i {here}/said.srt -i {here}/said.txt -map 0 -map 1 -map_metadata 2 -map_chapters 2 -c copy "
LANGUAGES = "-metadata:s:v language=eng -metadata:s:a language=ger -metadata:s:s language=fre"
HOLDING = {  # name of the file → how FFmpeg makes it
    "rich.mp4": f"{RICH} -c:s mov_text {LANGUAGES} -movflags use_metadata_tags",
    "rich.mov": f"{RICH} -c:s mov_text {LANGUAGES} -movflags use_metadata_tags",
    "rich.mkv": f"{RICH} -c:s srt {LANGUAGES}",
    "styled.mkv": f"{RICH} -c:s ass {LANGUAGES}",
    "web.mkv": f"{RICH} -c:s webvtt {LANGUAGES}",
}


@pytest.mark.seconds
@pytest.mark.parametrize("name", HOLDING)
def test_what_an_mp4_has_a_place_for_is_carried_over(name: str, owner: Kitchen, tmp_path: Path) -> None:
    clip = owner.ffmpeg(HOLDING[name], name)
    video = carried(clip, tmp_path / "o.mp4")
    tags = {key.lower(): value for key, value in header(video)["tags"].items()}
    assert (tags["title"], tags["comment"]) == ("To work", "rain; later sun")
    assert (tags["make"], tags["model"], tags["location"]) == ("Viofo", "A129", PLACE)
    assert tags["com.apple.quicktime.creationdate"] == "2024-01-15T14:30:05+0100"
    assert chapters(video) == CHAPTERS
    late = float(asked(clip, "-show_packets", "-select_streams", "v")["packets"][0]["pts_time"])
    assert [text for _, text in texts(video)] == [text for _, text in TEXTS]
    assert [time for time, _ in texts(video)] == pytest.approx([time + late for time, _ in TEXTS], abs=0.002)
    assert tracks(video) == tracks(clip)
    assert ("audio", "ger") in tracks(clip)
    assert len(probed(video)["video"].times) == FRAMES


def positions(path: Path, clip: Path) -> list[bytes]:
    """A clip with GoPro's track of positions, as PyAV writes it: a packet every 0.4 s."""
    said = [b"DEVC" + bytes([n]) * 40 for n in range(4)]
    with av.open(str(clip)) as source, av.open(str(path), "w") as out:
        pictures = source.streams.video[0]
        video, data = out.add_stream_from_template(pictures), out.add_data_stream("bin_data")
        data.time_base = Fraction(1, 1000)
        data.metadata["handler_name"] = "GoPro MET"
        out.start_encoding()
        for n, each in enumerate(said):
            packet: Any = av.Packet(each)
            packet.stream, packet.time_base = data, Fraction(1, 1000)
            packet.pts = packet.dts = 400 * n
            packet.duration = 400
            out.mux(packet)
        for coded in source.demux(pictures):
            if coded.size:
                coded.stream = video
                out.mux(coded)
    return said


def found(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        (stream,) = [s for s in container.streams.data if s.metadata.get("handler_name") == "GoPro MET"]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.size]


def test_positions_of_a_gopro_are_carried_over_byte_for_byte(kitchen: Kitchen, tmp_path: Path, pantry: Path) -> None:
    clip = kitchen.folder / "GX010001.MP4"
    said = positions(clip, pantry / "plain.mp4")
    assert [s["codec_tag_string"] for s in asked(clip, "-show_streams")["streams"]] == ["avc1", "gpmd"]
    video = carried(clip, tmp_path / "o.mp4")
    assert [s["codec_tag_string"] for s in asked(video, "-show_streams")["streams"]] == ["avc1", "gpmd"]
    assert found(video) == [(pytest.approx(0.4 * n), each) for n, each in enumerate(said)]


def test_positions_of_what_was_trimmed_off_stay_away(kitchen: Kitchen, tmp_path: Path, pantry: Path) -> None:
    whole = kitchen.folder / "whole.mp4"
    said = positions(whole, kitchen.ffmpeg("-i {plain} -c:v libx264 -g 5 -bf 0", "keys.mp4"))
    clip = kitchen.ffmpeg(f"-ss 1 -i {whole} -map 0 -c copy -copy_unknown", "trimmed.mp4")
    for path in (whole, kitchen.folder / "keys.mp4"):
        path.unlink()
    packets = asked(clip, "-show_packets", "-select_streams", "d")["packets"]
    trimmed = ["D" in packet["flags"] for packet in packets]
    assert trimmed == [True, False]  # the one that ends where the pictures begin
    video = carried(clip, tmp_path / "o.mp4")
    assert [each for _, each in found(video)] == said[3:]


def test_a_trip_has_the_chapters_and_texts_of_all_its_clips(owner: Kitchen, tmp_path: Path) -> None:
    trip = owner.folder / "trip"
    trip.mkdir()
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        owner.ffmpeg(HOLDING["rich.mp4"] + f" -metadata title={name}", name, trip)
    video = carried(trip, tmp_path / "o.mp4")
    times = probed(video)["video"].times
    begins = [times[n * FRAMES] for n in range(3)]
    assert begins == pytest.approx([0, 1.6, 3.2], abs=0.001)
    expected = [(begin + a, begin + b, title) for begin in begins for a, b, title in CHAPTERS]
    for (a, b, title), (begin, end, wanted) in zip(chapters(video), expected, strict=True):
        assert (a, b) == pytest.approx((begin, end), abs=0.002)
        assert title == wanted
    assert [time for time, _ in texts(video)] == pytest.approx([b + t for b in begins for t, _ in TEXTS], abs=0.002)
    assert header(video)["tags"]["title"] == "1.mp4"


def test_nobody_learns_where_blurred_people_were(
    owner: Kitchen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    video = carried(owner.ffmpeg(HOLDING["rich.mp4"], "rich.mp4"), tmp_path / "o.mp4", blurred=True)
    assert PLACE[:8].encode() not in video.read_bytes()
    assert b"N 52.5200" not in video.read_bytes()
    assert tracks(video) == [("video", "eng"), ("audio", "ger")]
    assert header(video)["tags"]["comment"] == "rain; later sun; people and number plates are blurred"
    assert sum("people are blurred" in record.getMessage() for record in caplog.records) == 1


PICTURE = "-i {base} -i {here}/cover.jpg -map 0 -map 1 -c copy -disposition:v:1 attached_pic"
WITHOUT_A_PLACE = {  # name of the file → how FFmpeg makes it, what is named
    "cover.mp4": (PICTURE, "a cover picture"),
    "notes.mkv": ("-i {base} -c copy -attach {here}/said.txt -metadata:s:t mimetype=text/plain", "attached files"),
    "timecode.mov": ("-i {base} -c copy -timecode 15:44:35:10", "its timecode"),
}  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("name", WITHOUT_A_PLACE)
def test_what_an_mp4_has_no_place_for_is_named_once(
    name: str, owner: Kitchen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    owner.ffmpeg("-i {corner} -frames:v 1", "cover.jpg")
    arguments, named = WITHOUT_A_PLACE[name]
    video = carried(owner.ffmpeg(arguments, name), tmp_path / "o.mp4")
    (said,) = [r.getMessage() for r in caplog.records if "has no place" in r.getMessage()]
    assert named in said
    assert [kind for kind, _ in tracks(video)] == ["video", "audio"]


@pytest.mark.seconds
def test_a_resumed_video_has_all_of_it(owner: Kitchen, tmp_path: Path) -> None:
    clip = owner.ffmpeg(
        "-stream_loop 4 -i {base} -i {here}/said.srt -i {here}/said.txt -map 0 -map 1 -map_metadata 2 -map_chapters 2 "
        f"-c copy -c:s mov_text {LANGUAGES} -movflags use_metadata_tags",
        "long.mp4",
    )
    whole = carried(clip, tmp_path / "whole.mp4")
    broken = carried(clip, tmp_path / "o.mp4", upto=120)
    assert not broken.exists()
    video = carried(clip, broken)
    assert (chapters(video), texts(video), tracks(video)) == (chapters(whole), texts(whole), tracks(whole))
    assert header(video)["tags"] == header(whole)["tags"]
    assert probed(video)["video"].times == probed(whole)["video"].times


def test_text_that_is_silent_for_long_holds_nothing_back(owner: Kitchen, tmp_path: Path) -> None:
    clip = owner.ffmpeg("-stream_loop 4 -i {base} -i {here}/said.srt -map 0 -map 1 -c copy -c:s mov_text", "silent.mp4")
    carried(clip, tmp_path / "o.mp4", upto=190)
    with av.open(str(tmp_path / "o.partial.mp4")) as partial:
        kept = sum(packet.size > 0 for packet in partial.demux(partial.streams.video[0]))
    assert kept >= 190 - 3 * 25
