"""From an address to the source that reads it, and to a stream's name."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from engines.errors import SourceError, UsageError
from pipeline.addresses import strip_credentials, taken_apart
from pipeline.contracts import Source
from pipeline.sources.clips import ClipSource, open_clip
from pipeline.sources.decoding import Decoding
from pipeline.sources.live.address import STDIN, LiveOptions, is_live, is_pipe
from pipeline.sources.live.camera import Camera
from pipeline.sources.reading import AddressedSource, Reading, Wanted
from pipeline.sources.realtime import RealtimeSource
from pipeline.sources.stills import ImageSource
from pipeline.sources.streamed.pipe import PipeSource
from pipeline.sources.streamed.web import WebSource
from pipeline.sources.synthetic import SCHEME, SyntheticSource
from pipeline.sources.trips.folder import ANY, IMAGE_SUFFIXES, VIDEO_SUFFIXES, Trip, find_trip
from pipeline.sources.trips.tracks import picture_tracks, tracks_beside
from pipeline.state import StateChange

SCHEMES: dict[str, AddressedSource] = {
    "synthetic:": SyntheticSource,
    "v4l2:": Camera,
    "rtsp://": Camera,
    "rtsps://": Camera,
    "http://": WebSource,
    "https://": WebSource,
    "rtmp://": Camera,
    "rtmps://": Camera,
    "srt://": Camera,
    "udp://": Camera,
    "rtp://": Camera,
    "tcp://": Camera,
}
"""The class that reads an address, by how the address begins. A further source is a class with `from_address` in a
module of its own, and an entry here. What begins otherwise is a device, standard input or files."""


class Part(NamedTuple):
    """What one stream reads of an address: the clips of a camera, a track of theirs; None where there is no choice."""

    camera: str | None = None
    track: int | None = None

    @property
    def name(self) -> str:
        """Of it in a stream's id."""
        track = "" if self.track is None else f"track{self.track}"
        return "-".join(word for word in (self.camera, track) if word and word != ANY)


def resolve_source(
    address: str,
    stream_id: str,
    decode_threads: int = 1,
    rate: Fraction = Fraction(25),
    *,
    live: LiveOptions | None = None,
    realtime: bool = False,
    observe: Callable[[StateChange], None] = lambda _change: None,
    decoding: Decoding | None = None,
    mode: Wanted = "auto",
    camera: str | None = None,
    track: int | None = None,
) -> Source:
    """The source that an address stands for, not yet open.

    A file is a stream; a folder is one too, a trip when it holds clips of one camera and a picture a frame when it
    holds pictures; so is a glob (`'trip/*.mp4'`), quoted so that the shell leaves it alone. A camera's address and a
    V4L2 device are live sources; see `pipeline.sources.live.address.is_live`. What is behind HTTP shows itself when it
    is opened: its `mode` is `live` until then. A pipe (`-`, a FIFO) is a recording, unless `mode` says otherwise.

    Args:
        address: what to read.
        stream_id: id of the stream.
        decode_threads: threads of the decoder.
        rate: frames a second of a folder of pictures.
        live: how a live source is read.
        realtime: play what is no live source as if it were one.
        observe: told the changes of state of a live source, from its threads; must not wait.
        decoding: which decoder; the CPU's unless given.
        mode: what it is to be read as.
        camera: whose clips of a folder are read; `any` for all as one trip.
        track: which track of pictures of a clip, from 1; the first one that is no preview unless given.

    Raises:
        SourceError: nothing there, a folder with neither clips nor pictures, or with clips of several cameras of which
            none is named or that cannot be told apart; or it cannot be read in this mode.
        UsageError: a `synthetic:` address with a wrong key.
    """
    reading = Reading(decode_threads, rate, live, observe, decoding, mode, realtime, camera, track)
    source = _source(address, stream_id, reading)
    if not realtime or source.mode == "live":
        return source
    return (
        RealtimeSource(source, observe=observe) if live is None else RealtimeSource(source, live.latency_bound, observe)
    )


def _source(address: str, stream_id: str, reading: Reading) -> Source:
    kind = _scheme(address)
    if kind is None and is_pipe(address):
        kind = None if _is_redirected_file(address) else PipeSource
        address = address if kind is not None else "/dev/stdin"
    elif kind is None and is_live(address):
        kind = Camera
    if reading.mode != "auto":
        kind = _as_told(address, kind, reading.mode)
    return _of_files(address, stream_id, reading) if kind is None else kind.from_address(stream_id, address, reading)


def _as_told(address: str, kind: AddressedSource | None, mode: Wanted) -> AddressedSource | None:
    """What reads an address in the mode that it was told to be read in.

    Raises:
        SourceError: it cannot be.
    """
    shown = strip_credentials(address)
    if mode == "live" and kind in (WebSource, PipeSource, Camera):
        return Camera
    if mode == "live":
        raise SourceError(f"{shown} is no live source; --realtime (realtime: true) plays it as if it were a camera's")
    if kind is Camera and not address.lower().startswith("tcp://"):
        raise SourceError(
            f"{shown} is a live source, of which not every frame can be had; record it first: "
            "ffmpeg -i ADDRESS -c copy drive.mkv"
        )
    return WebSource if kind is Camera else kind


def _is_redirected_file(address: str) -> bool:
    """Whether standard input is a file, as in `roadlens run - < drive.mp4`."""
    try:
        return address == STDIN and stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


