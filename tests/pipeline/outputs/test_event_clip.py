from __future__ import annotations

import io
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import OutputError, UsageError
from engines.settings import decode
from pipeline.config import Config, check
from pipeline.outputs.event_clip import (
    EventClipOptions,
    EventRing,
    EventRule,
)
from pipeline.outputs.remux import decoding_times, write_packets
from pipeline.packets import CompressedPacket, Track
from pipeline.state import OutputChange
from tests.footage import write_clip
from tests.pipeline.encoded import DEADLINE, analysis, until
from tests.pipeline.rtp import Footage
from tests.pipeline.rtsp_camera import RtspCamera
from tests.pipeline.rtsp_server import Mount, RtspServer, missing, write_units


def moving(size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Cheap pictures that move."""
    blobs = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8), size)
    while True:
        blobs = np.roll(blobs, 3, axis=1)
        yield np.asarray(blobs, np.uint8)


def record(path: Path, frames: int, size: tuple[int, int] = (160, 90), **options: Any) -> Path:
    write_clip(path, frames=frames, size=size, pictures=moving(size), **options)
    return path


def packets_of(clip: Path, begin: float = 0.0, no_dts: bool = False) -> list[CompressedPacket]:
    """The packets of a clip as a live source shows them; the first arrives at `begin` seconds, all in real time."""
    found = []
    with av.open(str(clip)) as container:
        tracks = {s.index: Track.of(s) for s in container.streams.video}
        tracks |= {s.index: Track.of(s) for s in container.streams.audio}
        for packet in container.demux():
            if packet.pts is None or packet.dts is None or not packet.size:
                continue
            track = tracks[packet.stream_index]
            at = begin + float(packet.dts * track.time_base)
            dts = None if no_dts else packet.dts
            found.append(
                CompressedPacket(
                    track, bytes(packet), packet.pts, dts, packet.duration or 0, packet.is_keyframe, at, 1.7e9 + at
                )
            )
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds, a key frame every second, B-frames, sound."""
    path = tmp_path_factory.mktemp("events") / "clip.mp4"
    return record(path, 200, gop=25, bframes=2, audio=True)


def video(packets: Sequence[CompressedPacket]) -> list[CompressedPacket]:
    return [p for p in packets if p.track.kind == "video"]


def pictures(path: Path) -> Iterator[bytes]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="gray").tobytes()


def frames(path: Path) -> int:
    return sum(1 for _ in pictures(path))


def fed(ring: EventRing, packets: Sequence[CompressedPacket]) -> None:
    for packet in packets:
        ring.packet(packet)


@pytest.mark.seconds
def test_a_clip_is_what_was_before_and_after_bit_for_bit(tmp_path: Path, clip: Path) -> None:
    packets = packets_of(clip)
    ring = EventRing("cam", EventClipOptions(tmp_path, before=2.0, after=1.5))
    early = [p for p in packets if p.arrived_at < 5.0]
    fed(ring, early)
    saved = ring.save("hard braking!")
    fed(ring, packets[len(early) :])
    assert saved.wait(DEADLINE)
    ring.close()
    assert saved.path.parent == tmp_path / "cam"
    assert saved.path.name.endswith("Z_hard-braking.mp4")
    shown, original = list(pictures(saved.path)), list(pictures(clip))
    first = original.index(shown[0])
    assert first == 75, "the last key frame that is 2 s before the event"
    # 5 s + 1.5 s by arrival, give or take the frames that B-frames hold back
    assert len(shown) == pytest.approx(6.5 * 25 - first, abs=4)
    whole = len(shown) - 3  # the end is cut in the order of decoding: of the last ones a B-frame may be missing
    assert shown[:whole] == original[first : first + whole]
    with av.open(str(saved.path)) as container:
        assert container.metadata["comment"] == "hard braking!"
        assert len(container.streams.audio) == 1
        sound = sum(p.duration * p.time_base for p in container.demux(audio=0) if p.duration)
        assert float(sound) == pytest.approx(len(shown) / 25, abs=0.3)
    assert not list(tmp_path.rglob("*partial*"))


