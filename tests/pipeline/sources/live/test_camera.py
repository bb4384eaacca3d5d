"""Live sources against cameras that send, stop, fall silent, lie and come back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Self

import av
import pytest

from engines.errors import SourceError
from pipeline.frame import Frame
from pipeline.packets import CompressedPacket
from pipeline.sources.clips import ClipSource
from pipeline.sources.live.address import LiveInput, LiveOptions
from pipeline.sources.live.camera import MOST_ABANDONED, Camera
from pipeline.sources.live.connection import Reconnect
from pipeline.sources.live.faults import Fault
from pipeline.sources.realtime import RealtimeSource
from pipeline.sources.resolve import resolve_source
from pipeline.state import SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.cameras import MULTIPART_HEAD, TcpCamera, multipart, transport_stream

LONG = 60.0
QUICK = Reconnect(first=0.02, longest=0.1, at_start="wait")
PATIENT = LiveOptions(open_timeout=20, read_timeout=20, latency_bound=3600, reconnect=QUICK)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("live") / "clip.mp4"
    write_clip(path, frames=50, size=(160, 96), gop=10)
    return path


@pytest.fixture(scope="session")
def pieces(clip: Path) -> list[bytes]:
    return transport_stream(clip)


class Watched:
    """A live source that is iterated by a thread of its own."""

    def __init__(self, address: str, options: LiveOptions = PATIENT, **given: object) -> None:
        self.changes: list[StateChange] = []
        self.frames: list[Frame] = []
        self.error: Exception | None = None
        self.source = Camera("cam", address, options, observe=self.changes.append, **given)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            for item in self.source:
                if isinstance(item, Frame):
                    self.frames.append(item)
        except SourceError as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self._thread.join(LONG)
        assert not self._thread.is_alive()

    @property
    def states(self) -> list[str]:
        return [c.state.value for c in self.changes]

    def until(self, condition: Callable[[], bool]) -> None:
        until(condition, lambda: f"{self.states}, {len(self.frames)} frames, {self.changes[-1:]}")

    def until_frames(self, more: int) -> None:
        wanted = len(self.frames) + more
        self.until(lambda: len(self.frames) >= wanted)


def until(condition: Callable[[], bool], said: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {said()}"
        time.sleep(0.01)


@pytest.mark.seconds
def test_a_camera_that_closes_is_connected_anew_on_one_timeline(pieces: list[bytes]) -> None:
    with TcpCamera(pieces) as camera, Watched(camera.url) as watched:
        watched.until(lambda: watched.source.reconnects >= 2 and len(watched.frames) > 20)
    frames = watched.frames
    assert watched.states[:4] == ["connecting", "streaming", "backing_off", "connecting"]
    assert watched.changes[2].cause == "ended"
    assert watched.changes[2].reason == f"{camera.url} ended the stream"
    assert watched.states[-1] == "ended"
    assert all(a.pts < b.pts for a, b in pairwise(frames))
    assert len({f.time_base for f in frames}) == 1
    assert [f.index for f in frames] == sorted({f.index for f in frames})
    dropped = sum(watched.source.counts.dropped.values())
    assert frames[-1].index + 1 <= len(frames) + dropped <= frames[-1].index + 2  # the newest may not have been taken
    # The line runs as long as the clock did: an outage is a gap in it.
    assert frames[-1].time - frames[0].time == pytest.approx(frames[-1].arrived_at - frames[0].arrived_at, abs=1.0)


def test_opening_says_what_comes_and_waits_for_nothing_else(pieces: list[bytes]) -> None:
    with TcpCamera(pieces, repeat=True) as camera, Camera("cam", camera.url, PATIENT) as source:
        info = source.open()
        assert (info.width, info.height, info.pixel_format) == (160, 96, "yuv420p")
        assert (info.expected_frames, info.audio) == (None, ())
        assert 5 <= info.rate <= 60
        assert info.latency_bound is not None
        assert 3600 <= info.latency_bound < 3602  # MPEG-TS: two frames are held back
        assert source.state is SourceState.STREAMING


@pytest.mark.seconds
def test_a_camera_that_falls_silent_is_found_out_and_left(pieces: list[bytes]) -> None:
    answer = threading.Event()

    def behave(connection: int, piece: int) -> bool:
        return connection > 0 or piece < 20 or answer.wait(LONG)

    options = LiveOptions(open_timeout=20, read_timeout=1.0, latency_bound=3600, reconnect=QUICK)
    with TcpCamera(pieces, behave=behave, repeat=True) as camera, Watched(camera.url, options) as watched:
        watched.until(lambda: watched.source.reconnects >= 1)
        answer.set()
    stalled = next(c for c in watched.changes if c.state is SourceState.STALLED)
    assert (stalled.cause, stalled.reason) == (
        "silent", f"nothing has come from {camera.url} for 1 s, though the connection is open",
    )  # fmt: skip
    assert watched.states[watched.states.index("stalled") :][:3] == ["stalled", "backing_off", "connecting"]


def reads_that_never_return() -> tuple[threading.Event, list[threading.Thread], Callable[..., object]]:
    """What lets them go, their threads so far, and how such a source is connected to."""
    gate = threading.Event()
    hanging: list[threading.Thread] = []

    def connect(_given: LiveInput, _options: LiveOptions, _abandoned: Callable[[], bool]) -> object:
        hanging.append(threading.current_thread())
        gate.wait(LONG)
        raise Fault("timeout", "woken too late")

    return gate, hanging, connect


@pytest.mark.seconds
def test_a_read_that_never_returns_is_abandoned_and_the_number_of_them_bounded() -> None:
    gate, hanging, connect = reads_that_never_return()
    options = LiveOptions(open_timeout=0.1, read_timeout=0.1, reconnect=QUICK)
    before = threading.active_count()
    with Watched("rtsp://127.0.0.1:9/never", options, connect=connect) as watched:
        watched.until(lambda: watched.states.count("backing_off") == MOST_ABANDONED)
        time.sleep(1)  # in which it could have begun ten more
        assert len(hanging) == MOST_ABANDONED
        assert watched.changes[-1].cause == "timeout"
        gate.set()
        watched.until(lambda: len(hanging) > MOST_ABANDONED)
    until(lambda: threading.active_count() <= before)


def test_pausing_closes_the_connection_and_resuming_opens_it(pieces: list[bytes]) -> None:
    with TcpCamera(pieces, repeat=True) as camera, Watched(camera.url) as watched:
        watched.until_frames(3)
        watched.source.pause()
        watched.until(lambda: watched.source.state is SourceState.PAUSED)
        seen = len(watched.frames)
        assert camera.connections == 1
        watched.source.resume()
        watched.until(lambda: len(watched.frames) > seen + 3)
        assert camera.connections == 2
    assert "paused" in watched.states


@pytest.mark.parametrize("state", ["connecting", "backing_off", "streaming"])
def test_stopping_ends_it_in_every_state(state: str, pieces: list[bytes]) -> None:
    silent = threading.Event()
    behave: Callable[[int, int], bool] = (
        (lambda _c, _p: silent.wait(LONG)) if state == "connecting" else lambda _c, _p: True
    )
    with TcpCamera(pieces, behave=behave, repeat=True) as camera:
        url = "tcp://127.0.0.1:1" if state == "backing_off" else camera.url
        with Watched(url, LiveOptions(reconnect=Reconnect(first=LONG, longest=LONG, at_start="wait"))) as watched:
            watched.until(lambda: state in watched.states)
            began = time.monotonic()
            watched.source.stop()
            watched.until(lambda: watched.source.state is SourceState.ENDED)
            took = time.monotonic() - began
        silent.set()
    assert took < 5
    assert watched.error is None


def test_a_first_failure_ends_the_opening_with_its_reason() -> None:
    with Camera("cam", "tcp://user:hunter2@127.0.0.1:1/x") as source, pytest.raises(SourceError) as caught:
        source.open()
    assert "connection refused" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frames_older_than_the_bound_are_dropped_and_counted(pieces: list[bytes]) -> None:
    strict = LiveOptions(latency_bound=1e-9, open_timeout=20, read_timeout=20, reconnect=QUICK)
    # What FFmpeg must hold back is no lateness; the time that decoding takes is.
    with TcpCamera(pieces, repeat=True) as camera, Watched(camera.url, strict) as watched:
        watched.until(lambda: watched.source.counts.dropped["old"] > 10)
        assert watched.source.state is SourceState.STREAMING
    # Each frame took an index, whether it was handed over or dropped.
    given = [frame.index for frame in watched.frames]
    assert given == sorted(set(given))
    assert max(given, default=-1) < len(given) + watched.source.counts.dropped["old"]


def test_runaway_pictures_are_a_reason_to_connect_anew(pieces: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.live.rates._RUNAWAY_RATE", 5.0)  # what a loaded machine decodes as well
    monkeypatch.setattr("pipeline.sources.live.rates._RUNAWAY_FACTOR", 0.1)
    with TcpCamera(pieces, rate=0, repeat=True) as camera, Watched(camera.url) as watched:
        watched.until(lambda: any(c.cause == "runaway" for c in watched.changes))
    change = next(c for c in watched.changes if c.cause == "runaway")
    assert change.reason.endswith("over 5 pictures a second")


@pytest.mark.seconds
def test_the_tap_gets_every_packet_and_it_can_be_written_again(pieces: list[bytes], tmp_path: Path) -> None:
    import av

    taken: list[CompressedPacket] = []
    with TcpCamera(pieces, repeat=True) as camera, Watched(camera.url, on_packet=taken.append) as watched:
        watched.until(lambda: len(taken) >= 40)
    kept = taken[:40]
    assert kept[0].is_keyframe
    with av.open(str(tmp_path / "kept.mp4"), "w") as out:
        stream = out.add_stream_from_template(kept[0].track.template, opaque=True)
        for item in kept:
            packet = av.Packet(item.data)
            packet.pts, packet.dts, packet.time_base = item.pts, item.dts, item.track.time_base
            packet.is_keyframe, packet.stream = item.is_keyframe, stream
            out.mux(packet)
    with av.open(str(tmp_path / "kept.mp4")) as written:
        assert sum(1 for _ in written.decode(video=0)) == 40


def test_a_mistake_of_our_own_is_said_once_and_tried_less_and_less(
    pieces: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is told the packets may fail with each of them."""

    def fails(_packet: CompressedPacket) -> None:
        raise LookupError("no such thing")

    options = LiveOptions(open_timeout=20, read_timeout=20, reconnect=Reconnect(first=0.01, jitter=0, at_start="wait"))
    with TcpCamera(pieces, repeat=True) as camera, Watched(camera.url, options, on_packet=fails) as watched:
        watched.until(lambda: watched.states.count("backing_off") >= 5)
    lost = [c for c in watched.changes if c.state is SourceState.BACKING_OFF]
    assert {c.cause for c in lost} == {"internal"}
    assert "LookupError: no such thing" in lost[0].reason
    assert [c.retry_in for c in lost][:5] == pytest.approx([0.01, 0.02, 0.04, 0.08, 0.16])
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    assert sum(record.levelname in {"WARNING", "ERROR"} for record in caplog.records) <= 2


