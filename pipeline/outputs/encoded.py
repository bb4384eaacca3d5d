"""Compressed pictures on their way to live outputs, and the track that they are written to."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

TIME_BASE = Fraction(1, 90_000)
"""Seconds a unit of every time in `EncodedPicture`."""


@dataclass(frozen=True, slots=True)
class EncodedVideo:
    """What all pictures of an output have in common. Width and height in pixels; the codec is H.264."""

    width: int
    height: int
    rate: Fraction


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """One picture, compressed.

    Attributes:
        data: H.264 with start codes (Annex B); parameter sets stand before every key frame.
        pts: when it is shown, in `TIME_BASE` since the output began. There are no B-frames: it is also the decoding
            time.
        duration: how long, in `TIME_BASE`.
        key: whether decoding can begin here.
        at: when it reached this machine, by this machine's wall clock, Unix seconds.
        captured_at: when it was captured, by the camera's clock where it says, else by this machine's; Unix seconds.
    """

    data: bytes
    pts: int
    duration: int
    key: bool
    at: float
    captured_at: float


def add_video(container: OutputContainer, video: EncodedVideo) -> VideoStream:
    """A track for pictures that are encoded already; its parameter sets are taken from the first of them."""
    size = {"width": video.width, "height": video.height}
    return cast("VideoStream", container.add_mux_stream("h264", rate=video.rate, time_base=TIME_BASE, **size))


def as_packet(picture: EncodedPicture, stream: VideoStream, start: int = 0) -> Packet[Any]:
    """An encoded picture as a packet of a container's track, its times counted from `start`."""
    packet: Packet[Any] = Packet(picture.data)
    packet.pts = packet.dts = picture.pts - start
    packet.duration, packet.time_base, packet.is_keyframe = picture.duration, TIME_BASE, picture.key
    packet.stream = stream
    return packet
