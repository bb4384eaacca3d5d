"""When a decoded picture is shown, where its presentation time may be a guess: FFmpeg's best effort."""

from __future__ import annotations


class BestEffort:
    """Presentation times out of those a decoder hands on, by the rule of FFmpeg's `guess_correct_pts` (libavcodec).

    Containers without presentation times (AVI) leave FFmpeg guessing; with B-frames its guesses run backwards, and the
    decoding times, which the decoder hands on in order, are right but for a constant. Whichever kind has run backwards
    less often is used.

    >>> times = BestEffort()
    >>> [times.of(pts, dts) for pts, dts in ((1, 2), (4, 3), (3, 4), (5, 5), (2, 6))]
    [1, 4, 4, 5, 6]
    >>> times.restart()
    >>> [times.of(pts, dts) for pts, dts in ((1, 2), (4, 3), (3, 4))]
    [2, 3, 4]
    """

    def __init__(self) -> None:
        self._faulty_pts = self._faulty_dts = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None

    def of(self, pts: int | None, dts: int | None) -> int | None:
        """When the next picture is shown, in its own units.

        Args:
            pts: presentation time of the picture, or None.
            dts: decoding time of the packet that brought it out, or None.
        """
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        return pts if pts is not None and (self._faulty_pts <= self._faulty_dts or dts is None) else dts

    def restart(self) -> None:
        """The same pictures come again, or another clock begins; what is known of the two kinds stays."""
        self._last_pts = self._last_dts = None
