"""Sessions that serve: streams are opened, replaced and removed while others run."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

import engines
from engines.errors import OutputError, RoadlensError, SourceError, UsageError
from engines.loading import Building, Degraded
from pipeline.config import Config, ModelConfig, PublishConfig, StreamConfig, VideoConfig
from pipeline.frame import Analysis
from pipeline.metrics import Metrics
from pipeline.outputs.live.hls import HlsOptions
from pipeline.outputs.live.opening import OutputOptions
from pipeline.runtime import runtime as runtime_module
from pipeline.session import ServingSession, Session
from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.connection import Reconnect
from pipeline.state import OutputChange, OutputState, SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.cameras import TcpCamera, transport_stream

LONG = 60.0
DRIVE = "synthetic:?seconds=600&width=160&height=90"
SHORT = "synthetic:?seconds=0.4&width=160&height=90"

Serving = Callable[..., tuple[ServingSession, list[StateChange]]]


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def serving(segmenter: Path) -> Iterator[Serving]:
    opened: list[ServingSession] = []

    def make(*streams: StreamConfig, **options: Any) -> tuple[ServingSession, list[StateChange]]:
        said: list[StateChange] = []
        config = Config(streams=streams, models=(ModelConfig(str(segmenter)),), **options)
        opened.append(ServingSession(config, observers=[said.append]))
        opened[-1].start()
        return opened[-1], said

    yield make
    for session in opened:
        session.close()


def test_a_stream_that_cannot_be_opened_keeps_nobody_else_from_being_served(serving: Serving) -> None:
    session, said = serving(StreamConfig("nowhere.mp4", "bad"), StreamConfig(SHORT, "good"))
    assert session.streams["bad"].change.state is SourceState.FAILED
    assert "does not exist" in session.streams["bad"].change.reason
    until(lambda: session.streams["good"].change.state is SourceState.ENDED)
    session.remove_stream("bad")
    assert list(session.streams) == ["good"]
    until(lambda: said[-1].reason == "removed")
    states = [c.state.value for c in said if c.stream == "good"]
    assert states == ["connecting", "streaming", "ended"]


def test_a_stream_that_comes_again_writes_over_nothing(serving: Serving, tmp_path: Path) -> None:
    session, _ = serving(video=VideoConfig(path=tmp_path), jsonl=str(tmp_path))
    for _ in range(2):
        session.add_stream(StreamConfig(SHORT, "a"))
        until(lambda: session.streams["a"].change.state is SourceState.ENDED)
        session.remove_stream("a")
    session.add_stream(StreamConfig(DRIVE, "a"))
    until(lambda: session.runtime.counts()["a"].emitted > 2)
    session.remove_stream("a")
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["a-2.jsonl", "a-2.mp4", "a-3.jsonl", "a-3.mp4", "a.jsonl", "a.mp4"]
    removed = session.runtime.result().removed
    assert removed.decoded == removed.emitted > 2 * 5


def test_a_replacement_that_cannot_be_opened_leaves_the_old_one_running(serving: Serving) -> None:
    session, _ = serving(StreamConfig(DRIVE, "a"))
    old = session.streams["a"]
    with pytest.raises(SourceError, match="does not exist"):
        session.replace_stream("a", StreamConfig("nowhere.mp4"))
    assert session.streams["a"] is old
    before = session.runtime.counts()["a"].emitted
    until(lambda: session.runtime.counts()["a"].emitted > before)
    session.replace_stream("a", StreamConfig(SHORT))
    until(lambda: session.streams["a"].change.state is SourceState.ENDED)
    assert len(session.runtime.result().streams) == 1
    assert session.runtime.result().removed.emitted > before


def test_ids_are_made_and_kept_apart(serving: Serving) -> None:
    session, _ = serving()
    names = [session.add_stream(StreamConfig(DRIVE)).id for _ in range(3)]
    assert names == ["synthetic", "synthetic-2", "synthetic-3"]
    with pytest.raises(UsageError, match="'synthetic' is in use"):
        session.add_stream(StreamConfig(DRIVE, "synthetic"))
    with pytest.raises(UsageError, match="no stream 'b'"):
        session.remove_stream("b")


def test_a_camera_that_is_away_is_there_with_its_state_and_goes_when_told(serving: Serving) -> None:
    session, said = serving()
    began = time.monotonic()
    session.add_stream(StreamConfig("rtsp://user:secret@127.0.0.1:9/live", "cam"))
    assert time.monotonic() - began < 5, "nobody waits for it"
    until(lambda: any(c.state in {SourceState.BACKING_OFF, SourceState.FAILED} for c in said))
    session.remove_stream("cam")
    assert "secret" not in repr(said)
    assert not session.streams


def test_nothing_is_drawn_while_nobody_watches(serving: Serving) -> None:
    session, _ = serving(StreamConfig(DRIVE, "a"))
    until(lambda: session.runtime.counts()["a"].emitted > 3)
    view, overlay = session.view, session.streams["a"].overlay
    assert view is not None
    assert overlay is not None
    assert not overlay.wanted()
    with view.watch("a") as viewer:
        assert overlay.wanted()
        assert viewer.next(LONG) is not None
    assert not overlay.wanted()


def test_while_an_engine_is_built_the_metrics_say_so(segmenter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[float | None] = []
    metrics, load = Metrics(), engines.load
    value = metrics.registry.get_sample_value

    def slow(*arguments: Any, observe: Any, **options: Any) -> Any:
        observe(Building("bits", "tensorrt", "Timing", 0.5))
        states.append(value("roadlens_engine_state", {"model": str(segmenter), "state": "building"}))
        observe(Degraded("bits", "tensorrt", "torch", "memory", "there is no room"))
        return load(*arguments, **options)

    monkeypatch.setattr(engines, "load", slow)
    session = ServingSession(Config(models=(ModelConfig(str(segmenter), device="cpu"),)), metrics=metrics)
    try:
        assert states == [1.0]
        assert value("roadlens_engine_state", {"model": "bits", "state": "ready"}) == 1.0
        assert value("roadlens_engine_state", {"model": str(segmenter), "state": "building"}) is None
        degraded = {"wanted": "tensorrt", "instead": "torch", "lacking": "memory"}
        assert value("roadlens_degraded_total", degraded) == 1.0
    finally:
        session.close()


def test_a_bound_below_one_frame_is_said(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    session, _ = serving(StreamConfig(DRIVE, "a", realtime=True, live=LiveOptions(latency_bound=0.01)))
    until(lambda: "a" in session.runtime.counts() and session.runtime.counts()["a"].emitted)
    (said,) = (r.getMessage() for r in caplog.records if "latency bound" in r.getMessage())
    assert said.startswith("a: a latency bound of 10 ms is less than one frame of it (40 ms)")


def resident() -> int:
    """Bytes of memory that this process holds, without what glibc's allocator keeps for later."""
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
def test_two_hundred_streams_that_come_and_go_leave_nothing_behind(serving: Serving, tmp_path: Path) -> None:
    """As files, as cameras played from files, and as cameras that are never there; each with a name of its own."""
    kinds: list[Callable[[str], StreamConfig]] = [
        lambda name: StreamConfig(DRIVE, name),
        lambda name: StreamConfig(DRIVE, name, realtime=True),
        lambda name: StreamConfig("tcp://127.0.0.1:9", name),
    ]
    session, _ = serving(
        StreamConfig(DRIVE, "stays"), publish=(PublishConfig("tcp://127.0.0.1:0"),), jsonl=str(tmp_path / "lines")
    )

    def come_and_go(number: int) -> None:
        name = f"visitor-{number}"
        session.add_stream(kinds[number % 3](name))
        if number % 3 == 2:
            until(lambda: session.streams[name].change.state is SourceState.BACKING_OFF)
        else:
            until(lambda: name in session.runtime.counts() and session.runtime.counts()[name].emitted > 0)
        session.remove_stream(name)

    for number in range(50):  # until every pool has its size
        come_and_go(number)
    before = resident(), threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    emitted = session.runtime.result().removed.emitted
    for number in range(50, 250):
        come_and_go(number)
    until(lambda: threading.active_count() <= before[1])
    assert len(list(Path("/proc/self/fd").iterdir())) <= before[2] + 2
    grown = resident() - before[0]
    assert grown < 12_000_000, "60 kB a stream at most, pools and the test's own log included"
    series = generate_latest(session.metrics.registry).decode()
    assert "visitor" not in series
    assert 'stream="stays"' in series
    assert list(session.streams) == list(session.runtime.counts()) == list(session.outputs) == ["stays"]
    (publisher,) = (s for s in session._shared.sinks if type(s).__name__ == "Publisher")
    until(lambda: list(publisher._streams) == ["stays"])
    totals = session.runtime.result().removed
    assert totals.emitted > emitted
    assert totals.decoded == totals.emitted + sum(totals.dropped.values())