@pytest.mark.parametrize("bframes", [0, 1, 3])
def test_without_decoding_times_they_are_found(tmp_path: Path, bframes: int) -> None:
    source = tmp_path / "in.mp4"
    record(source, 60, gop=30, bframes=bframes)
    write_packets(tmp_path / "out.mp4", packets_of(source, no_dts=True))
    assert list(pictures(tmp_path / "out.mp4")) == list(pictures(source))
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mp4")) as b:
        times = [[Fraction(f.pts or 0) * (f.time_base or 0) for f in c.decode(video=0)] for c in (a, b)]
    assert [t - times[0][0] for t in times[0]] == [t - times[1][0] for t in times[1]]


TRACK = Track("video", "h264", 2, 2, Fraction(1, 25), None)  # type: ignore[arg-type]  # the times are all that is used


@given(st.permutations(range(12)), st.integers(1, 1000))
def test_decoding_times_rise_and_are_never_late(order: list[int], unit: int) -> None:
    packets = [CompressedPacket(TRACK, b"x", i * unit, None, 0, False, 0.0, 0.0) for i in order]
    times = decoding_times(packets)
    assert all(a < b for a, b in pairwise(times))
    assert all(t <= p.pts for t, p in zip(times, packets, strict=True))


def test_memory_is_bounded_and_old_groups_go(tmp_path: Path, clip: Path) -> None:
    packets = packets_of(clip)
    ring = EventRing("cam", EventClipOptions(tmp_path, before=1.0, after=0))
    kept = []
    for packet in packets:
        ring.packet(packet)
        with ring._lock:
            kept.append((ring._ring[-1].arrived_at - ring._ring[0].arrived_at, ring._ring[0].is_keyframe))
    assert max(span for span, _ in kept) <= 2.2, "what is asked for, and the group of pictures it begins in"
    assert all(key for _, key in kept)


@pytest.mark.parametrize("megabytes", [0.002, 0.02, 0.1])
def test_bytes_are_bounded_whatever_comes(tmp_path: Path, clip: Path, megabytes: float) -> None:
    ring = EventRing("cam", EventClipOptions(tmp_path, before=600, after=600, max_megabytes=megabytes))
    for packet in packets_of(clip):
        ring.packet(packet)
        with ring._lock:
            assert ring._bytes == sum(len(p.data) for p in ring._ring)
            assert ring._bytes <= megabytes * 1e6
            assert not ring._ring or ring._ring[0].is_keyframe


def test_events_close_together_share_a_clip(tmp_path: Path, clip: Path) -> None:
    packets = packets_of(clip)
    ring = EventRing("cam", EventClipOptions(tmp_path, before=1.0, after=2.0))
    parts = [[p for p in packets if a <= p.arrived_at < b] for a, b in ((-1, 3), (3, 4), (4, 99))]
    fed(ring, parts[0])
    first = ring.save("one")
    fed(ring, parts[1])
    assert ring.save("two") is first
    fed(ring, parts[2])
    assert first.wait(DEADLINE)
    assert frames(first.path) >= 4 * 25 - 3
    ring.close()


def test_the_end_of_the_stream_ends_the_clip(tmp_path: Path, clip: Path) -> None:
    ring = EventRing("cam", EventClipOptions(tmp_path, before=1.0, after=60.0))
    fed(ring, packets_of(clip)[:100])
    saved = ring.save()
    ring.finish()
    assert saved.wait(DEADLINE)
    assert frames(saved.path) > 20
    ring.close()


@pytest.mark.seconds
def test_a_clip_whose_camera_goes_silent_is_written_all_the_same(tmp_path: Path, clip: Path) -> None:
    """The camera may be what the event has destroyed: nothing more comes, and nobody closes the ring."""
    ring = EventRing("cam", EventClipOptions(tmp_path, before=1.0, after=0.1))
    fed(ring, packets_of(clip)[:100])
    saved = ring.save("collision")
    assert saved.wait(DEADLINE)
    assert frames(saved.path) > 20
    ring.finish()
    late = ring.save("looked at when all was over")
    assert late.wait(DEADLINE)
    assert frames(late.path) == frames(saved.path)
    ring.close()
    with pytest.raises(OutputError, match="stream 'cam' is gone"):
        ring.save()


