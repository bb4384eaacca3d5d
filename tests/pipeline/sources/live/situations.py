"""A camera of a kind, by a protocol, with a codec, read to its end: what came out, what was said, and the books."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import msgspec
from av.container import InputContainer

from pipeline.contracts import SourceCounts
from pipeline.frame import Frame
from pipeline.sources.live.address import LiveInput, LiveOptions, open_input
from pipeline.sources.live.camera import Camera
from pipeline.sources.live.connection import Reconnect
from pipeline.state import SourceState, StateChange
from tests.footage import write_clip
from tests.pipeline.ffmpeg_camera import FFmpegCamera
from tests.pipeline.rtp import Footage
from tests.pipeline.rtsp_camera import RtspCamera
from tests.pipeline.script import Sent
from tests.pipeline.stream_camera import StreamCamera

SLOW = 3.0
"""Seconds that pass in one of the camera's and of roadlens': a bound of 200 ms is 600 ms for the machine."""

LONG = 120.0
PICTURES = 100


@dataclass(frozen=True)
class Situation:
    """A camera.

    Attributes:
        way: `rtsp/tcp`, `rtsp/udp`, one of `StreamCamera`, or `ffmpeg/` with one of `FFmpegCamera`.
        film: name of a clip.
        script: fields of `Options` or `Script`.
        options: fields of `LiveOptions`.
    """

    name: str
    way: str
    film: str
    script: dict[str, object] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    slow: float = SLOW


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        sent: pictures on the wire, by the camera's own count.
        frames: given out.
        counts: the source's.
        changes: states, in order.
        lines: of the log.
    """

    sent: list[Sent]
    frames: list[Frame]
    counts: SourceCounts
    changes: list[StateChange]
    lines: list[str]

    def said(self) -> str:
        """All of it in a line."""
        counts, states = self.counts, "/".join(f"{c.state.value}:{c.cause}" for c in self.changes)
        books = (
            f"{len(self.sent)} sent, {counts.packets} received, {len(self.frames)} out, {dict(+counts.dropped)} dropped"
        )
        books += f", {dict(+counts.skipped)} skipped, {counts.decode_errors} errors, {counts.resets} resets"
        return f"{books}, {states}, {self.lines}"


FILMS: dict[str, dict[str, object]] = {
    "h264": {},
    **{f"h264 b{n}": {"bframes": n} for n in (1, 2, 3)},
    "h264 pyramid": {"bframes": 3, "encoder_options": {"x264-params": "b-pyramid=normal:bframes=3:b-adapt=0"}},
    "h264 keys": {"gop": 1},
    "hevc": {"codec": "libx265", "encoder_options": {"x265-params": "log-level=none:bframes=0:pools=none"}},
    "hevc b2": {
        "codec": "libx265", "bframes": 2,
        "encoder_options": {"x265-params": "log-level=none:bframes=2:b-adapt=0:b-pyramid=0:pools=none"},
    },
    "mpeg4": {"codec": "mpeg4"},
    "mpeg4 b1": {"codec": "mpeg4", "bframes": 1},
    "mjpeg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "encoder_options": {"huffman": "default"}},
}  # fmt: skip


class Films:
    """Clips, each encoded when it is first wanted."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self.get = cache(self._get)

    def __call__(self, name: str) -> Footage:
        with self._lock:
            return self.get(name)

    def clip(self, name: str) -> Path:
        """The clip itself, once its footage was wanted."""
        return self._folder / f"{name}.mp4"

    def _get(self, name: str) -> Footage:
        clip = self.clip(name)
        write_clip(clip, **{"frames": PICTURES, "size": (160, 96), "gop": 10, **FILMS[name]})
        return Footage.of(clip)


_STDIN = threading.Lock()


def run(situation: Situation, films: Films) -> Outcome:
    """Read the camera until its connection is over."""
    protocol, _, transport = situation.way.partition("/")
    slow = situation.slow
    script = {"count": PICTURES, "slow": slow, **situation.script}
    options = {
        "open_timeout": 20.0, "read_timeout": 2.5, "transport": transport if protocol == "rtsp" else "tcp",
        "reconnect": Reconnect(first=3600, longest=3600, at_start="wait"), **situation.options,
    }  # fmt: skip

    def connect(given: LiveInput, asked: LiveOptions, abandoned: Callable[[], bool]) -> InputContainer:
        """FFmpeg goes by the machine's clock."""
        timeouts = {"open_timeout": asked.open_timeout * slow, "read_timeout": asked.read_timeout * slow}
        return open_input(given, msgspec.structs.replace(asked, **timeouts), abandoned)

    changes, frames, name = list[StateChange](), list[Frame](), situation.name
    with ExitStack() as stack:
        lines = stack.enter_context(logged(name))
        footage = films(situation.film)
        camera: RtspCamera | StreamCamera | FFmpegCamera
        if protocol == "rtsp":
            camera = stack.enter_context(RtspCamera(footage, **script))
            address = camera.url()
        elif protocol == "ffmpeg":
            camera = stack.enter_context(FFmpegCamera(films.clip(situation.film), transport, slow))
            address = camera.url
        else:
            camera = stack.enter_context(StreamCamera(footage, situation.way, **script))
            address = camera.url
        source = stack.enter_context(
            Camera(
                name, address, LiveOptions(**options), observe=changes.append,
                monotonic=lambda: time.monotonic() / slow, wall_clock=lambda: time.time() / slow, connect=connect,
            )
        )  # fmt: skip

        def take() -> None:
            frames.extend(item for item in source if isinstance(item, Frame))

        reading = threading.Thread(target=take, daemon=True)
        if address == "-":
            with _STDIN:
                before = sys.stdin
                sys.stdin = stack.enter_context(os.fdopen(os.dup(camera.pipe)))
                reading.start()
                until(lambda: source.state is not SourceState.CONNECTING, changes)
                sys.stdin = before
        else:
            reading.start()
        until(lambda: source.state in {SourceState.BACKING_OFF, SourceState.ENDED, SourceState.FAILED}, changes)
        source.close()
        reading.join(LONG)
        return Outcome(list(camera.sent), frames, source.counts, changes, lines)


def until(condition: Callable[[], bool], said: object) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {said}"
        time.sleep(0.02)


@contextmanager
def logged(stream: str) -> Iterator[list[str]]:
    """Lines of the log about a stream, from warnings on."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(lambda record: record.getMessage().startswith(f"{stream}: "))
    logging.getLogger("pipeline").addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger("pipeline").removeHandler(handler)