def known_of(session: ServingSession, stream: str) -> bool:
    """Whether the metrics or the file lists know of a stream."""
    exposed = generate_latest(session.metrics.registry).decode()
    return f'stream="{stream}"' in exposed or stream in session.outputs or stream in session.encoders


@pytest.mark.parametrize("lacking", ["source", "output"])
def test_a_stream_that_cannot_be_added_leaves_nothing_behind(serving: Serving, tmp_path: Path, lacking: str) -> None:
    session, said = serving(jsonl=str(tmp_path / "no" / "lines"))
    with pytest.raises(RoadlensError):
        session.add_stream(StreamConfig("nowhere.mp4" if lacking == "source" else SHORT, "bad"))
    assert not known_of(session, "bad")
    (tmp_path / "no").mkdir()
    session.add_stream(StreamConfig(SHORT, "good"))
    until(lambda: any(c.stream == "good" for c in said))
    assert {c.stream for c in said} == {"good"}, "nobody is told of what never was"
    assert len(session._shared.placer.placement.streams) == 1


def test_a_replacement_that_cannot_be_opened_takes_no_place(serving: Serving) -> None:
    session, _ = serving(StreamConfig(DRIVE, "a"))
    for _ in range(3):
        with pytest.raises(SourceError):
            session.replace_stream("a", StreamConfig("nowhere.mp4"))
    assert len(session._shared.placer.placement.streams) == 1


