"""What the tables of an archive say of a trip: clips on one timeline, who was seen when, what happened, and where."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.archive.columns import column
from pipeline.archive.reading import Archive

COLUMNS = 240
"""Stretches of time, at most, into which a timeline is divided."""

MET_LOOKS = 2
"""Looks in which a track is seen before it counts as a road user that was met: what is seen in one only is often a box
that the next frame does not have."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip on the timeline of its trip.

    Attributes:
        clip, camera, path: as the archive knows it.
        recorded_at: when it begins, Unix seconds; None where nothing says.
        recorded_from: what says so.
        at: seconds from the beginning of the trip; of clips without a clock, of the footage before it.
        seconds: its length.
        frames: pictures that were read.
        thumbnails: places of pictures in the archive, in order of time.
        decode_errors, missing: as the table has them.
    """

    clip: str
    camera: str
    path: str
    recorded_at: float | None
    recorded_from: str | None
    at: float
    seconds: float
    frames: int
    thumbnails: tuple[str, ...]
    decode_errors: int
    missing: int

    @property
    def second(self) -> float:
        """Seconds from a picture to the next one, on the mean."""
        return self.seconds / max(self.frames, 1)


@dataclass(frozen=True, slots=True)
class Happened:
    """An event on the timeline of its trip.

    Attributes:
        clip: of which it is.
        kind, text, confidence, tracks: as the table has them.
        at: seconds from the beginning of the trip.
        start, end, peak: seconds in the clip.
        figures: what it stands on.
    """

    clip: Clip
    kind: str
    text: str
    confidence: float | None
    tracks: tuple[int, ...]
    at: float
    start: float
    end: float
    peak: float
    figures: dict[str, Any]

    @property
    def recorded_at(self) -> float | None:
        """When it began, Unix seconds; None where that is not known."""
        return None if self.clip.recorded_at is None else self.clip.recorded_at + self.start


@dataclass(frozen=True, slots=True)
class Met:
    """Road users of a label, by track.

    Attributes:
        label: what they are.
        tracks: how many were followed over two looks or more.
        glimpsed: tracks that were seen in one look only.
        longest: seconds for which the longest followed of them was in the picture.
        most: boxes in one picture, at most.
        first: seconds from the beginning of the trip to the first that was met; None where none was.
        seen: the most in one picture of each stretch of time; None where nobody looked.
    """

    label: str
    tracks: int
    glimpsed: int
    longest: float
    most: int
    first: float | None
    seen: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Areas:
    """Shares of the picture over time.

    Attributes:
        camera: whose picture.
        names: classes, the largest first.
        means: mean share of each, 0 to 1.
        shares: for each stretch of time the share of each class; None where nobody looked.
    """

    camera: str
    names: tuple[str, ...]
    means: tuple[float, ...]
    shares: tuple[tuple[float, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the car was: seconds from the beginning of the trip, degrees (WGS 84), metres a second or None."""

    at: float
    latitude: float
    longitude: float
    speed: float | None


@dataclass(frozen=True, slots=True)
class Story:
    """A trip.

    Attributes:
        name: of the trip; None for clips without a clock.
        begin: Unix seconds; None where that is not known.
        seconds: from its beginning to its end; without a clock, of its footage.
        step: seconds of a stretch of time.
        stretches: how many there are.
        clips: in order of time.
        met: road users, those of which there are most first.
        areas: of each camera.
        events: in order of time.
        looks: pictures that a model looked at.
        track: where the car was when somebody looked, in pieces without a gap, in order of time.
        positions_from: what says so.
    """

    name: str | None
    begin: float | None
    seconds: float
    step: float
    stretches: int
    clips: tuple[Clip, ...]
    met: tuple[Met, ...]
    areas: tuple[Areas, ...]
    events: tuple[Happened, ...]
    looks: int
    track: tuple[tuple[Place, ...], ...]
    positions_from: tuple[str, ...]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(sorted({clip.camera for clip in self.clips}))

    def footage(self, camera: str | None = None) -> float:
        """Seconds of footage of a camera, or of all."""
        return sum(clip.seconds for clip in self.clips if camera in (None, clip.camera))


