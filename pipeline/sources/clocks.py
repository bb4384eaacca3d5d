"""When a live picture really came: a reader that is behind must not make its pictures look young."""

from __future__ import annotations

from collections import deque

_WINDOW = 2.0
"""Seconds after which a delay that does not go away is the way the stream comes, if its reader is not behind."""

_WAITING = 0.5
"""Share of the time that a reader waits for data when nothing is left over for it; one that is behind never waits."""

_SLOW_CLOCK = 0.1
"""Seconds by which the delay may grow in a window, and in the next one again, before the timestamps are not believed:
they run at another speed than time."""

_AGREEING = 3
"""Packets in a row that must come before they are due until that is believed: one early timestamp redefines nothing."""

_STANDING = 5
"""Equal timestamps in a row, from which on they are none."""

_JUMP = 10.0
"""Seconds between what a timestamp promises and what the clock says beyond which the timestamps began anew."""


class ArrivalClock:
    """When each packet reached this machine, estimated where it had to wait for being read.

    The stream's own timestamps say how far apart its packets are; those that came soonest after their timestamps say
    where on our clock they begin. A packet that comes later than that has waited: in the network, or in the socket
    because nobody read. Its arrival is when it was due. A delay shared by all packets for two seconds while reads had
    to wait for data (so nothing was left over in the socket) is how the stream comes now, and counts no more. Where it
    grows on and on, the timestamps run at a wrong speed, and a packet arrives when it is read.

    Args:
        held_back: packets that FFmpeg holds back: where only the next packet's beginning shows that one is complete,
            packet n has been here since packet n − 1 was handed out.
    """

    def __init__(self, held_back: int = 0) -> None:
        self._read_at: deque[float] = deque(maxlen=held_back + 1)
        self._offset: float | None = None
        self._window_began = 0.0
        self._least_late = 0.0
        self._waited = 0.0
        self._grown = 0
        self._believed = True
        self._early: list[float] = []
        self._last: float | None = None
        self._equal = 0

    def restart(self) -> None:
        """The stream's clock begins anew with the next packet."""
        self._offset = None
        self._early.clear()

    def arrived(self, time: float | None, before: float, now: float) -> float:
        """The arrival of a packet on the monotonic clock, seconds; at most `now`.

        Args:
            time: its decoding time on the stream's own clock (`DecodeOrder`), seconds, or None.
            before: monotonic time at which the read was begun.
            now: monotonic time at which it returned the packet.
        """
        self._read_at.append(now)
        here = self._read_at[0]
        self._equal = self._equal + 1 if time is not None and time == self._last else 0
        self._last = time
        if self._equal >= _STANDING:
            self._offset = None
        if time is None or not self._believed or self._equal >= _STANDING:
            return here
        if self._offset is None:
            self._begin(here - time, now)
            return here
        late = here - time - self._offset
        if late > _JUMP:
            self._begin(here - time, now)
            return here
        if late < 0:
            self._early.append(here - time)
            if len(self._early) >= _AGREEING:
                self._begin(max(self._early), now)
            return here
        self._early.clear()
        self._least_late = min(self._least_late, late)
        self._waited += now - before
        if now - self._window_began > _WINDOW:
            waits_for_data = self._waited >= _WAITING * (now - self._window_began)
            grown = self._least_late if waits_for_data else 0.0
            self._grown = self._grown + 1 if grown > _SLOW_CLOCK else 0
            self._believed = self._grown < 2
            self._begin(self._offset + grown, now)
        return here - late

    def _begin(self, offset: float, now: float) -> None:
        self._offset, self._window_began, self._least_late = offset, now, float("inf")
        self._waited = 0.0
        self._early.clear()


class Allowance:
    """How old frames are when they come out of the decoder of a reader that is never late.

    Two things make them so, and no dropping mends either: a parser that sees a picture's end only where the next ones
    begin, and a decoder that waits for pictures which are shown earlier (B-frames). Both are measured in arrivals,
    frame by frame, because a camera may slow down at night, or announce a rate that it does not keep.

    Args:
        held_back: packets that FFmpeg holds back.

    >>> slow = Allowance(held_back=1)
    >>> for at in (0.0, 0.04, 0.08, 1.08):
    ...     slow.packet(at)
    ...     slow.frame(at)
    >>> slow.seconds
    1.0
    """

    def __init__(self, held_back: int = 0) -> None:
        self._held_back = held_back
        self._steps: deque[float] = deque(maxlen=max(held_back, 1))
        self._last: float | None = None
        self._waits: deque[float] = deque(maxlen=_FRAMES)

    @property
    def seconds(self) -> float:
        """The longest wait of the last few frames."""
        return max(self._waits, default=0.0)

    @property
    def held(self) -> float:
        """The share of it that packets have before they are decoded."""
        return self._held_back * max(self._steps, default=0.0)

    def packet(self, arrived: float) -> None:
        """A packet goes into the decoder that arrived at this time, monotonic seconds."""
        if self._last is not None:
            self._steps.append(max(arrived - self._last, 0.0))
        self._last = arrived

    def frame(self, arrived: float) -> None:
        """A frame comes out of it, whose packet arrived at this time."""
        reordered = 0.0 if self._last is None else max(self._last - arrived, 0.0)
        self._waits.append(reordered + self.held)


_FRAMES = 8
"""Frames whose waits are remembered: a rate that varies from frame to frame is one."""


class Pace:
    """When the frames of something that can be read faster than it was recorded are due, as from a camera.

    One that is late by more than a second moves all that follow: the clock of a camera never stands still, but a player
    whose machine slept does not catch up either.

    >>> pace = Pace()
    >>> [pace.due(pts, now) for pts, now in ((5.0, 100.0), (5.04, 100.0), (5.08, 100.2), (5.12, 102.0))]
    [100.0, 100.04, 100.08, 102.0]
    """

    def __init__(self, latest: float = 1.0) -> None:
        self._latest = latest
        self._offset: float | None = None

    def due(self, pts: float, now: float) -> float:
        """When to show a frame, monotonic seconds; in the past where it is late.

        Args:
            pts: its time on its own clock, seconds.
            now: monotonic time.
        """
        if self._offset is None or not -self._latest <= pts + self._offset - now <= _JUMP:
            self._offset = now - pts
        return round(pts + self._offset, 6)
