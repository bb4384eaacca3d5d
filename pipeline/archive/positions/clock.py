"""When a recording was made by its receiver's clock, and when that is believed rather than the camera's.

A camera's clock runs down with its battery, begins in a year of its maker's, and is set to some zone; a receiver's is
that of its satellites. It is believed where it is steady, as `beginning` has it, and the camera's is more than
`CLOCKS_APART` off: nearer, the camera's is as good, and so is that of its other clips. Some receivers are 1024 weeks
late: satellites send the number of the week in ten bits (IS-GPS-200, 20.3.3.3.1.1), and older firmware does not know
how often it began anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from statistics import median_low

from pipeline.contracts import Recorded

CLOCKS_APART = 120.0
"""Seconds by which a camera's clock and a receiver's may be apart, beside their zones."""

FARTHEST_ZONE = 14 * 3600.0
"""Seconds from UTC of the zone that is farthest from it (Kiritimati)."""

_LEAST = 3
"""Moments at which a receiver must have said what time it is."""

_STEADY, _SHARE = 2.0, 0.9
"""Most of what a receiver says must agree to so many seconds. GoPro's first is up to 1.5 s off; a time-lapse's never
agree."""

_EARLIEST = datetime(2012, 1, 1, tzinfo=UTC).timestamp()
"""Before that hardly a camera had a receiver; one that is 1024 weeks late says so of all footage until 2031."""

_FAST = 600.0
"""Seconds that a receiver's time may be ahead of this machine's."""

_ROLLOVER = 1024 * 7 * 86_400.0


def beginning(told: Iterable[tuple[float, float]]) -> float | None:
    """When a recording began, Unix seconds, by what a receiver told; None where that is too little, or not steady.

    Args:
        told: seconds of the recording, and Unix seconds at them.

    >>> beginning((k, 1.7e9 + k) for k in range(9)), beginning((k, 1.7e9 + 30 * k) for k in range(9))
    (1700000000.0, None)
    """
    begun = [at - seconds for seconds, at in told]
    if len(begun) < _LEAST:
        return None
    middle = median_low(begun)
    steady = sum(abs(each - middle) <= _STEADY for each in begun)
    return middle if steady >= _SHARE * len(begun) else None


def believed(
    camera: Recorded | None, receiver: float | None, now: float, *, utc: bool = True
) -> tuple[float | None, str]:
    """When a recording began, Unix seconds, and what says so: `gps`, or what says so by the camera.

    Args:
        camera: what the camera says; None where that is nothing.
        receiver: what its receiver says, Unix seconds; None where that is nothing.
        now: Unix seconds.
        utc: whether the receiver's time is surely UTC, so that a difference of a zone is the camera's.
    """
    by_camera = (None, "") if camera is None else (camera.at, camera.by)
    if receiver is None or not _EARLIEST <= receiver <= now + _FAST:
        return by_camera
    if camera is None:
        return receiver, "gps"
    apart = camera.at - receiver
    zone = FARTHEST_ZONE + CLOCKS_APART
    weeks = round(apart / _ROLLOVER) * _ROLLOVER
    if weeks and abs(apart - weeks) <= zone:
        return by_camera
    least = zone if not utc else 0.0 if camera.by == "modified" else CLOCKS_APART
    return (receiver, "gps") if abs(apart) > least else by_camera
