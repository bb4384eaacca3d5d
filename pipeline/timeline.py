"""A continuous timeline out of timestamps that are missing, repeat, jump back or start anew with every clip."""

from __future__ import annotations

from fractions import Fraction


class Timeline:
    """Places timestamps on one line that never runs backwards.

    The first clip keeps its own timestamps, so that what goes out has the times of what came in. A time that does not
    lie behind the one before (a reset, a wrapped counter, the next clip of a trip) starts a new piece right behind the
    frame before it. Gaps forward stay as they are.

    Args:
        time_base: seconds a unit of the line; the time base of the first clip.
        frame_duration: units a frame lasts where neither frame nor clip says.
    """

    def __init__(self, time_base: Fraction, frame_duration: int) -> None:
        self.time_base = time_base
        self.frame_duration = max(frame_duration, 1)
        self.resets = 0
        self._offset = 0
        self._last: int | None = None
        self._last_duration = self.frame_duration

    @property
    def end(self) -> int:
        """Where the next frame is expected: behind the last one."""
        return 0 if self._last is None else self._last + self._last_duration

    def join_clip(self, first_pts: int | None, time_base: Fraction) -> None:
        """Another clip begins, whose first picture has the time `first_pts`: it will follow the last one."""
        if self._last is not None:
            self._offset = self.end - self._rescale(first_pts or 0, time_base)

    def place(self, pts: int | None, time_base: Fraction, duration: int = 0) -> int:
        """The place of a frame on the line, in units of the line's time base.

        Args:
            pts: its own time in units of `time_base`, or None when it has none.
            time_base: seconds a unit of `pts` and `duration`.
            duration: how long it is shown, 0 when unknown.
        """
        if pts is None:
            placed = self.end
        else:
            own = self._rescale(pts, time_base)
            placed = own + self._offset
            if self._last is not None and placed <= self._last:
                self.resets += 1
                self._offset = self.end - own
                placed = self.end
        shown = self._rescale(duration, time_base)
        if shown <= 0 and self._last is not None and placed > self._last:
            shown = min(placed - self._last, 4 * self.frame_duration)
        self._last, self._last_duration = placed, max(shown or self.frame_duration, 1)
        return placed

    def place_packet(self, pts: int, time_base: Fraction) -> int:
        """The place of another track's packet, in units of `time_base`: shifted as the pictures are at this moment."""
        return pts + round(self._offset * self.time_base / time_base)

    def _rescale(self, value: int, time_base: Fraction) -> int:
        return value if time_base == self.time_base else round(value * time_base / self.time_base)
