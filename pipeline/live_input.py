"""Cameras as FFmpeg opens them: what an address means, with which options, and what FFmpeg's errors mean to people."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import av
import av.error
import msgspec
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.errors import SourceError
from pipeline.connection import Reconnect
from pipeline.decoding import Decoding
from pipeline.redact import strip_credentials

Timeout = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp"})
STDIN = "-"
_V4L2 = "v4l2:"

_NO_CLOCK = frozenset({"mpjpeg", "mjpeg", "jpeg_pipe", "h264", "hevc", "m4v", "obu", "ivf", "mpegvideo"})
"""Inputs whose timestamps FFmpeg invents from a rate it assumes."""


class LiveOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a live source is read.

    Attributes:
        transport: of RTSP's pictures: `tcp` loses nothing, `udp` waits for nothing.
        open_timeout: seconds a connection may take until it is known what comes.
        read_timeout: seconds without a packet after which the source counts as stalled and is connected anew.
        latency_bound: seconds; an older picture is dropped rather than analysed or given out. What FFmpeg must hold
            back to see where a picture ends (by RTSP one frame, by MPEG-TS two) counts in a picture's age and is
            allowed on top.
        reconnect: when a lost source is tried again.
        format: FFmpeg's name of the input's format where it cannot be found out, such as `h264` for a pipe.
        ffmpeg: further options for FFmpeg's input, such as `{video_size: 1280x720, input_format: mjpeg}` for V4L2.
    """

    transport: Literal["tcp", "udp"] = "tcp"
    open_timeout: Timeout = 10.0
    read_timeout: Timeout = 5.0
    latency_bound: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 0.2
    reconnect: Reconnect = Reconnect()
    format: str | None = None
    ffmpeg: dict[str, str] = {}  # msgspec copies an empty default


@dataclass
class Fault(Exception):  # noqa: N818  # what is wrong with a source, not with the program
    """Why a connection failed: a word for machines (see `StateChange.cause`) and one line for people."""

    cause: str
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class LiveInput:
    """How FFmpeg opens an address.

    Attributes:
        url: what it opens, credentials included: not for printing.
        name: the same for people.
        format: its format, or None for finding out.
        options: its options.
        paced: whether it can be read faster than it was recorded, so that the reader keeps the time.
        reopens: whether it can be opened again once it has ended.
    """

    url: str
    name: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    paced: bool = False
    reopens: bool = True


def is_live(address: str) -> bool:
    """Whether an address is a live source's: a camera's URL, a V4L2 device, or `-` for standard input.

    >>> [is_live(a) for a in ("rtsp://10.0.0.7/live", "/dev/video0", "-", "trip.mp4", "file://trip.mp4")]
    [True, True, True, False, False]
    """
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    return scheme in LIVE_SCHEMES or address == STDIN or address.startswith((_V4L2, "/dev/video"))


def live_input(address: str, options: LiveOptions) -> LiveInput:
    """What FFmpeg is to open.

    Raises:
        SourceError: not a live source's address.
    """
    if not is_live(address):
        raise SourceError(
            f"{strip_credentials(address)} is no live source; give an rtsp, http, rtmp, srt, udp or tcp address, a "
            "device such as /dev/video0, or - for standard input"
        )
    if address == STDIN:
        return LiveInput(STDIN, "standard input", options.format, {**_PROBE, **options.ffmpeg}, reopens=False)
    if address.startswith((_V4L2, "/dev/video")):
        device = address.removeprefix(_V4L2)
        return LiveInput(device, device, options.format or "v4l2", dict(options.ffmpeg))
    scheme, path = address.partition("://")[0].lower(), urlsplit(address).path
    own: dict[str, str] = {**_PROBE}
    # The interrupt of PyAV comes first and knows what it interrupts; this is for what FFmpeg does without asking it.
    microseconds = str(round((max(options.open_timeout, options.read_timeout) + 1) * 1e6))
    if scheme in {"rtsp", "rtsps"}:
        own |= {"rtsp_transport": options.transport, "timeout": microseconds}
        if options.transport == "udp":
            own |= {"max_delay": "100000", "buffer_size": "2097152"}
    else:
        own["rw_timeout"] = microseconds
    if scheme == "udp" and "fifo_size" not in address:
        own |= {"overrun_nonfatal": "1", "buffer_size": "2097152"}
    playlist = path.lower().endswith((".m3u8", ".m3u"))
    return LiveInput(address, strip_credentials(address), options.format, {**own, **options.ffmpeg}, paced=playlist)


_PROBE = {"fpsprobesize": "0", "analyzeduration": "3000000"}
"""FFmpeg reads ahead to guess a frame rate, and what it reads ahead gets old."""


def held_back(container: InputContainer, video: VideoStream) -> int:
    """Packets that FFmpeg holds back: RTP and MPEG-TS do not say where a coded picture ends, the next one's start does.

    Measured with pictures that carry the number under which they were sent (FFmpeg 8.1): H.264 by RTSP 1 frame,
    by MPEG-TS 2 (one for the PES packet, one for the parser), FLV none.
    """
    parsed = video.codec_context.name.partition("_")[0] in {"h264", "hevc", "mpeg4", "mpeg2video", "h263", "vvc"}
    return {"rtsp": 1, "sdp": 1, "rtp": 1, "mpegts": 2, "h264": 1, "hevc": 1}.get(container.format.name, 0) * parsed


def has_clock(container: InputContainer) -> bool:
    """Whether the timestamps come from the source and not from a rate that FFmpeg assumes."""
    return container.format.name not in _NO_CLOCK


