"""Cameras as FFmpeg opens them: what an address means, and with which options."""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import av.error
import msgspec
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.containers import why_unread
from engines.errors import SourceError
from pipeline.addresses import strip_credentials, taken_apart, unescaped
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.connection import Reconnect
from pipeline.sources.live.faults import Fault, fault
from pipeline.sources.live.inquiry import Moved, in_a_circle, inquire

Timeout = Annotated[float, msgspec.Meta(ge=0.1, le=3600)]

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "udp", "rtp", "tcp"})
STDIN = "-"
V4L2 = "v4l2:"
SDP = ".sdp"

NETWORK_PROTOCOLS = (
    "http,https,httpproxy,tls,tcp,udp,rtp,srtp,srt,rtmp,rtmps,rtmpt,rtmpts,rtmpe,rtmpte,ffrtmphttp,ffrtmpcrypt,"
    "crypto,data"
)
"""What FFmpeg may open for an address in the network: a playlist, a description or a redirect from there must not name
a file of this machine."""

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


@dataclass(frozen=True, slots=True)
class LiveInput:
    """How FFmpeg opens an address.

    Attributes:
        url: what it opens, credentials included: not for printing.
        name: the same for people.
        format: its format, or None for finding out.
        options: its options.
        playlist: whether it is opened as a playlist.
        reopens: whether it can be opened again once it has ended.
        device: whether it is a device of this machine.
    """

    url: str
    name: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    playlist: bool = False
    reopens: bool = True
    device: bool = False


def is_live(address: str) -> bool:
    """Whether an address is a live source's: a camera's URL, a V4L2 device, the description of an RTP session (.sdp),
    or `-` for standard input.

    >>> [is_live(a) for a in ("rtsp://10.0.0.7/live", "/dev/video0", "cam.sdp", "-", "trip.mp4", "file://trip.mp4")]
    [True, True, True, True, False, False]
    """
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    return scheme in LIVE_SCHEMES or address == STDIN or address.startswith((V4L2, "/dev/video")) or _is_sdp(address)


def _is_sdp(address: str) -> bool:
    return "://" not in address and address.lower().endswith(SDP)


def is_pipe(address: str) -> bool:
    """Whether an address is a pipe's: `-`, or the path of one, such as a shell gives for `<(…)`."""
    if address == STDIN:
        return True
    try:
        return "://" not in address and Path(address).expanduser().is_fifo()
    except (OSError, ValueError, RuntimeError):
        return False


def may_be_live(address: str, mode: str) -> bool:
    """Whether a stream that is read in this mode may turn out to be a camera's."""
    if mode == "auto":
        return is_live(address) and not is_pipe(address)
    return mode == "live" and (is_live(address) or is_pipe(address))


def may_be_recorded(address: str, mode: str) -> bool:
    """Whether a stream that is read in this mode may turn out to be a recording."""
    shows = may_be_either(address) and not address.lower().startswith("tcp://")
    return mode == "file" or (mode == "auto" and (shows or not is_live(address)))


def may_be_either(address: str) -> bool:
    """Whether an address may be a camera's or a recording's, so that it can be said which."""
    return is_pipe(address) or address.partition("://")[0].lower() in {"http", "https", "tcp"}


