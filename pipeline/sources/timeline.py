"""A continuous timeline out of timestamps that are missing, repeat, jump back or start anew with every clip."""

from __future__ import annotations

from fractions import Fraction

LONGEST_GAP = 3600
"""Seconds between two frames beyond which a jump forward is a clock that was set, not a pause in the recording."""

LONGEST_START = 1_000_000
"""Seconds (11.6 days) beyond which the time of the first frame is a time of day, not one since a recording began."""

_MOST_UNITS, _LEAST_UNITS_A_SECOND = 2**31 - 1, 20_000
"""What a fragment of an MP4 can say of a frame's duration, in units of which FFmpeg takes at least 10,000 a second, and
may double them (ISO/IEC 14496-12 §8.8.8, libavformat/movenc.c)."""

_JITTER = 2
"""Nominal frames that a timestamp may lie back without being a clock that started anew."""


class Timeline:
    """Places timestamps on one line on which every frame lies behind the one before.

    The first clip keeps its own timestamps, so that what goes out has the times of what came in. Gaps forward stay as
    they are, up to `longest_gap`, and never longer than an MP4 can say. A time that repeats, or lies back by less than
    two frames, is put one unit behind the frame before it, and sound and later frames stay where they are. A time
    further back (a reset, a wrapped counter), or a jump beyond the longest gap, starts a new piece right behind the
    last frame; the sound moves along.

    Args:
        time_base: seconds a unit of the line; the time base of the first clip.
        frame_duration: units a frame lasts where neither frame nor clip says.
        longest_gap: seconds between two frames beyond which a jump forward is a clock that was set.

    Attributes:
        resets: how many pieces were started by timestamps that jumped; joined clips do not count.
        offset: units of the line by which the frames of this piece are moved.

    >>> line = Timeline(Fraction(1, 25), 1)
    >>> [line.place(pts, Fraction(1, 25)) for pts in (7, 8, 9, None, 0, 1)]
    [7, 8, 9, 10, 11, 12]
    """

    def __init__(self, time_base: Fraction, frame_duration: int, longest_gap: float = LONGEST_GAP) -> None:
        self.time_base = time_base
        most = Fraction(_MOST_UNITS, max(_LEAST_UNITS_A_SECOND, time_base.denominator))
        self.longest_gap = min(longest_gap, float(most))
        self.frame_duration = max(frame_duration, 1)
        self.resets = 0
        self.offset = 0
        self._last: int | None = None
        self._joined = False
        self._last_duration = self.frame_duration

    @property
    def end(self) -> int:
        """Where the next frame is expected: behind the last one."""
        return 0 if self._last is None else self._last + self._last_duration

    def join_clip(self, first_pts: int | None, time_base: Fraction, gap: float = 0.0) -> None:
        """Another clip begins, whose first picture has the time `first_pts`: it will follow the last one, or come
        `gap` seconds later where that much time has passed without pictures.
        """
        if self._last is not None:
            gap = min(gap, _MOST_UNITS / max(_LEAST_UNITS_A_SECOND, self.time_base.denominator))
            begin = self._last + max(round(gap / self.time_base), 1) if gap else self.end
            self.offset = begin - self._rescale(first_pts or 0, time_base)
            self._joined = gap > 0

    def begin_piece(self, first_pts: int | None, time_base: Fraction) -> None:
        """The clock of the pictures is another one from the picture on that has the time `first_pts`."""
        self.resets += 1
        self.join_clip(first_pts, time_base)

    def begin_at_zero(self, first_pts: int, time_base: Fraction | None = None) -> None:
        """The first picture has the time `first_pts`, in units of the line or of `time_base`, which shall be 0: it is a
        clock's."""
        self.offset = -self._rescale(first_pts, time_base or self.time_base)

    def place(self, pts: int | None, time_base: Fraction, duration: int = 0) -> int:
        """The place of a frame on the line, in units of the line's time base.

        Args:
            pts: its own time in units of `time_base`, or None when it has none.
            time_base: seconds a unit of `pts` and `duration`.
            duration: how long it is shown, 0 when unknown.
        """
        placed = self.end if pts is None else self._rescale(pts, time_base) + self.offset
        if self._last is not None and pts is not None:
            step = placed - self._last
            if -_JITTER * self.frame_duration < step <= 0:
                placed = self._last + 1
            elif step <= 0 or (step * self.time_base > self.longest_gap and not self._joined):
                self.resets += 1
                self.offset += self.end - placed
                placed = self.end
            self._joined = False
        shown = self._rescale(duration, time_base)
        if shown <= 0 and self._last is not None:
            # As long as the one before, but a pause is no frame duration.
            shown = min(placed - self._last, 4 * self.frame_duration)
        self._last, self._last_duration = placed, max(shown or self.frame_duration, 1)
        return placed

    def place_packet(self, pts: int, time_base: Fraction, offset: int | None = None) -> int:
        """The place of another track's packet, in units of `time_base`: shifted as the pictures are at this moment, or
        as those of the piece whose `offset` is given."""
        return pts + round((self.offset if offset is None else offset) * self.time_base / time_base)

    def _rescale(self, value: int, time_base: Fraction) -> int:
        return value if time_base == self.time_base else round(value * time_base / self.time_base)