_CLIPS = """
SELECT clip, camera, path, epoch(recorded_at), recorded_from, seconds, frames, thumbnails, decode_errors, missing
FROM clips WHERE trip IS NOT DISTINCT FROM ? ORDER BY recorded_at, camera, path
"""

_SEEN = """
SELECT least(CAST(floor((p.begun + f.seconds) / ?) AS INTEGER), ?) AS stretch, count(*), {most}
FROM frames f JOIN placed p ON f.clip = p.clip GROUP BY stretch
"""

_AREAS = """
SELECT f.camera, least(CAST(floor((p.begun + f.seconds) / ?) AS INTEGER), ?) AS stretch, count(*), {means}
FROM frames f JOIN placed p ON f.clip = p.clip GROUP BY f.camera, stretch
"""

_TRACKS = """
SELECT label, count(*) FILTER (looks >= ?), count(*) FILTER (looks < ?), max(until - since),
  min(CASE WHEN looks >= ? THEN met END)
FROM (
  SELECT mode(o.label) AS label, count(*) AS looks, min(o.seconds) AS since, max(o.seconds) AS until,
    min(p.begun + o.seconds) AS met
  FROM objects o JOIN placed p ON o.clip = p.clip WHERE o.track IS NOT NULL GROUP BY o.clip, o.origin, o.track
) GROUP BY label
"""

_EVENTS = """
SELECT e.clip, e.kind, e.text, e.confidence, e.tracks, p.begun + e.start, e.start, e."end", e.peak, e.figures
FROM events e JOIN placed p ON e.clip = p.clip ORDER BY 6, e.kind
"""

_PLACES = """
SELECT round(p.begun + f.seconds, 1) AS at, min_by(f.latitude, f.camera), min_by(f.longitude, f.camera),
  min_by(f.speed, f.camera)
FROM frames f JOIN placed p ON f.clip = p.clip WHERE f.latitude IS NOT NULL GROUP BY 1 ORDER BY 1
"""
"""Of several cameras at once, that of the first name."""

_SOURCES = """
SELECT DISTINCT c.positions_from FROM clips c JOIN placed p ON c.clip = p.clip
WHERE c.positions_from IS NOT NULL ORDER BY 1
"""

_LEAST_SECONDS = 0.04
"""Of a timeline: one of a clip of a single picture without a length is as long as that."""

_TRACK_GAP = 10.0
"""Seconds without a place behind which the track is begun anew."""


def story_of(archive: Archive, trip: str | None) -> Story:
    """What an archive says of a trip; None stands for the clips whose time is not known.

    Raises:
        SourceError: a table is damaged.
    """
    clips = tuple(_on_one_line(archive.rows(_CLIPS, (trip,))))
    archive.rows("CREATE OR REPLACE TEMP TABLE placed (clip VARCHAR, begun DOUBLE)")
    archive.rows(
        "INSERT INTO placed SELECT unnest(CAST(? AS VARCHAR[])), unnest(CAST(? AS DOUBLE[]))",
        ([clip.clip for clip in clips], [clip.at for clip in clips]),
    )
    seconds = max(_LEAST_SECONDS, *(clip.at + clip.seconds for clip in clips))
    step = max(seconds / COLUMNS, _step_of(archive))
    count = max(1, math.ceil(round(seconds / step, 6)))
    looks, met = _met(archive, step, count)
    return Story(
        trip, clips[0].recorded_at, seconds, step, count, clips, met, _areas(archive, step, count),
        _events(archive, clips), looks, tuple(_track(archive)), tuple(_sources(archive)),
    )  # fmt: skip