def live_input(address: str, options: LiveOptions) -> LiveInput:
    """What FFmpeg is to open.

    Raises:
        SourceError: not a live source's address.
    """
    if is_pipe(address):
        name = "standard input" if address == STDIN else address
        return LiveInput(address, name, options.format, {**_PROBE, **options.ffmpeg}, reopens=False)
    if not is_live(address):
        raise SourceError(
            f"{strip_credentials(address)} is no live source; give an rtsp, http, rtmp, srt, udp or tcp address, a "
            "device such as /dev/video0, a .sdp file, or - for standard input"
        )
    if address.startswith((V4L2, "/dev/video")):
        device = address.removeprefix(V4L2)
        return LiveInput(device, device, options.format or "v4l2", dict(options.ffmpeg), device=True)
    if _is_sdp(address):
        own = {**_PROBE, "protocol_whitelist": f"file,{NETWORK_PROTOCOLS}"}
        return LiveInput(address, address, "sdp", {**own, **options.ffmpeg})
    if signs := unescaped(address):
        written = " and ".join(f"{sign} as %{ord(sign):02X}" for sign in signs)
        raise SourceError(f"{strip_credentials(address)}: in a user or password write {written}")
    scheme, path = address.partition("://")[0].lower(), taken_apart(address).path
    own = {**_PROBE, "protocol_whitelist": NETWORK_PROTOCOLS}
    # The interrupt of PyAV comes first and knows what it interrupts; this is for what FFmpeg does without asking it.
    microseconds = str(round((max(options.open_timeout, options.read_timeout) + 1) * 1e6))
    if scheme in {"rtsp", "rtsps"}:
        own |= {"rtsp_transport": options.transport, "timeout": microseconds}
        if options.transport == "udp":
            own |= {"max_delay": "100000", "buffer_size": "2097152"}
    else:
        own["rw_timeout"] = microseconds
    if scheme in {"http", "https"}:
        # Where a server gives parts of a file, one whose connection broke goes on. FFmpeg 8.1 cannot seek any more in
        # one that it has read to its end, unless it keeps its connections.
        own |= {"reconnect": "1", "reconnect_delay_max": "10", "multiple_requests": "1"}
    if scheme == "udp" and "fifo_size" not in address:
        own |= {"overrun_nonfatal": "1", "buffer_size": "2097152"}
    if scheme.startswith("rtmp") or path.lower().endswith(".flv"):
        own["analyzeduration"] = "1000000"  # all of which it takes where there is no sound
    given = LiveInput(address, strip_credentials(address), options.format, {**own, **options.ffmpeg})
    return as_playlist(given) if path.lower().endswith((".m3u8", ".m3u")) else given


def as_playlist(given: LiveInput) -> LiveInput:
    """The same, opened with what a playlist wants: FFmpeg is to try a segment again, and to say soon that none is
    added, for which it would look a thousand times.
    """
    return replace(given, playlist=True, options={"seg_max_retry": "2", "m3u8_hold_counters": "6", **given.options})


PLAYLIST_SECONDS = 60.0
"""Seconds that the next segment of a playlist may take; FFmpeg gives up after six looks, three or four segments' time.
"""


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
    """A pipe for FFmpeg, whose own read of one nothing could interrupt.

    Args:
        address: `-` for standard input, or a path.
        timeout: seconds without a byte after which the pipe counts as silent.
        abandoned: asked a few times a second whether to give up.
    """

    def __init__(self, address: str, timeout: float, abandoned: Callable[[], bool]) -> None:
        self.name = address
        self._pipe, self._timeout, self._abandoned = _opened(address), timeout, abandoned

    def read(self, size: int) -> bytes:
        """At most `size` bytes, as soon as there are any; none at the end."""
        waited = 0.0
        while not self._abandoned():
            if select.select([self._pipe], [], [], _SLICE)[0]:
                data = self._pipe.read(size)
                if data is not None:  # None is of a pipe that somebody else was quicker to read
                    return data
            waited += _SLICE
            if waited >= self._timeout:
                raise Fault("silent", f"nothing has come through the pipe for {self._timeout:g} s")
        return b""

    def close(self) -> None:
        """Let go of it."""
        self._pipe.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # one that could not be opened
            self.close()


_SLICE = 0.1


