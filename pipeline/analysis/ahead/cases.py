"""What makes an event of a figure that passes its limit: for how long it must, and when it is over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.analysis.ahead.happenings import Event, Happening


class Ruling(NamedTuple):
    """How long what a case is about must be so.

    Attributes:
        least: seconds until it is an event.
        looks: looks until it is one.
        pause: seconds for which it must not be so until the event is over.
    """

    least: float
    looks: int
    pause: float


RULINGS: dict[Happening, Ruling] = {
    "approach": Ruling(0.3, 4, 0.6),
    "cut_in": Ruling(0.2, 3, 0.6),
    "person_in_path": Ruling(0.25, 3, 0.6),
    "standstill": Ruling(2.0, 4, 0.0),
    "hard_braking": Ruling(0.3, 2, 0.5),
}


class Evidence(NamedTuple):
    """A look at which what a case is about is so.

    Attributes:
        badness: how bad it is; the figures of the worst look are the event's.
        confidence: that it is so, 0 to 1.
        figures: what it stands on.
        text: the same in words.
    """

    badness: float
    confidence: float
    figures: Mapping[str, float]
    text: str


@dataclass(slots=True, eq=False)
class Case:
    """One thing that may become an event: of one kind, about the same tracks.

    Attributes:
        event: the event as it stands, None until it is one.
        idle: whether nothing points to it any more.
    """

    kind: Happening
    tracks: tuple[int, ...]
    event: Event | None = None
    _since: tuple[float, int] | None = field(default=None)
    _looks: int = 0
    _last: float = 0.0
    _worst: tuple[float, Evidence] | None = None

    @property
    def idle(self) -> bool:
        return self._since is None

    def look(self, time: float, frame: int, evidence: Evidence | None) -> Event | None:
        """Take in a look; the event, in the look in which it ends with its end, or None.

        Args:
            time: seconds on the stream's timeline.
            frame: index of the frame.
            evidence: None where it is not so.
        """
        if evidence is None:
            return self._without(time)
        if self._since is None:
            self._since, self._looks, self._worst = (time, frame), 0, None
        self._looks += 1
        self._last = time
        if self._worst is None or evidence.badness > self._worst[1].badness:
            self._worst = time, evidence
        ruling = RULINGS[self.kind]
        if self._looks >= ruling.looks and time - self._since[0] >= ruling.least - 1e-6:
            self.event = self._as_event(None)
        return self.event

    def _without(self, time: float) -> Event | None:
        if self._since is None:
            return None
        if self.event is None:
            self._since = None  # what is not so once in between was not so long enough
            return None
        if time - self._last < RULINGS[self.kind].pause:
            return self.event
        ended = self._as_event(self._last)
        self._since = self.event = None
        return ended

    def _as_event(self, end: float | None) -> Event:
        assert self._since is not None
        assert self._worst is not None
        start, frame = self._since
        peak, worst = self._worst
        return Event(
            id=f"{self.kind}-{'-'.join(map(str, (*self.tracks, frame)))}",
            kind=self.kind,
            start=round(start, 3),
            end=None if end is None else round(end, 3),
            peak=round(peak, 3),
            confidence=round(float(worst.confidence), 3),
            tracks=self.tracks,
            figures={name: round(float(value), 3) for name, value in worst.figures.items()},
            text=worst.text,
        )


def beyond(value: float, limit: float, sigma: float) -> float:
    """How likely a figure with a standard deviation is truly above its limit, errors being normal."""
    if sigma <= 0:
        return float(value > limit)
    return 0.5 * (1 + math.erf((value - limit) / (sigma * math.sqrt(2))))
