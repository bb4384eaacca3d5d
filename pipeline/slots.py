"""Where a stream's decoded frames wait for the engine: a short queue for a file, one newest frame for a live source."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.frame import Frame, Mode
from pipeline.sources import AudioPacket

UInt8 = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Sample:
    """A frame on its way to the engines.

    Attributes:
        frame: the frame.
        inputs: the model inputs made of it, (height, width, 3) uint8 RGB by (height, width).
        audio: sound that came before the frame.
        timings: milliseconds by stage so far.
        again: the run that is resumed has given it out: it is looked at for the sake of what follows, and neither given
            out nor counted.
    """

    frame: Frame
    inputs: dict[tuple[int, int], UInt8]
    audio: list[AudioPacket] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    again: bool = False


class Slot:
    """The samples of one stream between its decoder and the engine.

    A *file* is never dropped from: `put` waits once the slot is full, until it is half empty: several frames are then
    decoded in a row, for which the decoder's tables and code are in the caches. A *live* source never waits and never
    gets old: a new sample replaces one that nobody has taken, which is counted. Sound is handed on either way.

    Args:
        mode: `file` or `live`.
        capacity: samples that wait at most; 1 for a live source.
        ready: the condition shared by all slots of a runtime; notified at every change.
    """

    def __init__(self, mode: Mode, capacity: int, ready: threading.Condition) -> None:
        self.mode = mode
        self.capacity = 1 if mode == "live" else capacity
        self.superseded = 0
        self.discarded = 0
        self.ended = False
        self.closed = False
        self._ready = ready
        self._samples: deque[Sample] = deque()

    def put(self, sample: Sample) -> bool:
        """Hand over a sample; False when the slot was closed and the sample was not taken."""
        with self._ready:
            if self.mode == "file" and len(self._samples) >= self.capacity:
                while len(self._samples) > self.capacity // 2 and not self.closed:
                    self._ready.wait()
            if self.closed:
                return False
            if self.mode == "live" and self._samples:
                old = self._samples.popleft()
                sample.audio[:0] = old.audio
                self.superseded += 1
            self._samples.append(sample)
            self._ready.notify_all()
            return True

    def take(self) -> Sample | None:
        """The oldest sample, or None; call with the condition held."""
        if not self._samples:
            return None
        sample = self._samples.popleft()
        self._ready.notify_all()
        return sample

    def end(self) -> None:
        """No more samples will come."""
        with self._ready:
            self.ended = True
            self._ready.notify_all()

    def close(self) -> None:
        """Take no more and forget what waits, counted as discarded; a waiting `put` returns."""
        with self._ready:
            self.closed = True
            self.discarded += sum(not sample.again for sample in self._samples)
            self._samples.clear()
            self._ready.notify_all()

    def __len__(self) -> int:
        return len(self._samples)
