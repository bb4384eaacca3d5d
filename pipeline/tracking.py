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


@dataclass(slots=True)
class _Track:
    number: int
    box: Box
    seen: float
    velocity: NDArray[np.float64]
    """Pixels a second of x1, y1, x2, y2."""
    steps: int = 0

    def expected(self, time: float) -> NDArray[np.float64]:
        return _corners(self.box) + self.velocity * (time - self.seen)

    def follow(self, box: Box, time: float) -> None:
        """The object is now at `box`. The velocity is the mean of the first steps, then smoothed."""
        if time <= self.seen:
            return
        self.steps += 1
        weight = max(_SMOOTHING, 1 / self.steps)
        measured = (_corners(box) - _corners(self.box)) / (time - self.seen)
        self.velocity = (1 - weight) * self.velocity + weight * measured
        self.box, self.seen = box, time


def _corners(box: Box) -> NDArray[np.float64]:
    return np.array([box.x1, box.y1, box.x2, box.y2])


def iou_matrix(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`: (N, 4), (M, 4) xyxy → (N, M); 0 where both
    are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = np.clip(a[:, 2:] - a[:, :2], 0, None).prod(-1), np.clip(b[:, 2:] - b[:, :2], 0, None).prod(-1)
    union = area_a[:, None] + area_b[None, :] - intersection
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

    def expected(self, number: int, time: float) -> tuple[float, float, float, float] | None:
        """Where the object of a track should be by now, xyxy in pixels; None when it was seen too long ago."""
        for track in self._tracks:
            if track.number == number and time - track.seen <= self.options.keep_seconds:
                x1, y1, x2, y2 = track.expected(time).tolist()
                return x1, y1, x2, y2
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
                owner = _Track(next(self._numbers), box, time, np.zeros(4))
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
        overlap = iou_matrix(np.stack([t.expected(time) for t in self._tracks]), np.stack([_corners(b) for b in boxes]))
        for i, track in enumerate(self._tracks):
            for j, box in enumerate(boxes):
                if (track.box.class_id, track.box.origin) != (box.class_id, box.origin):
                    overlap[i, j] = 0
        taken: set[int] = set()
        for flat in np.argsort(-overlap, axis=None, kind="stable"):
            i, j = divmod(int(flat), len(boxes))
            if overlap[i, j] <= 0 or overlap[i, j] < self.options.min_iou:
                break
            if i not in taken and owners[j] is None:
                taken.add(i)
                owners[j] = self._tracks[i]
        return owners
