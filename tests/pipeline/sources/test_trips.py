"""Which clips of a folder are read as which stream, which track of a file, and names that look like addresses.

Each clip of a folder has a length of its own, in pictures, as FFmpeg was told to make it: what a stream gives, and in
which order, is told by the grey of its pictures, which differs from clip to clip.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from engines.errors import RoadlensError
from engines.tools.frames import read_frame_at
from pipeline.config import Config, ModelConfig, StreamConfig, VideoConfig
from pipeline.drawing.overlay import OverlayStyle
from pipeline.frame import Frame
from pipeline.messages.jsonlines import read_lines
from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.outputs.live.segments import RecordingOptions
from pipeline.session import Session
from pipeline.session.serving import ServingSession
from pipeline.session.sidecar import made_of
from pipeline.session.stream import parted, unique_names
from pipeline.session.summary import summary
from pipeline.sources.resolve import resolve_source
from pipeline.sources.trips.makers import recorded_at
from tests.pipeline.recordings import FRAMES, Kitchen, available, hashes, probed

pytestmark = pytest.mark.skipif(not available(), reason="ffmpeg and ffprobe are not installed")

X264 = "-c:v libx264 -preset ultrafast -threads 1 -pix_fmt yuv420p"
FIRST, STEP = 40, 20
"""Luma of the pictures of the first clip that a test names, and how much brighter those of each further one are."""


@pytest.fixture(scope="session")
def greys(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of one colour, the n-th n + 3 pictures long."""
    folder = tmp_path_factory.mktemp("greys")
    kitchen = Kitchen(folder, folder)
    made = []
    for number in range(8):
        level = FIRST + STEP * number
        made.append(
            kitchen.ffmpeg(
                f"-f lavfi -i color=black:s=64x48:r=25 -vf geq=lum={level}:cb=128:cr=128 -frames:v {number + 3} {X264}",
                f"{number}.mp4",
            )
        )
    return made


def filled(folder: Path, names: str, greys: list[Path]) -> Path:
    """A folder with a file of each name; videos are the grey clips in the order of the names."""
    folder.mkdir()
    clips = iter(greys * 3)
    for name in names.split():
        if name.lower().endswith((".mp4", ".lrv", ".lrf", ".insv", ".mov", ".ts")):
            shutil.copyfile(next(clips), folder / name)
        else:
            (folder / name).write_bytes(b"\xff\xd8\xff\xe0 no picture that anybody should open")
    return folder


def luma(frame: Frame) -> int:
    plane = frame.image.planes[0]
    return bytes(plane)[24 * plane.line_size + 32]


def read(address: str | Path, **said: object) -> dict[str, list[int]]:
    """Which grey clips each stream of an address shows, in order; every picture of a clip is counted."""
    streams, _ = parted([StreamConfig(str(address), **said)])  # type: ignore[arg-type]
    found = {}
    for name, config in zip(unique_names(streams), streams, strict=True):
        source = resolve_source(config.source, name, camera=config.camera, track=config.track)
        source.open()
        levels = [round((luma(item) - FIRST) / STEP) for item in source if isinstance(item, Frame)]
        source.close()
        clips = list(dict.fromkeys(levels))
        assert levels == [clip for clip in clips for _ in range(clip + 3)]  # as many as FFmpeg made
        found[name] = clips
    return found