@pytest.mark.seconds
def test_an_mjpeg_page_has_the_clock_of_its_arrival(clip: Path) -> None:
    camera = TcpCamera(multipart(clip), rate=10, head=MULTIPART_HEAD, repeat=True)
    with camera, Watched(f"http://127.0.0.1:{camera.port}/video") as watched:
        watched.until_frames(12)
    seconds = watched.frames[-1].time - watched.frames[0].time
    assert seconds == pytest.approx(watched.frames[-1].arrived_at - watched.frames[0].arrived_at, abs=0.2)


@pytest.mark.seconds
def test_another_picture_size_after_a_reconnect_is_scaled_to_the_first(pieces: list[bytes], tmp_path: Path) -> None:
    write_clip(tmp_path / "large.mp4", frames=50, size=(320, 192), gop=10)
    large = transport_stream(tmp_path / "large.mp4")
    with TcpCamera(list(pieces)) as camera, Watched(camera.url) as watched:
        watched.until_frames(3)
        camera.pieces = large
        watched.until(lambda: watched.source.reconnects >= 1)
        watched.until_frames(5)
    assert {(f.image.width, f.image.height) for f in watched.frames} == {(160, 96)}


def test_a_pipe_ends_and_is_not_opened_again(pieces: list[bytes], tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pipeline.sources.live.camera import Camera\n"
        "from pipeline.sources.live.address import LiveOptions\n"
        "source = Camera('pipe', '-', LiveOptions(latency_bound=3600))\n"
        "print(source.open().width)\nprint(max(f.index for f in source) > 0, source.state)\n"
    )
    (tmp_path / "clip.ts").write_bytes(b"".join(pieces) * 3)
    with (tmp_path / "clip.ts").open("rb") as file:
        feeding = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        done = subprocess.run(
            [sys.executable, "-c", script], stdin=feeding.stdout, capture_output=True, text=True, timeout=LONG * 2,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}, check=False,
        )  # fmt: skip
        feeding.kill()
        feeding.wait()
    assert done.stdout.split() == ["160", "True", "ended"], done.stderr


