"""Headers of what the pipeline says: of analyses, of their pictures and events, and of changes of state."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import msgspec

from engines.errors import UsageError
from pipeline.analysis.ahead.happenings import Event
from pipeline.analysis.instances import instance_map
from pipeline.frame import Analysis, Ignored, plain_note, plain_text
from pipeline.messages.headers import (
    MAX_NOTES,
    AnalysisMessage,
    BoxMessage,
    EventMessage,
    IgnoredMessage,
    PictureMessage,
    SegmentationMessage,
    StatusMessage,
)
from pipeline.messages.segmentations import encode_segmentations
from pipeline.state import StateChange


def from_change(change: StateChange, sequence: int, *, run: str = "") -> StatusMessage:
    """The message of a change of state."""
    return StatusMessage(
        stream=change.stream,
        sequence=sequence,
        run=run,
        state=change.state,
        reason=change.reason,
        cause=change.cause,
        at=round(change.at, 6),
        attempt=change.attempt,
        reconnects=change.reconnects,
        retry_in=None if change.retry_in is None else round(max(change.retry_in, 0.0), 3),
    )


def from_analysis(
    analysis: Analysis, sequence: int, *, run: str = "", run_start: int = 0, instances: bool = False
) -> AnalysisMessage:
    """The header of an analysis, without its mask.

    Numbers are rounded to what they are good for, so that JSON stays short: pixels to 0.01, scores and times to 0.001,
    areas to 0.0001, seconds to a microsecond. Notes stay as they are.

    Args:
        analysis: of a frame.
        sequence: number of the message.
        run: id of the publisher's run.
        run_start: first sequence number of that run.
        instances: whether boxes tell which pixels of the class map are theirs.

    Raises:
        UsageError: a note is nothing that JSON has, or the notes are too large; it names the note.
    """
    frame = analysis.frame
    return AnalysisMessage(
        stream=frame.stream,
        sequence=sequence,
        run=run,
        run_start=run_start,
        frame=frame.index,
        pts=frame.pts,
        time_base=(frame.time_base.numerator, frame.time_base.denominator),
        time_s=round(frame.time, 6),
        captured_at=round(float(frame.captured_at), 6),
        captured_from=frame.captured_from,
        width=frame.image.width,
        height=frame.image.height,
        mode=analysis.mode,
        age_ms=round(float(analysis.age) * 1000, 3),
        dropped_since_last=analysis.dropped_since_last,
        models=tuple(analysis.models),
        carried_from=dict(analysis.carried_from),
        boxes=_boxes(analysis, instances),
        area={name: round(float(share), 4) for name, share in analysis.area.items()},
        timings_ms={stage: round(float(spent), 3) for stage, spent in analysis.timings.items()},
        smoothed=analysis.unsmoothed is not None,
        anonymized=analysis.anonymized,
        notes=_noted(analysis) if analysis.notes else {},
        ignored=None if frame.ignored is None else _left_out(frame.ignored),
    )


def _boxes(analysis: Analysis, instances: bool) -> tuple[BoxMessage, ...]:
    parts = _segmentations(analysis) if instances else [msgspec.UNSET] * len(analysis.boxes)
    return tuple(
        BoxMessage(
            x1=round(float(box.x1), 2),
            y1=round(float(box.y1), 2),
            x2=round(float(box.x2), 2),
            y2=round(float(box.y2), 2),
            class_id=int(box.class_id),
            label=box.label,
            score=round(float(box.score), 3),
            origin=box.origin,
            track=None if box.track is None else int(box.track),
            segmentation=part,
        )
        for box, part in zip(analysis.boxes, parts, strict=True)
    )


def _segmentations(analysis: Analysis) -> Sequence[SegmentationMessage | msgspec.UnsetType]:
    class_map, image = analysis.class_map, analysis.frame.image
    if class_map is None:
        return [msgspec.UNSET] * len(analysis.boxes)
    owners = instance_map(class_map, analysis.boxes, analysis.classes, (image.width, image.height))
    height, width = class_map.shape
    return [
        SegmentationMessage(size=(height, width), counts=counts) if counts else msgspec.UNSET
        for counts in encode_segmentations(owners, len(analysis.boxes))
    ]


def _left_out(ignored: Ignored) -> IgnoredMessage:
    polygons = tuple(tuple((round(float(x), 2), round(float(y), 2)) for x, y in each) for each in ignored.polygons)
    x1, y1, x2, y2 = ignored.crop
    return IgnoredMessage(crop=(x1, y1, x2, y2), polygons=polygons, share=round(ignored.share, 4))


def event_of(event: Event, message: AnalysisMessage, sequence: int) -> EventMessage:
    """The message of an event.

    Args:
        event: as it is in a frame.
        message: of that frame's analysis.
        sequence: number among the messages of events.
    """
    return EventMessage(
        stream=message.stream,
        sequence=sequence,
        run=message.run,
        analysis=message.sequence,
        captured_at=message.captured_at,
        id=event.id,
        what=event.kind,
        start_s=event.start,
        end_s=event.end,
        peak_s=event.peak,
        confidence=event.confidence,
        tracks=event.tracks,
        figures=event.figures,
        text=event.text,
    )


def picture_of(
    analysis: Analysis, sequence: int, size: tuple[int, int], *, run: str = "", overlaid: bool = False
) -> PictureMessage:
    """The header of a picture of an analysed frame.

    Args:
        analysis: of the frame.
        sequence: of the analysis.
        size: width and height of the JPEG in pixels.
        run: id of the publisher's run.
        overlaid: whether the overlay is drawn on it.
    """
    frame = analysis.frame
    return PictureMessage(
        stream=frame.stream,
        sequence=sequence,
        run=run,
        frame=frame.index,
        pts=frame.pts,
        time_base=(frame.time_base.numerator, frame.time_base.denominator),
        time_s=round(frame.time, 6),
        captured_at=round(float(frame.captured_at), 6),
        width=size[0],
        height=size[1],
        overlaid=overlaid,
        anonymized=analysis.anonymized,
    )


def _noted(analysis: Analysis) -> dict[str, Any]:
    """The notes of an analysis, checked."""
    frame = analysis.frame
    try:
        if strange := [name for name in analysis.notes if not isinstance(name, str) or not name]:
            raise ValueError(f"{strange[0]!r:.40} is no name: name each note by the stage that found it")
        notes = {plain_text(name, name): plain_note(note, name) for name, note in analysis.notes.items()}
        if (size := len(msgspec.json.encode(notes))) > MAX_NOTES:
            sizes = {name: len(msgspec.json.encode(note)) for name, note in notes.items()}
            largest, most = max(sizes.items(), key=itemgetter(1))
            raise ValueError(
                f"they have {size} bytes as JSON and may have {MAX_NOTES}; the largest is {largest!r:.80} with {most}"
            )
    except ValueError as error:
        raise UsageError(f"the notes of {frame.stream}, frame {frame.index}, cannot go out: {error}") from None
    return notes
