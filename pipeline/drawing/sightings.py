"""Where people and vehicles are in frames in which no model found them, by the frames in which one did.

Objects are followed by tracks of their own, faint boxes among them. Between two sightings an object is on its way from
the one to the other; before its first and after its last it goes on as it moved, for a while.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.analysis.tracking import Tracker, TrackingOptions
from pipeline.frame import Box

_ENDS = 5
"""Sightings at an end of a track by which its motion there is told."""

_LEAST = 2.0
"""Pixels of width and height below which a box that was carried on says nothing."""

_GROWTH = 1.6
"""How many times larger or smaller an object may get before its first and after its last sighting."""

HAIR = 1e-6
"""Seconds by which times that are sums of fractions are off."""


class Sightings:
    """The boxes of one stream by object, over a window of time.

    Args:
        memory: seconds between two sightings of one object at most.

    >>> sightings = Sightings(memory=1.0)
    >>> for time, x in (0.0, 0), (0.2, 10):
    ...     sightings.add([Box(x, 0, x + 20, 40, 11, "person", 0.9, "m")], time)
    >>> [(box.x1, box.x2) for box in sightings.between(0.1, hold=lambda label: 0.0)]
    [(5.0, 25.0)]
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._tracker = Tracker(TrackingOptions(keep_seconds=memory).of_stills())
        self._tracks: dict[int, list[tuple[float, Box]]] = {}

    def add(self, boxes: Sequence[Box], time: float) -> None:
        """What was found at `time`, seconds, later than anything before; boxes in pixels of the full-size frame."""
        for box in self._tracker.update(boxes, time):
            if box.track is not None:
                self._tracks.setdefault(box.track, []).append((time, box))

    def between(self, time: float, hold: Callable[[str], float], once: float = 0.0) -> list[Box]:
        """The boxes of objects that were not found at `time`, but before or after it.

        Args:
            time: seconds.
            hold: by class name, for how many seconds an object goes on before its first and after its last sighting.
            once: the same of one that was seen once, and that stays where it was.
        """
        found = (
            _at(track, time, hold(track[0][1].label) if len(track) > 1 else once) for track in self._tracks.values()
        )
        return [box for box in found if box is not None]

    def forget(self, time: float) -> None:
        """Nothing before `time`, seconds, will be asked for any more."""
        begin = time - 2 * self._memory  # what tells of now, and of the motion there
        kept = {number: [each for each in track if each[0] >= begin] for number, track in self._tracks.items()}
        self._tracks = {number: track for number, track in kept.items() if track}


def _at(track: Sequence[tuple[float, Box]], time: float, hold: float) -> Box | None:
    """Where an object is at a time at which it was not seen; None where it was, or nothing is known."""
    place = bisect_left(track, time, key=lambda each: each[0])
    if place < len(track) and track[place][0] == time:
        return None
    if 0 < place < len(track):
        return _on_the_way(track[place - 1], track[place], time)
    nearest, ends = (track[0], track[:_ENDS]) if place == 0 else (track[-1], track[-_ENDS:])
    if abs(nearest[0] - time) > hold + HAIR:
        return None
    if len(ends) == 1:
        return nearest[1]
    return _gone_on(nearest[1], _on_the_way(ends[0], ends[-1], time))


def _gone_on(nearest: Box, moved: Box) -> Box:
    """A box where it has moved, about as large as when it was seen: what a box trembles by from frame to frame, carried
    on for a second, is several times its size. One that would be gone stays.
    """
    if moved.x2 - moved.x1 < _LEAST or moved.y2 - moved.y1 < _LEAST:
        return nearest
    width, height = nearest.x2 - nearest.x1, nearest.y2 - nearest.y1
    wide = min(max(moved.x2 - moved.x1, width / _GROWTH), width * _GROWTH) / 2
    high = min(max(moved.y2 - moved.y1, height / _GROWTH), height * _GROWTH) / 2
    x, y = (moved.x1 + moved.x2) / 2, (moved.y1 + moved.y2) / 2
    return replace(nearest, x1=x - wide, y1=y - high, x2=x + wide, y2=y + high)


def _on_the_way(first: tuple[float, Box], last: tuple[float, Box], time: float) -> Box:
    """A box that moves evenly through two sightings, (seconds, box)."""
    (begin, one), (end, other) = first, last
    share = (time - begin) / (end - begin)
    return replace(
        one,
        x1=one.x1 + share * (other.x1 - one.x1),
        y1=one.y1 + share * (other.y1 - one.y1),
        x2=one.x2 + share * (other.x2 - one.x2),
        y2=one.y2 + share * (other.y2 - one.y2),
    )
