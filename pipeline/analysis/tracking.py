"""Track numbers that stay with an object from frame to frame, and which boxes to believe."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.boxes import iou_matrix
from pipeline.frame import Box

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

_SMOOTHING = 0.3
"""Weight of the newest measurement in a track's velocity, once there are enough of them."""

_STEPS = 2
"""From so many steps on a velocity tells where an object is expected."""

_GAIN_SECONDS = 0.04
"""Seconds between two looks for which a gain is meant: the longer it is, the less what is expected is worth."""

_LIKELIER = 0.5
"""How much of a box's score counts beside its overlap: where two boxes tell of one object, the likelier is to go on. So
somebody in the path is told 0.8 s earlier in the incidents of `tests.benchmarks.ahead`, on which it was chosen."""

_LOOKS = 8
"""Scores of an object that its trust is the mean of: further back they count less and less."""

_FAINT_IOU = 0.4
"""Smallest overlap of a faint box with a track's expected place: there are many of them, and one that lies elsewhere
would lead the track astray."""


class TrackingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How tracks are kept.

    Attributes:
        enabled: whether boxes get track numbers.
        min_iou: smallest overlap of a box with a track's expected place for it to be the same object.
        keep_seconds: how long a track without a box is remembered.
        confirm_hits: how often in a row an object must be found to be believed; until then its boxes are tentative.
        confirm_score: a box of this score or more is believed at once.
        confirm_margin: how far above the smallest score of a box the mean of an object's last scores must lie for it to
            be believed: what a model takes for an object in weather that it does not know scores low in every frame.
            0 for any mean.
        keep_margin: the same for an object that is believed; below, its boxes are tentative.
        faint_hits: how often in a row an object that is believed may be found by faint boxes alone, whose score is too
            low for a box by itself (`pipeline.analysis.fuse.FAINT`). 0 for never.
        reach: objects that are believed and that nothing overlaps are looked for once more with boxes grown by so much
            of their width and height on each side: small objects move further than they are large. 0 for not.
        gain: how far a box goes from where its object is expected to where it is found, as a share of the way, where a
            25th of a second lies between the looks, and further where more does: at 1 boxes are as the models give
            them, below they tremble less.
        vote: whether the class of an object is the one that most of its boxes say; else each box keeps its own.
    """

    enabled: bool = True
    min_iou: Share = 0.2
    keep_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    confirm_hits: Annotated[int, msgspec.Meta(ge=1)] = 3
    confirm_score: Share = 0.6
    confirm_margin: Share = 0.1
    keep_margin: Share = 0.05
    faint_hits: Annotated[int, msgspec.Meta(ge=0)] = 3
    reach: Annotated[float, msgspec.Meta(ge=0, le=2)] = 0.2
    gain: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.65
    vote: bool = True

    def of_stills(self) -> TrackingOptions:
        """For pictures that have nothing to do with each other: what is found in one need not be in the next."""
        return msgspec.structs.replace(
            self, confirm_hits=1, confirm_margin=0.0, keep_margin=0.0, faint_hits=0, gain=1.0, vote=False
        )


Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2. Plain numbers: for four of them NumPy takes ten times as long."""


FAMILIES = ({"car", "truck", "bus", "train"}, {"person", "rider"}, {"bicycle", "motorcycle"})
"""Classes that a model takes for each other from frame to frame: an object of one may be found as another."""

_FADING = 0.9
"""What a vote for a class keeps of its weight with each vote after it."""


def family(label: str) -> str:
    """What an object of a class may be mistaken for, named by one class of it.

    >>> family("truck") == family("bus")
    True
    >>> family("pole")
    'pole'
    """
    return next((min(classes) for classes in FAMILIES if label in classes), label)


