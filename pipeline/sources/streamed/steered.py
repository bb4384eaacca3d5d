"""What all sources have in common that are waited for and are no camera: they are stopped, paused, and say how they
are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pipeline.state import SourceState, StateChange


class Steered:
    """The part of a source that other threads steer."""

    id: str

    def _steered(self, observe: Callable[[StateChange], None], wall_clock: Callable[[], float] = time.time) -> None:
        """To be called once, by the source's `__init__`.

        Args:
            observe: told every change of state; must not wait.
            wall_clock: Unix seconds.
        """
        self._observe, self._wall = observe, wall_clock
        self._changed = threading.Condition()
        self._stopped = self._paused = self._ended = False

    # From any thread ------------------------------------------------------------------------------------------------
    def stop(self) -> None:
        """End: a waiting `next` returns. Returns at once."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def pause(self) -> None:
        """Stand still until `resume`. Returns at once."""
        with self._changed:
            self._paused = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Go on from where it stands. Returns at once."""
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    # From the thread that iterates ----------------------------------------------------------------------------------
    def _rest(self) -> None:
        """Say that it is paused, and wait until it is not, or is stopped. The lock must not be held: who listens must
        not hold up a stop."""
        self._say(SourceState.PAUSED)
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._paused)
            stopped = self._stopped
        if not stopped:
            self._say(SourceState.STREAMING)

    def _end(self) -> None:
        """Say that it is over: once, also where nobody iterated to the end."""
        with self._changed:
            said, self._ended = self._ended, True
        if not said:
            self._say(SourceState.ENDED, "stopped" if self._stopped else "")

    def _say(self, state: SourceState, cause: str = "") -> None:
        self._observe(StateChange(self.id, state, cause, cause, self._wall(), int(state is SourceState.CONNECTING)))
