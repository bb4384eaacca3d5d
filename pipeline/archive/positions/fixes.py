"""Fixes on a clip's timeline, and where the car was between two of them. What is not known is None, never guessed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GAP = 5.0
"""Seconds between two fixes beyond which nothing is said of where the car was."""

FASTEST = 100.0
"""Metres a second. A fix that would take more than that to get to is a receiver's error."""

_LEAST_MOVED = 2.0
"""Metres between two fixes from which on they tell a heading: a receiver that stands wanders by less in a second."""

_EARTH = 6_371_008.8
"""Mean radius in metres (IUGG)."""


@dataclass(frozen=True, slots=True)
class Fix:
    """What a receiver said at a moment.

    Attributes:
        at: seconds; of what, the reader of the format says.
        latitude, longitude: degrees, WGS 84.
        speed: metres a second over ground; None where it is not said.
        heading: degrees from north, clockwise, 0 to 360; None where it is not said.
    """

    at: float
    latitude: float
    longitude: float
    speed: float | None = None
    heading: float | None = None

    @property
    def possible(self) -> bool:
        """Whether it is a place: receivers without a fix say 0, 0."""
        values = (self.at, self.latitude, self.longitude)
        return (
            all(map(math.isfinite, values)) and abs(self.latitude) <= 90 and abs(self.longitude) <= 180
            and (self.latitude, self.longitude) != (0.0, 0.0)
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Position:
    """Where the car was at a moment: as a `Fix` has it."""

    latitude: float
    longitude: float
    speed: float | None
    heading: float | None


class Positions:
    """Fixes that fit together.

    Args:
        fixes: in any order; those that are no place, and those that the car cannot have got to, are left out.
        source: what they are from, as `positions_from` of a clip has it (`rows.ClipRow`).

    Attributes:
        fixes: in order of time, one for each moment.
        jumps: how many were left out because nobody gets there so fast.
    """

    def __init__(self, fixes: Iterable[Fix], source: str) -> None:
        self.source = source
        by_time = {fix.at: fix for fix in fixes if fix.possible}
        ordered = [by_time[at] for at in sorted(by_time)]
        self.fixes: tuple[Fix, ...] = tuple(_reachable(ordered))
        self.jumps = len(ordered) - len(self.fixes)
        self._times = [fix.at for fix in self.fixes]

    def shifted(self, seconds: float) -> Positions:
        """The same on another timeline, so many seconds further on."""
        moved = Positions(
            (Fix(f.at + seconds, f.latitude, f.longitude, f.speed, f.heading) for f in self.fixes), self.source
        )
        moved.jumps = self.jumps
        return moved

    def at(self, seconds: float) -> Position | None:
        """Where the car was; None before the first fix, behind the last one, and in gaps of more than `GAP` seconds."""
        place = bisect_right(self._times, seconds)
        if place and self._times[place - 1] == seconds:
            fix = self.fixes[place - 1]
            return Position(fix.latitude, fix.longitude, fix.speed, self._heading(place - 1))
        if place in (0, len(self.fixes)):
            return None
        before, after = self.fixes[place - 1], self.fixes[place]
        if after.at - before.at > GAP:
            return None
        share = (seconds - before.at) / (after.at - before.at)
        turn = (after.longitude - before.longitude + 180) % 360 - 180
        speed = None
        if before.speed is not None and after.speed is not None:
            speed = before.speed + share * (after.speed - before.speed)
        nearer = place - 1 if share < 0.5 else place
        return Position(
            before.latitude + share * (after.latitude - before.latitude),
            (before.longitude + share * turn + 180) % 360 - 180, speed, self._heading(nearer),
        )  # fmt: skip

    def _heading(self, place: int) -> float | None:
        """That which a fix says itself, else from where the car was half a second before to where it was after."""
        fix = self.fixes[place]
        if fix.heading is not None:
            return fix.heading
        first = last = place
        while first > 0 and fix.at - self._times[first] < 0.5:
            first -= 1
        while last < len(self.fixes) - 1 and self._times[last] - fix.at < 0.5:
            last += 1
        before, after = self.fixes[first], self.fixes[last]
        if after.at - before.at > GAP or metres(before, after) < _LEAST_MOVED:
            return None
        return bearing(before, after)


def metres(one: Fix, other: Fix) -> float:
    """The way between two fixes (haversine formula; Sinnott, Sky and Telescope 68, 1984).

    >>> round(metres(Fix(0, 48, 11), Fix(0, 49, 11)))
    111195
    """
    north = math.radians(other.latitude - one.latitude) / 2
    east = math.radians(other.longitude - one.longitude) / 2
    scale = math.cos(math.radians(one.latitude)) * math.cos(math.radians(other.latitude))
    return 2 * _EARTH * math.asin(min(1.0, math.sqrt(math.sin(north) ** 2 + scale * math.sin(east) ** 2)))


def bearing(one: Fix, other: Fix) -> float:
    """The direction from one fix to another, degrees from north, clockwise.

    >>> bearing(Fix(0, 0, 11), Fix(0, 0, 12)), bearing(Fix(0, 48, 11), Fix(0, 47, 11))
    (90.0, 180.0)
    """
    a, b = math.radians(one.latitude), math.radians(other.latitude)
    turn = math.radians(other.longitude - one.longitude)
    east = math.sin(turn) * math.cos(b)
    north = math.cos(a) * math.sin(b) - math.sin(a) * math.cos(b) * math.cos(turn)
    return math.degrees(math.atan2(east, north)) % 360


def _reachable(fixes: Sequence[Fix]) -> list[Fix]:
    """Without those that a car cannot have got to.

    The track is broken where two fixes are further apart than a car drives; the longest piece is believed, then each
    that can be reached from those that are.
    """
    pieces: list[list[Fix]] = []
    for fix in fixes:
        if pieces and _fits(pieces[-1][-1], fix):
            pieces[-1].append(fix)
        else:
            pieces.append([fix])
    kept: list[list[Fix]] = []
    for piece in sorted(pieces, key=lambda piece: (-len(piece), piece[0].at)):
        place = bisect_right([each[0].at for each in kept], piece[0].at)
        before, after = kept[place - 1] if place else None, kept[place] if place < len(kept) else None
        if (before is None or _fits(before[-1], piece[0])) and (after is None or _fits(piece[-1], after[0])):
            kept.insert(place, piece)
    return [fix for piece in kept for fix in piece]


def _fits(before: Fix, after: Fix) -> bool:
    """Whether a car gets from one to the other; some metres are the receiver's own error."""
    return metres(before, after) <= FASTEST * (after.at - before.at) + 25.0
