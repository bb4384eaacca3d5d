"""Which clock the packets of a clip were stamped by: a recorder that restarts begins to count anew within one file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from engines.containers import exact
from pipeline.contracts import AudioPacket, DataPacket
from pipeline.sources.timeline import LONGEST_GAP, LONGEST_START, Timeline

_BACK = 0.25
"""Seconds that the packets of a track, in decoding order, may step back without another clock."""

_REMEMBERED = 4
"""Pieces that a late packet may still belong to."""


class Pieces:
    """Numbers the pieces of a clip, each stamped by a clock of its own, and tells the piece of each packet.

    Where a clock starts anew, the tracks reach the new one at different packets: sound of the new clock is often read
    before the last pictures of the old one. A packet belongs to the piece in which it goes on from its own track; where
    it fits several, to the one whose newest packet is nearest. One that fits none begins a new piece.

    Args:
        longest_gap: seconds between packets beyond which a jump forward is another clock, not a pause.

    >>> pieces = Pieces()
    >>> [pieces.of(track, time) for track, time in ((0, 9.9), (1, 9.9), (1, 0.0), (0, 9.94), (0, 0.0), (1, 0.02))]
    [0, 0, 1, 0, 1, 1]
    """

    def __init__(self, longest_gap: float = LONGEST_GAP) -> None:
        self.newest = 0
        self._longest_gap = longest_gap
        self._ends: dict[int, float] = {}
        self._tracks: dict[int, dict[int, float]] = {}
        self._current: dict[int, int] = {}

    def of(self, track: int, time: float | None) -> int:
        """The number of the piece, from 0, of the next packet of a track.

        Args:
            track: any number of the track's own.
            time: when it is to be decoded, seconds on its own clock; None where it does not say.
        """
        current = self._current.get(track, self.newest)
        if time is None:
            return current
        fitting = [piece for piece in {current, self.newest} if self._fits(track, piece, time)]
        if not fitting:
            oldest = max(self.newest - _REMEMBERED, 0)
            fitting = [piece for piece in range(oldest, self.newest + 1) if self._fits(track, piece, time)]
        if fitting:
            piece = min(fitting, key=lambda one: (abs(time - self._ends.get(one, time)), -one))
        else:
            self.newest += 1
            piece = self.newest
        self._current[track] = piece
        self._tracks.setdefault(track, {})[piece] = time
        self._ends[piece] = max(time, self._ends.get(piece, time))
        return piece

    def _fits(self, track: int, piece: int, time: float) -> bool:
        if piece not in self._ends:
            return True
        if time - self._ends[piece] > self._longest_gap:
            # The first packet of a track may be anywhere: a file may hold all of one track before the other.
            return track not in self._tracks
        own = self._tracks.get(track, {}).get(piece)
        return own is None or time - own >= -_BACK


class Placing:
    """Pictures, sound and data of one clip on a stream's timeline, each by the clock that it was read under.

    Sound and data wait for the first picture of their clock, which says where on the line that clock begins.

    Args:
        line: the stream's.
        first_clip: whether the clip keeps its own times.

    Attributes:
        pieces: which clock each packet was stamped by.
        waiting: sound and data of clocks of which no picture has come.
    """

    def __init__(self, line: Timeline, *, first_clip: bool) -> None:
        self.pieces = Pieces(line.longest_gap)
        self.waiting: list[tuple[int, AudioPacket | DataPacket]] = []
        self._line, self._first_clip = line, first_clip
        self._offsets: dict[int, int] = {}
        self._piece = -1

    def picture(self, piece: object, pts: int | None, time_base: Fraction, duration: int) -> int:
        """The place of a picture of that piece, in units of the line; None is the piece of the one before."""
        line = self._line
        number = piece if isinstance(piece, int) else max(self._piece, 0)
        if number not in self._offsets:
            if not self._offsets and not self._first_clip:
                line.join_clip(pts, time_base)
            elif not self._offsets and pts is not None and abs(pts * time_base) > LONGEST_START:
                line.begin_at_zero(pts, time_base)
            elif self._offsets:
                line.begin_piece(pts, time_base)
            self._piece = number
        elif number != self._piece:
            pts = None  # a picture that the decoder held back for longer than the clock it was stamped by
        placed = line.place(pts, time_base, duration)
        self._offsets[self._piece] = line.offset
        return placed

    def beside(self, item: AudioPacket | DataPacket, piece: int) -> Iterator[AudioPacket | DataPacket]:
        """A packet at its place, at once or once a picture has said where that is."""
        if piece in self._offsets:
            yield self._placed(item, piece)
        else:
            self.waiting.append((piece, item))

    def released(self) -> Iterator[AudioPacket | DataPacket]:
        """The sound and data that have waited for the last picture."""
        if any(piece in self._offsets for piece, _ in self.waiting):
            ready = [(piece, item) for piece, item in self.waiting if piece in self._offsets]
            self.waiting = [(piece, item) for piece, item in self.waiting if piece not in self._offsets]
            for piece, item in ready:
                yield self._placed(item, piece)

    def _placed(self, item: AudioPacket | DataPacket, piece: int) -> AudioPacket | DataPacket:
        packet = item.packet
        own = packet.dts if packet.pts is None else packet.pts
        if own is not None:
            delta = self._line.place_packet(own, exact(packet.time_base, Fraction(1)), self._offsets[piece]) - own
            packet.pts = None if packet.pts is None else packet.pts + delta
            packet.dts = None if packet.dts is None else packet.dts + delta
        return item
