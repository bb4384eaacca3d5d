"""Where the car was in a clip: what its recording says, else a file beside it that has its name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av.error
from av.stream import Discard

from engines.containers import exact, open_container
from pipeline.archive.positions import blackvue, chips, gpmf, seventymai, texts
from pipeline.archive.positions.clock import CLOCKS_APART, beginning
from pipeline.archive.positions.fixes import GAP, Fix, Positions
from pipeline.archive.positions.sidecars import SUFFIXES, UnusableError, Unused, fixes_in
from pipeline.sources.trips.makers import recorded_at as named_at

_ZONES = (
    *range(-14, 15), *(sign * hours for sign in (1, -1) for hours in (2.5, 3.5, 4.5, 5.5, 6.5, 8.5, 9.5, 10.5, 11.5)),
    *(sign * hours for sign in (1, -1) for hours in (5.75, 8.75, 12.75, 13.75)),
)  # fmt: skip
"""Hours from UTC that clocks of the world are set to, both ways: who reads a clock may take its zone the wrong way."""

_DAMAGE = (av.error.FFmpegError, OSError, ValueError, struct.error)
"""What reading damaged boxes and tracks raises."""

GOPRO = "GoPro MET"
"""In the name of the track that has GoPro's telemetry."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """What is known of where the car was.

    Attributes:
        positions: on the clip's timeline, seconds since its first picture; None where nothing is known.
        began: when the clip began by the receiver's clock, Unix seconds; None where it does not say, or not surely.
        utc: whether that is surely UTC.
        unused: files of which something could not be used.
    """

    positions: Positions | None = None
    began: float | None = None
    utc: bool = True
    unused: tuple[Unused, ...] = ()


def whereabouts(clip: Path, recorded_at: float | None, seconds: float) -> Whereabouts:
    """Where the car was.

    Args:
        clip: a file of this machine.
        recorded_at: when it was recorded, Unix seconds by the camera's clock; None where nothing says.
        seconds: how long it is.
    """
    own = _of_recording(clip, recorded_at, seconds)
    if own.positions is not None:
        return own
    unused: list[Unused] = []
    for beside in _beside(clip):
        try:
            found = _of_sidecar(beside, clip, recorded_at, seconds)
        except UnusableError as error:
            unused.append(error.unused)
            continue
        if found is not None:
            return replace(found, unused=(*unused, *found.unused))
    return replace(own, unused=tuple(unused))


def _of_sidecar(path: Path, clip: Path, recorded_at: float | None, seconds: float) -> Whereabouts | None:
    """What a file beside a clip says; None for subtitles of something else.

    Raises:
        UnusableError: it is of no use.
    """
    fixes, dated = fixes_in(path)
    if not fixes:
        return None
    found = Positions(fixes, SUFFIXES[path.suffix.lower()])
    if not dated:
        return Whereabouts(found, unused=_jumped(found, path))
    placed = on_clip(found, recorded_at, seconds)
    began: float | None = None
    if placed is not None:
        began = found.fixes[0].at - placed.fixes[0].at
    elif _lies_beside(found, clip, seconds):
        began = found.fixes[0].at
        placed = found.shifted(-began)
    elif recorded_at is None:
        raise UnusableError(path, "has times of day, and nothing says when its clip was recorded")
    else:
        raise UnusableError(path, "is of another time than its clip, whatever zone its camera is set to")
    return Whereabouts(placed, began, unused=_jumped(placed, path))


def _lies_beside(track: Positions, clip: Path, seconds: float) -> bool:
    """Whether a track with a clip's name surely is its own, whatever their clocks say: the name says when it was made,
    so that no other clip had it, and they are as long as each other.
    """
    long = track.fixes[-1].at - track.fixes[0].at
    return named_at(clip.name) is not None and abs(long - seconds) <= GAP and len(track.fixes) >= seconds / GAP


def _jumped(positions: Positions, where: Path) -> tuple[Unused, ...]:
    if not positions.jumps:
        return ()
    reason = "jumps: places that no car gets to so fast are left out"
    return (Unused(str(where), reason, f"{positions.jumps} of them"),)


def _beside(clip: Path) -> Iterator[Path]:
    """Files that are called as the clip is."""
    try:
        others = sorted(clip.parent.iterdir())
    except OSError:
        return
    names = {clip.stem.casefold(), clip.name.casefold()}
    yield from (path for path in others if path.suffix.lower() in SUFFIXES and path.stem.casefold() in names)


def on_clip(positions: Positions, recorded_at: float | None, seconds: float) -> Positions | None:
    """Positions of times of day on a clip's timeline.

    A receiver's time is UTC, a camera's is often that of a zone that nobody told. Where the two do not overlap, the
    zone of the world is looked for by which the track begins when the clip does.

    Returns:
        None where they do not belong together.
    """
    if recorded_at is None or not positions.fixes:
        return None
    begin, end = positions.fixes[0].at - recorded_at, positions.fixes[-1].at - recorded_at
    if begin <= seconds and end >= 0:
        return positions.shifted(-recorded_at)
    zone = min((hours * 3600.0 for hours in _ZONES), key=lambda zone: abs(begin - zone))
    if abs(begin - zone) > CLOCKS_APART:
        return None
    return positions.shifted(-recorded_at - zone)


def _of_recording(clip: Path, recorded_at: float | None, seconds: float) -> Whereabouts:
    """What a recording says itself. Where something of that is damaged the rest of it stays: the clip was read."""
    tracks: list[_Track] = []
    with suppress(*_DAMAGE):
        tracks = _tracks(clip)
    readings: tuple[Callable[[], Whereabouts], ...] = (
        lambda: _by_gpmf(tracks),
        lambda: _by_blocks(chips.listed(clip), "novatek", recorded_at, seconds),
        lambda: _by_blackvue(clip),
        lambda: Whereabouts(Positions(seventymai.fixes_in(clip), "70mai")),
        lambda: _by_text(tracks),
        lambda: _by_blocks(chips.unlisted(clip), "freegps", recorded_at, seconds),
    )
    for read in readings:
        with suppress(*_DAMAGE):
            found = read()
            if found.positions is not None and found.positions.fixes:
                return replace(found, unused=_jumped(found.positions, clip))
    return Whereabouts()


def _by_gpmf(tracks: Sequence[_Track]) -> Whereabouts:
    samples = [sample for track in tracks if GOPRO in track.name for sample in track.samples]
    return Whereabouts(Positions(gpmf.fixes_of(samples), "gpmf"), beginning(gpmf.clock_of(samples)))


def _by_text(tracks: Sequence[_Track]) -> Whereabouts:
    for track in tracks:
        if GOPRO in track.name:
            continue
        fixes, clock = texts.read([(at, data) for at, _, data in track.samples])
        found = Positions(fixes, "text")
        if found.fixes:
            return Whereabouts(found, beginning(clock))
    return Whereabouts()


def _by_blackvue(clip: Path) -> Whereabouts:
    found = blackvue.sentences_of(clip)
    clock = [(at, each.at) for at, each in found if each.at is not None]
    return Whereabouts(Positions((each.fix(at) for at, each in found), "blackvue"), beginning(clock))


def _by_blocks(
    blocks: Iterable[tuple[int, Fix]], source: str, recorded_at: float | None, seconds: float
) -> Whereabouts:
    """What blocks `freeGPS` say, each with its second in the recording.

    What a receiver says may be some seconds old when it is written, so that the camera's clock is the better one to
    place it by; but where that is off by more than `GAP`, the places of the blocks are.
    """
    found = list(blocks)
    dated = Positions((fix for _, fix in found), source)
    began = beginning((float(place), fix.at) for place, fix in found if fix.possible)
    placed = on_clip(dated, recorded_at, seconds)
    if began is not None and dated.fixes:
        by_place = dated.shifted(-began)
        if placed is None or abs(placed.fixes[0].at - by_place.fixes[0].at) > GAP:
            placed = by_place
    return Whereabouts(placed, began, utc=False)


@dataclass(frozen=True, slots=True)
class _Track:
    """A track of a recording: its handler's name, and its samples: begin and length in seconds since the first picture,
    and bytes.
    """

    name: str
    samples: list[tuple[float, float, bytes]]


def _tracks(clip: Path) -> list[_Track]:
    """The tracks of data and subtitles. Nothing of the others is read: they are most of the file."""
    with open_container(clip) as container:
        wanted = [stream for stream in container.streams if stream.type in ("data", "subtitle")]
        if not wanted or not container.streams.video:
            return []
        for stream in container.streams:
            if stream not in wanted:
                stream.discard = Discard.all
        video = container.streams.video[0]
        first = (video.start_time or 0) * exact(video.time_base, Fraction(1))
        tracks = {each.index: _Track(each.metadata.get("handler_name", ""), []) for each in wanted}
        for packet in container.demux(wanted):
            if packet.size and packet.pts is not None:
                base = exact(packet.time_base, Fraction(1, 1000))
                begin, lasts = float(packet.pts * base - first), float((packet.duration or 0) * base)
                tracks[packet.stream.index].samples.append((begin, lasts, bytes(packet)))
    return list(tracks.values())