class Found(NamedTuple):
    """What an address stands for: the streams of it, sentences that say what was found and what is left out, and all
    footage that is there, read or not.
    """

    parts: list[Part]
    said: list[str]
    footage: list[Path]


def look_at(address: str, camera: str | None, track: int | None) -> Found:
    """The streams that an address stands for: one for each camera of a folder of clips, and for each track of pictures
    of theirs, unless one is named.

    Raises:
        SourceError: as `resolve_source`, for files.
        UsageError: a camera or a track of what has none is named.
    """
    trip = (
        Trip(address) if _scheme(address) is not None or is_live(address) or is_pipe(address) else find(address, camera)
    )
    said = trip.said(camera)
    if not trip.cameras:
        if camera is not None or track is not None:
            raise UsageError(
                f"{strip_credentials(address)} has neither clips of several cameras nor tracks to choose from; leave "
                f"out `{'camera' if camera is not None else 'track'}`"
            )
        return Found([Part()], said, trip.footage)
    parts: list[Part] = []
    for name in [camera] if camera is not None or len(trip.cameras) == 1 else trip.cameras:
        numbers, sentence = _tracks_of(trip.clips(name), track)
        parts += [Part(name, number) for number in numbers]
        said += [sentence] if sentence else []
    return Found(parts, said, trip.footage)


def _tracks_of(clips: Sequence[Path], named: int | None) -> tuple[list[int | None], str]:
    """The tracks of pictures that are read of the clips of a camera, by the first one that can be opened; None where
    that is the only one. And a sentence that says so where there are more.
    """
    for path in filter(Path.is_file, clips):  # a pipe is read once
        try:
            container, video = open_clip(path, track=named)
        except SourceError:
            continue
        with container:
            tracks = picture_tracks(container, path)
            if named is not None:
                return [named], tracks_beside(tracks, path, video)
        recordings = [track for track in tracks if not track.fault]
        if len(recordings) < 2:
            return [None], ""  # the source says what it leaves out
        told = ", ".join(f"{track.number} ({track.what})" for track in recordings)
        faults = "".join(f"; {track.number} is left out: {track.fault}" for track in tracks if track.fault)
        sentence = f"{path.name} has the video tracks {told}; each is a stream of its own, --track names one{faults}"
        return [track.number for track in recordings], sentence
    return [named], ""


def _scheme(address: str) -> AddressedSource | None:
    scheme, slashes, rest = address.partition("://")
    spelt = f"{scheme.lower()}://{rest}" if slashes else address
    return next((source for start, source in SCHEMES.items() if spelt.startswith(start)), None)


def find(address: str, camera: str | None = None) -> Trip:
    """`find_trip` of an address that is to be that of files.

    Raises:
        SourceError: it is not, or there is nothing that can be read.
    """
    if "://" in address:
        scheme = address.split("://", 1)[0]
        raise SourceError(
            f"{scheme}:// is not read; give an rtsp, http, rtmp, srt, udp or tcp address, a device (/dev/video0), "
            f"- for standard input, a video file, a folder, a glob or {SCHEME}"
        )
    return find_trip(address, camera)


def _of_files(address: str, stream_id: str, reading: Reading) -> ClipSource | ImageSource:
    """The source of the files that an address stands for: clips or pictures, not both."""
    trip = find(address, reading.camera)
    source: ClipSource | ImageSource
    if trip.pictures:
        source = ImageSource(stream_id, trip.pictures, reading.rate)
    else:
        clips = trip.clips(reading.camera)
        source = ClipSource(stream_id, clips, reading.decode_threads, decoding=reading.decoding, track=reading.track)
    source.counts.own_outputs += [p.name for p in trip.own]
    source.counts.left_out.update({kind: len(files) for kind, files in trip.left_out.items()})
    return source


def stream_name(address: str, part: str = "") -> str:
    """A stream id made of an address: the file's or folder's name, without what does not go into names, and the name of
    the part of it that is read.

    >>> stream_name("trips/Front cam.mp4"), stream_name("clips/*.mp4"), stream_name("synthetic:?seed=3")
    ('Front-cam', 'clips', 'synthetic')
    >>> stream_name("rtsp://admin:secret@10.0.0.7:554/live/ch1?key=x"), stream_name("/dev/video0"), stream_name("-")
    ('10.0.0.7-live-ch1', 'video0', 'stdin')
    >>> stream_name("trips/2023-01-01", "left_repeater")
    '2023-01-01-left_repeater'
    """
    if part:
        return f"{stream_name(address)[: 63 - len(part)]}-{part}"
    if address.startswith(SCHEME):
        return SCHEME.rstrip(":")
    if address == "-":
        return "stdin"
    if "://" in address:
        # The host tells cameras apart, the path often does not; of credentials nothing may stay.
        try:
            url = taken_apart(strip_credentials(address))
        except SourceError:  # opening it says so
            return "stream"
        address = f"{url.hostname or ''}{url.path}".replace("/", "-")
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", address).strip("-.")[:64] or url.scheme
    path = Path(address.removeprefix("v4l2:"))
    while set("*?[") & set(path.name) and not path.exists():
        path = path.parent
    name = path.resolve().name if path.name in ("", ".", "..") else path.name
    stem = Path(name).stem if Path(name).suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES else name
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.")[:64] or "stream"
