"""Against real peers in processes of their own: GStreamer's RTSP server, FFmpeg as an RTMP and an MPEG-TS receiver."""

from __future__ import annotations

import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest

from engines.errors import OutputError, UsageError
from pipeline.outputs.live.opening import OutputOptions, check_outputs
from pipeline.outputs.live.output import CardOptions, LiveOutput
from pipeline.outputs.live.restream import Restream, RestreamOptions, restream_format
from pipeline.state import OutputChange, OutputState, SourceState, StateChange
from tests.pipeline.encoded import FAST, analysis, info, until

HERE = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"


def has_rtsp_server() -> bool:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        return subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg's command is the peer")
needs_gstreamer = pytest.mark.skipif(not has_rtsp_server(), reason="GStreamer's RTSP server is the peer")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Pushed:
    """A live output that pushes, fed from a thread at 25 pictures a second, and what it said."""

    def __init__(self, address: str, timeout: float = 20.0) -> None:
        self.changes: list[OutputChange] = []
        self.dropped: Counter[str] = Counter()
        self.push = Restream(
            "cam",
            RestreamOptions(address, timeout=timeout),
            dropped=lambda count, reason: self.dropped.update({reason: count}),
            observe=self.changes.append,
        )
        self.output = LiveOutput("cam", info(), "live", [self.push], FAST, CardOptions())
        self.silent = threading.Event()
        self.slowest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _feed(self) -> None:
        index = 0
        while not self._stop.wait(0.04):
            if not self.silent.is_set():
                began = time.monotonic()
                self.output.consume(analysis(index, level=200))
                self.slowest = max(self.slowest, time.monotonic() - began)
            index += 1

    def states(self) -> list[OutputState]:
        return [c.state for c in self.changes]

    def reasons(self) -> list[str]:
        return [c.reason for c in self.changes if c.reason]

    def close(self, orderly: bool = True) -> None:
        self._stop.set()
        self._thread.join(30)
        if orderly:
            self.output.finish()
        self.output.close()


@contextmanager
def pushed(address: str, timeout: float = 20.0) -> Iterator[Pushed]:
    made = Pushed(address, timeout)
    try:
        yield made
    finally:
        made.close(orderly=False)


@contextmanager
def process(*command: object, ready: str = "") -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True) as running:
        try:
            if ready:
                assert running.stdout is not None
                assert running.stdout.readline().strip() == ready
            yield running
        finally:
            running.kill()


