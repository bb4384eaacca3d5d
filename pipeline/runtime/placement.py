"""Which of several devices looks at a stream: the one that has the least to do.

A stream is bound to a device when it comes, since its pictures are decoded on the GPU that looks at them and never
leave it. It costs its frames a second times the device's seconds a frame: measured there, or as measured on the others,
or while nothing has been measured the same everywhere, so that frames a second are shared evenly. NVDEC's part is not
in it: those units work beside the rest, and a GPU's load says nothing of them.

A stream that goes gives its share back; none is moved for balance, because moving costs a new decoder and a key frame.
Those of a device that is lost are moved, the dearest first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

RATE = 30.0
"""Frames a second that a stream counts with until it says how many it has."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A stream's place: number of its device, and its frames a second."""

    device: int
    rate: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Streams on devices, as a value: whatever changes it gives a new one.

    Attributes:
        devices: how many there are, numbered from 0.
        streams: where each is, by a key of the caller's.
        lost: devices that failed and take no more streams.
        frame_seconds: measured seconds a device is busy with a frame, by number.
    """

    devices: int
    streams: Mapping[int, Bound] = field(default_factory=dict)
    lost: frozenset[int] = frozenset()
    frame_seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def left(self) -> list[int]:
        """The devices that are not lost."""
        return [device for device in range(self.devices) if device not in self.lost]

    def cost(self, device: int) -> float:
        """Seconds of a device that a frame takes, measured or supposed."""
        known = self.frame_seconds
        if device in known:
            return known[device]
        return sum(known.values()) / len(known) if known else 1.0

    def load(self, device: int) -> float:
        """Seconds of work a second that the device's streams bring: 1 is all it can do, where it was measured."""
        return self.cost(device) * sum(bound.rate for bound in self.streams.values() if bound.device == device)

    def best(self, rate: float) -> int:
        """The device that a stream of so many frames a second loads least, then the one with the fewest streams.

        Raises:
            ValueError: every device is lost.
        """
        bound = [bound.device for bound in self.streams.values()]
        return min(self.left, key=lambda d: (self.load(d) + rate * self.cost(d), bound.count(d), d))

    def placed(self, stream: int, rate: float = RATE) -> Placement:
        """With another stream, or one that is there bound anew.

        Raises:
            ValueError: every device is lost.
        """
        without = self.without(stream)
        return replace(without, streams={**without.streams, stream: Bound(without.best(rate), rate)})

    def without(self, stream: int) -> Placement:
        """With a stream gone, if it was there."""
        return replace(self, streams={key: bound for key, bound in self.streams.items() if key != stream})

    def paced(self, stream: int, rate: float) -> Placement:
        """With a stream where it is and its frames a second known; as before if it is not there."""
        bound = self.streams.get(stream)
        return self if bound is None else replace(self, streams={**self.streams, stream: replace(bound, rate=rate)})

    def measured(self, device: int, seconds: float) -> Placement:
        """With a device's seconds a frame known."""
        return replace(self, frame_seconds={**self.frame_seconds, device: seconds})

    def losing(self, device: int) -> Placement:
        """With a device lost and its streams on the others.

        Raises:
            ValueError: it is the last one.
        """
        result = replace(self, lost=self.lost | {device})
        if not result.left:
            raise ValueError(f"device {device} is the last one")
        moving = [(bound.rate, key) for key, bound in self.streams.items() if bound.device == device]
        for _, key in moving:
            result = result.without(key)
        for rate, key in sorted(moving, key=lambda each: (-each[0], each[1])):
            result = result.placed(key, rate)
        return result


@dataclass(slots=True, eq=False)
class Berth:
    """A stream's binding, kept by whoever runs it until it goes.

    Attributes:
        first: number of the device that it was bound to when it came, where its pictures are decoded.
        leave: gives the share back; twice is allowed.
    """

    key: int
    first: int
    leave: Callable[[], None] = field(repr=False)


class Placer:
    """The placement of a run, for all of its threads.

    Args:
        devices: as they are asked for: `cuda:0`, `cuda:1`; `cpu` for what has no number.
    """

    def __init__(self, devices: Sequence[str] = ("cpu",)) -> None:
        self.devices = tuple(devices)
        self._lock = threading.Lock()
        self._placement = Placement(len(self.devices))
        self._next = 0

    @property
    def placement(self) -> Placement:
        """As it is now."""
        return self._placement

    def place(self, rate: float = RATE) -> Berth:
        """Bind a new stream."""
        with self._lock:
            key, self._next = self._next, self._next + 1
            self._placement = self._placement.placed(key, rate)
            return Berth(key, self._placement.streams[key].device, lambda: self._leave(key))

    def device(self, berth: Berth) -> int:
        """Number of the device that a stream is bound to now."""
        bound = self._placement.streams.get(berth.key)
        return berth.first if bound is None else bound.device

    def pace(self, berth: Berth, rate: float) -> None:
        """Say a stream's frames a second."""
        with self._lock:
            self._placement = self._placement.paced(berth.key, rate)

    def measure(self, device: int, seconds: float) -> None:
        """Say a device's seconds a frame."""
        with self._lock:
            self._placement = self._placement.measured(device, seconds)

    def lose(self, device: int) -> bool:
        """Take a device out and bind its streams anew; False where it is the last one, or lost already."""
        with self._lock:
            if device in self._placement.lost or self._placement.left == [device]:
                return False
            self._placement = self._placement.losing(device)
            return True

    def _leave(self, key: int) -> None:
        with self._lock:
            self._placement = self._placement.without(key)
