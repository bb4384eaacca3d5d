"""Restream to a media server: RTSP, RTMP, SRT or MPEG-TS over UDP, reconnected for as long as the stream runs.

A process of its own sends (`restream_process`), a thread of its own feeds it: a peer that refuses, hangs, or takes too
little costs its own pictures and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Annotated, Literal

import msgspec

from engines.errors import OutputError, SourceError
from pipeline.addresses import strip_credentials, taken_apart
from pipeline.outputs.encoded import EncodedPicture
from pipeline.outputs.live import restream_process
from pipeline.outputs.live.destination import QueuedOutput
from pipeline.state import OutputObserver, OutputState

log = logging.getLogger(__name__)

_FORMATS = {
    "rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv", "srt": "mpegts", "udp": "mpegts",
}  # fmt: skip
_QUEUE_SECONDS = 2.0
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_NO_PROTOCOL = "this FFmpeg is built without the protocol"
_STEADY_SECONDS = 5.0
"""A connection that held this long was a good one: the next attempt comes soon."""


class RestreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A media server to send to.

    Attributes:
        address: `rtsp://`, `rtsps://`, `rtmp://`, `rtmps://`, `srt://` or `udp://`; `{stream}` in it becomes the
            stream's id.
        transport: of RTSP: `tcp`, or `udp`.
        timeout: seconds that the server may take to answer or to take a picture.
    """

    address: str
    transport: Literal["tcp", "udp"] = "tcp"
    timeout: Annotated[float, msgspec.Meta(gt=0, le=120)] = 5.0


def restream_format(address: str) -> str:
    """FFmpeg's format for an address.

    Raises:
        OutputError: it is none of the protocols that video is sent over, or names no server.
    """
    try:
        parts = taken_apart(address)
    except SourceError as error:
        raise OutputError(str(error)) from None
    wanted = "write rtsp://server:8554/name, rtmp://server/app/key, srt://server:port or udp://group:port"
    if parts.scheme.lower() not in _FORMATS:
        raise OutputError(f"{strip_credentials(address)!r} is no address that video can be sent to: {wanted}")
    if not parts.hostname:
        raise OutputError(f"{strip_credentials(address)!r} names no server to send to: {wanted}")
    return _FORMATS[parts.scheme.lower()]