def open_input(
    given: LiveInput,
    options: LiveOptions,
    abandoned: Callable[[], bool],
    decoding: Decoding | None = None,
    patient: bool = False,
) -> InputContainer:
    """Connect and find out what comes; `decoding` says which decoder, the CPU's unless given. Who is `patient` waits
    for what comes through a pipe for as long as it takes.

    Raises:
        Fault: it cannot be opened.
    """
    file: Any = given.url
    read_timeout = max(options.read_timeout, PLAYLIST_SECONDS) if given.playlist else options.read_timeout
    if not given.reopens:
        file = PipeReader(given.url, float("inf") if patient else read_timeout, abandoned)
    elif given.device and (missing := _no_device(given.url)):
        raise Fault("not_found", missing)
    elif given.format == "sdp" and not Path(given.url).exists():
        raise Fault("not_found", f"there is no file {given.url}; give the description that the sender has written")
    until = time.monotonic() + options.open_timeout
    decoding = decoding or Decoding("")
    asked = [given.url]
    while True:
        left = max(until - time.monotonic(), _LEAST_SECONDS)
        try:
            timeout = None if patient else (left, read_timeout)
            return decoding.open(file, format=given.format, options=given.options, timeout=timeout)
        except Fault:
            raise
        except Exception as error:  # noqa: BLE001  # FFmpeg's, PyAV's and Python's own, all about the same address
            if (time.monotonic() >= until and not patient) or abandoned():
                # What was interrupted fails in all sorts of ways; see `rtsp_read_header`.
                raise fault(TimeoutError(), given.url, given.name, options.open_timeout) from None
            answer = _odd_names(error, given, decoding, until) or inquire(
                error, given.url, given.name, options.transport, until
            )
            if not isinstance(answer, Moved):
                raise answer or fault(error, given.url, given.name, options.open_timeout) from None
            if answer.url in asked or len(asked) > _MOST_MOVES:
                raise in_a_circle(given.name) from None
            asked.append(answer.url)
            file, given = answer.url, replace(given, url=answer.url, name=strip_credentials(answer.url))


def _no_device(path: str) -> str:
    """Why a path is no camera's: a sentence, empty where it may be one."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return f"there is no device {path}; plug the camera in, or look for it: ls /dev/video*"
    return "" if stat.S_ISCHR(mode) else f"{path} is no device; give a file without {V4L2}"


_LEAST_SECONDS = 0.1
_MOST_MOVES = 5

_ANY_NAME = {"extension_picky": "0", "allowed_segment_extensions": "ALL"}
"""Not by default: a playlist could have a page of somebody's network shown as video, by FFmpeg's formats for text."""


def _odd_names(error: Exception, given: LiveInput, decoding: Decoding, until: float) -> Fault | None:
    """Whether FFmpeg leaves segments of HLS alone for their names only: then it reads them when it may."""
    scheme = given.url.partition("://")[0].lower()
    if not isinstance(error, av.error.InvalidDataError) or scheme not in {"http", "https"}:
        return None
    left = max(until - time.monotonic(), _LEAST_SECONDS)
    try:
        with decoding.open(given.url, format="hls", options={**given.options, **_ANY_NAME}, timeout=(left, left)):
            wanted = ", ".join(f"{key}: {value}" for key, value in _ANY_NAME.items())
            return Fault(
                "unsupported",
                f"{given.name} names its segments as FFmpeg expects of no video; if the server is to be trusted, set "
                f"live: {{ffmpeg: {{{wanted}}}}}",
            )
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError):
        return None


def _opened(address: str) -> io.FileIO:
    """A pipe, open.

    Raises:
        Fault: it cannot be read.
    """
    if address != STDIN:
        try:
            # Opening a FIFO to which nobody writes yet would wait for that; select knows how to.
            return io.FileIO(os.open(Path(address).expanduser(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            raise Fault("not_found", f"{address} cannot be read: {why_unread(error)}") from None
    try:
        fd = sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):
        raise Fault("not_found", "there is no standard input to read from") from None
    if os.isatty(fd):
        raise Fault("not_found", "standard input is a terminal; pipe footage into it, such as: cat trip.ts | …")
    return io.FileIO(fd, closefd=False)


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
