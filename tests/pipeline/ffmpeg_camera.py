"""FFmpeg's command as a camera: a clip sent once, by RTMP, MPEG-TS over UDP and TCP, or FLV over HTTP."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Self

import av

from tests.pipeline.rtsp_server import free_port
from tests.pipeline.script import Sent
from tests.pipeline.stream_camera import bound

WAYS = {
    "rtmp": ("rtmp://127.0.0.1:{port}/live/camera", ["-f", "flv", "-listen", "1"], ""),
    "flv/http": ("http://127.0.0.1:{port}/live.flv", ["-f", "flv", "-listen", "1"], ""),
    "ts/tcp": ("tcp://127.0.0.1:{port}", ["-f", "mpegts"], "?listen=1"),
    "ts/udp": ("udp://127.0.0.1:{port}", ["-f", "mpegts"], "?pkt_size=1316"),
}


class FFmpegCamera:
    """Sends as soon as somebody listens or connects.

    Args:
        clip: what it sends.
        way: one of `WAYS`.
        slow: seconds that pass in one of the clip's.

    Attributes:
        sent: all pictures, once FFmpeg has sent them in order.
    """

    def __init__(self, clip: Path, way: str, slow: float) -> None:
        self.clip, self.way, self.slow = clip, way, slow
        self.port = free_port()
        url, self._options, self._more = WAYS[way]
        self.url = url.format(port=self.port)
        self._process: subprocess.Popen[bytes] | None = None
        self._left = threading.Event()

    @property
    def sent(self) -> list[Sent]:
        assert self._process is not None
        assert self._process.wait(30) == 0
        with av.open(str(self.clip)) as container:
            keys = [p.is_keyframe for p in container.demux(video=0) if p.size]
        return [Sent(0, n, key, 1, 0, time.monotonic()) for n, key in enumerate(keys)]

    def _start(self) -> None:
        while self.way == "ts/udp" and not bound(self.port, "udp"):
            if self._left.wait(0.02):
                return
        command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-readrate", f"{1 / self.slow:.4f}", "-i", self.clip]
        self._process = subprocess.Popen([*command, "-c", "copy", *self._options, self.url + self._more])

    def __enter__(self) -> Self:
        if self.way == "ts/udp":
            threading.Thread(target=self._start, daemon=True).start()
            return self
        self._start()
        while not bound(self.port, "tcp") and self._process is not None and self._process.poll() is None:
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
