"""What is kept of the analyses of a clip: rows, events and thumbnails, gathered by a sink."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipeline.archive.rows import EventRow, FrameRow, ObjectRow
from pipeline.frame import Analysis
from pipeline.pictures.jpeg import encode_jpeg

THUMBNAIL_SECONDS = 30.0
"""One thumbnail for so many seconds of a clip."""

THUMBNAIL_WIDTH = 320
_QUALITY = 75


class Collector:
    """A sink of one clip.

    Args:
        clocked: whether anything says when the clip was recorded.

    Attributes:
        frames, objects: of the frames that a model looked at.
        thumbnails: JPEGs by number of their frame.
        seconds: from the first frame to the end of the last one.
        read: frames that came.
        novelty: how unlike what a model was trained on frames are, by the model's name.
    """

    def __init__(self, clocked: bool = True) -> None:
        self.frames: list[FrameRow] = []
        self.objects: list[ObjectRow] = []
        self.thumbnails: dict[int, bytes] = {}
        self.seconds, self.read = 0.0, 0
        self.novelty: dict[str, list[float]] = {}
        self._clocked = clocked
        self._first: float | None = None
        self._told = _Told()
        self._pictured = float("-inf")

    @property
    def events(self) -> list[EventRow]:
        """What happened, in order of time."""
        return self._told.events()

    def consume(self, analysis: Analysis) -> None:
        """Take the rows of an analysis."""
        frame = analysis.frame
        self._first = frame.time if self._first is None else self._first
        seconds = frame.time - self._first
        self.seconds = max(self.seconds, seconds + float(frame.duration * frame.time_base))
        self.read += 1
        if analysis.notes:
            self._told.tell(analysis.notes, seconds, self._first)
        else:
            self._told.pass_over()
        if not analysis.models:
            return
        for model, novelty in analysis.novelty.items():
            self.novelty.setdefault(model, []).append(novelty)
        area = {name: round(float(share), 4) for name, share in analysis.area.items()}
        count = Counter(box.label for box in analysis.boxes)
        notes = msgspec.json.encode(analysis.notes, order="deterministic").decode() if analysis.notes else ""
        at = round(frame.captured_at, 6) if self._clocked else None
        self.frames.append(FrameRow(frame.index, round(seconds, 6), at, area, dict(count), notes))
        for box in analysis.boxes:
            x1, y1, x2, y2 = (round(float(each), 2) for each in (box.x1, box.y1, box.x2, box.y2))
            score, track = round(float(box.score), 3), None if box.track is None else int(box.track)
            self.objects.append(ObjectRow(frame.index, box.label, score, x1, y1, x2, y2, track, box.origin))
        if seconds >= self._pictured + THUMBNAIL_SECONDS:
            self._pictured = seconds
            self.thumbnails[frame.index] = encode_jpeg(frame.image, _QUALITY, THUMBNAIL_WIDTH)[0]


class _Told:
    """Events that notes tell of.

    A note that is a mapping with `kind` and `start`, or that has such under `events`, is of events, as that of the road
    ahead is: `start`, `end` and `peak` in seconds on the stream's timeline, `confidence`, `tracks`, `figures`, `text`
    (`pipeline.analysis.ahead.happenings.Event`). One that is told of again, by its `id` or else its beginning, is the
    same event further on; one without an end goes on for as long as it is told of. A note that is true is an event for
    as long as it is.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], EventRow] = {}
        self._holding: dict[str, EventRow] = {}

    def tell(self, notes: Mapping[str, Any], seconds: float, first: float) -> None:
        """Take the notes of a frame, so many seconds after the first one, whose time on the timeline is `first`."""
        seconds = round(seconds, 6)
        for name, note in notes.items():
            for event in _events_in(note):
                row = _row(name, event, first, seconds)
                key = (event["id"],) if isinstance(event.get("id"), str) else (row.kind, row.start, row.tracks)
                self._found[name, *key] = row
        true = {name for name, note in notes.items() if note is True}
        self._holding = {name: row for name, row in self._holding.items() if name in true}
        for name in sorted(true):
            if name not in self._holding:
                self._holding[name] = self._found[name, seconds] = EventRow(name, seconds, seconds, source=name)
            self._holding[name].end = seconds

    def pass_over(self) -> None:
        """A frame that nobody noted anything of."""
        self._holding.clear()

    def events(self) -> list[EventRow]:
        """All of them, in order of time."""
        return sorted(self._found.values(), key=lambda row: (row.start, row.kind, row.tracks, row.source))


def _events_in(note: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(note, Mapping):
        return
    if isinstance(note.get("kind"), str) and _number(note.get("start")) is not None:
        yield note
    elif isinstance(note.get("events"), list | tuple):
        for each in note["events"]:
            yield from _events_in(each)


def _row(name: str, event: Mapping[str, Any], first: float, seconds: float) -> EventRow:
    def placed(key: str) -> float | None:
        at = _number(event.get(key))
        return None if at is None else round(at - first, 6)

    start, end, peak = placed("start") or 0.0, placed("end"), placed("peak")
    confidence, figures = _number(event.get("confidence")), event.get("figures")
    return EventRow(
        str(event["kind"]), start, max(seconds if end is None else end, start), peak,
        None if confidence is None else round(confidence, 6),
        tuple(int(track) for track in event.get("tracks") or ()), name, str(event.get("text") or ""),
        msgspec.json.encode(figures, order="deterministic").decode() if figures else "",
    )  # fmt: skip


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
