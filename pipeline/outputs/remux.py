"""A camera's packets into an MP4: pictures as they are, sound as far as MP4 takes it, else as AAC."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from engines.containers import lasting, local
from pipeline.files import partial_name
from pipeline.outputs.sound import TRIED_PACKETS, SoundTrack
from pipeline.packets import CompressedPacket, Track

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Remuxed:
    """What became of the packets: those given = pictures + sound + left out.

    Attributes:
        pictures: packets that were copied.
        sound: packets that were copied or made AAC.
        left_out: packets that were not, by reason: `reshaped` came before the pictures changed for the last time,
            `unheld` is sound that MP4 does not hold and that cannot be decoded, `changed` is sound of another kind than
            most, `damaged` is sound that does not decode or overlaps other.
    """

    pictures: int = 0
    sound: int = 0
    left_out: Counter[str] = field(default_factory=Counter)


def write_packets(
    path: Path,
    packets: Sequence[CompressedPacket],
    metadata: dict[str, str] | None = None,
    name: str = "",
    warn: Callable[[str], None] = log.warning,
) -> Remuxed:
    """Write packets as MP4; the file gets its name when it is whole.

    A camera that came back with other pictures (codec or size) does not fit into one file: the clip then begins with
    those that came last, which are those of the event. Of sound that changed the kind of which there is most is kept.

    Args:
        path: `.mp4`.
        packets: in the order of decoding, from a key frame of the video on, on one timeline.
        metadata: tags of the file.
        name: of the stream, for what is said; the path's when left out.
        warn: told in a sentence what becomes of sound that is not copied.

    Raises:
        FFmpegError, OSError: the disk is full, or cannot be written.
        ValueError: the packets make no video, or one that MP4 does not hold.
    """
    chosen = _of_one_shape(packets)
    result = Remuxed(left_out=Counter({"reshaped": len(packets) - len(chosen)}))
    start = min(p.pts * p.track.time_base for p in chosen)
    partial = partial_name(path)
    with av.open(local(partial), "w", format="mp4", options={"movflags": "faststart"}) as container:
        container.metadata.update(metadata or {})
        pictures = [p for p in chosen if p.track.kind == "video"]
        copying = _Pictures(container, pictures, start)
        hearing = _hearing(container, chosen, start, name or str(path), warn)
        container.start_encoding()
        for packet in chosen:
            if packet.track.kind == "video":
                container.mux([copying.next(packet)])
                result.pictures += 1
                continue
            sound = hearing.get(packet.track.index)
            if sound is None:
                result.left_out["unheld"] += 1
                continue
            if _shape(packet.track) != sound.shape:
                result.left_out["changed"] += 1
                continue
            before = sound.track.left_out
            container.mux(sound.track.packets(sound.placed(packet)))
            lost = sound.track.left_out > before
            result.left_out["damaged"] += lost
            result.sound += not lost
        for sound in hearing.values():
            container.mux(sound.track.rest())
    partial.replace(path)
    result.left_out = +result.left_out
    return result


class _Pictures:
    """The track of pictures of a clip."""

    def __init__(self, container: OutputContainer, packets: Sequence[CompressedPacket], start: Fraction) -> None:
        track = packets[0].track
        if track.codec not in container.supported_codecs:
            raise ValueError(f"an MP4 holds no {track.codec} pictures; set the camera to H.264 or H.265")
        self._stream: Any = container.add_stream_from_template(track.template, opaque=True)
        self._unit, self._shift = track.time_base, round(start / track.time_base)
        self._decoded_at = iter(decoding_times(packets))

    def next(self, packet: CompressedPacket) -> Packet[Any]:
        """The next of the packets, to be written."""
        dts = next(self._decoded_at)
        copied: Packet[Any] = Packet(packet.data)
        copied.pts, copied.dts = max(packet.pts, dts) - self._shift, dts - self._shift
        copied.duration, copied.time_base = packet.duration, self._unit
        copied.is_keyframe, copied.stream = packet.is_keyframe, self._stream
        return copied


@dataclass(frozen=True, slots=True)
class _Sound:
    """A track of sound of a clip, and what its packets have in common."""

    track: SoundTrack
    shape: tuple[object, ...]
    template: AudioStream
    start: Fraction

    def placed(self, packet: CompressedPacket) -> Packet[Any]:
        return _of_sound(packet, self.template, self.start)


def _hearing(
    container: OutputContainer,
    packets: Sequence[CompressedPacket],
    start: Fraction,
    name: str,
    warn: Callable[[str], None],
) -> dict[int, _Sound]:
    """The tracks of sound that the clip has, by their number in the camera's stream."""
    found: dict[int, _Sound] = {}
    heard = [p for p in packets if p.track.kind == "audio"]
    for index in sorted({p.track.index for p in heard}):
        own = [p for p in heard if p.track.index == index]
        (shape, _count), *_ = Counter(_shape(p.track) for p in own).most_common(1)
        own = [p for p in own if _shape(p.track) == shape]
        template = lasting(
            cast("AudioStream", own[0].track.template)
        )  # decodes what is made AAC: a decoder of the clip's own
        first = [_of_sound(packet, template, start) for packet in own[:TRIED_PACKETS]]
        track = SoundTrack.added(container, template, first, name, warn)
        if track is not None:
            found[index] = _Sound(track, shape, template, start)
    return found


