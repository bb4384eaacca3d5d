"""Playlists to which more is added: pictures come segment by segment, long before they are due, and may come again."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

from av.packet import Packet

log = logging.getLogger(__name__)

PLAYLISTS = frozenset({"hls", "dash"})
"""Inputs that are read segment by segment."""

_JUMP, _STEPS = 1.0, 4.0
"""Seconds, and times the usual step, between two pictures beyond which their clock is another one, or a segment between
them is lost."""

_REMEMBERED = 4096
"""Packets by which a segment is known when it comes again: some minutes."""

_PUBLISHED = 0.2
"""Seconds that a read waits for what is not published yet."""


class PlaylistPace:
    """When the pictures of a playlist are due, at their own speed.

    The first one is due at once, and so is one behind a jump: a lost segment, an encoder that began anew, or segments
    that expired before they were read. Where the next segment is published late, all that follows is due as much later.
    What is late otherwise has waited here.

    Args:
        stream: id of the stream, for what is said.
        address: of the playlist, for people.
        monotonic: clock in seconds.
        wake: ends all waiting.

    Attributes:
        jump: seconds between the last two pictures where that was a jump, else 0.
        waited: seconds that reads have waited for data since the picture before.

    >>> pace = PlaylistPace()
    >>> [pace.due(*each) for each in ((5.0, 100.0, 0), (5.5, 100.1, 0), (6.0, 102.0, 0.3), (90.0, 102.0, 0))]
    [100.0, 100.5, 101.3, 102.0]
    """

    def __init__(
        self,
        stream: str = "",
        address: str = "",
        monotonic: Callable[[], float] = time.monotonic,
        wake: threading.Event | None = None,
    ) -> None:
        self.jump = self.waited = 0.0
        self._stream, self._address, self._monotonic, self._wake = stream, address, monotonic, wake or threading.Event()
        self._said = False
        self._offset = 0.0
        self._last: float | None = None
        self._steps: deque[float] = deque(maxlen=25)

    def wait(self, seconds: float) -> float:
        """Wait until a picture is due, or all waiting is ended; its arrival, monotonic seconds.

        Args:
            seconds: its time on its own clock.
        """
        now = self._monotonic()
        due, self.waited = self.due(seconds, now, self.waited), 0.0
        if self.jump and not self._said:
            self._said = True
            log.warning(
                "%s: the clock of %s jumps by %+.1f s: a segment is lost, or its encoder began anew", self._stream,
                self._address, self.jump,
            )  # fmt: skip
        if due > now:
            self._wake.wait(due - now)
        return min(due, self._monotonic())

    def due(self, seconds: float, now: float, waited: float) -> float:
        """When to show a picture, monotonic seconds; in the past where it is late.

        Args:
            seconds: its time on its own clock.
            now: monotonic time.
            waited: seconds that reads have waited for data since the picture before.
        """
        step = None if self._last is None else seconds - self._last
        self._last, self.jump = seconds, 0.0
        usual = median(self._steps) if self._steps else 0.0
        if step is None or not 0 <= step <= max(_JUMP, _STEPS * usual):
            self.jump = step or 0.0
            self._offset = now - seconds
            self._steps.clear()
        else:
            self._steps.append(step)
            self._offset += min(self.late(seconds, now), waited)
        return round(seconds + self._offset, 6)

    def late(self, seconds: float, now: float) -> float:
        """How long ago a picture was due, seconds; 0 where it is not yet, or nothing is known of its clock."""
        known = self._last is not None and abs(seconds - self._last) <= _JUMP
        return max(now - seconds - self._offset, 0.0) if known else 0.0


class Known:
    """The packets of pictures that were read of a playlist. A new connection is given the newest segments, which may be
    known; of a playlist to which nothing is added any more all of them are.
    """

    def __init__(self) -> None:
        self._recent: deque[tuple[int | None, int]] = deque()
        self._known: set[tuple[int | None, int]] = set()
        self._repeats = False

    def connected(self) -> None:
        """A new connection begins."""
        self._repeats = True

    def again(self, packet: Packet[Any], waited: float) -> bool:
        """Whether a packet was read before, by an earlier connection. What is published only now is new, even where an
        encoder that began anew sends what it sent before.

        Args:
            packet: the packet.
            waited: seconds that reading it took.
        """
        key = packet.pts, zlib.crc32(bytes(packet))
        self._repeats = self._repeats and key in self._known and waited < _PUBLISHED
        if key not in self._known:
            self._known.add(key)
            self._recent.append(key)
            if len(self._recent) > _REMEMBERED:
                self._known.discard(self._recent.popleft())
        return self._repeats