def levels(path: Path) -> list[float]:
    with av.open(str(path)) as container:
        return [float(f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]


@pytest.mark.slow
@needs_gstreamer
def test_rtsp_to_a_media_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    port, recorded = free_port(), tmp_path / "pushed.h264"
    server = (SYSTEM_PYTHON, HERE / "rtsp_record_server.py", port, tmp_path)
    with pushed(f"rtsp://user:s3cret@127.0.0.1:{port}/push") as made:
        until(lambda: OutputState.BACKING_OFF in made.states(), "nobody is there")
        assert made.reasons()[0] == "the server refuses the connection"
        with process(*server, ready="ready"):
            until(lambda: OutputState.RUNNING in made.states())
            until(lambda: recorded.exists() and recorded.stat().st_size > 2000)
        assert len(levels(recorded)) > 3
        recorded.unlink()
        with process(*server, ready="ready"):
            until(lambda: made.states().count(OutputState.RUNNING) >= 2, "it comes back")
            until(lambda: recorded.exists() and recorded.stat().st_size > 2000)
            made.close()
        assert levels(recorded)[-1] == pytest.approx((200 - 16) * 255 / 219, abs=5)
        assert made.states()[-1] is OutputState.CLOSED
    assert not any("s3cret" in r for r in made.reasons())


@pytest.mark.slow
@needs_ffmpeg
def test_rtmp_and_a_viewer_who_stays_through_an_outage(tmp_path: Path) -> None:
    port, received = free_port(), tmp_path / "received.flv"
    address = f"rtmp://127.0.0.1:{port}/live/cam"
    peer = ("ffmpeg", "-v", "error", "-listen", "1", "-i", address, "-c", "copy", "-flush_packets", "1", "-y", received)
    with process(*peer) as viewer, pushed(address) as made:
        until(lambda: received.exists() and received.stat().st_size > 4000)
        made.silent.set()
        made.output.status(StateChange("cam", SourceState.STALLED, "no frame", "silent", time.time()))
        before = received.stat().st_size
        until(lambda: received.stat().st_size > before + 4000, "the card is sent")
        made.silent.clear()
        before = received.stat().st_size
        until(lambda: received.stat().st_size > before + 4000)
        made.close()
        viewer.wait(60)
        assert made.states().count(OutputState.RUNNING) == 1, "one connection, all the time"
    shown = levels(received)
    bright = (200 - 16) * 255 / 219
    dim = [i for i, level in enumerate(shown) if level < bright * 0.6]
    assert shown[0] == pytest.approx(bright, abs=5)
    assert shown[-1] == pytest.approx(bright, abs=5)
    assert len(dim) >= 2
    assert dim == list(range(dim[0], dim[-1] + 1))
    with av.open(str(received)) as container:
        times = [p.dts for p in container.demux(video=0) if p.dts is not None]
    assert times == sorted(set(times))


@pytest.mark.slow
@needs_ffmpeg
@pytest.mark.parametrize("scheme", ["udp", "srt"])
def test_mpeg_ts_to_a_receiver(tmp_path: Path, scheme: str) -> None:
    port, received = free_port(socket.SOCK_DGRAM), tmp_path / "received.ts"
    listening = f"{scheme}://127.0.0.1:{port}" + ("?mode=listener" if scheme == "srt" else "")
    peer = ("ffmpeg", "-v", "error", "-i", listening, "-c", "copy", "-flush_packets", "1", "-y", received)
    with process(*peer), pushed(f"{scheme}://127.0.0.1:{port}") as made:
        until(lambda: OutputState.RUNNING in made.states() or made.reasons())
        if made.reasons() == ["this FFmpeg is built without the protocol"]:
            assert made.states()[-1] is OutputState.CLOSED, "there is no use in trying again"
            pytest.skip(f"this FFmpeg is built without {scheme}")
        until(lambda: received.exists() and received.stat().st_size > 20_000)
    assert len(levels(received)) > 3


@pytest.mark.seconds
def test_a_peer_that_accepts_and_stays_silent_holds_up_nobody() -> None:
    """FFmpeg's calls to connect hold the interpreter lock, RTMP's know no timeout: here they would stop everything."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pushed(f"rtmp://127.0.0.1:{port}/live/key", timeout=1.0) as made:
            until(lambda: made.reasons())
            assert made.reasons()[0] == "it did not answer within 1 s"
            until(lambda: made.states().count(OutputState.CONNECTING) >= 2)
            began = time.monotonic()
            made.close()
            assert time.monotonic() - began < 30
            assert made.dropped.total() > 0


def test_a_refusal_is_said_once_and_without_credentials(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pushed(f"rtmp://127.0.0.1:{free_port()}/live?token=s3cret") as made:
        until(lambda: made.states().count(OutputState.BACKING_OFF) >= 2)
    said = [r.getMessage() for r in caplog.records if "restream to" in r.getMessage()]
    assert len(said) == 1
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("http://server/x", "'http://server/x' is no address that video can be sent to"),
        ("server/x", "is no address that video can be sent to"),
        ("rtsp:///x", "names no server to send to"),
        ("ftp://user:s3cret@server/x", "'ftp://server/x' is no address"),
        ("", "is no address"),
    ],
)
def test_an_address_that_is_none(address: str, sentence: str) -> None:
    with pytest.raises(OutputError) as caught:
        Restream("cam", RestreamOptions(address))
    assert sentence in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("rtsp://h/x", "rtsp"), ("RTSPS://h/x", "rtsp"), ("rtmp://h/x", "flv"), ("srt://h:1", "mpegts"),
        ("udp://h:1", "mpegts"),
    ],
)  # fmt: skip
def test_the_format_of_an_address(address: str, kind: str) -> None:
    assert restream_format(address) == kind


def test_the_stream_stands_in_the_address() -> None:
    assert Restream("front", RestreamOptions("rtsp://h/{stream}/x")).shown_address == "rtsp://h/front/x"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtmp://a.rtmp.example/live2/s3cr-et", "rtmp://a.rtmp.example/live2/***"),
        ("RTMPS://u:s3cret@h:443/rtmp/s3cret?x=1", "RTMPS://h:443/rtmp/***"),
        ("rtmp://h/app/instance/s3cret", "rtmp://h/app/***"),
        ("rtmp://h/app", "rtmp://h/app"),
        ("rtsp://u:s3cret@h/a/b", "rtsp://h/a/b"),
    ],
)
def test_the_stream_key_of_rtmp_is_not_shown(address: str, shown: str) -> None:
    assert Restream("cam", RestreamOptions(address)).shown_address == shown
    with pytest.raises(UsageError) as caught:
        check_outputs(OutputOptions(restream=(RestreamOptions(address),)), many=True)
    assert shown in str(caught.value)
    assert "s3cr" not in str(caught.value)


def test_addresses_are_on_no_command_line() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pushed(f"rtmp://user:s3cret@127.0.0.1:{silent.getsockname()[1]}/live/key") as made:
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if p.exists()]
            assert any(b"restream_process.py" in line for line in lines)
            assert not any(b"s3cret" in line for line in lines if str(sys.executable).encode() in line)
            assert made.slowest < 30
