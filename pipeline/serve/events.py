"""What happened lately, for people who look and programs that listen: a bounded log with numbers that never repeat."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec

from pipeline.state import StateChange

KEPT = 500


class Event(msgspec.Struct, frozen=True, omit_defaults=False):
    """Something that happened.

    Attributes:
        number: rises by one from event to event.
        at: wall clock, Unix seconds.
        stream: id of the stream, or empty.
        kind: the state that was entered, or what was done: `added`, `removed`, `changed` …
        text: one line for people, without credentials.
        cause: kind of the reason where a source entered a state; see the messages' `status`.
        retry_in: seconds until the next attempt, while backing off.
    """

    number: int
    at: float
    stream: str
    kind: str
    text: str = ""
    cause: str = ""
    retry_in: float | None = None


class EventLog:
    """The last `KEPT` events. Safe from any thread.

    Args:
        clock: Unix time in seconds.
        heard: told each event, at once and in order; it must not wait.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, heard: Callable[[Event], None] = lambda _event: None
    ) -> None:
        self._clock, self._heard = clock, heard
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._lock = threading.Lock()
        self._number = 0
        self._waiting: set[Callable[[], None]] = set()

    def add(
        self, stream: str, kind: str, text: str = "", cause: str = "", retry_in: float | None = None, at: float = 0.0
    ) -> None:
        """Something happened; `at` is now where it is left out."""
        with self._lock:
            self._number += 1
            event = Event(self._number, at or self._clock(), stream, kind, text, cause, retry_in)
            self._events.append(event)
            self._heard(event)
            waiting = list(self._waiting)
        for wake in waiting:
            wake()

    def changed(self, change: StateChange) -> None:
        """A source entered a state."""
        self.add(change.stream, change.state.value, change.reason, change.cause, change.retry_in, change.at)

    def after(self, number: int, limit: int = KEPT) -> list[Event]:
        """The events after `number`, oldest first; of more than `limit` the newest. After a number that there has not
        been yet, all: it is of the server before this one.
        """
        with self._lock:
            number = number if number <= self._number else 0
            return [e for e in self._events if e.number > number][-limit:]

    async def wait_after(self, number: int, seconds: float) -> list[Event]:
        """The events after `number`, as soon as there are any; none when `seconds` passed first."""
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop may have been closed meanwhile
                loop.call_soon_threadsafe(woken.set)

        with self._lock:
            self._waiting.add(wake)
        try:
            if not (found := self.after(number)):
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), seconds)
                found = self.after(number)
        finally:
            with self._lock:
                self._waiting.discard(wake)
        return found
