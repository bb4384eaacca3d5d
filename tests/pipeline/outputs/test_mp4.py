from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import OutputError
from pipeline.contracts import AudioPacket, StreamInfo
from pipeline.files import partial_name
from pipeline.frame import Analysis, Frame
from pipeline.outputs.fragments import cut_torn_tail, find_resume_point, whole_fragments
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.sources.clips import ClipSource
from tests.footage import write_clip
from tests.pipeline.scripted_source import gray_image

FAST = VideoOptions(encoder="libx264", preset="ultrafast")


def copy_clip(clip: Path, out: Path, options: VideoOptions = FAST) -> StreamInfo:
    """A clip through source and writer, without models."""
    with ClipSource("clip", [clip]) as source:
        info = source.open()
        writer = VideoWriter(out, info, options)
        for item in source:
            if isinstance(item, AudioPacket):
                writer.consume_audio(item)
            else:
                writer.consume(Analysis(item, "file"))
        writer.finish()
    return info


def picture_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def sound(path: Path) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [(p.pts * p.time_base, bytes(p)) for p in packets if p.pts is not None and p.size]


def gray_analysis(index: int, size: tuple[int, int] = (64, 36)) -> Analysis:
    image = gray_image(16 + index % 200, *size)
    return Analysis(Frame("s", index, index, Fraction(1, 25), 0.0, 0.0, image, 1), "file")


def gray_info(size: tuple[int, int] = (64, 36)) -> StreamInfo:
    return StreamInfo(*size, "yuv420p", Fraction(1, 25), Fraction(25), None)


@pytest.mark.seconds
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"bframes": 3},
        {"vfr": True},
        {"vfr": True, "bframes": 2},
        {"audio": True},
        {"audio": True, "bframes": 2},
        {"start_pts": 90_000},
        {"time_base": Fraction(1, 600)},
        {"fps": Fraction(30000, 1001), "time_base": Fraction(1, 30000)},
        {"size": (321, 181), "pix_fmt": "yuv444p"},
        {"pix_fmt": "yuv422p"},
        {"full_range": True},
    ],
    ids=lambda shape: ",".join(f"{k}={v}" for k, v in shape.items()) or "plain",
)
@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_size_frames_times_and_sound_are_the_inputs(tmp_path: Path, shape: dict[str, object], preset: str) -> None:
    clip, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(clip, frames=40, **shape)
    info = copy_clip(clip, out, VideoOptions(encoder="libx264", preset=preset))
    assert picture_times(out) == picture_times(clip)
    with av.open(str(out)) as container, av.open(str(clip)) as original:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (info.width, info.height)
        assert (info.width, info.height) == (original.streams.video[0].width, original.streams.video[0].height)
        assert len(container.streams.audio) == len(original.streams.audio)
    if shape.get("audio"):
        assert sound(out) == sound(clip)
    assert not partial_name(out).exists()


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".avi", ".mov"])
def test_other_containers_keep_their_times(tmp_path: Path, suffix: str) -> None:
    clip, out = tmp_path / f"in{suffix}", tmp_path / "out.mp4"
    write_clip(clip, frames=30, codec="mpeg4" if suffix == ".avi" else "libx264")
    copy_clip(clip, out)
    assert picture_times(out) == picture_times(clip)


def test_pictures_survive(tmp_path: Path) -> None:
    clip, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_clip(clip, frames=10, encoder_options={"crf": "10"})
    copy_clip(clip, out, VideoOptions(encoder="libx264", crf=5))
    with av.open(str(clip)) as a, av.open(str(out)) as b:
        for x, y in zip(a.decode(video=0), b.decode(video=0), strict=True):
            difference = np.abs(x.to_ndarray(format="gray").astype(int) - y.to_ndarray(format="gray"))
            assert difference.mean() < 1


def test_the_last_frames_duration_is_kept(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "o.mp4", gray_info(), FAST)
    for index in range(25):
        writer.consume(gray_analysis(index))
    writer.finish()
    with av.open(str(tmp_path / "o.mp4")) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.pts is not None]
        end = max((p.pts + p.duration) * p.time_base for p in packets)
    assert end == 1


