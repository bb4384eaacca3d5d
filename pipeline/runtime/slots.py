"""Where a stream's decoded frames wait for the engine: a short queue for a file, one newest frame for a live source."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.analysis.carrying.cadence import FARTHEST, LONGEST
from pipeline.contracts import AudioPacket, DataPacket
from pipeline.frame import Frame, Mode

UInt8 = NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Sample:
    """A frame on its way to the engines.

    Attributes:
        frame: the frame.
        inputs: the model inputs made of it, (height, width, 3) uint8 RGB by (height, width).
        beside: sound and data that came before the frame.
        timings: milliseconds by stage so far.
        looks: names of the models that look at it.
        luma: its small luma, where what models see is carried along with the picture; else None.
        scene: how many cuts came before it.
        yields: whether a newer frame may be looked at in its place.
        again: the run that is resumed has given it out: it is looked at for the sake of what follows, and neither given
            out nor counted.
    """

    frame: Frame
    inputs: dict[tuple[int, int], UInt8]
    beside: list[AudioPacket | DataPacket] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    looks: tuple[str, ...] = ()
    luma: UInt8 | None = None
    scene: int = 0
    yields: bool = False
    again: bool = False

    @property
    def counted(self) -> int:
        """How many frames it is in the accounts: one, or none where it is looked at again."""
        return 0 if self.again else 1


class Slot:
    """The samples of one stream between its decoder and the engine.

    A *file* is never dropped from: `put` waits once the slot is full, until it is half empty: several frames are then
    decoded in a row, for which the decoder's tables and code are in the caches. A *live* source never waits and never
    gets old: a new sample replaces one that nobody has taken, which is counted. Sound and data go on either way. Where
    what models see is carried on, and the look that a sample waits for may be put off, it stays, and the new one is
    looked at in its place: the engine gets what it can take, and no frame is lost.

    Args:
        mode: `file` or `live`.
        capacity: samples of a file that wait at most. Of a live source it is one that is to be looked at, behind some
            that are not.
        ready: the condition shared by all slots of a runtime; notified when somebody may wait for what changed.
        changed: called, with the condition held, when a first sample is there or none is left, and when nothing more
            will come.

    Attributes:
        superseded: samples that newer ones have replaced.
        put_off: looks that newer samples have got instead.
        discarded: samples that waited when it was closed.
    """

    def __init__(
        self, mode: Mode, capacity: int, ready: threading.Condition, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.mode = mode
        self.capacity = capacity
        self.superseded = self.put_off = self.discarded = 0
        self.ended = False
        self.closed = False
        self._ready, self._changed = ready, changed
        self._full = False
        self._samples: deque[Sample] = deque()
        self._beside: list[AudioPacket | DataPacket] = []
        self._owed: tuple[str, ...] = ()
        self._looked: int | None = None

    def put(self, sample: Sample) -> bool:
        """Hand over a sample; False when the slot was closed and the sample was not taken."""
        with self._ready:
            if self.mode == "file" and len(self._samples) >= self.capacity:
                self._full = True
                while len(self._samples) > self.capacity // 2 and not self.closed:
                    self._ready.wait()
                self._full = False
            if self.closed:
                return False
            news = not self._samples
            if self.mode == "live" and self._samples:
                news = self._make_way(sample)
            sample.beside[:0] = self._beside
            self._beside = []
            if self._owed:
                sample.looks, sample.yields = (*sample.looks, *_but(self._owed, sample.looks)), False
                self._owed = ()
            self._samples.append(sample)
            if news:  # else it is known what waits
                self._changed()
                self._ready.notify_all()
            return True

    def take(self) -> Sample | None:
        """The oldest sample, or None; call with the condition held."""
        sample = self._popped()
        if sample is not None and sample.looks:
            self._looked = sample.frame.index
        return sample

    def peek(self) -> Sample | None:
        """What `take` would give; call with the condition held."""
        return self._samples[0] if self._samples else None

    def skip(self) -> Sample | None:
        """Take the oldest sample to drop it: its sound and data go on with the next one, and models look at that
        instead; the condition is held.
        """
        sample = self._popped()
        if sample is None:
            return None
        if self._samples:
            after = self._samples[0]
            after.beside[:0] = sample.beside
            after.looks = (*after.looks, *_but(sample.looks, after.looks))
        else:
            self._beside += sample.beside
            self._owed = (*self._owed, *_but(sample.looks, self._owed))
        return sample

    def _popped(self) -> Sample | None:
        if not self._samples:
            return None
        sample = self._samples.popleft()
        if not self._samples:
            self._changed()
        if self._full and len(self._samples) <= self.capacity // 2:
            self._ready.notify_all()  # a decoder waits to go on
        return sample

    def _make_way(self, newer: Sample) -> bool:
        """The one that waits goes for a newer one, or is looked at no more and waits to pass by, as some do already.
        Returns whether its look was put off, so that it may pass now.
        """
        waiting = self._samples[-1]
        near = self._looked is not None and newer.frame.index - self._looked <= FARTHEST
        put_off = bool(waiting.looks) and waiting.yields and near
        if put_off:
            newer.looks = (*newer.looks, *_but(waiting.looks, newer.looks))
            waiting.looks, waiting.inputs = (), {}
            self.put_off += 1
        if waiting.looks or not waiting.yields:
            self._owed, self._beside = waiting.looks, waiting.beside
            self._samples.pop()
            self.superseded += 1
        elif len(self._samples) > LONGEST:
            oldest = self._samples.popleft()
            self._samples[0].beside[:0] = oldest.beside
            self.superseded += 1
        return put_off

    def end(self) -> None:
        """No more samples will come."""
        with self._ready:
            self.ended = True
            self._changed()
            self._ready.notify_all()

    def close(self) -> None:
        """Take no more and forget what waits, counted as discarded; a waiting `put` returns."""
        with self._ready:
            self.closed = True
            self.discarded += sum(sample.counted for sample in self._samples)
            self._samples.clear()
            self._changed()
            self._ready.notify_all()

    def __len__(self) -> int:
        return len(self._samples)


def _but(names: Sequence[str], those: Sequence[str]) -> Iterator[str]:
    return (name for name in names if name not in those)
