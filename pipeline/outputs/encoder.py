"""Which encoder there is, found by opening it, and the encoder of live outputs: no look-ahead, no B-frames.

A machine's list of encoders says nothing: FFmpeg lists NVENC on every machine, H100 and A100 have none, and a consumer
card opens only so many at a time. So each is opened, in order, and the first that opens is used. A machine without one
is not asked for it again for every stream: that takes a CUDA context each time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal, cast

import av
import av.error
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from engines.containers import in_words
from engines.errors import OutputError
from engines.loading import Degraded

log = logging.getLogger(__name__)

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]

NVENC = "h264_nvenc"

_HARDWARE = frozenset({NVENC, "h264_qsv"})

ABSENT_SECONDS = 600.0
"""How long an encoder that opens for nothing counts as absent. Not for ever: a consumer card at its limit may have one
free again."""


class Absences:
    """Which encoders in hardware this machine was found to be without.

    Args:
        monotonic: clock in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._until: dict[str, float] = {}
        self._looking = threading.Lock()

    def __contains__(self, name: str) -> bool:
        return self._monotonic() < self._until.get(name, 0.0)

    def look(self, name: str) -> None:
        """It did not open for somebody's pictures: see whether it does for plain ones, or is absent."""
        if name not in _HARDWARE:
            return
        with self._looking:  # of streams that begin together one finds out
            if name in self or _opens(name):
                return
            self._until[name] = self._monotonic() + ABSENT_SECONDS
        log.debug("encoder %s opens for nothing; it counts as absent for %g s", name, ABSENT_SECONDS)


def _opens(name: str) -> bool:
    """Whether an encoder opens for plain pictures, which each can encode."""
    try:
        context = created(name)
        context.width, context.height, context.pix_fmt = 640, 360, "nv12"
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.open()
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    return True


_absent = Absences()


def open_first(
    names: Sequence[str], configure: Callable[[VideoCodecContext, str], None], what: str
) -> tuple[str, VideoCodecContext]:
    """The first of the encoders that opens, and the open context.

    Args:
        names: FFmpeg's names, in order of preference.
        configure: sets a context up, given its encoder's name.
        what: what is to be encoded, for the error's sentence.

    Raises:
        OutputError: none of them opens.
    """
    reason = ""
    for name in names:
        if name in _absent and name != names[-1]:  # the last one is tried, and says why it does not open
            continue
        try:
            context = created(name)
            configure(context, name)
            context.open()
        except (av.error.FFmpegError, ValueError, OSError) as error:
            reason = in_words(error).split(";", maxsplit=1)[0]
            log.debug("encoder %s does not open: %s", name, error)
            _absent.look(name)
            continue
        if name != names[0]:
            log.debug("encoder %s is used", name)
        return name, context
    raise OutputError(f"no encoder opens for {what} (tried {', '.join(names)}: {reason})")


def created(name: str) -> VideoCodecContext:
    """A context of an encoder, not yet open."""
    return cast("VideoCodecContext", av.CodecContext.create(name, "w"))


def opened_on_device(
    configure: Callable[[VideoCodecContext, str], None], picture: av.VideoFrame
) -> tuple[VideoCodecContext, list[Packet[VideoStream]]] | None:
    """NVENC reading pictures where they lie in GPU memory, found out by encoding one; None where it does not.

    PyAV opens it with the first picture, which brings the memory that the others come from.

    Args:
        configure: sets a context up, given its encoder's name.
        picture: a frame of one's own, in GPU memory.

    Returns:
        The open context, and what it made of the picture.
    """
    context = created(NVENC)
    configure(context, NVENC)
    context.pix_fmt = "cuda"
    try:
        return context, list(context.encode(picture))
    except (av.error.FFmpegError, ValueError, OSError) as error:
        log.debug("%s does not take pictures in GPU memory: %s", NVENC, error)
        return None


def no_device_encoding(stream: str) -> Degraded:
    """What is said where NVENC opens, and not for pictures in GPU memory."""
    sentence = f"{stream}: NVENC does not take this stream's pictures from GPU memory; each is downloaded for it."
    return Degraded(stream, "nvenc from gpu memory", "download", "nvenc", sentence)
