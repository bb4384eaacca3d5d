"""Track numbers that stay with an object from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Box


class TrackingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How tracks are kept.

    Attributes:
        enabled: whether boxes get track numbers.
        min_iou: smallest overlap of a box with a track's expected place for it to be the same object.
        keep_seconds: how long a track without a box is remembered.
    """

    enabled: bool = True
    min_iou: float = 0.2
    keep_seconds: float = 1.0


@dataclass(slots=True)
class _Track:
    number: int
    box: Box
    seen: float
    velocity: NDArray[np.float64]
    """Pixels a second of x1, y1, x2, y2."""

    def expected(self, time: float) -> NDArray[np.float64]:
        return _corners(self.box) + self.velocity * (time - self.seen)


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
    """Greedy matching by IoU with a constant-velocity expectation, one for each stream.

    Boxes match tracks of the same class and origin only, best overlap first (as SORT, Bewley et al. 2016, with the
    Kalman filter replaced by a smoothed velocity: the boxes come every frame, so there is little to predict over).

    Args:
        options: thresholds.
        first_number: the number of the first track; a resumed run goes on counting.
    """

    def __init__(self, options: TrackingOptions, first_number: int = 1) -> None:
        self.options = options
        self._next = first_number
        self._tracks: list[_Track] = []

    def expected(self, number: int, time: float) -> tuple[float, float, float, float] | None:
        """Where the object of a track should be by now, xyxy in pixels; None when it is forgotten."""
        for track in self._tracks:
            if track.number == number and time - track.seen <= self.options.keep_seconds:
                x1, y1, x2, y2 = track.expected(time).tolist()
                return x1, y1, x2, y2
        return None

    def update(self, boxes: Sequence[Box], time: float) -> list[Box]:
        """The boxes of a frame with their track numbers, in the given order.

        Args:
            boxes: of one frame, in pixels.
            time: seconds on the stream's timeline, growing.
        """
        if not self.options.enabled:
            return list(boxes)
        self._tracks = [t for t in self._tracks if time - t.seen <= self.options.keep_seconds]
        owner: list[_Track | None] = [None] * len(boxes)
        if boxes and self._tracks:
            overlap = iou_matrix(
                np.stack([t.expected(time) for t in self._tracks]), np.stack([_corners(b) for b in boxes])
            )
            for i, known in enumerate(self._tracks):
                for j, box in enumerate(boxes):
                    if (known.box.class_id, known.box.origin) != (box.class_id, box.origin):
                        overlap[i, j] = 0
            taken: set[int] = set()
            for flat in np.argsort(-overlap, axis=None, kind="stable"):
                i, j = divmod(int(flat), len(boxes))
                if overlap[i, j] < self.options.min_iou:
                    break
                if i not in taken and owner[j] is None:
                    taken.add(i)
                    owner[j] = self._tracks[i]
        result = []
        for box, matched in zip(boxes, owner, strict=True):
            track = matched
            if track is None:
                track = _Track(self._next, box, time, np.zeros(4))
                self._next += 1
                self._tracks.append(track)
            elif time > track.seen:
                measured = (_corners(box) - _corners(track.box)) / (time - track.seen)
                track.velocity = 0.7 * track.velocity + 0.3 * measured
                track.box, track.seen = box, time
            result.append(replace(box, track=track.number))
        return result