class Restream(QueuedOutput):
    """A destination of a live output that sends to one media server.

    Args:
        stream: id of the stream.
        options: where to, and how.
        name: of this output within its stream; the address' protocol unless given.
        dropped: told how many pictures were dropped, and why.
        observe: told of every change of state.
        wall_clock: Unix time in seconds.

    Raises:
        OutputError: the address is none.
    """

    def __init__(
        self,
        stream: str,
        options: RestreamOptions,
        name: str = "",
        dropped: Callable[[int, str], None] = lambda _count, _reason: None,
        observe: OutputObserver = lambda _change: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self._address = options.address.replace("{stream}", stream)
        self._format = restream_format(self._address)
        name = name or self._address.partition("://")[0].lower()
        super().__init__(stream, name, _QUEUE_SECONDS, dropped, observe, wall_clock)
        self.shown_address = strip_credentials(self._address)
        self._connected_at = 0.0
        self._said = ""

    def _hello(self) -> bytes:
        """The first line for the sending process."""
        video = self._video
        return json.dumps({
            "address": self._address, "format": self._format, "options": self._muxer_options(),
            "timeout": self.options.timeout, "width": video.width, "height": video.height, "rate": str(video.rate),
        }).encode() + b"\n"  # fmt: skip

    def _muxer_options(self) -> dict[str, str]:
        if self._format == "rtsp":
            return {"rtsp_transport": self.options.transport}
        # FFmpeg keeps a buffer of 32 kB otherwise: a second of a quiet picture.
        return {"flush_packets": "1"} | ({"flvflags": "no_duration_filesize"} if self._format == "flv" else {})

    def _work(self) -> str:
        wait, reason = _FIRST_WAIT, None
        while not self._closed.is_set():
            picture = self._queue.get()
            if picture is None:
                break
            self._say(OutputState.CONNECTING)
            self._connected_at = 0.0
            reason = self._connection(picture)
            if reason is None:
                break
            if reason == _NO_PROTOCOL:
                log.error("%s: restream to %s: %s", self.stream, self.shown_address, reason)
                break
            steady = self._connected_at and time.monotonic() - self._connected_at > _STEADY_SECONDS
            wait = _FIRST_WAIT if steady else wait
            self._queue.rest()
            self._say(OutputState.BACKING_OFF, reason)
            reason = None
            self._closed.wait(wait * random.uniform(0.75, 1.25))  # noqa: S311  # so that streams do not come in step
            wait = min(wait * 2, _LONGEST_WAIT)
            self._queue.resume()
        return reason or ""

    def _say(self, state: OutputState, reason: str = "") -> None:
        super()._say(state, reason)
        if state is OutputState.RUNNING:
            log.info("%s: restreaming to %s", self.stream, self.shown_address)
            self._said = ""
        elif state is OutputState.BACKING_OFF and reason != self._said:  # a server that stays away is said once
            log.warning("%s: restream to %s: %s; trying again", self.stream, self.shown_address, reason)
            self._said = reason

    def _connection(self, picture: EncodedPicture) -> str | None:
        """Send from `picture` on; why it came to an end, or None at the end of the stream."""
        with subprocess.Popen(
            # By its path and without the working folder: what lies there may be called as a module of ours is.
            [sys.executable, "-P", restream_process.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        ) as process:
            try:
                return self._feed(process, picture)
            finally:
                process.kill()

    def _feed(self, process: subprocess.Popen[bytes], picture: EncodedPicture) -> str | None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the pipes of a restream are missing")
        os.set_blocking(process.stdin.fileno(), False)
        words = _Words(process.stdout)
        # The process itself gives up first, from the moment it is up; its start is not the server's fault.
        patience = self.options.timeout + 20
        item: EncodedPicture | None = picture
        data = self._hello()
        while not self._closed.is_set():
            if item is not None:
                data += restream_process.HEAD.pack(item.pts, item.duration, item.key, len(item.data)) + item.data
                reason = self._write(process, words, data, patience)
                if reason is not None:
                    return reason
                data = b""
            elif self._queue.over:
                break
            else:
                reason = self._heard(process, words)
                if reason is not None:
                    return reason
            item = self._queue.get(0.2)
        process.stdin.close()
        if not self._closed.is_set():
            try:
                process.wait(min(self.options.timeout, 1.0))
            except subprocess.TimeoutExpired:
                log.debug("%s: %s did not take its leave", self.stream, self.shown_address)
        return None

    def _write(self, process: subprocess.Popen[bytes], words: _Words, data: bytes, patience: float) -> str | None:
        """Hand bytes to the process; why that cannot be done, or None."""
        if process.stdin is None:
            raise RuntimeError("the pipe of a restream is missing")
        left, deadline = memoryview(data), time.monotonic() + patience
        while left and not self._closed.is_set():
            reason = self._heard(process, words)
            if reason is not None:
                return reason
            _, writable, _ = select.select([], [process.stdin], [], 0.05)
            if writable:
                try:
                    left = left[os.write(process.stdin.fileno(), left) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    process.wait(patience)
                    return self._heard(process, words) or "the connection ended"
                deadline = time.monotonic() + patience
            elif time.monotonic() > deadline:
                return f"it has taken nothing for {patience:.0f} s"
        return None

    def _heard(self, process: subprocess.Popen[bytes], words: _Words) -> str | None:
        """What the process says: the reason of its end, or None while it runs."""
        for word in words.new():
            if word == "connected":
                self._connected_at = time.monotonic()
                self._say(OutputState.RUNNING)
            elif word.startswith("error "):
                return _sentence(word.removeprefix("error "))
        if words.over:
            code = process.wait(5)
            if code == -14:
                return f"it did not answer within {self.options.timeout:g} s"
            return "the connection ended" if code == 0 else f"the sending process ended with code {code}"
        return None


class _Words:
    """Lines from a pipe, without waiting for them."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._rest, self.over = pipe, b"", False

    def new(self) -> list[str]:
        while not self.over and select.select([self._pipe], [], [], 0)[0]:
            data = os.read(self._pipe.fileno(), 4096)
            self.over = not data
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return [line.decode(errors="replace") for line in lines]


def _sentence(reason: str) -> str:
    """FFmpeg's reason as the end of a sentence, with no address in it."""
    text = strip_credentials(reason).strip().rstrip(".")
    known = {
        "Connection refused": "the server refuses the connection",
        "Protocol not found": _NO_PROTOCOL,
        "Broken pipe": "the server closed the connection",
        "Connection reset by peer": "the server closed the connection",
        "Input/output error": "the server closed or refused the connection",
        "Invalid data found when processing input": "the server's answer is none of this protocol's",
    }
    return known.get(text, text[:1].lower() + text[1:])
