"""How long a clip is, where that can be believed."""

from __future__ import annotations

from fractions import Fraction

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.containers import exact

_BY_THEIR_CLOCK = frozenset({"mpegts", "mpeg"})
"""Containers that say no duration: FFmpeg takes the last time for it less the first, whatever the clock did between."""

_FAR = 8
"""How many times longer or shorter than its size makes likely a clip is not believed to be."""


def announced_frames(container: InputContainer, video: VideoStream) -> int:
    """How many frames a clip says that it holds; 0 where it does not say. The head of an AVI counts repetitions, too,
    for which it holds nothing: its index does not.
    """
    return len(video.index_entries) if container.format.name == "avi" else video.frames


def seconds(container: InputContainer, video: VideoStream, rate: Fraction, frame_bytes: float) -> Fraction | None:
    """How long a clip is; None where it does not say, or what it says cannot be.

    Args:
        container: the clip.
        video: its pictures.
        rate: nominal frames a second.
        frame_bytes: how many bytes of the file a frame takes, about; 0 if that is not known.
    """
    if video.duration:
        length = video.duration * exact(video.time_base, Fraction(1))
    elif container.duration:
        length = Fraction(container.duration, av.time_base)
    else:
        return None
    if container.format.name in _BY_THEIR_CLOCK and frame_bytes:
        likely = (container.size or 0) / frame_bytes / rate
        if not likely / _FAR < length < likely * _FAR:
            return None
    return length


def expected_frames(
    container: InputContainer, video: VideoStream, rate: Fraction, frame_bytes: float = 0
) -> int | None:
    """How many frames a clip announces, or that its length makes likely; None where neither is known."""
    if announced := announced_frames(container, video):
        return announced
    length = seconds(container, video, rate, frame_bytes)
    return None if length is None else round(length * rate)