TRIPS = {  # what is in the folder; which of its videos, by their place in that list, each stream shows
    # GoPro: the number of the recording behind that of the chapter
    "GX010001.MP4 GX010002.MP4 GX020001.MP4 GX020002.MP4": {"": [0, 2, 1, 3]},
    "GH010123.MP4 GH030123.MP4 GH020123.MP4 GX010124.MP4": {"": [0, 2, 1, 3]},
    "GOPR0001.MP4 GOPR0002.MP4 GP010001.MP4 GP020001.MP4 GP010002.MP4": {"": [0, 2, 3, 1, 4]},
    "GHAA0001.MP4 GHAA0002.MP4 GHAB0001.MP4": {"": [0, 1, 2]},
    "GX010001.MP4 GL010001.LRV GX010001.THM GX020001.MP4 GL020001.LRV": {"": [0, 2]},
    "GX010001.MP4 GL010001.MP4": {"": [0]},
    "GL010001.LRV GL020001.LRV": {"": [0, 1]},  # nothing else is there
    "GPFR0001.MP4 GPBK0001.MP4 GF010001.MP4 GB010001.MP4": {"-front": [0, 2], "-rear": [1, 3]},
    "._GX010001.MP4 GX010001.MP4 .DS_Store": {"": [1]},
    # Tesla
    "2023-01-01_12-00-00-front.mp4 2023-01-01_12-00-00-back.mp4 2023-01-01_12-00-00-left_repeater.mp4 "
    "2023-01-01_12-00-00-right_repeater.mp4 2023-01-01_12-01-00-back.mp4 2023-01-01_12-01-00-front.mp4 event.mp4 "
    "event.json thumb.png": {"-front": [0, 5], "-back": [1, 4], "-left_repeater": [2], "-right_repeater": [3]},
    "2019-06-01_09-59-front.mp4 2019-06-01_10-00-front.mp4": {"": [0, 1]},
    # BlackVue: the order is that of time, whatever the kind
    "20230101_120100_EF.mp4 20230101_120000_NF.mp4 20230101_120000_NR.mp4 20230101_120200_PF.mp4 "
    "20230101_120200_PR.mp4 20230101_120300_MI.mp4": {"-front": [1, 0, 3], "-interior": [5], "-rear": [2, 4]},
    "20230101_120000_NF.mp4 20230101_120000_NFS.mp4 20230101_120100_NFL.mp4 20230101_120000.gps": {"": [0, 2]},
    # Viofo, Vantrue and others with the same chips
    "2023_0101_120000_0001F.MP4 2023_0101_120000_0002R.MP4 2023_0101_120100_0003PF.MP4 2023_0101_120100_0004PR.MP4":
        {"-front": [0, 2], "-rear": [1, 3]},
    "20230101115900_000009F.MP4 20230101120000_000001F.MP4 20230101120000_000001I.MP4":
        {"-front": [0, 1], "-interior": [2]},
    "20210101_120000_0001_N_A.MP4 20210101_120000_0001_N_B.MP4 20210101_120000_0001_N_C.MP4":
        {"-a": [0], "-b": [1], "-c": [2]},
    "2017_0101_060101_001.MP4 2017_0101_060601_002.MP4": {"": [0, 1]},
    # 70mai, Nextbase, Thinkware, Garmin, DJI, Insta360
    "NO20230101-120000-000001F.MP4 NO20230101-120000-000001B.MP4 EV20230101-115900-000002F.MP4":
        {"-front": [2, 0], "-rear": [1]},
    "230101_120000_001_FH.MP4 230101_120000_001_FL.MP4 230101_120000_001_RH.MP4 230101_120000_001_RL.MP4":
        {"-front": [0], "-rear": [2]},
    "230101_120000_001_FL.MP4 230101_120100_002_FL.MP4": {"": [0, 1]},
    "180102_120000_002.MOV 180102_115500_001.MOV": {"": [1, 0]},
    "REC_2023_01_01_12_00_00_F.MP4 EVT_2023_01_01_11_59_00_F.MP4 REC_2023_01_01_12_00_00_R.MP4":
        {"-front": [1, 0], "-rear": [2]},
    "GRMN0010.MP4 GRMN0009.MP4 GRMN0009.JPG": {"": [1, 0]},
    "DJI_0010.MP4 DJI_0002.MP4 DJI_0010.LRF DJI_0010.SRT": {"": [1, 0]},
    "DJI_20230101120000_0001_W.MP4 DJI_20230101120000_0001_T.MP4 DJI_20230101120500_0002_W.MP4":
        {"-thermal": [1], "-wide": [0, 2]},
    "VID_20230101_120000_00_001.insv VID_20230101_120000_10_001.insv LRV_20230101_120000_11_001.insv":
        {"-inner": [0], "-outer": [1]},
    # Names of nobody's: cameras in words or letters, and pictures beside clips
    "20230101_120000_F.mp4 20230101_120000_R.mp4 20230101_120100_F.mp4 20230101_120100_R.mp4 20230101_120000_I.mp4":
        {"-front": [0, 2], "-interior": [4], "-rear": [1, 3]},
    "20130101_120000_N.mp4 20130101_115900_E.mp4": {"": [1, 0]},
    "clip1_F.mp4 clip1_R.mp4 clip2_F.mp4 clip10_F.mp4 clip2_R.mp4": {"-front": [0, 2, 3], "-rear": [1, 4]},
    "0001F.mp4 0001I.mp4 0001R.mp4 0002F.mp4": {"-front": [0, 3], "-interior": [1], "-rear": [2]},
    "front.mp4 rear.mp4": {"-front": [0], "-rear": [1]},
    "FRONT_20230101_120000.mp4 REAR_20230101_120000.mp4 FRONT_20230101_115900.mp4": {"-front": [2, 0], "-rear": [1]},
    "cam1_0001.mp4 cam1_0002.mp4 cam2_0001.mp4 cam2_0002.mp4": {"-cam1": [0, 1], "-cam2": [2, 3]},
    "20230101_120000_ch1.mp4 20230101_120000_ch2.mp4": {"-cam1": [0], "-cam2": [1]},
    "front_20261129T081622.616Z.mp4 front_20261129T081623.900Z.mp4": {"": [0, 1]},  # a camera that was lost at once
    "cam1.mp4 cam2.mp4 cam3.mp4": {"": [0, 1, 2]},
    "IMG_0002.MOV MVI_0001.MP4 IMG_0001.MOV": {"-img": [2, 0], "-mvi": [1]},
    "clip_10.mp4 clip_9.mp4 clip_9.jpg clip_10.jpg": {"": [1, 0]},
    "evening_20230101_180000.mp4 morning_20230101_080000.mp4": {"": [1, 0]},
    "drive_20230101_120000_part1.mp4 drive_20230101_120000_part2.mp4": {"": [0, 1]},
}  # fmt: skip