def reads(scheme: str) -> bool:
    """Whether PyAV's FFmpeg knows a protocol."""
    try:
        av.open(f"{scheme}://127.0.0.1:1", timeout=5)
    except av.error.ProtocolNotFoundError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("v4l2:/dev/no-such-camera", "there is no device /dev/no-such-camera"),
        ("rtsp://127.0.0.1:1/cam", "nobody listens at rtsp://127.0.0.1:1/cam (connection refused)"),
        pytest.param(
            "srt://127.0.0.1:1",
            "srt://127.0.0.1:1 cannot be read: this FFmpeg is built without SRT; have it sent another way",
            marks=pytest.mark.skipif(reads("srt"), reason="this FFmpeg reads SRT"),
        ),
        ("gopher://127.0.0.1/cam", "gopher:// is not read; give an rtsp"),
    ],
)
def test_what_cannot_be_opened_says_why_in_one_line(address: str, said: str) -> None:
    with pytest.raises(SourceError) as caught:
        resolve_source(address, "cam").open()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.seconds
def test_a_file_in_real_time_takes_its_time_and_loses_nothing_while_paused(clip: Path) -> None:
    changes: list[StateChange] = []
    source = resolve_source(str(clip), "file", realtime=True, observe=changes.append)
    assert (source.mode, source.open().latency_bound) == ("live", 0.2)
    began = time.monotonic()
    frames = [item for item in source if isinstance(item, Frame)]
    assert time.monotonic() - began > 0.9 * 49 / 25
    assert [f.index for f in frames] == list(range(50))
    assert all(f.arrived_at <= time.monotonic() for f in frames)
    assert [c.state.value for c in changes] == ["connecting", "streaming", "ended"]
    source.close()


