"""Pictures are sent in the order in which they are decoded, with the times at which they are shown."""

from __future__ import annotations

from collections import deque

DEEPEST = 4
"""Pictures that may precede another one and be shown after it, of encoders that are in use; H.264 allows 16. A time
that lies further back is a clock that was set."""

_REMEMBERED = 16


class DecodeOrder:
    """Decoding times out of presentation times, as FFmpeg makes them where a stream carries none (RTP).

    With B-frames a packet's presentation time lies ahead of the packets that follow. The n-th smallest presentation
    time is the n-th decoding time, `depth` packets later: of the latest `depth` + 1 times the smallest. The depth is
    learned from the packets: the greatest number of earlier ones that are shown after a later one.

    Attributes:
        depth: pictures that the order is apart, 0 without B-frames.

    >>> order = DecodeOrder()
    >>> [order.place(pts) for pts in (0, 3, 1, 2, 6, 4, 5)]
    [(0, True), (3, False), (1, True), (2, False), (3, False), (4, False), (5, False)]
    """

    def __init__(self) -> None:
        self.depth = 0
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._last: float | None = None

    def place(self, pts: float) -> tuple[float | None, bool]:
        """The decoding time of the next packet, None while it is not known, and whether a new clock begins with it:
        at the start, where the depth has grown, or where the time steps back further than any reordering.
        """
        begins = not self._recent
        later = sum(earlier > pts for earlier in self._recent)
        if later > DEEPEST:
            self._recent.clear()
            begins = True
        elif later > self.depth:
            self.depth, begins = later, True
        self._recent.append(pts)
        time = self._time()
        if time is not None and self._last is not None and time < self._last and not begins:
            # A step back by less than the depth, or one that the depth was too small to tell from B-frames.
            self._recent = deque([pts], _REMEMBERED)
            time, begins = self._time(), True
        self._last = time
        return time, begins

    def _time(self) -> float | None:
        return None if len(self._recent) <= self.depth else sorted(self._recent)[-1 - self.depth]