@pytest.mark.seconds
@pytest.mark.parametrize("names", TRIPS)
def test_each_camera_is_a_stream_of_its_clips_in_their_order(names: str, tmp_path: Path, greys: list[Path]) -> None:
    folder = filled(tmp_path / "trip", names, greys)
    before = hashes(folder)
    expected = {f"trip{suffix}": clips for suffix, clips in TRIPS[names].items()}
    if len(expected) == 1:
        expected = {"trip": next(iter(expected.values()))}
    assert read(folder) == expected
    assert hashes(folder) == before


REFUSED = {  # which cannot be told apart → what the sentence names
    "20230101_120000_A1.mp4 20230101_120000_B1.mp4": "same time",
    "2023-01-01 12.00.00 x.mp4/2023-01-01 12.00.00 y.mp4": "same time",
    "20230101_120000_x.mp4 20230101_120001_y.mp4 20230101_120100_x.mp4": "same time",
    "GX010001.MP4 DJI_0001.MP4": "GoPro",
    "GX010001.MP4 holiday.mp4": "holiday.mp4",
    "20230101_120000_NF.mp4 2023_0101_120000_0001R.MP4": "Viofo",
    "drive_F.mp4 drive_R.mp4 drive.mp4": "drive.mp4",
}


@pytest.mark.seconds
@pytest.mark.parametrize("names", REFUSED)
def test_what_cannot_be_told_apart_is_refused_with_a_way_out(names: str, tmp_path: Path, greys: list[Path]) -> None:
    folder = tmp_path / "trip"
    folder.mkdir()
    given = names.split("/") if "/" in names else names.split()
    for clip, name in zip(greys, given, strict=False):
        shutil.copyfile(clip, folder / name)
    with pytest.raises(RoadlensError, match=REFUSED[names]) as refused:
        read(folder)
    assert "--camera any" in str(refused.value)
    assert "\n" not in str(refused.value)
    everything = read(folder, camera="any")
    assert sorted(everything["trip"]) == list(range(len(given)))
    for place, name in enumerate(given):  # and a glob of each
        assert read(str(folder / f"{name[:-1]}?")) == {"trip": [place]}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("Front/0001.mp4 Front/0002.mp4 Back/0001.mp4 Back/0002.mp4", {"-front": [0, 1], "-back": [2, 3]}),
        ("Front/GRMN0002.MP4 Front/GRMN0001.MP4 Rear/GRMN0001.MP4", {"-front": [1, 0], "-rear": [2]}),
        ("Front/20230101_120000_F.mp4 Back/20230101_120000_R.mp4", {"-front": [0], "-rear": [1]}),
        ("day10/clip1.mp4 day9/clip1.mp4 day9/clip2.mp4", {"": [1, 2, 0]}),
        ("100GOPRO/GX010002.MP4 100GOPRO/GX020001.MP4 101GOPRO/GX010003.MP4", {"": [1, 0, 2]}),
        ("front/20230101_120000.mp4 front/20230101_120100.mp4 rear/20230101_120000.mp4",
         {"-front": [0, 1], "-rear": [2]}),
    ],
)  # fmt: skip
def test_a_glob_over_folders(names: str, expected: dict[str, list[int]], tmp_path: Path, greys: list[Path]) -> None:
    for clip, name in zip(greys, names.split(), strict=False):
        (tmp_path / "card" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, tmp_path / "card" / name)
    found = read(f"{tmp_path}/card/*/*.[mM][pP]4")
    assert found == {f"card{suffix}": clips for suffix, clips in expected.items()}
    with pytest.raises(RoadlensError, match="look into its folders"):
        read(tmp_path / "card")


