"""What lay ready when a connection was opened came before it was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from av.packet import Packet

_IN_TIME = 0.5
"""Share of the time between two packets' stamps that must pass until the second one has not lain ready."""

_WAITED, _PAUSE = 0.005, 0.02
"""Seconds that reading the first packet takes where nothing lay ready, and one whose stamp says nothing."""

_MOST_PACKETS, _MOST_SECONDS = 1024, 2.0
"""What is looked through at most: something that always comes faster than its stamps say is no camera."""

_BACK, _AHEAD, _LONGEST_STEP = 0.3, 1.0, 10.0
"""Seconds that a stamp may lie back for B-frames, that one may lie ahead of one beside it that lies back, and between
two stamps beyond which they say nothing."""


@dataclass(frozen=True, slots=True)
class Read:
    """A packet that was read.

    Attributes:
        packet: the packet.
        before: monotonic time at which the read was begun, seconds.
        now: monotonic time at which it returned or, where the packet had lain ready, at which it was there.
    """

    packet: Packet[Any]
    before: float
    now: float


def dated(reads: Iterator[Read], pictures: int) -> Iterator[Read]:
    """The same reads with the times at which the packets of pictures came that lay ready at the start.

    FFmpeg reads ahead to find out what comes, three seconds of an FLV without sound, and a media server begins with all
    pictures since the last key frame. All these are read in no time, and would look as young as the one that comes
    next. So they are held back until a packet comes when its stamp says; their stamps then tell how much earlier they
    came.

    Args:
        reads: in order.
        pictures: index of the track of pictures.
    """
    ready, stamps, handed_out, ended = list[Read](), list[float | None](), 0, None
    try:
        for read in reads:
            if read.packet.stream_index != pictures:
                yield read
                continue
            ready.append(read)
            stamps.append(_decoded_at(read.packet))
            if len(ready) == 1 and read.now - read.before >= _WAITED:
                yield read  # nothing lay ready, but more may come with it
                handed_out = 1
            elif len(ready) > 1 and _in_time(ready, stamps):
                break
    except Exception as error:  # noqa: BLE001  # whatever ended it: what came before is handed on
        ended = error
    for read, earlier in list(zip(ready, _before_last(stamps), strict=True))[handed_out:]:
        there = min(read.now, ready[-1].now - earlier)
        yield Read(read.packet, min(read.before, there), there)
    if ended is not None:
        raise ended
    yield from reads


def _in_time(ready: Sequence[Read], stamps: Sequence[float | None]) -> bool:
    """Whether the last of the packets came when it was sent."""
    first, last = ready[0], ready[-1]
    if len(ready) >= _MOST_PACKETS or last.now - first.now >= _MOST_SECONDS:
        return True
    (stamp, before), took = (stamps[-1], stamps[-2]), last.now - ready[-2].now
    step = 0.0 if stamp is None or before is None else stamp - before
    return took >= _IN_TIME * step if step > 0 else took >= _PAUSE


def _before_last(stamps: Sequence[float | None]) -> list[float]:
    """How long before the last one each packet came, in seconds; a clock that was set, and one odd stamp, are none.
    FFmpeg gives RTP's first packets no stamp.
    """
    steps = [0.0 if a is None or b is None else b - a for a, b in pairwise(stamps)]
    odd = [
        not -_BACK < step < _LONGEST_STEP or (step > _AHEAD and min(before, after) < -_BACK)
        for before, step, after in zip([0.0, *steps], steps, [*steps[1:], 0.0], strict=False)
    ]
    believed = [0.0 if wrong else step for step, wrong in zip(steps, odd, strict=True)]
    return [sum(believed[n:]) for n in range(len(stamps))]


def _decoded_at(packet: Packet[Any]) -> float | None:
    """Seconds on the stream's own clock."""
    time = packet.pts if packet.dts is None else packet.dts
    return None if time is None or packet.time_base is None else float(time * packet.time_base)
