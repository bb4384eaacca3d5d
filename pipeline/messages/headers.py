"""The headers of messages: typed, versioned structs, and their published schema.

`MESSAGES.md` is the page for people who read them in another language, `messages.schema.json` their JSON Schema
(`python -m pipeline.messages.headers > pipeline/messages/messages.schema.json` writes it anew).
"""

from __future__ import annotations

import inspect
import math
import sys
from typing import Annotated, Any, Literal, cast, get_args

import msgspec

from engines.errors import SourceError
from pipeline.analysis.ahead.happenings import Happening
from pipeline.frame import CapturedFrom, Mode, plain_note
from pipeline.state import EndReason, SourceState

VERSION = 1
"""Fields, kinds and trees of topics may be added within a version; what a field means never changes within it, nor
what `roadlens/v1/<stream>/` selects: it only gets further kinds, each with a numbering of its own."""

Encoding = Literal["png", "rle"]
MaskOption = Literal["png", "rle", "none"]
HeaderFormat = Literal["msgpack", "json"]

MAX_SIDE = 16384
"""Largest height or width of a mask in pixels: what a reader will make room for at a stranger's word."""

MAX_NAME = 256
"""Signs of a stream's id and of a run's: what is kept of every stream that a stranger names."""

MAX_PIXELS_A_SIDE = 1 << 20
"""Largest height or width of a frame in pixels that a reader believes."""

MAX_NOTES = 64 * 1024
"""Bytes of all notes of a frame as JSON: as much as the kernel keeps of a message for a reader."""

Name = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)]
ClassId = Annotated[int, msgspec.Meta(ge=0, le=255)]
Level = Annotated[int, msgspec.Meta(ge=0, le=255)]


class MessageError(SourceError):
    """Bytes that are not a message of this version of the wire format."""


class SegmentationMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The pixels of one object: COCO's compressed run lengths, as `pycocotools.mask.decode` takes them.

    `size` is (height, width) of the grid into which the whole frame is squashed, that of the class map; `counts` runs
    column by column from the top left.
    """

    size: tuple[Side, Side]
    counts: str


class BoxMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An object: xyxy in pixels of the full-size frame, x right, y down, right and bottom edges exclusive.

    `class_id` and `label` are those of the model named by `origin`; `track` stays with the object from frame to frame
    within its stream. `segmentation` is which pixels are its own, each of one object at most; it is left out where
    the publisher tells of none, and where the class map has none of it.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    class_id: int
    label: str
    score: Share
    origin: str
    track: int | None = None
    segmentation: SegmentationMessage | msgspec.UnsetType = msgspec.UNSET


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a number in the mask means and the sRGB colour it has in the PNG's palette."""

    id: ClassId
    name: str
    color: tuple[Level, Level, Level]
    thing: bool = False


class MaskMessage(msgspec.Struct, frozen=True, kw_only=True):
    """How to read the payload: the whole frame squashed into `width` × `height` class ids; 255 is none of them."""

    encoding: Encoding
    width: Side
    height: Side
    labels: tuple[Label, ...]


class IgnoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What of the frame is not looked at, in pixels of the full-size frame.

    `crop` (x1, y1, x2, y2; exclusive) is what models see: the picture without black bars and panels along its edges.
    `polygons` are regions inside of it that are left out, by their corners (x, y). `share` of the picture is ignored.
    """

    crop: tuple[Count, Count, Count, Count]
    polygons: tuple[tuple[tuple[float, float], ...], ...] = ()
    share: Share


class AnalysisMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="analysis"):
    """What the models say of one frame.

    Attributes:
        version: of the wire format.
        stream: id of the stream.
        sequence: number of the message in its stream, from 0, without holes: one that a reader does not see is one
            that it missed.
        run: id of the publisher's run; another one means that it was started again.
        run_start: first sequence number of that run; above 0 where an interrupted run was resumed.
        frame: place of the frame in the stream, from 0, counting every decoded frame.
        pts: presentation time in units of `time_base`.
        time_base: seconds a unit, (numerator, denominator).
        time_s: the same in seconds.
        captured_at: wall clock of the capture, Unix seconds, UTC; of the reading where nobody says.
        captured_from: what says when a recording was made: its `metadata`, file `name` or when it was `modified`.
        width, height: size of the full-size frame in pixels.
        mode: whether the stream is a `file` (every frame comes) or `live` (the newest frame wins).
        age_ms: milliseconds from leaving the decoder to being emitted.
        dropped_since_last: frames of the stream that the pipeline dropped since the message before.
        models: names of the models that looked at this very frame.
        carried_from: of each model that did not, the `frame` that what it says here was carried from, or repeated.
        boxes: objects.
        area: share of the picture by class name, of the classes present.
        timings_ms: milliseconds spent on this frame by stage name.
        smoothed: whether mask, area and the segmenter's boxes are smoothed over time: they may then show what the
            frames just before did, and scores are what this frame leaves them at most.
        anonymized: whether people and number plates are blurred in every picture of this frame that leaves the process.
        notes: what the publisher's own stages found out of this frame, by the finder's name: any JSON, numbers finite.
        ignored: what of the frame is not looked at, or null where all of it is.
        mask: what the payload is, or null where there is none.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    run_start: Count = 0
    frame: Count
    pts: int
    time_base: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]
    time_s: float
    captured_at: float
    captured_from: CapturedFrom = ""
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    mode: Mode
    age_ms: float
    dropped_since_last: Count
    models: tuple[str, ...]
    carried_from: dict[str, Count] = {}
    boxes: tuple[BoxMessage, ...]
    area: dict[str, Share]
    timings_ms: dict[str, float]
    smoothed: bool = False
    anonymized: bool = False
    notes: dict[Name, Any] = {}
    ignored: IgnoredMessage | None = None
    mask: MaskMessage | None = None


class EndMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="end"):
    """The last message of a stream.

    Attributes:
        sequence: follows the last analysis, so that a loss just before the end is seen too.
        frames: analysis messages of the stream from sequence 0 on, those of the runs before a resumption counted.
        dropped: frames that the pipeline dropped over the run.
        reason: `complete` when the source was read to its end, `stopped` when someone stopped the run, `failed` when
            the stream was given up.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    run_start: Count = 0
    frames: Count
    dropped: Count
    reason: EndReason


class StatusMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="status"):
    """The source of a stream entered a state. The newest one is sent again when somebody subscribes.

    PUB cannot speak to one subscriber alone, so those that were there get it again as well, under the same number.

    Attributes:
        sequence: number of the change in its stream, from 0, counted apart from the analyses.
        state: the state entered.
        reason: one line on why, without credentials; empty where there is nothing to say.
        cause: the reason's kind, in a word; empty likewise.
        at: when it was entered: wall clock, Unix seconds, UTC.
        attempt: connection attempts since frames came last.
        reconnects: how often the stream has come back so far.
        retry_in: seconds from `at` to the next attempt, while backing off.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    state: SourceState
    reason: str = ""
    cause: str = ""
    at: float
    attempt: Count = 0
    reconnects: Count = 0
    retry_in: Annotated[float, msgspec.Meta(ge=0)] | None = None


class HeartbeatMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="heartbeat"):
    """A sign of life of a stream that has not ended, on PUB only: over PUSH nothing is lost that it could tell of.

    Attributes:
        sequence: number of the heartbeat in its stream, from 0, counted apart from the analyses.
        at: wall clock, Unix seconds, UTC.
        uptime_s: seconds since the publisher was started.
        interval_s: seconds to the next heartbeat: where three of them pass in silence, the publisher is gone.
        state: the state that the source last entered, or null where nothing has been heard of it.
        next_sequence: sequence number of the next analysis: who has seen less than all before it has missed the rest.
        sent: messages about the stream handed to the network in this run.
        dropped: frames of the stream that the pipeline dropped in this run.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    at: float
    uptime_s: Annotated[float, msgspec.Meta(ge=0)]
    interval_s: Annotated[float, msgspec.Meta(gt=0)]
    state: SourceState | None = None
    next_sequence: Count
    sent: Count
    dropped: Count


class PictureMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="picture"):
    """A picture of a frame; the payload is a JPEG.

    Attributes:
        sequence: that of the analysis of the same frame. Not every frame has a picture, so a hole is no loss.
        frame, pts, time_base, time_s, captured_at: as in the analysis.
        width, height: of the JPEG in pixels; boxes of the analysis are scaled by it over the analysis' size.
        encoding: of the payload.
        overlaid: whether class colours and boxes are drawn on it.
        anonymized: whether people and number plates are blurred.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    frame: Count
    pts: int
    time_base: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]
    time_s: float
    captured_at: float
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    encoding: Literal["jpeg"] = "jpeg"
    overlaid: bool = False
    anonymized: bool = False


class EventMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="event"):
    """Something began to happen on the road ahead, or has ended: one message for either, with the same `id`.

    Attributes:
        sequence: number of the message among those of this kind in its stream, from 0, counted apart from the analyses.
        analysis: `sequence` of the analysis of the frame in which it began or ended.
        captured_at: as in that analysis.
        id: the event's own within its stream.
        what: `approach`, the time to contact with the vehicle ahead became short; `cut_in`, a vehicle came into the own
            lane close ahead; `person_in_path`, somebody is in the path and contact is near; `standstill` of the own
            car; `hard_braking` of the own car.
        start_s: when it began, seconds on the stream's timeline.
        end_s: when it was over; null in the message of its beginning.
        peak_s: when it was at its worst so far.
        confidence: that its limits were truly passed, given how sure the figures are.
        tracks: numbers of the tracks that it is about.
        figures: what it stands on at its peak, by name, each with its unit in its name.
        text: the same in words.
    """

    version: Literal[1] = 1
    stream: Name
    sequence: Count
    run: str = ""
    analysis: Count
    captured_at: float
    id: Name
    what: Happening
    start_s: float
    end_s: float | None = None
    peak_s: float
    confidence: Share
    tracks: tuple[int, ...] = ()
    figures: dict[str, float] = {}
    text: str = ""


Header = AnalysisMessage | EndMessage | StatusMessage | HeartbeatMessage | PictureMessage | EventMessage

Kind = Literal["analysis", "end", "status", "heartbeat", "picture", "event"]

KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(message: Header) -> Kind:
    """The kind of a message, as its header and topic name it."""
    return cast("Kind", message.__struct_config__.tag)


def check_values(message: Header) -> None:
    """Refuse what the types let through and no publisher says: MessagePack has numbers that JSON has not.

    Raises:
        MessageError: a name or a side of the frame is longer than any, or a number is infinite or none.
    """
    if len(message.stream) > MAX_NAME or len(message.run) > MAX_NAME:
        raise MessageError(f"the stream {message.stream!r:.40} or its run has a name of more than {MAX_NAME} signs")
    numbers = [value for value in msgspec.structs.astuple(message) if type(value) is float]
    if isinstance(message, AnalysisMessage):
        numbers += [value for box in message.boxes for value in (box.x1, box.y1, box.x2, box.y2, box.score)]
        numbers += [*message.area.values(), *message.timings_ms.values()]
        for name, note in message.notes.items():
            plain_note(note, f"notes.{name}")
    if isinstance(message, AnalysisMessage | PictureMessage) and max(message.width, message.height) > MAX_PIXELS_A_SIDE:
        raise MessageError(f"the message is of a frame of {message.width}×{message.height} pixels, larger than any")
    if not all(map(math.isfinite, numbers)):
        raise MessageError("the message holds a number that is infinite or none")


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the headers; it holds for MessagePack too, which carries the same map."""
    headers = msgspec.json.schema(Header)
    for definition in headers["$defs"].values():
        # The docstring of a class, from which Python 3.13 has taken the indentation already.
        definition["description"] = inspect.cleandoc(definition["description"])
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Header of a roadlens message",
        **headers,
    }
    return cast(
        "dict[str, Any]", msgspec.json.decode(msgspec.json.encode(document))
    )  # lists, where defaults are tuples


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(schema(), order="deterministic")) + b"\n")