@pytest.mark.seconds
def test_a_reconnect_in_between_is_one_clip(tmp_path: Path, clip: Path) -> None:
    once, again = packets_of(clip), packets_of(clip, begin=8.0)
    shift = {"video": Fraction(8), "audio": Fraction(8)}
    again = [
        replace(p, pts=p.pts + round(shift[p.track.kind] / p.track.time_base),
                dts=None if p.dts is None else p.dts + round(shift[p.track.kind] / p.track.time_base))
        for p in again
    ]  # fmt: skip
    assert once[0].track is not again[0].track
    write_packets(tmp_path / "out.mp4", [*once, *again])
    assert frames(tmp_path / "out.mp4") == 400


def test_a_camera_that_came_back_with_another_size_gives_what_came_last(tmp_path: Path, clip: Path) -> None:
    other = tmp_path / "other.mp4"
    record(other, 30, (320, 180))
    write_packets(tmp_path / "out.mp4", [*packets_of(clip), *packets_of(other, begin=9.0)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].width == 320
    assert frames(tmp_path / "out.mp4") == 30


def test_nothing_to_save_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="stream 'cam' has no pictures yet"):
        EventRing("cam", EventClipOptions(tmp_path)).save()


def test_a_clip_that_cannot_be_written_is_said_and_the_next_one_is(tmp_path: Path, clip: Path) -> None:
    changes: list[OutputChange] = []
    ring = EventRing("cam", EventClipOptions(tmp_path / "x", before=1.0, after=0.0), changes.append)
    packets = packets_of(clip)
    fed(ring, packets[:100])
    shutil.rmtree(tmp_path / "x")
    lost = ring.save()
    fed(ring, packets[100:101])
    until(lambda: lost.done.is_set())
    assert not lost.wait(0)
    assert "cannot be written" in lost.error
    assert changes[0].reason == lost.error
    (tmp_path / "x" / "cam").mkdir(parents=True)
    good = ring.save()
    fed(ring, packets[101:])
    assert good.wait(DEADLINE)
    ring.close()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="clips of events cannot be written to"):
        EventRing("cam", EventClipOptions(tmp_path / "file"))


def test_a_rule_saves_once_until_the_class_has_gone(tmp_path: Path, clip: Path) -> None:
    ring = EventRing("cam", EventClipOptions(tmp_path, before=1, after=0.0, save_when=EventRule("person", 0.1)))
    packets = packets_of(clip)
    count = 0
    for index, share in enumerate([0.0, 0.05, 0.2, 0.3, 0.08, 0.2, 0.0, 0.2, 0.2]):
        fed(ring, packets[index * 30 : index * 30 + 30])
        item = analysis(index)
        item.models, item.area = ("m",), {"person": share}
        ring.consume(item)
        count += 1
    ring.close()
    assert count == 9
    clips = sorted((tmp_path / "cam").glob("*.mp4"))
    assert len(clips) == 2
    assert all(c.name.endswith("_person.mp4") for c in clips)


def test_a_rule_in_yaml_is_written_with_class() -> None:
    options = decode({"folder": "x", "save_when": {"class": "person", "area": 0.02}}, EventClipOptions, "run.yaml")
    assert options.save_when == EventRule("person", 0.02)


def test_original_packets_and_blurred_pictures_exclude_each_other() -> None:
    config = decode({"event_clips": {"folder": "x"}, "anonymize": {}}, Config, "run.yaml")
    with pytest.raises(UsageError, match=r"run.yaml: `event_clips` saves the camera's own pictures.*leave out either"):
        check(config, "run.yaml")