def test_nothing_stands_under_the_final_name_before_the_end(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    out.write_bytes(b"an older recording")
    writer = VideoWriter(out, gray_info(), FAST)
    for index in range(60):
        writer.consume(gray_analysis(index))
    assert out.read_bytes() == b"an older recording"
    writer.finish()
    assert len(picture_times(out)) == 60


def test_a_path_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot be written"):
        VideoWriter(tmp_path / "no" / "o.mp4", gray_info(), FAST)


def test_an_encoder_that_does_not_open_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"no encoder opens for 64×36 yuv420p \(tried h264_nvenc"):
        VideoWriter(tmp_path / "o.mp4", gray_info(), VideoOptions(encoder="h264_nvenc"))
    assert list(tmp_path.iterdir()) == []


def test_auto_falls_back_to_an_encoder_that_opens(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "o.mp4", gray_info(), VideoOptions())
    assert writer.encoder in ("h264_nvenc", "libx264")
    writer.consume(gray_analysis(0))
    writer.finish()
    assert len(picture_times(tmp_path / "o.mp4")) == 1


_WRITE_FOREVER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from pipeline.outputs.mp4 import VideoOptions, VideoWriter
    from tests.pipeline.outputs.test_mp4 import gray_analysis, gray_info
    writer = VideoWriter(Path(sys.argv[1]), gray_info((160, 90)), VideoOptions(encoder="libx264"))
    for index in range(100_000):
        writer.consume(gray_analysis(index, (160, 90)))
        print(index, flush=True)
