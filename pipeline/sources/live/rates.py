"""How many pictures a second a camera sends, by what it says and by what comes."""

from __future__ import annotations

import statistics
from collections import deque
from fractions import Fraction

_RUNAWAY_SPAN, _RUNAWAY_RATE, _RUNAWAY_FACTOR = 2.0, 250.0, 8.0
"""Frames a second, over a span, that no camera sends: a demuxer that lost its place."""


class Runaway:
    """Notices a demuxer that has lost its place and hands out frames without end."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()

    def saw(self, now: float, usual: float) -> float | None:
        """A frame came at the monotonic time `now` of a camera that sends about `usual` a second; more than how many a
        second came, where no camera sends so many.
        """
        self._recent.append(now)
        while self._recent[0] < now - _RUNAWAY_SPAN:
            self._recent.popleft()
        most = max(_RUNAWAY_RATE, _RUNAWAY_FACTOR * min(usual, 240))
        return most if len(self._recent) > most * _RUNAWAY_SPAN else None


def nominal_rate(steps: list[float], announced: Fraction | None) -> Fraction:
    """Frames a second for display and key-frame distance.

    Args:
        steps: seconds between pictures by their timestamps.
        announced: what the source says, or None.

    >>> nominal_rate([0.0333, 0.0334, 0.0333, 0.0666], None), nominal_rate([0.0398, 0.0402, 0.04], Fraction(25))
    (Fraction(30, 1), Fraction(25, 1))
    >>> nominal_rate([], None), nominal_rate([0.08], Fraction(25)), nominal_rate([0.001, 0.001], None)
    (Fraction(25, 1), Fraction(25, 2), Fraction(25, 1))
    """
    measured = 1 / max(statistics.median(steps), 1 / 1000) if steps else 0.0
    if announced is not None and (not steps or abs(measured / float(announced) - 1) < _SAME_RATE):
        return announced
    near = min(_USUAL_RATES, key=lambda usual: abs(measured / float(usual) - 1))
    if abs(measured / float(near) - 1) < _SAME_RATE:
        return near
    # Pictures in a bunch, as at the start of a connection, say nothing.
    return Fraction(measured).limit_denominator(100) if 0.1 <= measured <= 240 else announced or Fraction(25)


_SAME_RATE = 0.1
_USUAL_RATES = tuple(Fraction(r) / 2 for r in (2, 4, 6, 8, 10, 12, 15, 16, 20, 24, 25, 30, 40, 50, 60, 100, 120, 240))
