"""What happens on the synthetic road where it is asked for: a pure function of the time.

Every `LENGTH` seconds something else happens, in turn: the vehicle ahead falls back and the camera closes in on it; one
overtakes and cuts in; somebody crosses the road; the camera's car brakes hard and stands for a while.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

Incident = Literal["approach", "cut-in", "person", "stop"]

INCIDENTS: tuple[Incident, ...] = ("approach", "cut-in", "person", "stop")
LENGTH = 20.0
"""Seconds from one to the next."""

_BRAKES, _BRAKED, _GOES, _GONE = 6.0, 8.2, 14.2, 18.0
"""Seconds into `stop`: from braking to standing, from going on to the pace of before."""


class Staged(NamedTuple):
    """What is staged at a moment, and for how many seconds it has been."""

    incident: Incident
    since: float


def staged(time: float) -> Staged:
    """What is staged at a time (seconds from the start, not negative)."""
    turn = math.floor(time / LENGTH)
    return Staged(INCIDENTS[turn % len(INCIDENTS)], time - turn * LENGTH)


def glide(time: float, start: float, end: float) -> float:
    """0 before `start`, 1 from `end` on; between them the speed grows for a quarter, stays, and falls for a quarter."""
    share = min(max((time - start) / (end - start), 0.0), 1.0)
    if share > 0.5:
        return 1.0 - glide(1.0 - share, 0.0, 1.0)
    return share * share / 0.375 if share < 0.25 else (share - 0.125) / 0.75


def lead_gap(time: float) -> float:
    """Metres that the vehicle ahead is farther away than it would be."""
    incident, since = staged(time)
    if incident == "stop":
        return 0.0
    away = 24.0 * glide(since, 0.0, 7.0)
    if incident == "approach":
        return away - 31.0 * glide(since, 8.0, 13.0) + 7.0 * glide(since, 14.0, 19.0)
    return away - 24.0 * glide(since, 12.0, 20.0)


def overtaking(time: float) -> tuple[float, float] | None:
    """Metres ahead of the camera and right of its lane's middle of the vehicle that cuts in; None where there is
    none."""
    incident, since = staged(time)
    if incident != "cut-in":
        return None
    ahead = -12.0 + 23.0 * glide(since, 2.0, 7.0) + 220.0 * glide(since, 11.0, 20.0)
    return ahead, -3.3 * (1.0 - glide(since, 6.5, 8.5))


def crossing(time: float) -> tuple[float, float] | None:
    """When the one who crosses the road is 14 m ahead of the camera (seconds from the start), and how many metres
    right of its lane's middle he or she is now; None where nobody crosses."""
    incident, since = staged(time)
    if incident != "person":
        return None
    return time - since + 10.0, 1.4 * (10.0 - since)


def moving_time(time: float) -> float:
    """Seconds that the camera's car would have driven to be where it is, had it not stopped on the way."""
    rounds = math.floor(time / (LENGTH * len(INCIDENTS)))
    lost = _GOES - _BRAKED + (_BRAKED - _BRAKES + _GONE - _GOES) / 2
    incident, since = staged(time)
    stood = rounds * lost
    if incident == "stop":
        stood += min(max(since - _BRAKED, 0.0), _GOES - _BRAKED)
        # Speed falls and grows in a straight line, so that what is lost is a parabola.
        braking = min(max(since - _BRAKES, 0.0), _BRAKED - _BRAKES)
        going = min(max(since - _GOES, 0.0), _GONE - _GOES)
        stood += braking**2 / (2 * (_BRAKED - _BRAKES)) + going - going**2 / (2 * (_GONE - _GOES))
    return time - stood
