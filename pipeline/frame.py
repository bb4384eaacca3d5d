"""The two values that travel through the pipeline: a `Frame` in, an `Analysis` of it out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.errors import UsageError

Mode = Literal["file", "live"]
"""`file`: every frame, in order, with back-pressure. `live`: the newest frame wins, older ones are dropped."""

CapturedFrom = Literal["metadata", "name", "modified", ""]
"""What says when a recording was made: the recording itself, its maker's file name, or when its file was last changed.
Nothing where there is no recording."""


MAX_NOTE_DEPTH = 16
"""Lists and mappings in each other that a note may have."""


class Rect(NamedTuple):
    """A part of a picture: pixels, x right, y down, right and bottom edges exclusive."""

    x1: int
    y1: int
    x2: int
    y2: int


_HIDDEN = 0.5
"""Share of a box that lies in what is ignored from which on it is left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Ignored:
    """What of a frame is not looked at; all in pixels of the full-size frame.

    Attributes:
        crop: what models see: the picture without black bars and panels along its edges.
        polygons: regions inside of it, each by its corners (x, y); their classes, boxes and tracks are left out, and
            nothing is blurred in them.
        mask: (height, width) uint8, 255 in the polygons and outside of the crop, else 0.
    """

    crop: Rect
    polygons: tuple[tuple[tuple[float, float], ...], ...]
    mask: NDArray[np.uint8]

    @property
    def share(self) -> float:
        """Of the picture that is ignored."""
        return float(np.count_nonzero(self.mask) / self.mask.size)

    def hides(self, box: Box) -> bool:
        """Whether most of a box lies in what is ignored."""
        x1, y1, x2, y2 = (max(0, round(value)) for value in (box.x1, box.y1, box.x2, box.y2))
        part = self.mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)]
        return part.size > 0 and float(part.mean()) > 255 * _HIDDEN


@dataclass(slots=True, eq=False)
class Frame:
    """One decoded picture, in the decoder's own pixel format. Its planes are shared with the decoder: read only.

    Attributes:
        stream: id of the stream.
        index: place in the stream, from 0, counting every decoded frame.
        pts: presentation time on the stream's continuous timeline, in units of `time_base`.
        time_base: seconds a unit.
        captured_at: wall clock (Unix seconds, UTC) of the capture, or of the reading when the source does not say.
        arrived_at: monotonic clock (seconds) at which the frame left the decoder; age is measured from here.
        image: the picture, upright, any pixel format.
        duration: how long the frame is shown, in units of `time_base`; 0 where the source does not say.
        captured_from: what says when a recording was made, from which `captured_at` follows.
        ignored: what of the picture is not looked at; None where all of it is.
    """

    stream: str
    index: int
    pts: int
    time_base: Fraction
    captured_at: float
    arrived_at: float
    image: av.VideoFrame
    duration: int = 0
    captured_from: CapturedFrom = ""
    ignored: Ignored | None = None

    @property
    def time(self) -> float:
        """Seconds on the stream's timeline."""
        # As float(pts · time_base) rounds it, without a fraction made for it, several times a frame.
        return self.pts * self.time_base.numerator / self.time_base.denominator

    @property
    def crop(self) -> Rect | None:
        """The part of the picture that models see; None for all of it."""
        return None if self.ignored is None else self.ignored.crop


