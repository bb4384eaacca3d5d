"""The page of trips: one HTML file that asks nobody for anything. Needs jinja2."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engines.errors import OutputError
from pipeline.archive.reading import Archive
from pipeline.archive.trip import drawing, track
from pipeline.archive.trip.choosing import Chosen
from pipeline.archive.trip.scenes import BEFORE, LONGEST, Scene, scenes_of
from pipeline.archive.trip.story import MET_LOOKS, Areas, Story, story_of
from pipeline.archive.trip.unknown import unknown_of
from pipeline.files import partial_name

MOST_EVENTS = 60
"""Events of a trip that are shown, the surest ones; a page of more is read by nobody."""

MOST_PICTURES = 40
"""Thumbnails of a camera of a trip that are shown, evenly spread."""

_TEMPLATES = Path(__file__).parent / "templates"

_KINDS = {
    "road", "sidewalk", "building", "wall", "fence", "vegetation", "terrain", "sky", "person", "rider", "car", "truck",
    "bus", "train", "motorcycle", "bicycle", "pole",
}  # fmt: skip
"""Classes that have a colour of their own in the style sheet."""

_SERIES = 6


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail: as a `data:` address, when it was taken in seconds of the trip, and by which camera."""

    source: str
    at: float
    camera: str


@dataclass(frozen=True, slots=True)
class Band:
    """A class of a picture of areas: its name, its mean share, and its style."""

    name: str
    mean: float
    kind: str


@dataclass(frozen=True, slots=True)
class Told:
    """A trip as the page shows it.

    Attributes:
        story: what the tables say.
        pictures: thumbnails in order of time, and how many there are that are not shown.
        met: each road user's drawing, in the story's order.
        areas: of each camera its name, its drawing, and its classes.
        scenes: the events that are shown.
        events_left_out: how many are not.
        unknown: sentences on what is not known.
        map: the drawing of the way; empty where nobody knows it.
        geojson: the same as a `data:` address; empty likewise.
        kilometres: of the way; None likewise.
        top_speed: kilometres an hour; None where no receiver told.
    """

    story: Story
    pictures: tuple[Picture, ...]
    pictures_left_out: int
    met: tuple[Markup, ...]
    areas: tuple[tuple[str, Markup, tuple[Band, ...]], ...]
    scenes: tuple[Scene, ...]
    events_left_out: int
    unknown: tuple[str, ...]
    map: Markup
    geojson: str
    kilometres: float | None
    top_speed: float | None

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """The kinds of events that there were and how many of each, the most frequent first."""
        return Counter(event.kind for event in self.story.events).most_common()