class PipeReader:
    """Standard input for FFmpeg, whose own read of a pipe nothing could interrupt.

    Args:
        fd: the descriptor; stays open.
        timeout: seconds without a byte after which the pipe counts as silent.
        abandoned: asked a few times a second whether to give up.
    """

    name = "standard input"

    def __init__(self, fd: int, timeout: float, abandoned: Callable[[], bool]) -> None:
        self._fd, self._timeout, self._abandoned = fd, timeout, abandoned

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end."""
        waited = 0.0
        while not self._abandoned():
            if select.select([self._fd], [], [], _SLICE)[0]:
                return os.read(self._fd, size)
            waited += _SLICE
            if waited >= self._timeout:
                raise Fault("silent", f"nothing has come through the pipe for {self._timeout:g} s")
        return b""


_SLICE = 0.1


def open_input(
    given: LiveInput, options: LiveOptions, abandoned: Callable[[], bool], decoding: Decoding | None = None
) -> InputContainer:
    """Connect and find out what comes; `decoding` says which decoder, the CPU's unless given.

    Raises:
        Fault: it cannot be opened.
    """
    file: Any = given.url
    if given.url == STDIN:
        try:
            fd = sys.stdin.fileno()
        except (OSError, ValueError, AttributeError):
            raise Fault("not_found", "there is no standard input to read from") from None
        if stat.S_ISCHR(os.fstat(fd).st_mode) and os.isatty(fd):
            raise Fault("not_found", "standard input is a terminal; pipe footage into it, such as: cat trip.ts | …")
        file = PipeReader(fd, options.read_timeout, abandoned)
    elif given.format == "v4l2" and not Path(given.url).exists():
        raise Fault("not_found", f"there is no device {given.url}; plug the camera in, or look for it: ls /dev/video*")
    try:
        container = (decoding or Decoding("")).open(
            file, format=given.format, options=given.options,
            timeout=(options.open_timeout, options.read_timeout),
        )  # fmt: skip
    except Fault:
        raise
    except Exception as error:  # noqa: BLE001  # FFmpeg's, PyAV's and Python's own, all about the same address
        raise fault(error, given, options.open_timeout) from None
    return container


def picture_track(container: InputContainer, given: LiveInput) -> VideoStream:
    """The track of pictures.

    Raises:
        Fault: there is none, or none that can be decoded.
    """
    videos = list(container.streams.video)
    for video in videos:
        if video.codec_context is not None:
            return video
    kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
    if videos:
        raise Fault(
            "unsupported",
            f"{given.name} sends pictures that FFmpeg cannot decode; set the camera to H.264, H.265 or MJPEG",
        )
    raise Fault("unsupported", f"{given.name} sends no pictures (it sends {kinds}); choose a stream with video")


def fault(error: Exception, given: LiveInput, timeout: float) -> Fault:
    """What an error of FFmpeg's means, in one line without credentials.

    Args:
        error: what was raised while opening or reading.
        given: what was being read.
        timeout: seconds that it had.
    """
    if isinstance(error, Fault):
        return error
    if isinstance(error, av.error.ExitError | TimeoutError) or _number(error) == errno.ETIMEDOUT:
        return Fault("timeout", f"no answer from {given.name} within {timeout:g} s")
    if isinstance(error, ConnectionRefusedError):
        return Fault("refused", f"nobody listens at {given.name} (connection refused)")
    if isinstance(error, av.error.ProtocolNotFoundError):
        scheme = given.url.partition("://")[0].lower()
        way = ", such as: srt-live-transmit srt://… udp://127.0.0.1:5000" if scheme == "srt" else ""
        reason = f"{given.name} cannot be read: this FFmpeg is built without {scheme.upper()}; have it sent another way"
        return Fault("unsupported", reason + way)
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        known = urlsplit(given.url).username is not None
        how = "does not accept this user and password" if known else "wants a user and a password (user:password@)"
        return Fault("unauthorized", f"{given.name} {how}")
    if isinstance(error, av.error.HTTPServerError):
        return Fault("refused", f"{given.name}: the server answers with an error of its own (5xx); look at its log")
    if isinstance(error, av.error.HTTPNotFoundError):
        return Fault("not_found", f"{given.name} is not there: the server answers, but has no such stream")
    if isinstance(error, av.error.EOFError | ConnectionResetError | BrokenPipeError):
        return Fault("ended", f"{given.name} closed the connection")
    if isinstance(error, PermissionError):
        return Fault("unauthorized", f"{given.name} may not be read by this user; change its permissions")
    if _number(error) == errno.EBUSY:
        return Fault("refused", f"{given.name} is in use by another program")
    if _number(error) in _UNREACHABLE:
        return Fault("unreachable", f"{given.name} cannot be reached: {_words(error)}")
    if isinstance(error, av.error.InvalidDataError):
        return Fault("damaged", f"{given.name} sends nothing that FFmpeg can read as video")
    host = urlsplit(given.url).hostname if "://" in given.url else None
    if host is not None and _number(error) == errno.EIO and not _resolves(host):
        return Fault("unreachable", f"{given.name} cannot be reached: the name {host} is not known")
    return Fault("damaged", f"{given.name} cannot be read: {_words(error)}")


_UNREACHABLE = frozenset({
    errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN, errno.EADDRNOTAVAIL, errno.ENODEV,
    errno.ENXIO, errno.ECONNABORTED,
})  # fmt: skip


def _number(error: Exception) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _words(error: Exception) -> str:
    """What happened, on one line, without the address that PyAV appends."""
    told = error.strerror if isinstance(error, OSError | av.error.FFmpegError) else str(error)
    return strip_credentials(" ".join((told or type(error).__name__).split())).rstrip(".").lower()


def _resolves(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