""")


def killed_recording(out: Path, after: int) -> int:
    """Record in a process of its own, kill it without warning behind frame `after`; returns the last frame it took."""
    command = [sys.executable, "-c", _WRITE_FOREVER, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last >= after:
                os.kill(process.pid, signal.SIGKILL)
                break
        return max([last, *(int(rest) for rest in process.stdout.read().split())])


@pytest.mark.seconds
@pytest.mark.parametrize("after", [150, 333])
def test_a_killed_recording_plays_up_to_the_last_second(tmp_path: Path, after: int) -> None:
    out = tmp_path / "o.mp4"
    last = killed_recording(out, after)
    partial = partial_name(out)
    assert not out.exists()
    times = picture_times(partial)
    # Behind the last whole fragment (one second) lies what the encoder holds back to look ahead (x264: 10 frames of
    # look-ahead and its frame threads at this preset).
    assert len(times) >= last - 25 - 20
    cut_torn_tail(partial)
    assert whole_fragments(partial) == partial.stat().st_size
    assert picture_times(partial)[: len(times) - 30] == times[: len(times) - 30]


@pytest.mark.seconds
def test_a_recording_goes_on_without_doubling_or_losing_a_frame(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    last = killed_recording(out, 180)
    options = VideoOptions(encoder="libx264")
    point = VideoWriter.resume_point(out)
    assert point is not None
    assert 0 < point.frames <= last
    assert point.time == Fraction(point.frames, 25)
    writer = VideoWriter(out, gray_info((160, 90)), options, point)
    for index in range(point.frames, 300):
        writer.consume(gray_analysis(index, (160, 90)))
    writer.finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.mp4"]
    with av.open(str(out)) as container:
        frames = [(f.pts * f.time_base, f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
    assert [t for t, _ in frames] == [Fraction(i, 25) for i in range(300)]
    for index, (_, level) in enumerate(frames):
        assert abs(level - (16 + index % 200 - 16) * 255 / 219) < 4, "each time shows its own picture"


def test_the_resume_point_is_no_later_than_the_other_outputs(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    killed_recording(out, 260)
    all_of_it, limited = VideoWriter.resume_point(out), VideoWriter.resume_point(out, at_most=120)
    assert all_of_it is not None
    assert limited is not None
    assert limited.frames <= 120 < all_of_it.frames
    assert VideoWriter.resume_point(out, at_most=3) is None


@pytest.mark.seconds
def test_a_kill_while_resuming_loses_nothing(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    killed_recording(out, 180)
    point = VideoWriter.resume_point(out)
    assert point is not None
    partial = partial_name(out)
    whole = partial.read_bytes()
    # As the kill leaves it in the middle of copying: the earlier recording aside, a stump in its place.
    partial.replace(tmp_path / "o.earlier.mp4")
    partial.write_bytes(whole[:5000])
    assert VideoWriter.resume_point(out) == point


@pytest.mark.seconds
def test_other_settings_are_refused_before_anything_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "o.mp4"
    killed_recording(out, 180)
    point = VideoWriter.resume_point(out)
    assert point is not None
    with pytest.raises(OutputError, match="other encoder settings or another picture size"):
        VideoWriter(out, gray_info((64, 36)), VideoOptions(encoder="libx264"), point)
    assert VideoWriter.resume_point(out) == point


@pytest.mark.parametrize("blurred", [False, True])
def test_blurred_pictures_do_not_go_on_behind_unblurred_ones(tmp_path: Path, blurred: bool) -> None:
    def shown(index: int, anonymized: bool) -> Analysis:
        made = gray_analysis(index)
        made.anonymized = anonymized
        return made

    out = tmp_path / "o.mp4"
    first = VideoWriter(out, gray_info(), FAST)
    for index in range(200):
        first.consume(shown(index, blurred))
    first.close()
    point = VideoWriter.resume_point(out)
    assert point is not None
    other = VideoWriter(out, gray_info(), FAST, point)
    with pytest.raises(OutputError, match=f"was made {'with' if blurred else 'without'} `anonymize`"):
        other.consume(shown(point.frames, not blurred))
    other.close()
    assert VideoWriter.resume_point(out) is not None, "nothing is lost"
    point = VideoWriter.resume_point(out)
    same = VideoWriter(out, gray_info(), FAST, point)
    same.consume(shown(point.frames, blurred))
    same.finish()
    assert len(picture_times(out)) == point.frames + 1


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert VideoWriter.resume_point(tmp_path / "o.mp4") is None
    partial = partial_name(tmp_path / "o.mp4")
    partial.write_bytes(b"")
    assert VideoWriter.resume_point(tmp_path / "o.mp4") is None
    partial.write_bytes(b"garbage" * 1000)
    assert find_resume_point(partial) is None


@pytest.mark.seconds
def test_a_full_disk_is_one_sentence_and_leaves_what_was_written(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from engines.errors import OutputError
        from pipeline.outputs.mp4 import VideoOptions, VideoWriter
        from tests.pipeline.outputs.test_mp4 import gray_analysis, gray_info
        import numpy as np
        from pipeline.pictures.conversion import plane
        noise = np.random.default_rng(0)
        writer = VideoWriter(Path(sys.argv[1]), gray_info((320, 180)), VideoOptions(encoder="libx264", crf=10))
        try:
            for index in range(1000):
                analysis = gray_analysis(index, (320, 180))
                plane(analysis.frame.image, 0)[:] = noise.integers(16, 235, (180, 320))
                writer.consume(analysis)
        except OutputError as error:
            print(error)
            writer.close()
    """)
    out = tmp_path / "o.mp4"
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3], timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, 6_000_000)),
    )  # fmt: skip
    assert "no space is left to write" in done.stdout
    assert done.stdout.count("\n") == 1
    partial = partial_name(out)
    assert not out.exists()
    assert whole_fragments(partial) == partial.stat().st_size
    assert len(picture_times(partial)) >= 25


def test_sound_whose_clock_jumps_back_is_left_out(tmp_path: Path) -> None:
    clip = tmp_path / "in.mp4"
    write_clip(clip, frames=25, audio=True)
    with ClipSource("clip", [clip]) as source:
        writer = VideoWriter(tmp_path / "o.mp4", source.open(), FAST)
        items = list(source)
        packets = [i for i in items if isinstance(i, AudioPacket)]
        frames = [i for i in items if not isinstance(i, AudioPacket)]
        for packet in packets:
            writer.consume_audio(packet)
        writer.consume_audio(packets[0])
        for frame in frames:
            writer.consume(Analysis(frame, "file"))
        writer.finish()
    assert sound(tmp_path / "o.mp4") == sound(clip)


def test_a_recording_without_a_frame_leaves_nothing(tmp_path: Path) -> None:
    VideoWriter(tmp_path / "o.mp4", gray_info(), FAST).close()
    assert list(tmp_path.iterdir()) == []


def test_closing_twice_and_after_finishing(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "o.mp4", gray_info(), FAST)
    writer.consume(gray_analysis(0))
    writer.finish()
    before = time.time_ns()
    writer.close()
    writer.finish()
    assert (tmp_path / "o.mp4").stat().st_mtime_ns <= before
