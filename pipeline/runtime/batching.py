"""Which streams' frames go into the next batch, and how long it may wait for more of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

SHORTEST_WINDOW = 0.002
LONGEST_WINDOW = 0.1
_SILENT_AFTER = 2.0


def batch_window(live_periods: Sequence[float], engine_time: float) -> float:
    """Seconds a batch may wait for further streams after its first frame is there: the shortest live period less the
    engine's time, between 2 and 100 ms. A batch never waits for the slowest stream, and not at all for files.

    Args:
        live_periods: seconds between frames of each live stream that is not silent.
        engine_time: smoothed seconds the engine takes for a batch.

    >>> round(batch_window([1 / 30, 1 / 10], 0.012), 4)
    0.0213
    >>> batch_window([], 0.012), batch_window([1 / 30], 0.05), batch_window([1.0], 0.01)
    (0.0, 0.002, 0.1)
    """
    if not live_periods:
        return 0.0
    return min(max(min(live_periods) - engine_time, SHORTEST_WINDOW), LONGEST_WINDOW)


def batch_room(most: int, in_engine: int, frame_time: float, bound: float | None) -> int:
    """Frames that may go to the engine now so that the last of them is through within half of the age bound: the other
    half is for waiting in the slot, fusing, drawing and the outputs. An engine that has nothing to do gets at least
    one.

    Args:
        most: frames of a batch at most.
        in_engine: frames handed to it that are not through.
        frame_time: smoothed seconds it takes for a frame while it is busy; 0 while unknown.
        bound: seconds a frame may get old; None for files, which lose nothing by waiting.

    >>> batch_room(6, 0, 0.018, 0.2), batch_room(6, 4, 0.018, 0.2), batch_room(6, 5, 0.018, 0.2)
    (5, 1, 0)
    >>> batch_room(6, 0, 0.5, 0.2), batch_room(6, 9, 0.018, None)
    (1, 6)
    """
    if bound is None or not frame_time:
        return most
    room = int(bound * _ENGINES_SHARE / frame_time) - in_engine
    return max(min(most, room), 0 if in_engine else 1)


_ENGINES_SHARE = 0.5


class ArrivalRate:
    """The period of a live stream: frames counted over the last seconds, not differences of jittering times."""

    def __init__(self, span: float = 2.0) -> None:
        self._times: deque[float] = deque()
        self._span = span

    def arrived(self, now: float) -> None:
        """A frame came at `now`, seconds on a monotonic clock."""
        self._times.append(now)
        while self._times[0] < now - self._span:
            self._times.popleft()

    def period(self, now: float) -> float | None:
        """Seconds between frames; None while fewer than two came, or when the stream has been silent for 2 s."""
        if len(self._times) < 2 or now - self._times[-1] > _SILENT_AFTER:
            return None
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1)

    def expected(self, now: float) -> bool:
        """Whether a frame is to be expected soon: not of a stream that has left out two, or never came twice.

        >>> rate = ArrivalRate()
        >>> for time in (0.0, 0.1, 0.2):
        ...     rate.arrived(time)
        >>> rate.expected(0.35), rate.expected(0.45)
        (True, False)
        """
        period = self.period(now)
        return period is not None and now - self._times[-1] <= 2 * period


class Way:
    """How long a stream's frames take from their batch to where they are given out: smoothed, with their spread, as TCP
    does with its round trips (RFC 6298, section 2; twice the spread in place of four times).

    >>> way = Way()
    >>> for seconds in (0.1, 0.1, 0.2):
    ...     way.took(seconds)
    >>> round(way.expected, 3)
    0.219
    """

    def __init__(self) -> None:
        self._mean = self._spread = 0.0

    @property
    def expected(self) -> float:
        """Seconds that the next frame is through by, most likely; 0 while unknown."""
        return self._mean + 2 * self._spread

    def took(self, seconds: float) -> None:
        """A frame was given out, or came too late for that, so long after it was submitted."""
        if not self._mean:
            self._mean, self._spread = seconds, seconds / 2
            return
        self._spread += (abs(seconds - self._mean) - self._spread) / 4
        self._mean += (seconds - self._mean) / 8

    def forget(self) -> None:
        """Nothing was tried: believe what is known a little less, so that a frame is tried again before long."""
        self._mean *= 1 - _FORGOTTEN
        self._spread *= 1 - _FORGOTTEN


_FORGOTTEN = 0.1


def round_robin(ready: Sequence[int], start: int, count: int) -> list[int]:
    """Up to `count` of the streams that are ready, beginning with the first one at or behind `start`.

    With the start moved behind the last one taken, no stream is taken twice before another that was ready once.

    >>> round_robin([0, 1, 2, 4], start=2, count=3)
    [2, 4, 0]
    """
    ordered = [i for i in ready if i >= start] + [i for i in ready if i < start]
    return ordered[:count]