def test_a_file_in_real_time_stops_while_it_waits(clip: Path) -> None:
    source = resolve_source(str(clip), "file", realtime=True)
    source.open()
    items: Iterator[object] = iter(source)
    next(items)
    with suppress(AttributeError):
        source.stop()
    assert next(items, None) is None
    source.close()
    assert isinstance(ClipSource("file", [clip]).open().rate, Fraction)


@contextmanager
def counted() -> Iterator[Callable[[], tuple[int, int]]]:
    """Threads and descriptors beyond those that were there before."""
    own = Path("/proc/self/fd")
    threads, descriptors = threading.active_count(), len(list(own.iterdir()))

    def grown() -> tuple[int, int]:
        return threading.active_count() - threads, len(list(own.iterdir())) - descriptors

    yield grown


@pytest.mark.slow
def test_a_hundred_reconnects_leave_nothing_behind(pieces: list[bytes]) -> None:
    flapping = Reconnect(first=0.0, longest=0.0, at_start="wait")
    options = LiveOptions(open_timeout=20, read_timeout=20, latency_bound=3600, reconnect=flapping)
    with TcpCamera(pieces[:12], rate=0) as camera, counted() as grown:
        with Watched(camera.url, options) as watched:
            watched.until(lambda: watched.source.reconnects >= 100)
        until(lambda: grown()[0] <= 0 and grown()[1] <= 0, lambda: str(grown()))