@dataclass(slots=True)
class _Track:
    like: Box
    """The first box found: its origin and class family are those of the object."""
    corners: Corners
    """Where the object was when it was seen last."""
    seen: float
    number: int | None = None
    """None until the object is believed."""
    hits: int = 0
    faint: int = 0
    """How often in a row it was found by a faint box alone."""
    trust: float = 0.0
    """Mean of its last scores, without those of faint boxes."""
    votes: dict[tuple[int, str], float] = field(default_factory=dict)
    """By class id and label."""
    velocity: Corners = (0.0, 0.0, 0.0, 0.0)
    """Pixels a second of x1, y1, x2, y2."""
    steps: int = 0

    def expected(self, time: float) -> Corners:
        (a1, b1, a2, b2), (x1, y1, x2, y2), since = self.corners, self.velocity, time - self.seen
        return a1 + x1 * since, b1 + y1 * since, a2 + x2 * since, b2 + y2 * since

    def follow(self, box: Box, time: float, gain: float) -> None:
        """The object was found at `box`. The velocity is the mean of the first steps, then smoothed: an alpha-beta
        filter, which does not lag behind what moves evenly.
        """
        if time <= self.seen:
            return
        x1, y1, x2, y2 = box.x1, box.y1, box.x2, box.y2
        if gain < 1 and self.steps >= _STEPS:
            gain = 1 - (1 - gain) ** max((time - self.seen) / _GAIN_SECONDS, 1.0)
            left, top, right, bottom = self.expected(time)
            x1, x2 = left + gain * (x1 - left), right + gain * (x2 - right)
            y1, y2 = top + gain * (y1 - top), bottom + gain * (y2 - bottom)
        self.steps += 1
        weight = max(_SMOOTHING, 1 / self.steps)
        share, (a1, b1, a2, b2), (u1, v1, u2, v2) = weight / (time - self.seen), self.corners, self.velocity
        self.velocity = (
            (1 - weight) * u1 + share * (x1 - a1),
            (1 - weight) * v1 + share * (y1 - b1),
            (1 - weight) * u2 + share * (x2 - a2),
            (1 - weight) * v2 + share * (y2 - b2),
        )
        self.corners, self.seen = (x1, y1, x2, y2), time

    def vote(self, box: Box) -> tuple[int, str]:
        """Count the class of a box; the class of the object, which is the one with the most weight."""
        for known in self.votes:
            self.votes[known] *= _FADING
        said = (box.class_id, box.label)
        self.votes[said] = self.votes.get(said, 0.0) + box.score
        return max(self.votes, key=self.votes.__getitem__)


