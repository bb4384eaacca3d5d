"""Live sources of every protocol against real servers: killed, started again, silent, and over.

The servers are FFmpeg's command (HTTP, RTMP, MPEG-TS over UDP), Python's web server with FFmpeg's HLS, and GStreamer's
RTSP server, each in processes of its own. FFmpeg's serve one client each, so that a loop starts them anew.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

from pipeline.sources.live.address import LiveOptions
from pipeline.sources.live.connection import Reconnect
from tests.footage import write_clip
from tests.pipeline.rtsp_server import Mount, RtspServer, free_port, missing, write_units
from tests.pipeline.sources.live.test_camera import Watched, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="FFmpeg's command is not installed"),
]

LIVE = LiveOptions(
    open_timeout=20, read_timeout=3, latency_bound=3600, reconnect=Reconnect(first=0.1, longest=1.0, at_start="wait")
)
ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("servers") / "clip.mp4"
    write_clip(path, frames=50, size=(160, 96), gop=10, audio=True)
    return path


class Server(Protocol):
    """What sends, in a process that can be killed and frozen."""

    def start(self) -> None: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class Command:
    """A command in a process group of its own, started again whenever it ends."""

    def __init__(self, *command: object, ready: Callable[[], bool] = lambda: True) -> None:
        self._line = shlex.join(map(str, command))
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        loop = f"while :; do {self._line}; sleep 0.1; done"
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", loop], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        until(self._ready)

    def kill(self) -> None:
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def ffmpeg(clip: Path, *output: object) -> list[object]:
    return ["ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", clip, *output]


@contextmanager
def http_mjpeg(clip: Path, _folder: Path) -> Iterator[tuple[str, Server]]:
    address = f"http://127.0.0.1:{free_port()}/camera"
    kind = "multipart/x-mixed-replace;boundary=ffmpeg"
    pictures = ["-an", "-c:v", "mjpeg", "-f", "mpjpeg", "-content_type", kind, "-listen", 1, address]
    yield address, Command(*ffmpeg(clip, *pictures))


@contextmanager
def rtmp(clip: Path, _folder: Path) -> Iterator[tuple[str, Server]]:
    address = f"rtmp://127.0.0.1:{free_port()}/live/camera"
    yield address, Command(*ffmpeg(clip, "-c", "copy", "-f", "flv", "-listen", 1, address))


@contextmanager
def udp(clip: Path, _folder: Path) -> Iterator[tuple[str, Server]]:
    port = free_port()
    target = f"udp://127.0.0.1:{port}?pkt_size=1316"
    yield f"udp://127.0.0.1:{port}", Command(*ffmpeg(clip, "-c", "copy", "-f", "mpegts", target))


@contextmanager
def hls(clip: Path, folder: Path) -> Iterator[tuple[str, Server]]:
    """What writes the playlist goes on while the web server is away."""
    port, playlist = free_port(), folder / "index.m3u8"
    options = ["-hls_time", 1, "-hls_list_size", 4, "-hls_flags", "delete_segments+temp_file"]
    writer = Command(*ffmpeg(clip, "-c", "copy", "-f", "hls", *options, playlist), ready=playlist.exists)
    writer.start()
    try:
        server = Command(sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1", "-d", folder)
        yield f"http://127.0.0.1:{port}/index.m3u8", server
    finally:
        writer.kill()


@contextmanager
def rtsp(clip: Path, folder: Path) -> Iterator[tuple[str, Server]]:
    if missing():
        pytest.skip(missing())
    server = RtspServer({"/cam": Mount(write_units(clip, folder / "clip.units"))})
    yield server.url("/cam"), server


SERVERS = {"http mjpeg": http_mjpeg, "rtmp": rtmp, "udp": udp, "hls": hls, "rtsp tcp": rtsp, "rtsp udp": rtsp}


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_server_that_goes_comes_back_and_each_state_has_its_line(protocol: str, clip: Path, tmp_path: Path) -> None:
    options = LIVE
    if protocol == "rtsp udp":
        options = LiveOptions("udp", LIVE.open_timeout, LIVE.read_timeout, LIVE.latency_bound, LIVE.reconnect)
    with SERVERS[protocol](clip, tmp_path) as (address, server):
        server.start()
        try:
            with Watched(address, options) as watched:
                watched.until_frames(20)
                seen = len(watched.changes)  # some are not up at the first attempt
                server.kill()
                watched.until(lambda: watched.states[-1] in {"backing_off", "stalled"})
                watched.until(lambda: "connecting" in watched.states[seen:])
                server.start()
                watched.until_frames(10)
                back = len(watched.changes)
                if protocol != "hls":  # a playlist's segments are read ahead: silence is not seen at once
                    server.freeze()
                    watched.until(lambda: "stalled" in watched.states[back:])
                    server.thaw()
                    watched.until_frames(10)
        finally:
            server.kill()
    assert (watched.states[0], watched.states[seen - 1]) == ("connecting", "streaming")
    assert watched.source.reconnects >= (1 if protocol == "hls" else 2)
    lines = [c.reason for c in watched.changes if c.state.value in {"backing_off", "stalled"}]
    print(f"{protocol}: " + " · ".join(dict.fromkeys(lines)))
    assert all(line and "\n" not in line for line in lines)
    assert watched.states[-1] == "ended"
    times = [f.pts for f in watched.frames]
    assert times == sorted(set(times)), "one timeline"
    causes = {c.cause for c in watched.changes if c.state.value == "stalled"}
    assert causes <= {"silent", "timeout"}


def test_a_playlist_with_an_end_is_played_once_at_its_own_pace(clip: Path, tmp_path: Path) -> None:
    with hls_ended(clip, tmp_path) as address, Watched(address, LIVE) as watched:
        watched.until(lambda: watched.source.state.final)
        assert [s for s in watched.states if s != "backing_off"][-2:] == ["streaming", "ended"]
        assert len(watched.frames) + sum(watched.source.counts.dropped.values()) >= 48
        frames = watched.frames
        assert frames[-1].arrived_at - frames[0].arrived_at > 1.5, "two seconds of pictures"


@contextmanager
def hls_ended(clip: Path, folder: Path) -> Iterator[str]:
    playlist = folder / "index.m3u8"
    subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", clip, "-c", "copy", "-f", "hls", "-hls_time", "1",
         "-hls_playlist_type", "vod", playlist], check=True,
    )  # fmt: skip
    port = free_port()
    server = Command(sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1", "-d", folder)
    server.start()
    try:
        yield f"http://127.0.0.1:{port}/index.m3u8"
    finally:
        server.kill()


def test_a_live_playlist_that_gets_an_end_ends_the_stream(clip: Path, tmp_path: Path) -> None:
    with hls(clip, tmp_path) as (address, server):
        server.start()
        try:
            with Watched(address, LIVE) as watched:
                watched.until_frames(10)
                # What a packager writes when it is told to stop; FFmpeg's own, still running, is stopped first.
                playlist = tmp_path / "index.m3u8"
                subprocess.run(["pkill", "-KILL", "-f", str(playlist)], check=False)
                with playlist.open("a") as file:
                    file.write("#EXT-X-ENDLIST\n")
                watched.until(lambda: watched.source.state.final)
        finally:
            server.kill()
    assert watched.states[-1] == "ended"
    assert watched.error is None


def test_lost_packets_cost_pictures_and_nothing_else(clip: Path, tmp_path: Path) -> None:
    """One datagram in thirty is lost on the way."""
    with udp(clip, tmp_path) as (address, server), lossy(address) as lost:
        inner = address.replace(address.rpartition(":")[2], str(lost.port))
        sender = Command(*ffmpeg(clip, "-c", "copy", "-f", "mpegts", f"{inner}?pkt_size=1316"))
        del server
        sender.start()
        try:
            with Watched(address, LIVE) as watched:
                watched.until(lambda: lost.dropped > 10 and len(watched.frames) > 100)
        finally:
            sender.kill()
    assert watched.states[-2:] == ["streaming", "ended"]
    times = [f.pts for f in watched.frames]
    assert times == sorted(set(times))


class Lossy:
    """A relay of datagrams that loses some."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.dropped = 0
        self._target = ("127.0.0.1", int(address.rpartition(":")[2]))
        self._closed = False
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def _relay(self) -> None:
        chance = random.Random(1)
        while not self._closed:
            data = self._socket.recv(65536)
            if chance.random() < 1 / 30:
                self.dropped += 1
            else:
                self._socket.sendto(data, self._target)

    def close(self) -> None:
        self._closed = True
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(10)
        self._socket.close()


