"""A file played as if it were a camera: at its own speed, and the newest frame wins."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from pipeline.clocks import Pace
from pipeline.frame import Frame, Mode
from pipeline.sources import AudioPacket, Source, SourceCounts, StreamInfo
from pipeline.state import SourceState, StateChange


class RealtimeSource:
    """Hands out the frames of another source when they are due; it can be paused, and the time stands still then.

    Args:
        source: what is played, not yet open.
        latency_bound: seconds; an older picture is dropped rather than analysed or given out.
        observe: told every change of state; must not wait.
    """

    mode: Mode = "live"

    def __init__(
        self,
        source: Source,
        latency_bound: float = 0.2,
        observe: Callable[[StateChange], None] = lambda _change: None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id, self.address = source.id, source.address
        self.counts: SourceCounts = source.counts
        self._source, self._bound, self._observe = source, latency_bound, observe
        self._wall, self._monotonic = wall_clock, monotonic
        self._changed = threading.Condition()
        self._stopped = self._paused = self._opened = self._ended = False

    def open(self) -> StreamInfo:
        self._say(SourceState.CONNECTING)
        info = replace(self._source.open(), audio=())  # the sound of pictures that are left out fits nothing
        self.counts = self._source.counts
        info.latency_bound = self._bound
        self._opened = True
        return info

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

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        pace = Pace()
        for item in self._source:
            if isinstance(item, AudioPacket):
                continue
            due = self._wait(pace, item.time)
            if due is None:
                break
            item.arrived_at = min(due, self._monotonic())
            item.captured_at = self._wall() - (self._monotonic() - item.arrived_at)
            if item.index == 0:
                self._say(SourceState.STREAMING)
            yield item
        self._end()

    def _wait(self, pace: Pace, pts: float) -> float | None:
        """When the frame is due, which is now; None when it was stopped."""
        while True:
            with self._changed:
                while not self._paused or self._stopped:
                    if self._stopped:
                        return None
                    now = self._monotonic()
                    due = pace.due(pts, now)
                    if due <= now:
                        return due
                    self._changed.wait(due - now)
            self._say(SourceState.PAUSED)  # without the lock: who listens must not hold up a stop
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

    def close(self) -> None:
        self.stop()
        self._source.close()
        if self._opened:
            self._end()