def test_what_is_iterated_after_opening_has_every_index_once(pieces: list[bytes]) -> None:
    with TcpCamera(pieces, rate=25, repeat=True) as camera, Camera("cam", camera.url, PATIENT) as source:
        source.open()
        until(lambda: source._newest is not None)
        items = iter(source)
        indices = [next(items).index for _ in range(5)]
        assert indices == sorted(set(indices))
        assert indices[-1] + 1 == 5 + sum(source.counts.dropped.values())


def test_resuming_begins_no_third_read_while_two_have_not_returned() -> None:
    gate, hanging, connect = reads_that_never_return()
    options = LiveOptions(open_timeout=60, read_timeout=60, reconnect=QUICK)
    with Watched("rtsp://127.0.0.1:9/never", options, connect=connect) as watched:
        for number in range(MOST_ABANDONED):
            watched.until(lambda number=number: len(hanging) > number)
            watched.source.pause()
            watched.until(lambda: watched.source.state is SourceState.PAUSED)
            watched.source.resume()
        watched.until(lambda: len(watched.source._stuck()) == MOST_ABANDONED)
        assert watched.source._event(watched.source.monotonic()) is None
        assert len(hanging) == MOST_ABANDONED
        gate.set()
        watched.until(lambda: len(hanging) > MOST_ABANDONED)


def played(clip: Path, observe: Callable[[StateChange], None]) -> RealtimeSource:
    source = RealtimeSource(ClipSource("file", [clip]), observe=observe)
    source.open()
    return source


def test_a_file_in_real_time_that_is_left_in_the_middle_has_ended_once(clip: Path) -> None:
    changes: list[StateChange] = []
    source = played(clip, changes.append)
    next(iter(source))
    source.close()
    source.close()
    assert [(c.state.value, c.cause) for c in changes] == [("connecting", ""), ("streaming", ""), ("ended", "stopped")]


def test_a_file_in_real_time_that_is_stopped_while_it_rests_does_not_say_that_it_goes_on(clip: Path) -> None:
    changes: list[StateChange] = []
    source = played(clip, changes.append)
    items = iter(source)
    next(items)
    source.pause()
    rest = threading.Thread(target=lambda: next(items, None))
    rest.start()
    until(lambda: changes[-1].state is SourceState.PAUSED)
    source.stop()
    rest.join(LONG)
    assert [c.state.value for c in changes[2:]] == ["paused", "ended"]
    source.close()


def test_a_file_in_real_time_is_stopped_at_once_though_somebody_still_listens(clip: Path) -> None:
    listening, gate = threading.Event(), threading.Event()

    def observe(change: StateChange) -> None:
        if change.state is SourceState.PAUSED:
            listening.set()
            gate.wait(LONG)

    source = played(clip, observe)
    items = iter(source)
    next(items)
    source.pause()
    rest = threading.Thread(target=lambda: next(items, None))
    rest.start()
    assert listening.wait(LONG)
    stopper = threading.Thread(target=source.stop, daemon=True)
    stopper.start()
    stopper.join(5)
    held_up = stopper.is_alive()
    gate.set()
    rest.join(LONG)
    source.close()
    assert not held_up
