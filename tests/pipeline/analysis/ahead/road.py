"""A road seen through a pinhole: boxes of things whose place and size in metres is known, by arithmetic alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from pipeline.analysis.ahead.happenings import Event, Finding, finding_of
from pipeline.analysis.ahead.stage import AheadOptions
from pipeline.frame import Analysis, Box, Frame
from pipeline.pictures.planes import plane

WIDTH, HEIGHT, FPS = 1280, 720, 12
FOCAL, HORIZON, CAMERA = 1150.0, 330.0, 1.3
VIEW = 2 * math.degrees(math.atan(0.5 * WIDTH / FOCAL))
KNOWN = AheadOptions(camera_height=CAMERA, field_of_view=VIEW)

Place = tuple[float, float]
"""Metres ahead to the near end, and to the right of the camera."""


@dataclass(frozen=True)
class Thing:
    """Something on the road. `at` gives its place at a time in seconds, or None where it is not there."""

    track: int
    at: Callable[[float], Place | None]
    label: str = "car"
    wide: float = 1.8
    tall: float = 1.5

    def box(self, time: float, noise: np.ndarray) -> Box | None:
        place = self.at(time)
        if place is None or not 1.5 < place[0] < 120:
            return None
        ahead, across = place
        scale = FOCAL / (ahead + (0.7 if self.label not in ("person", "rider") else 0.0))
        foot, middle = HORIZON + CAMERA * scale, WIDTH / 2 + across * scale
        corners = np.array(
            (middle - self.wide / 2 * scale, foot - self.tall * scale, middle + self.wide / 2 * scale, foot)
        )
        corners += noise * scale
        x1, y1, x2, y2 = np.clip(corners, 0, (WIDTH, HEIGHT, WIDTH, HEIGHT)).tolist()
        return Box(x1, y1, x2, y2, 13, self.label, 0.9, "model", self.track) if x2 - x1 > 3 and y2 - y1 > 3 else None


def still_picture() -> av.VideoFrame:
    """A grey picture without an edge: whether it stands still cannot be told."""
    image = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    for index in range(3):
        plane(image, index)[:] = 128
    return image


def drive(
    things: Sequence[Thing],
    seconds: float,
    options: AheadOptions = KNOWN,
    *,
    noise: float = 0.0,
    fps: int = FPS,
    notes: Callable[[float], dict[str, object]] = lambda _time: {},
    pictures: Callable[[float], av.VideoFrame] | None = None,
) -> list[tuple[float, Finding]]:
    """What the stage finds at each frame of a drive. `noise`: metres by which each side of a box is wrong."""
    stage, random, blank = options.stage(), np.random.default_rng(1), still_picture()
    found = []
    for index in range(round(seconds * fps)):
        time = index / fps
        boxes = [thing.box(time, random.normal(0, noise, 4) if noise else np.zeros(4)) for thing in things]
        nearest_last = sorted((box for box in boxes if box is not None), key=lambda box: box.y2)
        image = blank if pictures is None else pictures(time)
        frame = Frame("road", index, index, Fraction(1, fps), 0.0, 0.0, image)
        analysis = Analysis(frame, "file", models=("model",), boxes=tuple(nearest_last), notes=notes(time))
        found.append((time, finding_of(stage.process(analysis).notes)))
    return found


def events(found: Iterable[tuple[float, Finding]]) -> list[Event]:
    """The events as they were told of last, in the order of their beginnings."""
    last = {event.id: event for _, finding in found for event in finding.events}
    return sorted(last.values(), key=lambda event: event.start)


def straight(ahead: float, across: float = 0.0, speed: float = 0.0) -> Callable[[float], Place]:
    """The place of something that comes nearer by `speed` metres a second."""
    return lambda time: (ahead - speed * time, across)


PARKED = [
    Thing(900 + k, lambda time, k=k: (200 + 24 * k - 10 * time, 3.6 if k % 2 else -4.2), tall=1.45 + 0.03 * (k % 5))
    for k in range(-8, 40)
]
"""A street with parked cars on either side, driven through at 10 m/s."""