@dataclass(frozen=True, slots=True)
class Box:
    """An object in a frame: xyxy in pixels of the full-size frame, x right, y down, right and bottom edges exclusive.

    Attributes:
        class_id, label: the class in the label set of the model it comes from.
        score: confidence, 0 to 1.
        origin: name of the model the box comes from.
        track: number that stays with the object from frame to frame within its stream, or None.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    class_id: int
    label: str
    score: float
    origin: str
    track: int | None = None


@dataclass(slots=True, eq=False)
class Analysis:
    """What the models say of one frame, fused.

    Attributes:
        frame: the frame.
        mode: whether the stream it comes from is a file or live.
        models: names of the models that looked at this very frame (one with `every: 3` looks at every third).
        carried_from: of each model that did not look at it, the index of the frame that what it says here comes from:
            carried along with the picture, or repeated.
        class_map: (h, w) uint8 class ids at the segmenter's size, the whole frame squashed into it; None without a
            segmenter. Where bars are cut off it is larger: the crop has the segmenter's size. What is ignored is 255.
        confidence: (h, w) uint8, 255 = certain, or None.
        unsmoothed: (h, w) uint8, what the segmenter saw, where `class_map` is smoothed over time; else None.
        classes: the segmenter's label set.
        boxes: objects, tracked.
        tentative: boxes that may be mistakes: of objects that were not found often and surely enough to be believed.
            They are in no message and no picture; who is to be blurred is blurred by them, too.
        area: share of the picture by class name, of the classes present.
        timings: milliseconds spent on this frame by stage name.
        dropped_since_last: frames of this stream dropped since the one before.
        age: seconds from leaving the decoder to being emitted; set when the outputs get it.
        picture: the frame with the overlay on it, same size, format and time; None where nothing was drawn. It is
            shared by the outputs: read only.
        anonymized: whether people and number plates are blurred in `frame.image`, and so in every picture made of it.
        novelty: how unlike what it was trained on the frame is to a model, by the model's name: about 1 for one that is
            as in training (`engines.novelty`); of one frame a second at most, and of models that can tell.
        notes: what stages found out of this frame, each under the finder's name: None, a truth value, a number, text,
            or lists and mappings (by text) of these, as JSON has them. They go into every message of the frame, which
            is where they are checked. A note that is text, or a mapping with text under `text`, is also drawn into the
            overlay, as a line of its own.
    """

    frame: Frame
    mode: Mode
    models: tuple[str, ...] = ()
    carried_from: dict[str, int] = field(default_factory=dict)
    class_map: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None
    unsmoothed: NDArray[np.uint8] | None = None
    classes: tuple[ClassInfo, ...] = ()
    boxes: tuple[Box, ...] = ()
    tentative: tuple[Box, ...] = ()
    area: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    dropped_since_last: int = 0
    age: float = 0.0
    picture: av.VideoFrame | None = None
    anonymized: bool = False
    novelty: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def boxes_xyxy(self) -> NDArray[np.float32]:
        """The corners of the boxes, (N, 4) float32 xyxy in pixels of the full-size frame, the right and bottom edges
        exclusive."""
        corners = [(box.x1, box.y1, box.x2, box.y2) for box in self.boxes]
        return np.array(corners, np.float32).reshape(-1, 4)

    def to_supervision(self) -> Any:
        """The boxes as `supervision.Detections`: corners, class ids, scores, track numbers where all of them have one,
        and the labels as `class_name`, as `supervision`'s annotators want them.

        Raises:
            UsageError: the package `supervision` is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            raise UsageError("the package supervision is not installed; pip install supervision") from error
        tracks = [box.track for box in self.boxes]
        return supervision.Detections(
            xyxy=self.boxes_xyxy,
            class_id=np.array([box.class_id for box in self.boxes], int),
            confidence=np.array([box.score for box in self.boxes], np.float32),
            tracker_id=None if None in tracks or not tracks else np.array(tracks, int),
            data={"class_name": np.array([box.label for box in self.boxes], str)},
        )


def note_lines(notes: Mapping[str, Any]) -> list[str]:
    """What the notes of a frame say in words, a line a note.

    >>> note_lines({"lanes": {"text": "keep left", "offset": -0.4}, "weather": "rain", "glare": 0.7})
    ['lanes: keep left', 'weather: rain']
    """
    said = ((name, note.get("text") if isinstance(note, Mapping) else note) for name, note in notes.items())
    return [f"{name}: {' '.join(text.split())}" for name, text in said if isinstance(text, str)]


def plain_note(value: Any, place: str = "", depth: int = 0) -> Any:
    """A note as JSON has it: NumPy's numbers become Python's, tuples lists. Of NaN and the infinities there are none.

    Args:
        value: the note.
        place: where in the notes it stands, such as `lanes.left[2]`.
        depth: in how many lists and mappings.

    Raises:
        ValueError: JSON has no such value; one clause that names the place.
    """
    if isinstance(value, np.generic):
        value = value.item()
    match value:
        case None | bool():
            return value
        case int() if -(1 << 63) <= value < 1 << 64:
            return int(value)
        case int():
            raise ValueError(f"{place:.80} is a whole number of more than 64 bits")
        case float() if math.isfinite(value):
            return float(value)
        case float():
            raise ValueError(f"{place:.80} is {value}, which JSON does not have: write None, or leave it out")
        case str():
            return plain_text(value, place)
        case Mapping() | list() | tuple() if depth >= MAX_NOTE_DEPTH:
            raise ValueError(f"{place:.80} lies deeper than {MAX_NOTE_DEPTH} lists and mappings in each other")
        case Mapping():
            if strange := [key for key in value if not isinstance(key, str)]:
                raise ValueError(f"{place:.80} has the key {strange[0]!r:.40}: the keys of a mapping are text")
            return {
                plain_text(key, place): plain_note(each, f"{place}.{key}", depth + 1) for key, each in value.items()
            }
        case list() | tuple():
            return [plain_note(each, f"{place}[{index}]", depth + 1) for index, each in enumerate(value)]
    advice = "use .tolist()" if isinstance(value, np.ndarray) else "use numbers, text, lists and mappings of them"
    raise ValueError(f"{place:.80} is of type {type(value).__name__}, which JSON does not have: {advice}")


def plain_text(text: str, place: str) -> str:
    """Text as JSON has it.

    Raises:
        ValueError: UTF-8 does not have it; one clause that names the place.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place:.80} has text with half a surrogate pair, which UTF-8 does not have") from None
    return str.__str__(text)
