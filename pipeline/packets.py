"""Compressed packets of a live source, for whoever wants to keep them as they came: no decoder, no second encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from engines.containers import exact, lasting


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """What the packets of one track of one connection are. A reconnect makes new tracks, even where nothing changed.

    Attributes:
        kind: pictures or sound.
        codec: FFmpeg's name of it, such as `h264` or `aac`.
        width, height: of the pictures as announced, in pixels; 0 for sound.
        time_base: seconds a unit of its packets' times.
        template: for `container.add_stream_from_template(track.template, opaque=True)`; independent of the connection,
            good for as long as it is held.
        index: number of the track in its connection, from 0.
    """

    kind: Literal["video", "audio"]
    codec: str
    width: int
    height: int
    time_base: Fraction
    template: VideoStream | AudioStream
    index: int = 0

    @classmethod
    def of(cls, stream: VideoStream | AudioStream) -> Track:
        """The track of an open input; it outlives it."""
        codec, time_base = stream.codec_context.codec.canonical_name, exact(stream.time_base, Fraction(1, 90_000))
        if isinstance(stream, VideoStream):
            size = stream.codec_context.width, stream.codec_context.height
            return cls("video", codec, *size, time_base, lasting(stream), stream.index)
        return cls("audio", codec, 0, 0, time_base, lasting(stream), stream.index)


@dataclass(frozen=True, slots=True, eq=False)
class CompressedPacket:
    """One packet as the camera sent it, its times on the stream's continuous timeline: that of `Frame.pts`.

    The first packet of a new connection or timeline piece is a key frame of the video track. To write it: make an
    `av.Packet(data)`, set `pts`, `dts`, `duration`, `time_base` and `is_keyframe`, then its `stream`.

    Attributes:
        track: what it belongs to; compare with `is`.
        data: the coded bytes.
        pts, dts: in units of `track.time_base`; dts is None where the source gives none (RTP).
        duration: in the same units, 0 where the source does not say.
        is_keyframe: whether decoding can begin here.
        arrived_at: monotonic clock, seconds, at which it reached this machine.
        captured_at: wall clock, Unix seconds: the camera's where it says, else that of the arrival.
    """

    track: Track
    data: bytes
    pts: int
    dts: int | None
    duration: int
    is_keyframe: bool
    arrived_at: float
    captured_at: float


PacketTap = Callable[[CompressedPacket], None]
"""Called in the reading thread with every packet before it is decoded: it must not wait."""