def test_a_camera_that_is_named_is_the_only_one(tmp_path: Path, greys: list[Path]) -> None:
    folder = filled(tmp_path / "trip", "230101_120000_001_FH.MP4 230101_120000_001_RH.MP4", greys)
    assert read(folder, camera="rear") == {"trip-rear": [1]}
    assert read(folder, camera="rear", id="car") == {"car": [1]}
    assert read(folder, id="car") == {"car-front": [0], "car-rear": [1]}
    assert read(f"{folder}/*R?.MP4") == {"trip": [1]}
    with pytest.raises(RoadlensError, match="front, rear"):
        read(folder, camera="cabin")
    with pytest.raises(RoadlensError, match="name one of them"):
        resolve_source(str(folder), "trip")
    with pytest.raises(RoadlensError, match="leave out `camera`"):
        read("synthetic:", camera="front")


def test_what_is_left_out_is_counted_and_said_once(
    tmp_path: Path, greys: list[Path], segmenter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = "GX010001.MP4 GL010001.LRV GX010001.THM GX010001.JPG G0010002.JPG track.gpx"
    folder = filled(tmp_path / "card", names, greys)
    folder.chmod(0o555)  # which root, as whom the tests may run, does not notice: so the names are compared
    before = sorted(folder.iterdir()), hashes(folder)
    config = Config(
        (StreamConfig(str(folder)),), (ModelConfig(str(segmenter)),), video=VideoConfig(path=tmp_path / "o.mp4"),
        jsonl=str(tmp_path / "o.jsonl"),
    )  # fmt: skip
    with caplog.at_level(logging.INFO), Session(config) as session:
        said = summary(session, session.run())
    assert said["streams"][0]["frames_out"] == 3
    assert said["streams"][0]["left_out"] == {"proxies": 2, "pictures": 2, "other files": 1}
    assert sum("left out of" in message for message in caplog.messages) == 1
    assert (sorted(folder.iterdir()), hashes(folder)) == before
    folder.chmod(0o755)


def test_several_cameras_are_several_outputs(tmp_path: Path, greys: list[Path], segmenter: Path) -> None:
    folder = filled(tmp_path / "trip", "a_F.mp4 a_R.mp4 b_F.mp4", greys)
    config = Config(
        (StreamConfig(str(folder)),), (ModelConfig(str(segmenter)),),
        video=VideoConfig(path=tmp_path / "out"), jsonl=str(tmp_path / "out"),
    )  # fmt: skip
    with Session(config) as session:
        assert session.run().error is None
    assert {path.name: sum(1 for _ in read_lines(path)) for path in (tmp_path / "out").glob("*.jsonl")} == {
        "trip-front.jsonl": 3 + 5,
        "trip-rear.jsonl": 4,
    }
    assert len(probed(tmp_path / "out" / "trip-front.mp4")["video"].times) == 3 + 5


@pytest.mark.parametrize("output", ["230101_120000_001_RH.MP4", "230101_120000_001_FL.MP4"])
def test_recordings_that_are_not_read_are_not_written_over(
    output: str, tmp_path: Path, greys: list[Path], segmenter: Path
) -> None:
    names = "230101_120000_001_FH.MP4 230101_120000_001_RH.MP4 230101_120000_001_FL.MP4"
    folder = filled(tmp_path / "trip", names, greys)
    before = hashes(folder)
    config = Config(
        (StreamConfig(str(folder), camera="front"),), (ModelConfig(str(segmenter)),),
        video=VideoConfig(path=folder / output),
    )  # fmt: skip
    with pytest.raises(RoadlensError, match="input of this run"):
        Session(config)
    assert hashes(folder) == before


def test_a_client_of_the_server_names_one_camera(tmp_path: Path, greys: list[Path], segmenter: Path) -> None:
    folder = filled(tmp_path / "trip", "a_F.mp4 a_R.mp4", greys)
    config = Config((StreamConfig(str(folder), id="car"),), (ModelConfig(str(segmenter)),))
    with ServingSession(config) as session:
        session.start()
        assert set(session.streams) == {"car-front", "car-rear"}
        with pytest.raises(RoadlensError, match="front, rear"):
            session.add_stream(StreamConfig(str(folder)))
        assert session.add_stream(StreamConfig(str(folder), camera="rear")).id == "trip-rear"


# Tracks ---------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def pantry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pantry")
    kitchen = Kitchen(folder, folder)
    kitchen.stock()
    kitchen.ffmpeg("-i {plain} -vf hflip,negate,scale=120:72 -frames:v 30 " + X264, "rear.mp4")
    kitchen.ffmpeg("-i {plain} -vf scale=40:24 -c:v mjpeg", "small.mov")
    kitchen.ffmpeg("-i {plain} -vf scale=48:28 " + X264, "proxy.mp4")
    kitchen.ffmpeg("-i {plain} -frames:v 1 -q:v 3", "still.jpg")
    return folder


TRACKS = {  # files that are put into one, name → the pictures and the width of each stream
    "base rear two.mp4": {"two-track1": (FRAMES, 160), "two-track2": (30, 120)},
    "rear base two.mkv": {"two-track1": (30, 120), "two-track2": (FRAMES, 160)},
    "base rear two.avi": {"two-track1": (FRAMES, 160), "two-track2": (30, 120)},
    "base rear two.ts": {"two-track1": (FRAMES, 160), "two-track2": (30, 120)},
    "base base two.mov": {"two-track1": (FRAMES, 160), "two-track2": (FRAMES, 160)},
    "small base one.mov": {"one": (FRAMES, 160)},
    "base small one.mov": {"one": (FRAMES, 160)},
    "small base one.mkv": {"one": (FRAMES, 160)},
    "proxy base one.mp4": {"one": (FRAMES, 160)},
    "still base one.mov": {"one": (FRAMES, 160)},
    "still base one.mkv": {"one": (FRAMES, 160)},
    "still base rear two.mov": {"two-track2": (FRAMES, 160), "two-track3": (30, 120)},
    "cover base one.mp4": {"one": (FRAMES, 160)},
    "cover base rear two.mp4": {"two-track1": (FRAMES, 160), "two-track2": (30, 120)},
    "garbled base one.mp4": {"one": (FRAMES, 160)},
    "garbled base one.mkv": {"one": (FRAMES, 160)},
    "unknown base one.mov": {"one": (FRAMES, 160)},
}
FILES = {"still": "still.jpg", "cover": "still.jpg", "small": "small.mov", "garbled": "rear.mp4", "unknown": "rear.mp4"}


def several_tracks(files: str, pantry: Path, folder: Path) -> Path:
    *parts, name = files.split()
    words = [f"-i {pantry / FILES.get(part, f'{part}.mp4')}" for part in parts]
    maps = " ".join(f"-map {number}" for number in range(len(parts)))
    cover = "-disposition:v:0 attached_pic" if "cover" in parts else ""
    noise = "-bsf:v:0 noise=amount=1" if "garbled" in parts else ""
    clip = Kitchen(folder, pantry).ffmpeg(f"{' '.join(words)} {maps} -c copy {cover} {noise}", name)
    if "unknown" in parts:
        clip.write_bytes(_foreign(clip.read_bytes()))
    return clip


def _foreign(data: bytes) -> bytes:
    """A MOV whose first track of pictures is of a codec that nobody has heard of."""
    at = data.index(b"avc1", data.index(b"stsd"))
    return data[:at] + b"zzz1" + data[at + 4 :]


@pytest.mark.seconds
@pytest.mark.parametrize("files", TRACKS)
def test_every_recording_in_a_file_is_a_stream(files: str, pantry: Path, tmp_path: Path) -> None:
    clip = several_tracks(files, pantry, tmp_path)
    streams, _ = parted([StreamConfig(str(clip))])
    found = {}
    for name, config in zip(unique_names(streams), streams, strict=True):
        source = resolve_source(config.source, name, track=config.track)
        info = source.open()
        found[name] = (sum(isinstance(item, Frame) for item in source), info.width)
        source.close()
    assert found == TRACKS[files]


@pytest.mark.seconds
@pytest.mark.parametrize("files", ["cover base one.mp4", "unknown base one.mov"])
def test_tools_that_look_at_a_frame_see_the_recording(files: str, pantry: Path, tmp_path: Path) -> None:
    clip = several_tracks(files, pantry, tmp_path)
    assert read_frame_at(clip, 1.0).shape == (96, 160, 3)


@pytest.mark.seconds
def test_a_track_that_is_named_is_the_only_one(
    pantry: Path, tmp_path: Path, segmenter: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = several_tracks("base rear two.mp4", pantry, tmp_path)
    config = Config(
        (StreamConfig(str(clip), track=2),), (ModelConfig(str(segmenter)),), overlay=OverlayStyle(opacity=0),
        video=VideoConfig(path=tmp_path / "o.mp4"),
    )  # fmt: skip
    with caplog.at_level(logging.INFO), Session(config) as session:
        assert session.run().error is None
    made = probed(tmp_path / "o.mp4")
    assert (len(made["video"].times), made["video"].header["width"]) == (30, 120)
    assert "audio" in made
    assert sum("track 2 is read" in message for message in caplog.messages) == 1
    with pytest.raises(RoadlensError, match=r"no video track 3; it has 1 \(h264 160×96\), 2 \(h264 120×72\)"):
        resolve_source(str(clip), "x", track=3).open()


def test_a_trip_is_read_by_the_track_that_its_clips_have(
    pantry: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "trip"
    folder.mkdir()
    for files in ("cover base 1.mp4", "base 2.mp4", "small base 3.mov"):
        several_tracks(files, pantry, folder)
    ((config,), _) = parted([StreamConfig(str(folder))])
    source = resolve_source(config.source, "trip", track=config.track)
    source.open()
    assert sum(isinstance(item, Frame) for item in source) == 3 * FRAMES
    source.close()
    several_tracks("base rear 4.mp4", pantry, folder)
    (folder / "0.mp4").symlink_to(folder / "4.mp4")
    found = {config.track: 0 for config in parted([StreamConfig(str(folder))])[0]}
    skipped = {}
    for track in found:
        source = resolve_source(str(folder), "trip", track=track)
        source.open()
        found[track] = sum(isinstance(item, Frame) for item in source)
        skipped[track] = [name for name, _ in source.counts.skipped_clips]
        source.close()
    assert skipped == {1: [], 2: ["1.mp4", "2.mp4"]}  # which have but one
    assert made_of("", [folder / "4.mp4"], 1) != made_of("", [folder / "4.mp4"], 2)


# Names ----------------------------------------------------------------------------------------------------------------
@pytest.mark.seconds
@pytest.mark.parametrize("name", ["12:30:05.mp4", "REC:1.mp4", "a:3", "concat:x.mp4", "-d:1.mp4", "50% é.mp4"])
def test_names_that_look_like_addresses_are_files(
    name: str, tmp_path: Path, greys: list[Path], segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(greys[5], name)
    stem = name.removesuffix(".mp4")
    config = Config(
        (StreamConfig(name, id="clip"),), (ModelConfig(str(segmenter)),), video=VideoConfig(path=Path(f"o{stem}.mp4")),
        jsonl=f"o{stem}.jsonl", mcap=Path(f"o{stem}.mcap"),
        outputs=OutputOptions(hls=HlsOptions(Path(f"h{stem}")), record=RecordingOptions(Path(f"r{stem}"))),
    )  # fmt: skip
    with Session(config) as session:
        assert session.run().error is None
    assert len(probed(Path(f"./o{stem}.mp4").absolute())["video"].times) == 8
    assert sum(1 for _ in read_lines(Path(f"o{stem}.jsonl"))) == 8
    assert Path(f"o{stem}.mcap").stat().st_size > 0
    (segment,) = Path(f"r{stem}/clip").glob("*.mp4")
    assert len(probed(segment.absolute())["video"].times) == 8
    playlist = Path(f"h{stem}/clip/index.m3u8").read_text()
    segments = [line for line in playlist.splitlines() if line.endswith(".m4s")]
    assert segments
    assert all((Path(f"h{stem}/clip") / segment).is_file() for segment in segments)


def test_a_percent_sign_is_no_place_for_a_number(tmp_path: Path, greys: list[Path], segmenter: Path) -> None:
    shutil.copyfile(greys[0], tmp_path / "50%d.mp4")
    assert read(tmp_path / "50%d.mp4") == {"50-d": [0]}
    config = Config(
        (StreamConfig(str(tmp_path / "50%d.mp4")),), (ModelConfig(str(segmenter)),),
        outputs=OutputOptions(hls=HlsOptions(tmp_path / "50%d")),
    )  # fmt: skip
    with pytest.raises(RoadlensError, match="in front of a digit"):
        Session(config)


@pytest.mark.parametrize(("name", "stream"), [("a?b[1].mp4", "a-b-1"), ("~x.mp4", "x"), ("*.mp4", "stream")])
def test_names_that_look_like_patterns_are_files(
    name: str, stream: str, tmp_path: Path, greys: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(greys[0], name)
    shutil.copyfile(greys[1], "other.mp4")
    assert read(name) == {stream: [0]}


def test_a_trip_of_names_with_colons(tmp_path: Path, greys: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    filled(Path("t:1"), "12:30:05.mp4 12:31:05.mp4", greys)
    assert read("t:1") == {"t-1": [0, 1]}
    assert read("t:1/12:3*.mp4") == {"t-1": [0, 1]}


# Times ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name",
    [
        "20230102_030405_NF.mp4", "2023_0102_030405_0001F.MP4", "20230102030405_000001R.MP4",
        "230102_030405_001_FH.MP4",
        "NO20230102-030405-000001F.MP4", "REC_2023_01_02_03_04_05_F.MP4", "2023-01-02_03-04-05-front.mp4",
        "DJI_20230102030405_0001_D.MP4", "VID_20230102_030405_00_001.insv", "VID_20230102_030405.mp4",
        "PXL_20230102_030405123.mp4", "2023-01-02 03.04.05.mp4", "rear 2023-01-02 at 03.04.05.mp4",
        "2023-01-02T03:04:05.mp4",
    ],
)  # fmt: skip
def test_the_time_in_a_name(name: str) -> None:
    moment = recorded_at(name)
    assert moment is not None
    assert moment.isoformat() == "2023-01-02T03:04:05"


@pytest.mark.parametrize(
    "name",
    ["GX010001.MP4", "DJI_0001.MP4", "20239999_120000_NF.mp4", "12:30:05.mp4", "clip_20230101.mp4"],
)
def test_no_time_is_made_up(name: str) -> None:
    assert recorded_at(name) is None
