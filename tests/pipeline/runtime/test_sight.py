"""Pictures come and none goes out: a state with its reason, one line, and books of every packet, for every cause."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.frame import Analysis
from pipeline.metrics import Metrics
from pipeline.runtime import LoadedModel, Runtime, StreamPlan
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.camera import Camera
from pipeline.state import SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.rtp import Footage
from tests.pipeline.rtsp_camera import RtspCamera
from tests.pipeline.scripted_engine import ScriptedEngine

LONG = 90.0


class Count:
    """A sink."""

    seen = 0

    def consume(self, _analysis: Analysis) -> None:
        self.seen += 1


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def garbage(begin: int, end: int) -> Callable[[int, tuple[bytes, ...]], tuple[bytes, ...]]:
    """Pictures that no decoder knows what to do with."""
    return lambda n, pieces: (b"\x41\xff" + bytes(range(40)),) if begin <= n < end else pieces


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Footage]:
    folder = tmp_path_factory.mktemp("sight")
    write_clip(folder / "h264.mp4", frames=50, size=(160, 96), gop=10)
    usual = {"huffman": "default"}
    write_clip(
        folder / "mjpeg.mp4", frames=50, size=(160, 96), codec="mjpeg", pix_fmt="yuvj420p", encoder_options=usual
    )
    return {name: Footage.of(folder / f"{name}.mp4") for name in ("h264", "mjpeg")}


@pytest.mark.slow
def test_the_bound_of_the_runtime_follows_a_camera_that_slows_down(films: dict[str, Footage]) -> None:
    """From 25 frames a second to one: FFmpeg hands a frame out when it is a second old, twice what the bound is."""
    sink = Count()
    options = LiveOptions(open_timeout=30, read_timeout=30, latency_bound=0.5)
    with (
        RtspCamera(films["h264"], time=lambda at: at if at < 1.6 else 1.6 + (at - 1.6) * 25) as camera,
        Camera("cam", camera.url(), options) as source,
        closing(ScriptedEngine()) as engine,
    ):
        runtime = Runtime([StreamPlan(source, source.open(), (), [sink])], [LoadedModel(engine)])
        runtime.start()
        until(lambda: len(camera.sent) >= 43)
        seen = sink.seen
        until(lambda: sink.seen >= seen + 4)
        runtime.stop()
        assert runtime.wait(LONG)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cause", "said"),
    [("old", "too old when they come"), ("undecoded", "cannot be decoded"), ("engine", "the models or the outputs")],
)
def test_a_stream_of_which_nothing_goes_out_is_blind_until_it_sees(
    cause: str, said: str, films: dict[str, Footage], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.runtime.counter.BLIND_SECONDS", 1.5)
    monkeypatch.setattr("pipeline.runtime.runtime.WATCH_SECONDS", 0.1)
    changes: list[StateChange] = []
    well, sink, metrics = threading.Event(), Count(), Metrics()
    if cause != "engine":
        well.set()

    def before(_images: Sequence[NDArray[np.uint8]]) -> None:
        well.wait(LONG)

    script: dict[str, object] = {"change": garbage(40, 200)} if cause == "undecoded" else {}
    bound = 1e-6 if cause == "old" else 3600  # of MJPEG nothing is held back, which would be allowed on top
    with (
        RtspCamera(films["mjpeg" if cause == "old" else "h264"], **script) as camera,
        Camera("cam", camera.url(), LiveOptions(open_timeout=30, read_timeout=30, latency_bound=bound)) as source,
        closing(ScriptedEngine(before=before)) as engine,
        caplog.at_level(logging.INFO, "pipeline"),
    ):
        plan = StreamPlan(source, source.open(), (), [sink])
        runtime = Runtime([plan], [LoadedModel(engine)], metrics=metrics, observe=changes.append)
        runtime.start()
        until(lambda: any(c.state is SourceState.BLIND for c in changes))
        source.options = LiveOptions(latency_bound=3600)
        well.set()
        seen = sink.seen
        until(lambda: sink.seen > seen + 10)
        until(lambda: changes[-1].state is SourceState.STREAMING)
        runtime.stop()
        assert runtime.wait(LONG)
        result = runtime.result().streams[0]
    blind = [c for c in changes if c.state is SourceState.BLIND]
    assert said in blind[0].reason
    assert blind[0].cause == "blind"
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "almost none" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("cam: pictures come, but almost none goes out")
    counts = source.counts
    assert result.counts.decoded == result.counts.emitted + sum(result.counts.dropped.values())
    assert counts.packets == result.counts.decoded + sum(counts.skipped.values()) + counts.decode_errors
    assert metrics.registry.get_sample_value("roadlens_packets_received_total", {"stream": "cam"}) == counts.packets
    assert (result.packets, dict(result.skipped)) == (counts.packets, dict(+counts.skipped))