def _of_sound(packet: CompressedPacket, template: AudioStream, start: Fraction) -> Packet[Any]:
    made: Packet[Any] = Packet(packet.data)
    shift = round(start / packet.track.time_base)
    made.pts = packet.pts - shift
    made.dts = made.pts  # sound is not reordered
    made.duration, made.time_base, made.stream = packet.duration, packet.track.time_base, template
    return made


def _shape(track: Track) -> tuple[object, ...]:
    """What packets that stand in one track of a file have in common; a reconnect makes new tracks of the same shape."""
    extradata = bytes(track.template.codec_context.extradata or b"")
    sound = track.template.codec_context.sample_rate if isinstance(track.template, AudioStream) else 0
    return track.kind, track.codec, track.width, track.height, sound, track.time_base, extradata


def _of_one_shape(packets: Sequence[CompressedPacket]) -> list[CompressedPacket]:
    """The packets from the first key frame on behind which the video does not change its shape.

    Raises:
        ValueError: there is no such key frame.
    """
    shapes: dict[int, tuple[object, ...]] = {}
    last: tuple[object, ...] | None = None
    first = len(packets)
    for index in range(len(packets) - 1, -1, -1):
        packet = packets[index]
        if packet.track.kind != "video":
            continue
        shape = shapes.setdefault(id(packet.track), _shape(packet.track))
        last = last or shape
        if shape != last:
            break
        if packet.is_keyframe:
            first = index
    if first == len(packets):
        raise ValueError("no key frame has come from the camera")
    return list(packets[first:])


def decoding_times(packets: Sequence[CompressedPacket]) -> list[int]:
    """When each packet of a track is decoded, in units of its time base: rising, and never later than it is shown.

    The source's own where it says so. Else (RTP gives none) the presentation times in rising order, set back by as many
    pictures as are reordered.
    """
    given = [p.dts for p in packets]
    known = [d for d in given if d is not None]
    if len(known) == len(given) and all(a < b for a, b in pairwise(known)):
        return known
    shown = [p.pts for p in packets]
    rising = sorted(shown)
    depth = 0
    while any(rising[i - depth] > shown[i] for i in range(depth, len(shown))):
        depth += 1
    step = max(1, (rising[-1] - rising[0]) // max(1, len(rising) - 1))
    times = [rising[0] - (depth - i) * step for i in range(depth)] + rising[: len(rising) - depth]
    for i in range(1, len(times)):
        times[i] = max(times[i], times[i - 1] + 1)
    return times
