"""A file played as if it were a camera: at its own speed, and the newest frame wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.contracts import AudioPacket, Source, SourceCounts, StreamInfo
from pipeline.frame import Frame, Mode
from pipeline.sources.clocks import Pace
from pipeline.sources.streamed.steered import Steered
from pipeline.state import SourceState, StateChange


class RealtimeSource(Steered):
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
        self.paths: tuple[Path, ...] = getattr(source, "paths", ())
        self._source, self._bound, self._monotonic = source, latency_bound, monotonic
        self._opened = False
        self._steered(observe, wall_clock)

    def open(self) -> StreamInfo:
        self._say(SourceState.CONNECTING)
        info = replace(self._source.open(), audio=())  # the sound of pictures that are left out fits nothing
        self.counts = self._source.counts
        info.latency_bound = self._bound
        self._opened = True
        return info

    def __iter__(self) -> Iterator[Frame | AudioPacket]:
        pace = Pace()
        for item in self._source:
            if not isinstance(item, Frame):
                continue
            due = self._wait(pace, item.time)
            if due is None:
                break
            item.arrived_at = min(due, self._monotonic())
            item.captured_at, item.captured_from = self._wall() - (self._monotonic() - item.arrived_at), ""
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
            self._rest()

    def close(self) -> None:
        self.stop()
        self._source.close()
        if self._opened:
            self._end()
