"""Trips: clips of one car that follow each other, whichever of its cameras took them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

PAUSE = 300.0
"""Seconds without a picture of any camera of a car, behind which a new trip begins."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A clip in time: its id, its car, when it begins (Unix seconds), and how long it is."""

    clip: str
    car: str
    begin: float
    seconds: float


def trips_of(stretches: Iterable[Stretch]) -> dict[str, str]:
    """The trip of each clip, named by when it began, UTC, and its car where cars are told apart.

    >>> trips_of([Stretch("a", "", 0, 60), Stretch("b", "", 61, 60), Stretch("c", "", 900, 60)])
    {'a': '1970-01-01T00-00-00Z', 'b': '1970-01-01T00-00-00Z', 'c': '1970-01-01T00-15-00Z'}
    """
    by_car: dict[str, list[Stretch]] = defaultdict(list)
    for each in stretches:
        by_car[each.car].append(each)
    trips: dict[str, str] = {}
    for car, clips in by_car.items():
        end, name = float("-inf"), ""
        for each in sorted(clips, key=lambda clip: (clip.begin, clip.clip)):
            if each.begin > end + PAUSE:
                name = f"{datetime.fromtimestamp(each.begin, UTC):%Y-%m-%dT%H-%M-%SZ}" + (f"-{car}" if car else "")
            end = max(end, each.begin + each.seconds)
            trips[each.clip] = name
    return trips
