"""The clock of an output that never stops: pictures of a source that comes and goes, and the cards between them."""

from __future__ import annotations

_APART = 0.5
_STEP = 0.001


class OutputTimeline:
    """Lays pictures and cards on one timeline that only grows, and stays within half a second of real time.

    A source's own times are kept as long as they agree with the clock, so that the jitter of the network does not reach
    the viewers; where they part from it (a reconnect, a drifting camera) they are laid on the clock anew. All times in
    seconds.

    Args:
        began: monotonic clock at which the timeline is 0.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._offset: float | None = None
        self._last = float("-inf")

    def picture(self, time: float, arrived_at: float) -> float:
        """When a picture is shown.

        Args:
            time: on its stream's timeline.
            arrived_at: monotonic clock.
        """
        on_the_clock = max(0.0, arrived_at - self._began)
        placed = None if self._offset is None else time + self._offset
        if placed is None or placed <= self._last or abs(placed - on_the_clock) > _APART:
            placed = self._after(on_the_clock)
            self._offset = placed - time
        self._last = placed
        return placed

    def card(self, now: float) -> float:
        """When a card is shown that is made at `now` on the monotonic clock."""
        self._last = self._after(max(0.0, now - self._began))
        return self._last

    def _after(self, time: float) -> float:
        return max(time, self._last + _STEP)