class Tracker:
    """Greedy matching by IoU with a constant-velocity expectation, one for each stream and model.

    Boxes match tracks of the same family of classes and origin only, best overlap and score first (as SORT, Bewley et
    al. 2016, with the Kalman filter replaced by an alpha-beta filter: the boxes come every few frames, so there is
    little to predict over); what is left over is matched by grown boxes (as C-BIoU, Yang et al. 2023), and objects that
    are not found then by faint boxes (as ByteTrack, Zhang et al. 2022). The class of an object is the one that its
    boxes vote for. An object gets its number once it is believed; one that is not believed yet is forgotten as soon as
    it is missed. With the margins 46 of 72 road users that were drawn by hand on clips by night, in rain and in a city
    are found, and 28 boxes are wrong (`tests.benchmarks.weather`); without, 49 are, and 105 boxes are wrong.

    There is no compensation for the camera's own motion. With the optical flow of a small luma (`carrying.flow`) in
    place of the velocities real clips had 12 % fewer tracks, synthetic drives a lower IDF1 (0.591 against 0.602), and a
    frame cost half a millisecond more: what sways the picture sways the velocities, too.

    Attributes:
        tentative: boxes of the last frame whose objects are not believed, or not any more.
        unclaimed: faint boxes of the last frame by which no object goes on.

    Args:
        options: thresholds.
        numbers: where new tracks get their numbers; trackers of one stream share them, a resumed run goes on counting.
        least_score: smallest score of a box, above which the margins lie.

    >>> tracker = Tracker(TrackingOptions())
    >>> [box.track for box in tracker.update([Box(0, 0, 10, 10, 13, "car", 0.9, "unet")], time=0.0)]
    [1]
    """

    def __init__(
        self, options: TrackingOptions, numbers: Iterator[int] | None = None, least_score: float = 0.0
    ) -> None:
        self.options = options
        self._least_score = least_score
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._tracks: list[_Track] = []
        self.tentative: list[Box] = []
        self.unclaimed: list[Box] = []

    def expected(self, number: int, time: float) -> Corners | None:
        """Where the object of a track should be by now, xyxy in pixels; None when it was seen too long ago."""
        for track in self._tracks:
            if track.number == number and time - track.seen <= self.options.keep_seconds:
                return track.expected(time)
        return None

    def update(self, boxes: Sequence[Box], time: float, faint: Sequence[Box] = ()) -> list[Box]:
        """The believed boxes of a frame with their track numbers, steadied: those of `boxes` in the given order, then
        those of `faint`; the others are `tentative` or `unclaimed`.

        Call it for every frame that was looked at, also when nothing was found in it.

        Args:
            boxes: of one frame, in pixels.
            time: seconds on the stream's timeline, growing.
            faint: further boxes of it, too unlikely to begin a track.
        """
        self.tentative = []
        self.unclaimed = []
        if not self.options.enabled:
            self.unclaimed += faint
            return list(boxes)
        result: list[Box] = []
        for box, owner in zip(boxes, self._owners(boxes, time), strict=True):
            if owner is None:
                owner = _Track(box, (box.x1, box.y1, box.x2, box.y2), time)
                self._tracks.append(owner)
            else:
                owner.follow(box, time, self.options.gain)
            owner.hits += 1
            owner.faint = 0
            owner.trust += (box.score - owner.trust) / min(owner.hits, _LOOKS)
            if owner.number is None and self._believed(owner, box):
                owner.number = next(self._numbers)
            (result if self._in_view(owner) else self.tentative).append(self._said(owner, box))
        result += self._gone_on(faint, time)
        # Forgotten only now: after a pause longer than the memory, what stands where it stood is still the same.
        self._tracks = [t for t in self._tracks if time - t.seen <= self._memory(t)]
        return result

    def _gone_on(self, faint: Sequence[Box], time: float) -> Iterator[Box]:
        """Those faint boxes by which believed objects go on that were not found otherwise."""
        missed = [
            t for t in self._tracks if t.seen < time and t.number is not None and t.faint < self.options.faint_hits
        ]
        owners = self._matched(faint, missed, time, _FAINT_IOU, 0.0)
        for box, owner in zip(faint, owners, strict=True):
            if owner is None:
                self.unclaimed.append(box)
                continue
            owner.follow(box, time, self.options.gain)
            owner.faint += 1
            if self._in_view(owner):
                yield self._said(owner, box)
            else:
                self.tentative.append(self._said(owner, box))

    def _said(self, track: _Track, box: Box) -> Box:
        """A box as its object has it."""
        class_id, label = track.vote(box) if self.options.vote else (box.class_id, box.label)
        return Box(*track.corners, class_id, label, box.score, box.origin, track.number)

    def _believed(self, track: _Track, box: Box) -> bool:
        trusted = self._trusted(track, self.options.confirm_margin)
        return (trusted and track.hits >= self.options.confirm_hits) or box.score >= self.options.confirm_score

    def _in_view(self, track: _Track) -> bool:
        return track.number is not None and self._trusted(track, self.options.keep_margin)

    def _trusted(self, track: _Track, margin: float) -> bool:
        return not margin or track.trust >= self._least_score + margin

    def _memory(self, track: _Track) -> float:
        return 0.0 if track.number is None else self.options.keep_seconds

    def _owners(self, boxes: Sequence[Box], time: float) -> list[_Track | None]:
        """Of each box its track; None where it is a new object's."""
        owners = self._matched(boxes, self._tracks, time, self.options.min_iou, 0.0)
        if not self.options.reach:
            return owners
        taken = {id(owner) for owner in owners}
        left = [place for place, owner in enumerate(owners) if owner is None]
        # Only objects that are believed: noise would be confirmed by noise that happens to be near.
        tracks = [track for track in self._tracks if track.number is not None and id(track) not in taken]
        again = self._matched([boxes[i] for i in left], tracks, time, self.options.min_iou, self.options.reach)
        for place, owner in zip(left, again, strict=True):
            owners[place] = owner
        return owners

    @staticmethod
    def _matched(
        boxes: Sequence[Box], tracks: Sequence[_Track], time: float, least: float, reach: float
    ) -> list[_Track | None]:
        """Of each box its track, best overlap and score first, where both grown by `reach` overlap by `least`."""
        owners: list[_Track | None] = [None] * len(boxes)
        if not boxes or not tracks:
            return owners
        expected = np.array([t.expected(time) for t in tracks])
        found = np.array([(b.x1, b.y1, b.x2, b.y2) for b in boxes])
        overlap = iou_matrix(_grown(expected, reach), _grown(found, reach))
        rows, columns = np.nonzero((overlap > 0) & (overlap >= least))
        taken: set[int] = set()
        worth = overlap[rows, columns] + _LIKELIER * np.array([box.score for box in boxes])[columns]
        for place in np.argsort(-worth, kind="stable").tolist():
            i, j = int(rows[place]), int(columns[place])
            if i in taken or owners[j] is not None or not alike(tracks[i].like, boxes[j]):
                continue
            taken.add(i)
            owners[j] = tracks[i]
        return owners


def _grown(corners: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Boxes, (n, 4), with so much of their width and height added on each side."""
    if not share:
        return corners
    reach = share * np.tile(corners[:, 2:] - corners[:, :2], 2)
    grown: NDArray[np.float64] = corners + reach * (-1, -1, 1, 1)
    return grown


def alike(one: Box, other: Box) -> bool:
    """Whether two boxes may be of one object."""
    return one.origin == other.origin and (one.class_id == other.class_id or family(one.label) == family(other.label))