def tell(archive: Archive, chosen: Chosen, most_bytes: int) -> list[Told]:
    """What the page says of each trip.

    Args:
        archive: the archive.
        chosen: its trips.
        most_bytes: of all clips of events together.

    Raises:
        SourceError: a table is damaged.
    """
    told = []
    for trip in chosen.trips:
        story = story_of(archive, trip)
        surest = sorted(story.events, key=lambda event: -(event.confidence or 0.0))[:MOST_EVENTS]
        scenes = scenes_of(archive, sorted(surest, key=lambda event: event.at), most_bytes)
        most_bytes -= sum(len(scene.video) * 3 // 4 for scene in scenes)
        pictures, left_out = _pictures(archive, story)
        areas = tuple(_area(each) for each in story.areas)
        told.append(
            Told(
                story, pictures, left_out, tuple(drawing.seen(met) for met in story.met), areas, tuple(scenes),
                len(story.events) - len(scenes), tuple(unknown_of(archive, story)), *_way(story),
            )
        )  # fmt: skip
    return told


def _way(story: Story) -> tuple[Markup, str, float | None, float | None]:
    if not story.track:
        return Markup(""), "", None, None
    data = base64.b64encode(track.geojson(story)).decode()
    speed = track.top_speed(story)
    return (
        track.drawn(story), f"data:application/geo+json;base64,{data}", track.length(story) / 1000,
        None if speed is None else speed * 3.6,
    )  # fmt: skip


def _area(areas: Areas) -> tuple[str, Markup, tuple[Band, ...]]:
    shown = areas.names[: drawing.SHOWN_AREAS]
    bands = [
        Band(name, mean, _kind(name, place)) for place, (name, mean) in enumerate(zip(shown, areas.means, strict=False))
    ]
    bands.append(Band("other", sum(areas.means[len(shown) :]), "k-other"))
    return areas.camera, drawing.stacked(areas, [band.kind for band in bands]), tuple(bands)


def _kind(name: str, place: int) -> str:
    return f"k-{name}" if name in _KINDS else f"c{place % _SERIES}"


def _pictures(archive: Archive, story: Story) -> tuple[tuple[Picture, ...], int]:
    found: list[Picture] = []
    left_out = 0
    for camera in story.cameras:
        own = [
            (clip, name, int(name.rpartition("-")[2].removesuffix(".jpg")))
            for clip in story.clips if clip.camera == camera for name in clip.thumbnails
        ]  # fmt: skip
        chosen = [own[k * len(own) // MOST_PICTURES] for k in range(MOST_PICTURES)] if len(own) > MOST_PICTURES else own
        left_out += len(own) - len(chosen)
        for clip, name, frame in chosen:
            try:
                data = (archive.path / name).read_bytes()
            except OSError:
                left_out += 1
                continue
            source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
            found.append(Picture(source, clip.at + frame * clip.second, camera))
    return tuple(sorted(found, key=lambda picture: (picture.at, picture.camera))), left_out


def render(archive: Archive, told: Sequence[Told], now: datetime | None = None) -> str:
    """The page as text.

    Args:
        archive: the archive.
        told: what it says.
        now: what stands as its date, UTC.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(clock=clock, lasting=lasting, words=words, share=share)
    return environment.get_template("trip.html").render(
        title=_title(told), told=told, archive=archive, style=(_TEMPLATES / "style.css").read_text(),
        labels=list(archive.terms.things), before=BEFORE, longest=LONGEST,
        date=(now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        looks=MET_LOOKS, ticks=_ticks,
    )  # fmt: skip


def _title(told: Sequence[Told]) -> str:
    begin = told[0].story.begin
    if begin is None:
        return "Clips without a clock"
    return f"{datetime.fromtimestamp(begin, UTC):%-d %B %Y}"


def _ticks(story: Story) -> list[tuple[float, str]]:
    """Places on the timeline, in percent, and what time it is there."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    step = next((each for each in steps if story.seconds / each <= 6), steps[-1])
    begin = story.begin or 0.0
    first = -(-begin // step) * step - begin
    places = [first + k * step for k in range(int((story.seconds - first) // step) + 1)]
    fine = step < 60
    return [(100 * at / story.seconds, clock(story, at, seconds=fine)) for at in places if at <= story.seconds]


def clock(story: Story, at: float, *, seconds: bool = True) -> str:
    """What time it is, UTC, so many seconds into a trip; of clips without a clock, how far into them that is."""
    form = "%H:%M:%S" if seconds else "%H:%M"
    if story.begin is None:
        return f"{int(at) // 60}:{int(at) % 60:02d}"
    return datetime.fromtimestamp(story.begin + at, UTC).strftime(form)


def lasting(seconds: float) -> str:
    """A length of time in words.

    >>> lasting(0.4), lasting(42.4), lasting(192), lasting(7300)
    ('0.4 s', '42 s', '3 min 12 s', '2 h 1 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def words(name: str) -> str:
    """A name of code as people write it.

    >>> words("person_in_path")
    'person in path'
    """
    return name.replace("_", " ")


def share(value: float) -> str:
    """A share in percent.

    >>> share(0.312), share(0.004)
    ('31 %', '0.4 %')
    """
    return f"{value:.0%}".replace("%", " %") if value >= 0.01 else f"{value * 100:.1f} %"


def write(page: str, path: Path) -> None:
    """Write the page; it gets its name when it is whole.

    Raises:
        OutputError: it cannot be written.
    """
    partial = partial_name(path)
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}; name a place that can with -o") from None