def _on_one_line(rows: Sequence[tuple[Any, ...]]) -> Iterator[Clip]:
    begin, after = rows[0][3], 0.0
    for clip, camera, path, at, recorded_from, seconds, frames, thumbnails, decode_errors, missing in rows:
        place = after if at is None else at - begin
        after += seconds
        pictures = tuple(thumbnails or ())
        yield Clip(clip, camera, path, at, recorded_from, place, seconds, frames, pictures, decode_errors, missing)


def _step_of(archive: Archive) -> float:
    """Seconds between three looks: in every stretch of that length somebody looked, however uneven the times are."""
    ((rate,),) = archive.rows("SELECT min(c.rate) FROM clips c JOIN placed p ON c.clip = p.clip WHERE c.rate > 0")
    return float(2 * min(model.every for model in archive.terms.models) / (rate or 25.0))


def _met(archive: Archive, step: float, count: int) -> tuple[int, tuple[Met, ...]]:
    labels = archive.terms.things
    most = ", ".join(f"max(f.count_{column(label)})" for label in labels) or "0"
    rows = archive.rows(_SEEN.format(most=most), (step, count - 1))
    seen = {stretch: values for stretch, _, *values in rows}
    tracks = {label: figures for label, *figures in archive.rows(_TRACKS, (MET_LOOKS,) * 3)}
    met = []
    for index, label in enumerate(labels):
        row = tuple(seen[stretch][index] if stretch in seen else None for stretch in range(count))
        most_at_once = max((each for each in row if each is not None), default=0)
        followed, glimpsed, longest, first = tracks.get(label, (0, 0, 0.0, None))
        if most_at_once:
            met.append(Met(label, followed, glimpsed, longest or 0.0, most_at_once, first, row))
    met.sort(key=lambda each: (-each.tracks, -each.most, each.label))
    return sum(looks for _, looks, *_ in rows), tuple(met)


def _areas(archive: Archive, step: float, count: int) -> tuple[Areas, ...]:
    names = archive.terms.areas
    if not names:
        return ()
    means = ", ".join(f"avg(f.area_{column(name)})" for name in names)
    by_camera: dict[str, dict[int, list[float]]] = defaultdict(dict)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(names))
    looks: Counter[str] = Counter()
    for camera, stretch, looked, *shares in archive.rows(_AREAS.format(means=means), (step, count - 1)):
        by_camera[camera][stretch] = shares
        sums[camera] = [total + looked * share for total, share in zip(sums[camera], shares, strict=True)]
        looks[camera] += looked
    found = []
    for camera in sorted(by_camera):
        order = sorted((i for i, total in enumerate(sums[camera]) if total > 0), key=lambda i: -sums[camera][i])
        stretches = by_camera[camera]
        over_time = tuple(
            tuple(stretches[stretch][i] for i in order) if stretch in stretches else None for stretch in range(count)
        )
        mean = tuple(sums[camera][i] / looks[camera] for i in order)
        found.append(Areas(camera, tuple(names[i] for i in order), mean, over_time))
    return tuple(found)


def _events(archive: Archive, clips: Sequence[Clip]) -> tuple[Happened, ...]:
    by_id = {clip.clip: clip for clip in clips}
    return tuple(
        Happened(
            by_id[clip], kind, text or "", confidence, tuple(tracks or ()), at, start, end,
            start if peak is None else peak, msgspec.json.decode(figures) if figures else {},
        )
        for clip, kind, text, confidence, tracks, at, start, end, peak, figures in archive.rows(_EVENTS)
    )  # fmt: skip


def _track(archive: Archive) -> Iterator[tuple[Place, ...]]:
    piece: list[Place] = []
    for row in archive.rows(_PLACES):
        place = Place(*row)
        if piece and place.at - piece[-1].at > _TRACK_GAP:
            yield tuple(piece)
            piece = []
        piece.append(place)
    if piece:
        yield tuple(piece)


def _sources(archive: Archive) -> Iterator[str]:
    return (source for (source,) in archive.rows(_SOURCES))