SOUNDS = {
    # sound: arguments for it, container, codec in the clip, rate in the clip
    "G.711 mu-law": ("-c:a pcm_mulaw -ar 8000 -ac 1", "nut", "aac", 8000),
    "G.711 A-law": ("-c:a pcm_alaw -ar 8000 -ac 1", "nut", "aac", 8000),
    "G.711 A-law in FLV": ("-c:a pcm_alaw -ar 8000 -ac 1", "flv", "aac", 8000),
    "G.726 16 kb/s": ("-c:a g726 -b:a 16k -ar 8000 -ac 1", "mov", "aac", 8000),
    "G.726 32 kb/s": ("-c:a g726 -b:a 32k -ar 8000 -ac 1", "mov", "aac", 8000),
    "G.722": ("-c:a g722 -ar 16000 -ac 1", "nut", "aac", 16_000),
    "L16": ("-c:a pcm_s16be -ar 8000 -ac 1", "nut", "aac", 8000),
    "Speex": ("-c:a libspeex -ar 16000 -ac 1", "flv", "aac", 16_000),
    "Nellymoser": ("-c:a nellymoser -ar 8000 -ac 1", "flv", "aac", 8000),
    "Vorbis": ("-c:a libvorbis -ar 48000 -ac 1", "mkv", "aac", 48_000),
    "MP2": ("-c:a mp2 -ar 48000 -ac 1", "ts", "aac", 48_000),
    "MP3": ("-c:a libmp3lame -ar 22050 -ac 1", "flv", "mp3", 22_050),
    "Opus": ("-c:a libopus -ar 48000 -ac 1", "mkv", "opus", 48_000),
    "Opus in MPEG-TS": ("-c:a libopus -ar 48000 -ac 1", "ts", "opus", 48_000),
    "AAC": ("-c:a aac -ar 48000 -ac 1", "mkv", "aac", 48_000),
    "AAC in MPEG-TS": ("-c:a aac -ar 48000 -ac 1", "ts", "aac", 48_000),
}


def with_sound(folder: Path, arguments: str, container: str) -> Path:
    """Four seconds of pictures, and a sine of 440 Hz."""
    path = folder / f"in.{container}"
    command = (
        "ffmpeg -v error -nostdin -y -f lavfi -i testsrc2=s=160x96:r=25:d=4 -f lavfi -i sine=440:r=48000:d=4 "
        f"-c:v libx264 -preset ultrafast -threads 1 -g 25 -bf 0 {arguments}"
    )
    subprocess.run([*command.split(), str(path)], check=True, capture_output=True, timeout=60)
    return path


def pitch(path: Path) -> tuple[str, int, float, float]:
    """Codec, rate, seconds and strongest frequency of a clip's sound."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = np.concatenate([f.to_ndarray().astype(np.float64)[0] for f in container.decode(stream)])
        rate = stream.codec_context.sample_rate
        codec = stream.codec_context.codec.canonical_name
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return codec, rate, len(samples) / rate, float(np.argmax(spectrum)) * rate / len(samples)


@pytest.mark.seconds
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
@pytest.mark.parametrize("sound", SOUNDS)
def test_the_sound_of_every_camera_is_in_its_clips(tmp_path: Path, sound: str) -> None:
    arguments, container, codec, rate = SOUNDS[sound]
    packets = packets_of(with_sound(tmp_path, arguments, container))
    begin = next(i for i, p in enumerate(packets) if p.track.kind == "video")
    packets = packets[begin:]  # a clip begins with a picture
    given = {kind: sum(p.track.kind == kind for p in packets) for kind in ("video", "audio")}
    ring = EventRing("cam", EventClipOptions(tmp_path / "clips", before=60, after=0))
    fed(ring, packets)
    saved = ring.save()
    ring.finish()
    assert saved.wait(DEADLINE), saved.error
    ring.close()
    assert saved.holds is not None
    assert (saved.holds.pictures, saved.holds.sound) == (given["video"], given["audio"]) == (100, given["audio"])
    assert not saved.holds.left_out
    assert frames(saved.path) == 100
    heard = pitch(saved.path)
    assert heard[:2] == (codec, rate)
    assert heard[2:] == (pytest.approx(4.0, abs=0.25), pytest.approx(440, abs=2))


@pytest.mark.seconds
def test_what_no_clip_can_hold_is_counted_and_said_once(
    tmp_path: Path, clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Sound that no decoder takes: the pictures are saved, and what is not adds up."""
    left_out: Counter[str] = Counter()
    ring = EventRing(
        "cam", EventClipOptions(tmp_path, before=60, after=0),
        dropped=lambda count, reason: left_out.update({reason: count}),
    )  # fmt: skip
    packets = packets_of(clip)
    sound = next(p.track for p in packets if p.track.kind == "audio")
    with av.open(io.BytesIO(), "w", format="nut") as nut:  # says nothing of the bits of a sample, as some cameras
        unknown = Track.of(nut.add_stream("g726", rate=8000))
    packets = [replace(p, track=unknown, data=b"\0" * 7) if p.track is sound else p for p in packets]
    fed(ring, packets)
    for _ in range(2):
        saved = ring.save()
        ring.finish()
        assert saved.wait(DEADLINE), saved.error
        assert saved.holds is not None
        assert saved.holds.pictures + saved.holds.sound + saved.holds.left_out.total() == len(packets)
        assert saved.holds.left_out["unheld"] > 300
        assert frames(saved.path) == 200
    ring.close()
    assert left_out == saved.holds.left_out + saved.holds.left_out
    warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warned) == len(set(warned)) == 1, warned