@contextmanager
def lossy(address: str) -> Iterator[Lossy]:
    relay = Lossy(address)
    try:
        yield relay
    finally:
        relay.close()


def test_a_pipe_of_ffmpegs_is_analysed_to_its_end(clip: Path, segmenter: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"streams: [{{source: '-', id: pipe, live: {{latency_bound: 3600}}}}]\nmodels: [{{model: {segmenter}}}]\n"
    )
    feed = subprocess.Popen(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-stream_loop", "3", "-i", clip, "-c", "copy", "-f",
         "mpegts", "-"], stdout=subprocess.PIPE,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "--config", "run.yaml", "--jsonl", "out.jsonl"],
        stdin=feed.stdout, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    feed.wait(60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.jsonl").read_text().count("\n") > 0


def loopbacks() -> list[Path]:
    """V4L2 devices of v4l2loopback, which FFmpeg can write to."""
    names = Path("/sys/devices/virtual/video4linux")
    return [Path("/dev") / p.name for p in sorted(names.iterdir())] if names.exists() else []


@pytest.mark.skipif(not loopbacks(), reason="no v4l2loopback device; make one with: modprobe v4l2loopback")
def test_a_v4l2_device_is_read(clip: Path) -> None:
    device = loopbacks()[0]
    sender = Command(*ffmpeg(clip, "-an", "-pix_fmt", "yuyv422", "-f", "v4l2", device))
    sender.start()
    try:
        time.sleep(1)
        with Watched(str(device), LIVE) as watched:
            watched.until_frames(20)
    finally:
        sender.kill()
    assert "streaming" in watched.states


def test_a_device_that_is_no_camera_has_its_line(tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.write_bytes(b"no camera")
    with Watched(f"v4l2:{device}", LIVE) as watched:
        watched.until(lambda: "backing_off" in watched.states)
    reason = watched.changes[1].reason
    assert reason.startswith(f"{device} ")
    assert "\n" not in reason
