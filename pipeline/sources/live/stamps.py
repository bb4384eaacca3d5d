"""A camera's clock may be set while it runs: what its timestamps say against the time that has passed here."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from av.packet import Packet

AHEAD = 1.0
"""Seconds that a timestamp may lie ahead of the time that has passed since the picture before."""

BACK = 0.3
"""Seconds that one may lie back and be careless, not a clock's that was set."""

_AGREEING = 3

_CLOCK_ERROR = 60.0
"""Seconds by which a camera's clock may be wrong; beyond them it says nothing of when a picture was captured."""


@dataclass(slots=True)
class ClockSteps:
    """Tells a clock that was set from one odd timestamp, in pictures in the order in which they are shown.

    Attributes:
        last: time of the picture before on the camera's clock, seconds, as it was believed.
        arrived: when that picture arrived here, monotonic seconds.
        early: pictures in a row that lie ahead.
    """

    last: float | None = None
    arrived: float = 0.0
    early: int = 0

    def believed(self, seconds: float, arrived: float, held: float = 0.0) -> tuple[float, bool]:
        """The time to go by, and whether the clock was set: then the next pictures go by the new one.

        One that lies back begins a new clock at once; where it lies back by little, the one before was careless, and
        time stands. One ahead of the time that has passed here is replaced by that time, until three in a row are.

        Args:
            seconds: the picture's own time.
            arrived: when it arrived here, monotonic seconds.
            held: by how much pictures may have arrived in another order than they are shown in, seconds.
        """
        stepped = False
        if self.last is not None:
            passed = max(arrived - self.arrived, 0.0)
            if seconds < self.last - BACK:
                stepped = True
            elif seconds < self.last:
                seconds, self.early = self.last, 0
            elif seconds - self.last > passed + held + AHEAD:
                self.early += 1
                stepped = self.early >= _AGREEING
                if not stepped:
                    seconds = self.last + passed
            else:
                self.early = 0
        if stepped:
            self.early = 0
        self.last, self.arrived = seconds, arrived
        return seconds, stepped


def capture_time(packet: Packet[Any], read_at: float) -> float:
    """Wall clock of a packet's capture, Unix seconds: the camera's, which FFmpeg makes of RTCP sender reports (RFC
    3550, 6.4.1) and hands out as producer reference time; else `read_at`, also where the camera's clock is more than
    `_CLOCK_ERROR` away from ours.
    """
    if packet.has_sidedata("prft"):
        microseconds, _flags = struct.unpack_from("<qi", bytes(packet.get_sidedata("prft")))
        if abs(microseconds / 1e6 - read_at) < _CLOCK_ERROR:
            return float(microseconds / 1e6)
    return read_at
