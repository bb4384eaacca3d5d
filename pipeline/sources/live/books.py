"""What became of every packet of pictures: a frame, or the reason why not."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pipeline.contracts import SourceCounts

_DEEPEST = 32
"""Packets after which one that gave no frame never will: H.264 and H.265 reorder 16 pictures at most."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A packet that the decoder holds.

    Attributes:
        pts: its presentation time, in its own units; None where it has none.
        arrived: when it arrived here, monotonic seconds.
        captured: when it was captured, Unix seconds.
    """

    pts: int | None
    arrived: float
    captured: float


class Books:
    """The packets of one connection between the network and the frames. Each comes out of the decoder as a frame, in
    order of presentation, or is counted in `SourceCounts.skipped` or as a decode error.

    Args:
        counts: of the source.

    >>> counts = SourceCounts()
    >>> books = Books(counts)
    >>> for pts in (0, 3, 1, 2):
    ...     books.put(Coded(pts, 0.1 * pts, 0.0))
    >>> books.frame(0).arrived, books.frame(2).arrived, dict(counts.skipped)
    (0.0, 0.2, {'undecoded': 1})
    >>> books.close(kept=1)
    >>> counts.packets, dict(counts.skipped)
    (4, {'undecoded': 1, 'end': 1})
    """

    def __init__(self, counts: SourceCounts) -> None:
        self._counts = counts
        self._held: deque[Coded] = deque()

    def skipped(self, reason: str) -> None:
        """A packet came that no decoder is shown."""
        self._counts.packets += 1
        self._counts.skipped[reason] += 1

    def put(self, packet: Coded) -> None:
        """A packet goes into the decoder."""
        self._counts.packets += 1
        self._held.append(packet)
        if len(self._held) > _DEEPEST:
            self._held.popleft()
            self._counts.skipped["undecoded"] += 1

    def failed(self) -> None:
        """The decoder refuses the packet that went in last."""
        if self._held:
            self._held.pop()
        self._counts.decode_errors += 1

    def frame(self, pts: int | None) -> Coded | None:
        """The packet of a frame that comes out; those before it that were to be shown earlier give none any more."""
        place = next((n for n, packet in enumerate(self._held) if packet.pts == pts), None)
        if place is None:
            return self._held.popleft() if self._held else None
        found = self._held[place]
        kept = [p for n, p in enumerate(self._held) if n > place or (n < place and not _earlier(p.pts, pts))]
        self._counts.skipped["undecoded"] += len(self._held) - len(kept) - 1
        self._held = deque(kept)
        return found

    def untaken(self) -> None:
        """Nobody wants the frame that came out last: the connection is being left."""
        self._counts.skipped["end"] += 1

    def close(self, kept: int) -> None:
        """The connection is over, and with it the frames that the decoder has kept."""
        self._counts.skipped["end"] += min(kept, len(self._held))
        self._counts.skipped["undecoded"] += max(len(self._held) - kept, 0)
        self._held.clear()


def _earlier(pts: int | None, other: int | None) -> bool:
    return pts is not None and other is not None and pts < other
