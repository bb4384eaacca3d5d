"""The clips of events, cut out without encoding and put into the page; and a still of each."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import RoadlensError
from pipeline.archive.find.cutting import cut_moment
from pipeline.archive.find.originals import codec_of, original, picture_at
from pipeline.archive.reading import Archive, Moment
from pipeline.archive.trip.story import Happened
from pipeline.pictures.jpeg import encode_jpeg

BEFORE = AFTER = 3.0
"""Seconds that a scene has before its event and behind it."""

LONGEST = 20.0
"""Seconds of a scene, at most; of an event that lasts longer its beginning is shown."""

_STILL_WIDTH = 640

_EVERYWHERE = frozenset({"h264", "vp8", "vp9", "av1"})
"""Codecs that every browser of today plays; HEVC and MPEG-4 Part 2 some do."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An event as the page shows it.

    Attributes:
        event: the event.
        number: of it on the page, from 1.
        video: the cut clip as a `data:` address; empty where it is left out.
        still: a picture of the event likewise; empty where the clip cannot be read.
        begins: seconds in the clip at which the cut was asked to begin.
        left_out: why there is no clip, or what is to be known of it; empty for nothing.
    """

    event: Happened
    number: int
    video: str
    still: str
    begins: float
    left_out: str


def scenes_of(archive: Archive, events: Sequence[Happened], most_bytes: int) -> list[Scene]:
    """Scenes of events, in their order; the clips of those that are surest go in first, until the page is full.

    Args:
        archive: of the events.
        events: in order of time.
        most_bytes: of all clips together.
    """
    shown: dict[int, Scene] = {}
    left = most_bytes
    by_confidence = sorted(range(len(events)), key=lambda i: (-(events[i].confidence or 0.0), i))
    with tempfile.TemporaryDirectory(prefix="roadlens-trip-") as folder:
        for place in by_confidence:
            scene, taken = _scene(archive, events[place], place + 1, Path(folder), left)
            shown[place], left = scene, left - taken
    return [shown[place] for place in range(len(events))]


def _scene(archive: Archive, event: Happened, number: int, folder: Path, left: int) -> tuple[Scene, int]:
    end = min(event.end, max(event.start - BEFORE, 0.0) + LONGEST - AFTER)
    moment = Moment(event.clip.clip, event.clip.camera, event.clip.path, None, None, event.start, end, ())
    begins = max(event.start - BEFORE, 0.0)
    if archive.terms.options.get("anonymize"):
        said = "the archive was made with --anonymize, and a cut shows what it hides"
        return Scene(event, number, "", "", begins, said), 0
    try:
        with original(archive, event.clip.clip) as clip:
            still = _as_data("image/jpeg", encode_jpeg(picture_at(clip, event.peak), 78, _STILL_WIDTH)[0])
    except RoadlensError as error:
        return Scene(event, number, "", "", begins, str(error)), 0
    try:
        path = cut_moment(archive, moment, folder, event.kind, BEFORE, AFTER)
        data, codec = path.read_bytes(), codec_of(path)
        path.unlink()
    except RoadlensError as error:
        return Scene(event, number, "", still, begins, str(error)), 0
    if len(data) > left:
        said = f"this page has no room left for its clip ({len(data) / 1e6:.1f} MB)"
        return Scene(event, number, "", still, begins, said), 0
    said = "" if codec in _EVERYWHERE else f"its codec is {codec}, which not every browser plays"
    return Scene(event, number, _as_data("video/mp4", data), still, begins, said), len(data)


def _as_data(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