def test_pictures_that_mp4_cannot_hold_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mkv"), "w") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame(160, 96, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="holds no vp8 pictures; set the camera to"):
        write_packets(tmp_path / "out.mp4", packets_of(tmp_path / "in.mkv"))


def test_clips_are_named_by_our_clock_and_hold_the_cameras(tmp_path: Path, clip: Path) -> None:
    """The camera's clock is wrong and jumps about, and ours is set back an hour between the events."""
    wall = [1_795_241_590.25]
    options = EventClipOptions(tmp_path, before=0.5, after=0)
    ring = EventRing("cam", options, wall_clock=lambda: wall[0])
    saved = []
    for number, packet in enumerate(p for p in packets_of(clip) if p.track.kind == "video"):
        now = time.monotonic()
        ring.packet(replace(packet, arrived_at=now, captured_at=1e9 - number))
        if number in {30, 60, 61, 90}:
            saved.append(ring.save("z" if number == 30 else "a"))
            ring.finish()
            assert saved[-1].wait(DEADLINE), saved[-1].error
            wall[0] += {30: 0.5, 60: 0.0, 61: -3600.0, 90: 0.0}[number]
    ring.close()
    names = [each.path.name for each in saved]
    assert names == sorted(set(names))
    assert names[0].startswith("cam_20261121T0613")
    for each in saved:
        with av.open(str(each.path)) as container:
            assert container.metadata["comment"] in {"a", "z"}
            assert container.metadata["description"].startswith("captured_at 2001-09-09T01:4")
    with av.open(str(saved[3].path)) as container:
        assert container.metadata["creation_time"].startswith("2026-11-21T05:13"), "an hour before its name"


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_a_clip_of_a_real_camera(tmp_path: Path) -> None:
    from pipeline.sources.live.camera import Camera

    record(tmp_path / "in.mp4", 100, gop=25)
    mount = Mount(write_units(tmp_path / "in.mp4", tmp_path / "units"))
    with RtspServer({"/cam": mount}) as server:
        source = Camera("cam", server.url("/cam"))
        ring = EventRing("cam", EventClipOptions(tmp_path / "events", before=3.0, after=2.0))
        source.on_packet = ring.packet
        source.open()
        saved = None
        for index, _ in enumerate(source):
            if index == 100:
                saved = ring.save("test")
            if saved is not None and saved.done.is_set():
                break
        source.close()
    assert saved is not None
    assert not saved.error
    assert frames(saved.path) >= 5 * 25 - 10
    ring.close()


@pytest.mark.slow
@pytest.mark.parametrize("sound", ["pcmu", "pcma", "g726", "aac"])
def test_a_clip_of_an_rtsp_camera_has_its_sound(tmp_path: Path, sound: str, caplog: pytest.LogCaptureFixture) -> None:
    from pipeline.sources.live.camera import Camera

    record(tmp_path / "in.mp4", 150, gop=25)
    with RtspCamera(Footage.of(tmp_path / "in.mp4"), sound=sound) as camera:
        source = Camera("cam", camera.url())
        ring = EventRing("cam", EventClipOptions(tmp_path / "events", before=10.0, after=0.0))
        source.on_packet = ring.packet
        source.open()
        reading = threading.Thread(target=lambda: [None for _ in source], daemon=True)
        reading.start()
        until(lambda: len(camera.sent) >= 100)
        saved = ring.save("test")
        assert saved.wait(DEADLINE), saved.error
        source.close()
        reading.join(DEADLINE)
    ring.close()
    assert saved.holds is not None
    assert saved.holds.sound > 50
    assert saved.holds.pictures > 50
    assert not saved.holds.left_out
    codec, _, seconds, _ = pitch(saved.path)
    assert codec == "aac"
    assert seconds == pytest.approx(frames(saved.path) / 25, abs=0.5)
    assert not [record for record in caplog.records if record.exc_info]
