"""Which tracks of pictures of a file are recordings: neither covers, nor previews, nor what nobody can decode."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from engines.containers import open_container, recorded_streams
from engines.errors import SourceError

_PACKETS = 600
"""Packets of a file that are read to tell its tracks apart."""

_FEW = 20
"""A track with fewer pictures than one in so many of another's holds thumbnails."""

_SMALL = 8
"""How many times smaller than the recording a preview of the same codec is, in pixels; of another codec twice."""

_ALIKE = 0.9
"""Correlation of two pictures, 32 × 18 grey, that show the same."""


@dataclass(frozen=True, slots=True)
class PictureTrack:
    """A track of pictures of a file.

    Attributes:
        number: its number among the file's tracks of pictures, from 1, covers not counted.
        index: of its stream in the container.
        what: codec and size, for people.
        fault: why it is not read unless it is named; empty for a recording.
    """

    number: int
    index: int
    what: str
    fault: str = ""


def picture_tracks(container: InputContainer, path: Path) -> list[PictureTrack]:
    """The tracks of pictures of an open file. Where there are several, the file is opened once more, and the first
    picture of each is decoded.
    """
    streams = recorded_streams(container)
    faults = ("",) if len(streams) < 2 else _remembered(path, tuple(stream.index for stream in streams))
    return [
        PictureTrack(number, stream.index, _described(stream), fault)
        for number, (stream, fault) in enumerate(zip(streams, faults, strict=False), 1)
    ]


def chosen_track(container: InputContainer, path: Path, number: int | None) -> VideoStream:
    """The track of pictures that is to be read of an open file: the one of that number, or the first recording.

    Raises:
        SourceError: there is none, or none of that number; the message starts with the path.
    """
    tracks = picture_tracks(container, path)
    if not tracks:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise SourceError(f"{path} has no video track (it holds {kinds}); give a file with pictures")
    if number is None:
        found = next((track for track in tracks if not track.fault), tracks[0])
    elif number <= len(tracks):
        found = tracks[number - 1]
    else:
        there = ", ".join(f"{track.number} ({track.what})" for track in tracks)
        raise SourceError(f"{path} has no video track {number}; it has {there}")
    if not _is_known(stream := cast("VideoStream", container.streams[found.index])):
        raise SourceError(f"{path}: its pictures are of a codec that FFmpeg does not know; convert it first")
    return stream


def tracks_beside(tracks: Sequence[PictureTrack], path: Path, video: VideoStream) -> str:
    """What is not read beside a track of pictures, as a sentence; empty where there is nothing."""
    own = next(track.number for track in tracks if track.index == video.index)
    others = [
        f"track {track.number} ({track.what}) is left out{f', {track.fault}' if track.fault else ''}"
        for track in tracks
        if track.number != own
    ]
    return f"of {path.name} track {own} is read; {'; '.join(others)}" if others else ""


def _described(stream: VideoStream) -> str:
    if not _is_known(stream):
        return "of a codec that FFmpeg does not know"
    return f"{stream.codec_context.name} {stream.width}×{stream.height}"


def _is_known(stream: VideoStream) -> bool:
    return cast("object | None", stream.codec_context) is not None


def _remembered(path: Path, indices: tuple[int, ...]) -> tuple[str, ...]:
    """What speaks against each of several tracks; a file is looked at once."""
    status = path.stat()
    return _faults(path, indices, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _faults(path: Path, indices: tuple[int, ...], _size: int, _changed: int) -> tuple[str, ...]:
    try:
        with open_container(path) as container:
            streams = [cast("VideoStream", container.streams[index]) for index in indices]
            looks = _looked_at(container, streams)
    except (av.error.FFmpegError, OSError, ValueError):
        return ("",) * len(indices)  # reading it will say what is wrong
    return tuple(_fault(look, looks) for look in looks)


@dataclass(slots=True)
class _Look:
    """What is found of a track: its codec, its first picture, and how many pictures it holds. Where the container does
    not say that of every track: how many packets were read, and of those how many when each track had a picture.
    """

    codec: str
    image: av.VideoFrame | None = None
    held: tuple[int, ...] = (0,)


def _looked_at(container: InputContainer, streams: Sequence[VideoStream]) -> list[_Look]:
    known = {stream.index: stream for stream in streams if _is_known(stream)}
    looks = {index: _Look(stream.codec_context.name) for index, stream in known.items()}
    seen, after = dict.fromkeys(known, 0), dict.fromkeys(known, 0)
    packets = container.demux(*known.values())
    for _ in range(_PACKETS):
        try:
            packet = next(packets, None)
            if packet is None or max(after.values(), default=0) >= 2 * _FEW:
                break
            if not packet.size:  # PyAV's for flushing, of whatever track
                continue
            look = looks[packet.stream_index]
            seen[packet.stream_index] += 1
            if all(each.image is not None for each in looks.values()):
                after[packet.stream_index] += 1
            elif look.image is None:
                look.image = next(iter(cast("list[av.VideoFrame]", packet.decode())), None)
        except (av.error.FFmpegError, IndexError):
            continue
    announced = all(stream.frames for stream in known.values())
    for index, stream in known.items():
        looks[index].held = (stream.frames,) if announced else (seen[index], after[index])
        if looks[index].image is None:
            with suppress(av.error.FFmpegError):  # what a decoder holds back of a track that is shorter than that
                looks[index].image = next(iter(stream.decode(None)), None)
    return [looks.get(stream.index, _Look("")) for stream in streams]


def _fault(look: _Look, looks: Sequence[_Look]) -> str:
    image = look.image
    if image is None:
        return "nothing of it can be decoded"
    most = [max(counts) for counts in zip(*(each.held for each in looks if each.codec), strict=True)]
    if all(held < 2 <= longest or held * _FEW < longest for held, longest in zip(look.held, most, strict=True)):
        return "it holds thumbnails"
    for other in looks:
        times = _SMALL if other.codec == look.codec else 2
        larger = other.image if other.image is not None and _pixels(other.image) >= times * _pixels(image) else None
        if larger is not None and _alike(image, larger):
            return "it is a small copy of another track"
    return ""


def _pixels(image: av.VideoFrame) -> int:
    return image.width * image.height


def _alike(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    """Whether two pictures show the same."""
    first, second = (image.reformat(32, 18, "gray").to_ndarray().astype(np.float64).ravel() for image in (one, other))
    if min(first.std(), second.std()) < 1:  # black, as the first picture of many a recording
        return bool(abs(first.mean() - second.mean()) < 16)
    return bool(np.corrcoef(first, second)[0, 1] > _ALIKE)
