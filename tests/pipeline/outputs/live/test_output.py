from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from engines.errors import OutputError
from pipeline.frame import Mode
from pipeline.outputs.encoded import TIME_BASE
from pipeline.outputs.live.encoder import LiveEncoder, LiveEncoderOptions
from pipeline.outputs.live.output import CardOptions, LiveOutput
from pipeline.outputs.live.segments import Recording, RecordingOptions
from pipeline.outputs.mp4 import VideoOptions, VideoWriter
from pipeline.state import SourceState, StateChange
from tests.pipeline.encoded import FAST, SIZE, Kept, Stuck, analysis, decoded_levels, info, until
from tests.pipeline.sample_pictures import noise, planes
from tests.pipeline.scripted_source import gray_image


# The encoder ----------------------------------------------------------------------------------------------------------
def test_each_picture_comes_out_at_once_and_key_frames_by_time() -> None:
    encoder = LiveEncoder(info(), LiveEncoderOptions(encoder="libx264", preset="superfast"))
    keys = []
    for index in range(60):
        encoded = encoder.encode(gray_image(40 + index, *SIZE), index * 9000, 0.0)  # 10 frames a second
        assert [p.pts for p in encoded] == [index * 9000]
        keys += [index] if encoded[0].key else []
    assert keys == [0, 10, 20, 30, 40, 50], "a second apart, though 25 frames a second were announced"


def test_every_key_frame_brings_its_parameter_sets_and_can_be_begun_with() -> None:
    encoder = LiveEncoder(info(), FAST)
    encoded = [p for i in range(60) for p in encoder.encode(gray_image(40 + i, *SIZE), i * 3600, 0.0, key=i == 33)]
    assert [i for i, p in enumerate(encoded) if p.key] == [0, 25, 33, 58]
    levels = decoded_levels(encoded[33:])
    assert [pts for pts, _ in levels] == [i * 3600 for i in range(33, 60)]
    for (_, level), index in zip(levels, range(33, 60), strict=True):
        assert abs(level - (40 + index - 16) * 255 / 219) < 5


@pytest.mark.parametrize(
    ("pixel_format", "size"),
    [("yuv420p", SIZE), ("yuv420p", (64, 64)), ("nv12", (320, 180)), ("yuvj420p", SIZE), ("yuv444p", (161, 91)),
     ("yuv422p", (320, 240))],
)  # fmt: skip
def test_pictures_of_any_size_and_format_are_taken_and_left_alone(pixel_format: str, size: tuple[int, int]) -> None:
    encoder = LiveEncoder(info(), FAST)
    image = noise(pixel_format, *size)
    image.pts, image.time_base = 77, Fraction(1, 7)
    before = planes(image)
    (picture,) = encoder.encode(image, 5, 0.0)
    assert (image.pts, image.time_base) == (77, Fraction(1, 7))
    assert all(np.array_equal(a, b) for a, b in zip(before, planes(image), strict=True))
    assert len(decoded_levels([picture])) == 1


def test_an_odd_size_loses_a_line() -> None:
    video = LiveEncoder(info((161, 91), "yuv444p"), FAST).video
    assert (video.width, video.height) == (160, 90)


# The output -----------------------------------------------------------------------------------------------------------
def output(kept: Kept, mode: Mode = "live", card: CardOptions | None = None, **more: object) -> LiveOutput:
    return LiveOutput("cam", info(), mode, [kept], FAST, card, **more)


def test_nothing_of_a_file_is_dropped_and_its_times_are_kept() -> None:
    kept = Kept()
    live = output(kept, "file")
    for index in range(80):
        live.consume(analysis(index + 5, "file"))
    live.finish()
    assert [p.pts for p in kept.got] == [i * 3600 for i in range(80)]
    assert kept.ended


def test_times_of_a_file_that_are_finer_than_the_output_s_stay_apart() -> None:
    """A repeated time is put one unit behind the one before: a microsecond is no tick of 90 kHz."""
    kept = Kept()
    live = output(kept, "file")
    for index, pts in enumerate((0, 40_000, 40_001, 40_002, 80_000)):
        item = analysis(index, "file")
        item.frame = replace(item.frame, pts=pts, time_base=Fraction(1, 1_000_000))
        live.consume(item)
    live.finish()
    assert [p.pts for p in kept.got] == [0, 3600, 3601, 3602, 7200]


def test_an_encoder_that_breaks_down_ends_the_destinations(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **_more: object) -> None:
        raise OutputError("the encoder libx264 broke down")

    monkeypatch.setattr(LiveEncoder, "encode", broken)
    kept = Kept()
    live = output(kept)
    live.consume(analysis(0))
    until(lambda: kept.ended, "what they hold is written, and they say that they are closed")
    live.close()


def test_a_live_stream_never_waits() -> None:
    stuck, dropped = Stuck(), Counter[str]()
    live = output(stuck, dropped=lambda count, reason: dropped.update({reason: count}))
    for index in range(100):
        live.consume(analysis(index))  # would hang here
    stuck.let_go.set()
    live.finish()
    assert len(stuck.got) + dropped["newer"] == 100
    assert dropped["newer"] >= 90
    assert stuck.got[-1].at == pytest.approx(time.time(), abs=120)
    assert decoded_levels(stuck.got)[-1][1] == pytest.approx((40 + 99 - 16) * 255 / 219, abs=5), "the newest wins"