def test_an_id_is_taken_until_its_stream_is_gone(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    session, said = serving(StreamConfig(DRIVE, "synthetic"))
    until(lambda: session.runtime.counts()["synthetic"].emitted)
    removing, gate, remove = threading.Event(), threading.Event(), session.runtime.remove

    def slow(*given: Any, **options: Any) -> Any:
        removing.set()
        assert gate.wait(LONG)
        return remove(*given, **options)

    monkeypatch.setattr(session.runtime, "remove", slow)
    remover = threading.Thread(target=session.remove_stream, args=("synthetic",))
    remover.start()
    assert removing.wait(LONG)
    with pytest.raises(UsageError, match="'synthetic' is in use"):
        session.add_stream(StreamConfig(DRIVE, "synthetic"))
    with pytest.raises(UsageError, match="no stream 'synthetic'"):
        session.remove_stream("synthetic")
    assert session.add_stream(StreamConfig(DRIVE)).id == "synthetic-2"
    gate.set()
    remover.join(LONG)
    until(lambda: any((c.stream, c.state) == ("synthetic", SourceState.ENDED) for c in said))
    assert not known_of(session, "synthetic")
    assert session.add_stream(StreamConfig(DRIVE, "synthetic")).id == "synthetic"


def test_a_camera_that_is_given_up_has_failed_once(serving: Serving) -> None:
    once = LiveOptions(reconnect=Reconnect(give_up_after=1))
    session, said = serving(StreamConfig("tcp://127.0.0.1:1", "cam", live=once))
    until(lambda: not [t for t in threading.enumerate() if t.name == "open cam"])
    session.add_stream(StreamConfig(SHORT, "behind"))
    until(lambda: any(c.stream == "behind" for c in said))
    assert [(c.state.value, c.cause) for c in said if c.stream == "cam"][-2:] == [
        ("connecting", ""),
        ("failed", "refused"),
    ]
    failures = {"stream": "cam", "cause": "refused"}
    assert session.metrics.registry.get_sample_value("roadlens_source_failures_total", failures) == 1


def test_a_session_that_is_closed_connects_no_camera_any_more(serving: Serving) -> None:
    session, said = serving(StreamConfig("tcp://127.0.0.1:1", "away"))
    until(lambda: any(c.state is SourceState.BACKING_OFF for c in said))
    session.close()
    until(lambda: not [t for t in threading.enumerate() if t.name in {"open away", "read away"}])


@pytest.mark.seconds
@pytest.mark.parametrize("pattern", ["pub", "push"])
def test_a_camera_that_is_open_may_be_left_before_anything_runs(segmenter: Path, tmp_path: Path, pattern: Any) -> None:
    write_clip(tmp_path / "clip.mp4", frames=50, size=(160, 96), gop=10)
    with TcpCamera(transport_stream(tmp_path / "clip.mp4"), repeat=True) as camera:
        live = LiveOptions(open_timeout=20, read_timeout=20)
        config = Config(
            streams=(StreamConfig(camera.url, "cam", live=live),), models=(ModelConfig(str(segmenter)),),
            publish=(PublishConfig("tcp://127.0.0.1:0", pattern),),
        )  # fmt: skip
        with Session(config) as session:
            assert session.streams["cam"].change.state is SourceState.STREAMING


@pytest.mark.seconds
def test_what_a_removed_stream_holds_is_closed_once_its_thread_comes_back(
    segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "REMOVE_SECONDS", 0.05)
    monkeypatch.setattr(runtime_module, "STOP_SECONDS", 0.1)
    gate, closed = threading.Event(), threading.Event()

    class Held:
        def consume(self, _analysis: Analysis) -> None:
            gate.wait(LONG)

    config = Config(streams=(StreamConfig(DRIVE, "a"),), models=(ModelConfig(str(segmenter)),))
    with ServingSession(config, sinks=[Held()]) as session:
        session.start()
        until(lambda: session.runtime.counts()["a"].decoded)
        session.streams["a"].resources.callback(closed.set)
        until(lambda: session.runtime._known["a"].stream.in_flight)
        session.remove_stream("a")
        assert not closed.is_set()
        gate.set()
        assert closed.wait(LONG)


def test_an_output_that_ends_after_its_stream_was_removed_is_in_no_metric(segmenter: Path, tmp_path: Path) -> None:
    removed = threading.Event()

    class Breaks:
        def consume(self, analysis: Analysis) -> None:
            if analysis.frame.index == 3:
                raise OutputError("the disk is full")

    class Slow(Metrics):
        def output(self, change: OutputChange) -> None:
            if change.state is OutputState.CLOSED:
                removed.wait(LONG)
            super().output(change)

    config = Config(
        streams=(StreamConfig(DRIVE, "a"),), models=(ModelConfig(str(segmenter)),),
        outputs=OutputOptions(hls=HlsOptions(tmp_path / "hls")),
    )  # fmt: skip
    with ServingSession(config, sinks=[Breaks()], metrics=Slow()) as session:
        session.start()
        until(lambda: session.streams["a"].change.state is SourceState.FAILED)
        session.remove_stream("a")
        removed.set()
        until(lambda: not [t for t in threading.enumerate() if t.name == "hls a"])
        assert not known_of(session, "a")
