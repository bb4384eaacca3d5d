"""Moments cut out of their clips without encoding: from a key frame on, with sound and the time of recording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.container import InputContainer
from av.packet import Packet

from engines.containers import exact, in_words, open_container, why_unread
from engines.errors import OutputError, SourceError
from pipeline.archive.find.originals import original
from pipeline.archive.reading import Archive, Moment
from pipeline.outputs.naming import times_of, utc
from pipeline.outputs.remux import write_packets
from pipeline.packets import CompressedPacket, Track
from pipeline.sources.clips import open_clip

_INDEXED = frozenset({"mov", "mp4", "matroska", "webm"})
"""Containers that say where their key frames are."""


def cut(clip: Path, start: float, end: float, path: Path, at: float | None, why: str) -> None:
    """Cut a stretch out of a clip. It begins with the key frame at or before `start`.

    Args:
        clip: the recording.
        start, end: seconds since its first picture.
        path: of the MP4 that is written.
        at: when the clip was recorded, Unix seconds; None where that is not known.
        why: what stands in the file as its comment.

    Raises:
        SourceError: the clip cannot be read, or holds nothing there.
        OutputError: an MP4 cannot hold it, or cannot be written.
    """
    try:
        packets, began = _packets(clip, start, end)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{clip} cannot be read: {why_unread(error)}") from None
    if not packets:
        raise SourceError(f"{clip} holds no pictures from {start:.1f} s to {end:.1f} s that can be cut out")
    tags = {"comment": why, **({} if at is None else times_of(at + began, at + began))}
    try:
        write_packets(path, packets, tags)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be written: {in_words(error)}") from None


def cut_moment(archive: Archive, moment: Moment, folder: Path, why: str, before: float, after: float) -> Path:
    """Cut a moment of an archive out of its clip, with some seconds before and behind it where the clip has them.

    Returns:
        The MP4's path; one that is there already stays.

    Raises:
        GoneError: the clip is not there any more, or another one is in its place.
        SourceError: it cannot be read.
        OutputError: an MP4 cannot hold it, or cannot be written.
    """
    start, end = max(moment.start - before, 0.0), moment.end + after
    at = None if moment.time is None else moment.time.timestamp() - moment.start
    path = folder / cut_name(moment.camera, moment.clip, at, moment.start)
    if path.exists():
        return path
    with original(archive, moment.clip) as clip:
        cut(clip, start, end, path, at, why)
    return path


def cut_name(camera: str, clip: str, at: float | None, start: float) -> str:
    """The name of the file of a moment that begins `start` seconds into a clip recorded at `at`.

    >>> cut_name("front", "0a1b", 1795241590.0, 0.25), cut_name("rear", "0a1b", None, 61.5)
    ('front_20261121T061310.250Z.mp4', 'rear_0a1b_61.500.mp4')
    """
    if at is None:
        return f"{camera}_{clip}_{start:.3f}.mp4"
    return f"{camera}_{re.sub('[-:]', '', utc(at + start))}.mp4"


def _packets(clip: Path, start: float, end: float) -> tuple[list[CompressedPacket], float]:
    """The packets of a stretch, and the seconds at which its first picture is shown."""
    container, video = open_clip(clip)
    with container:
        begins = float((video.start_time or 0) * exact(video.time_base, Fraction(1)))
        names = set(container.format.name.split(","))
        if start > 0 and names & _INDEXED:
            container.seek(int((start + begins) / exact(video.time_base, Fraction(1))), stream=video)
        found = list(_wanted(container, video, start + begins, end + begins))
        if found and _shown(found[0]) > start + begins and start > 0 and names & _INDEXED:
            with open_container(clip) as whole:  # its index is wrong
                return _copied(list(_wanted(whole, whole.streams[video.index], start + begins, end + begins)), begins)
        return _copied(found, begins)


def _shown(packet: Packet[Any]) -> float:
    stamp = packet.dts if packet.pts is None else packet.pts
    return float((stamp or 0) * exact(packet.time_base, Fraction(1)))


def _wanted(container: InputContainer, video: Any, start: float, end: float) -> Iterator[Packet[Any]]:
    """Packets from the last key frame at or before `start`, or the first there is, to `end`."""
    sound = [stream for stream in container.streams.audio if stream.codec_context is not None]
    held: list[Packet[Any]] = []
    over, furthest = False, float("-inf")
    for packet in container.demux(video, *sound):
        if not packet.size or (packet.pts is None and packet.dts is None):
            continue
        if packet.stream is video and packet.is_keyframe and (_shown(packet) <= start or not _pictured(held, video)):
            held = [other for other in held if other.stream is not video and _shown(other) >= _shown(packet)]
        if packet.stream is video:
            decoded = float((packet.pts if packet.dts is None else packet.dts) * exact(packet.time_base, Fraction(1)))
            # A picture that is shown later brings those before it that refer to it.
            over = over or (decoded > end and _shown(packet) >= furthest)
            furthest = max(furthest, _shown(packet))
            if over and decoded > end + 1:  # sound of the end may stand a little behind
                break
        if not over or (packet.stream is not video and _shown(packet) <= end):
            held.append(packet)
    first = next((packet for packet in held if packet.stream is video and packet.is_keyframe), None)
    if first is None:
        return
    for packet in held:
        # Pictures behind a key frame that are shown before it refer to what was before.
        if _shown(packet) >= _shown(first):
            yield packet


def _pictured(packets: list[Packet[Any]], video: Any) -> bool:
    return any(packet.stream is video and packet.is_keyframe for packet in packets)


def _copied(packets: list[Packet[Any]], begins: float) -> tuple[list[CompressedPacket], float]:
    tracks: dict[int, Track] = {}
    copied = []
    for packet in packets:
        stream: Any = packet.stream
        track = tracks.get(stream.index)
        if track is None:
            track = tracks[stream.index] = Track.of(stream)
        stamp = packet.dts if packet.pts is None else packet.pts
        copied.append(
            CompressedPacket(
                track, bytes(packet), stamp or 0, packet.dts, packet.duration or 0, packet.is_keyframe, 0.0, 0.0
            )
        )
    first = next((packet for packet in packets if packet.stream.type == "video"), None)
    return (copied, _shown(first) - begins) if first is not None else ([], 0.0)
