"""The two values that travel through the pipeline: a `Frame` in, an `Analysis` of it out."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo

Mode = Literal["file", "live"]
"""`file`: every frame, in order, with back-pressure. `live`: the newest frame wins, older ones are dropped."""


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
    """

    stream: str
    index: int
    pts: int
    time_base: Fraction
    captured_at: float
    arrived_at: float
    image: av.VideoFrame
    duration: int = 0

    @property
    def time(self) -> float:
        """Seconds on the stream's timeline."""
        return float(self.pts * self.time_base)


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
        class_map: (h, w) uint8 class ids at the segmenter's size, the whole frame squashed into it; None without a
            segmenter.
        confidence: (h, w) uint8, 255 = certain, or None.
        unsmoothed: (h, w) uint8, what the segmenter saw, where `class_map` is smoothed over time; else None.
        classes: the segmenter's label set.
        boxes: objects, tracked.
        area: share of the picture by class name, of the classes present.
        timings: milliseconds spent on this frame by stage name.
        dropped_since_last: frames of this stream dropped since the one before.
        age: seconds from leaving the decoder to being emitted; set when the outputs get it.
        picture: the frame with the overlay on it, same size, format and time; None where nothing was drawn. It is
            shared by the outputs: read only.
        anonymized: whether people and number plates are blurred in `frame.image`, and so in every picture made of it.
    """

    frame: Frame
    mode: Mode
    models: tuple[str, ...] = ()
    class_map: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None
    unsmoothed: NDArray[np.uint8] | None = None
    classes: tuple[ClassInfo, ...] = ()
    boxes: tuple[Box, ...] = ()
    area: dict[str, float] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    dropped_since_last: int = 0
    age: float = 0.0
    picture: av.VideoFrame | None = None
    anonymized: bool = False
