"""What the log says of a camera: each thing once, however often it happens."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from pipeline.state import SourceState, StateChange

log = logging.getLogger(__name__)

_SAY_AGAIN_SECONDS, _MOST_SAID = 60.0, 16
"""How long a reason that stands in the log is not repeated, and how many reasons are remembered."""


class Reports:
    """Tells the changes of a camera's state in their order, and says in the log what is new of them: neither each of a
    thousand attempts that fail alike, nor one that flaps.

    Args:
        stream: id of the stream.
        observe: told every change.
    """

    def __init__(self, stream: str, observe: Callable[[StateChange], None] = lambda _change: None) -> None:
        self._stream, self._observe = stream, observe
        self._untold: deque[tuple[bool, StateChange, float]] = deque()
        self._lock, self._telling = threading.Lock(), False
        self._said: dict[str, float] = {}
        self._back_to_say = False

    def add(self, seen_before: bool, change: StateChange, now: float) -> None:
        """Something to tell; in the order in which it happened."""
        self._untold.append((seen_before, change, now))

    def tell(self) -> None:
        """Tell what is untold. One thread does at a time, for all; none waits for another one's observer."""
        while True:
            with self._lock:
                if self._telling or not self._untold:
                    return
                self._telling = True
                seen_before, change, now = self._untold.popleft()
            try:
                self.changed(seen_before, change, now)
                self._observe(change)
            finally:
                self._telling = False

    def changed(self, seen_before: bool, change: StateChange, now: float) -> None:
        """It entered a state at the monotonic time `now`; `seen_before` says whether a picture had come before."""
        lost = change.state in {SourceState.STALLED, SourceState.BACKING_OFF}
        back = change.state is SourceState.STREAMING and seen_before
        if not lost and not back:
            return
        known = now - self._said.get(change.reason, float("-inf")) < _SAY_AGAIN_SECONDS
        if lost and not known:
            if len(self._said) > _MOST_SAID:
                self._said.clear()
            self._said[change.reason] = now
            self._back_to_say = True
            log.warning("%s: %s; trying again", self._stream, change.reason)
        elif back and self._back_to_say:
            self._back_to_say = False
            log.info("%s: back", self._stream)