def test_a_picture_has_our_time_and_the_cameras() -> None:
    kept = Kept()
    live = output(kept, wall_clock=lambda: 2e9)
    item = analysis(0)
    item.frame.captured_at = 1e9
    live.consume(item)
    live.finish()
    assert kept.got[0].at == pytest.approx(2e9, abs=60)
    assert kept.got[0].captured_at == 1e9


def feed(live: LiveOutput, stop: threading.Event, level: int, size: tuple[int, int] = SIZE) -> threading.Thread:
    def run() -> None:
        index = 0
        while not stop.wait(0.04):
            live.consume(analysis(index, size=size, level=level))
            index += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.seconds
def test_viewers_see_the_card_through_an_outage_and_the_camera_after_it() -> None:
    kept, began = Kept(), time.monotonic()
    live = output(kept, card=CardOptions(after=30, rate=10))
    stop = threading.Event()
    first = feed(live, stop, level=180)
    until(lambda: len(kept.got) > 5)
    stop.set()
    first.join()
    before = len(kept.got)
    live.status(StateChange("cam", SourceState.STALLED, "no frame for 2 s", at=time.time()))
    live.status(StateChange("other", SourceState.FAILED))
    until(lambda: len(kept.got) >= before + 12, "cards, ten a second")
    live.status(StateChange("cam", SourceState.STREAMING, at=time.time()))
    stop.clear()
    cards = len(kept.got)
    second = feed(live, stop, level=120, size=(320, 240))  # it comes back with another size
    until(lambda: len(kept.got) > cards + 10)
    stop.set()
    second.join()
    live.finish()
    shown = decoded_levels(kept.got)
    assert len(shown) == len(kept.got)
    times = [pts for pts, _ in shown]
    assert times == sorted(set(times))
    assert times[-1] * TIME_BASE <= time.monotonic() - began + 0.5, "in step with the clock"
    levels = [level for _, level in shown]
    bright, back = (180 - 16) * 255 / 219, (120 - 16) * 255 / 219
    assert levels[before - 1] == pytest.approx(bright, abs=5)
    assert levels[before + 5] == pytest.approx(bright * 0.3, abs=12), "dimmed, with letters on it"
    assert levels[-1] == pytest.approx(back, abs=5)


def test_silence_shows_the_card_whatever_the_source_says() -> None:
    kept = Kept()
    live = output(kept, card=CardOptions(after=0.1, rate=20))
    live.consume(analysis(0, level=200))
    until(lambda: len(kept.got) >= 4)
    live.close()
    assert decoded_levels(kept.got)[-1][1] < 100


@pytest.mark.seconds
@pytest.mark.parametrize("mode", ["file", "live"])
def test_without_a_card_silence_is_silence(mode: Mode) -> None:
    kept = Kept()
    live = output(kept, mode, card=CardOptions(after=0.01, rate=60) if mode == "file" else None)
    live.consume(analysis(0, mode))
    until(lambda: kept.got)
    live.status(StateChange("cam", SourceState.BACKING_OFF))
    assert not threading.Event().wait(0.5)
    live.finish()
    assert len(kept.got) == 1


def test_closing_gives_the_destinations_time_to_write_what_they_hold(tmp_path: Path) -> None:
    """A camera that failed is closed, not finished; what its process leaves shall be whole all the same."""

    class Slow(Recording):
        def join(self, timeout: float) -> bool:
            asked.append(timeout)
            return super().join(60)  # a busy machine

    asked: list[float] = []
    recording = Slow("cam", RecordingOptions(tmp_path))
    live = LiveOutput("cam", info(), "live", [recording], FAST)
    for index in range(10):
        live.consume(analysis(index))
    until(lambda: list(recording.folder.glob("*.partial.mp4")))
    live.close()
    assert [p.name.count("partial") for p in recording.folder.iterdir()] == [0]
    assert 0 <= asked[0] <= 0.5


def test_closing_lets_a_file_go_that_waits() -> None:
    stuck = Stuck()
    live = output(stuck, "file")

    def fill() -> None:
        for index in range(20):
            live.consume(analysis(index, "file"))

    waiting = threading.Thread(target=fill, daemon=True)
    waiting.start()
    stuck.let_go.wait(0.2)
    live.close()
    waiting.join(30)
    assert not waiting.is_alive()
    stuck.let_go.set()


def test_other_outputs_keep_the_times_they_gave_the_shared_picture(tmp_path: Path) -> None:
    path = tmp_path / "o.mp4"
    kept = Kept()
    live = output(kept, "file")
    writer = VideoWriter(path, info(), VideoOptions(encoder="libx264", preset="ultrafast"))
    for index in range(100):
        item = analysis(index, "file")
        live.consume(item)
        writer.consume(item)
    live.finish()
    writer.finish()
    with av.open(str(path)) as container:
        assert [f.time for f in container.decode(video=0)] == pytest.approx([i / 25 for i in range(100)])
