"""Track numbers that stay with an object from frame to frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Box

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

_SMOOTHING = 0.3
"""Weight of the newest measurement in a track's velocity, once there are enough of them."""


class TrackingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How tracks are kept.

    Attributes:
        enabled: whether boxes get track numbers.
        min_iou: smallest overlap of a box with a track's expected place for it to be the same object.
        keep_seconds: how long a track without a box is remembered.
    """

    enabled: bool = True
    min_iou: Share = 0.2
    keep_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0


Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2. Plain numbers: for four of them NumPy takes ten times as long."""


@dataclass(slots=True)
class _Track:
    number: int
    box: Box
    seen: float
    velocity: Corners = (0.0, 0.0, 0.0, 0.0)
    """Pixels a second of x1, y1, x2, y2."""
    steps: int = 0

    def expected(self, time: float) -> Corners:
        box, (x1, y1, x2, y2), since = self.box, self.velocity, time - self.seen
        return box.x1 + x1 * since, box.y1 + y1 * since, box.x2 + x2 * since, box.y2 + y2 * since

    def follow(self, box: Box, time: float) -> None:
        """The object is now at `box`. The velocity is the mean of the first steps, then smoothed."""
        if time <= self.seen:
            return
        self.steps += 1
        weight = max(_SMOOTHING, 1 / self.steps)
        gain, before, (x1, y1, x2, y2) = weight / (time - self.seen), self.box, self.velocity
        self.velocity = (
            (1 - weight) * x1 + gain * (box.x1 - before.x1),
            (1 - weight) * y1 + gain * (box.y1 - before.y1),
            (1 - weight) * x2 + gain * (box.x2 - before.x2),
            (1 - weight) * y2 + gain * (box.y2 - before.y2),
        )
        self.box, self.seen = box, time


def iou_matrix(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`: (N, 4), (M, 4) xyxy → (N, M); 0 where both
    are empty."""
    (left_a, top_a, right_a, bottom_a), (left_b, top_b, right_b, bottom_b) = a.T[:, :, None], b.T[:, None, :]
    width = np.maximum(np.minimum(right_a, right_b) - np.maximum(left_a, left_b), 0)
    height = np.maximum(np.minimum(bottom_a, bottom_b) - np.maximum(top_a, top_b), 0)
    intersection = width * height
    area_a = np.maximum(right_a - left_a, 0) * np.maximum(bottom_a - top_a, 0)
    area_b = np.maximum(right_b - left_b, 0) * np.maximum(bottom_b - top_b, 0)
    union = area_a + area_b - intersection
    result: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)
    return result


class Tracker:
    """Greedy matching by IoU with a constant-velocity expectation, one for each stream and model.

    Boxes match tracks of the same class and origin only, best overlap first (as SORT, Bewley et al. 2016, with the
    Kalman filter replaced by a smoothed velocity: the boxes come every few frames, so there is little to predict over).

    Args:
        options: thresholds.
        numbers: where new tracks get their numbers; trackers of one stream share them, a resumed run goes on counting.

    >>> tracker = Tracker(TrackingOptions())
    >>> [box.track for box in tracker.update([Box(0, 0, 10, 10, 13, "car", 0.9, "unet")], time=0.0)]
    [1]
    """

    def __init__(self, options: TrackingOptions, numbers: Iterator[int] | None = None) -> None:
        self.options = options
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._tracks: list[_Track] = []

    def expected(self, number: int, time: float) -> Corners | None:
        """Where the object of a track should be by now, xyxy in pixels; None when it was seen too long ago."""
        for track in self._tracks:
            if track.number == number and time - track.seen <= self.options.keep_seconds:
                return track.expected(time)
        return None

    def update(self, boxes: Sequence[Box], time: float) -> list[Box]:
        """The boxes of a frame with their track numbers, in the given order.

        Call it for every frame that was looked at, also when nothing was found in it.

        Args:
            boxes: of one frame, in pixels.
            time: seconds on the stream's timeline, growing.
        """
        if not self.options.enabled:
            return list(boxes)
        owners = self._matched(boxes, time)
        result = []
        for box, owner in zip(boxes, owners, strict=True):
            if owner is None:
                owner = _Track(next(self._numbers), box, time)
                self._tracks.append(owner)
            else:
                owner.follow(box, time)
            result.append(replace(box, track=owner.number))
        # Forgotten only now: after a pause longer than the memory, what stands where it stood is still the same.
        self._tracks = [t for t in self._tracks if time - t.seen <= self.options.keep_seconds]
        return result

    def _matched(self, boxes: Sequence[Box], time: float) -> list[_Track | None]:
        owners: list[_Track | None] = [None] * len(boxes)
        if not boxes or not self._tracks:
            return owners
        tracks = self._tracks
        overlap = iou_matrix(
            np.array([t.expected(time) for t in tracks]), np.array([(b.x1, b.y1, b.x2, b.y2) for b in boxes])
        )
        rows, columns = np.nonzero((overlap > 0) & (overlap >= self.options.min_iou))
        taken: set[int] = set()
        for place in np.argsort(-overlap[rows, columns], kind="stable").tolist():
            i, j = int(rows[place]), int(columns[place])
            known, box = tracks[i].box, boxes[j]
            if i in taken or owners[j] is not None or (known.class_id, known.origin) != (box.class_id, box.origin):
                continue
            taken.add(i)
            owners[j] = tracks[i]
        return owners
