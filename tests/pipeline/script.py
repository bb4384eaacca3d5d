"""When a camera of the tests sends which picture with which stamp: the script of its faults."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from tests.pipeline.rtp import Footage, Unit

Sets = Literal["both", "sdp", "band", "none"]


@dataclass(kw_only=True)
class Script:
    """Pictures and their clocks. All may be changed while a camera runs.

    `n` is the number of a picture in order of decoding, from 0 for each connection; the clip is repeated without end.
    Times are seconds of the camera's.

    Attributes:
        first: the picture of the clip that is sent first; where it is no key frame, the first of those comes late.
        count: pictures after which it does what `end` says; None for never.
        end: `close` (the connection), `bye` (an RTCP BYE on each track; else as `close`) or `silent`.
        time: when a picture of the clip's time is really sent, `lambda t: 25 * t` for a 25 fps clip at 1 fps.
        slow: seconds that pass here in one of the camera's: 4 is slow motion, in which the stamps know nothing of it.
        stamp: the stamp for a time: `lambda t: t - 3 if t > 2 else t` is a clock that was set back.
        odd: seconds by which single pictures' stamps are wrong, by n.
        hold: seconds for which it sends nothing before picture n (a network that stalls); it catches up at once.
        lose: whether packet k of picture n is lost (RTP, MPEG-TS); it keeps its number.
        sets: where parameter sets are: `both`, `sdp`, `band` (before each key frame), `none`; only `band` and `none`
            differ in MPEG-TS.
        change: what a picture's pieces are replaced by, by n: damage.
    """

    first: int = 0
    count: int | None = None
    end: Literal["close", "bye", "silent"] = "close"
    time: Callable[[float], float] = lambda t: t
    slow: float = 1.0
    stamp: Callable[[float], float] = lambda t: t
    odd: dict[int, float] = field(default_factory=dict)
    hold: Callable[[int], float] = lambda _n: 0.0
    lose: Callable[[int, int], bool] = lambda _n, _k: False
    sets: Sets = "both"
    change: Callable[[int, tuple[bytes, ...]], tuple[bytes, ...]] = lambda _n, pieces: pieces


@dataclass(frozen=True, slots=True)
class Planned:
    """A picture that is due.

    Attributes:
        n: its number.
        unit: what is sent.
        due: when, seconds since the first.
        shown, decoded: its stamps, seconds on the camera's clock.
    """

    n: int
    unit: Unit
    due: float
    shown: float
    decoded: float


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture that went out on the wire.

    Attributes:
        connection: number of the connection, from 0.
        number: of the picture.
        key: whether it is a key frame.
        packets, lost: packets that went out, and that did not.
        at: monotonic time of the last of them, seconds.
    """

    connection: int
    number: int
    key: bool
    packets: int
    lost: int
    at: float


def planned(script: Script, footage: Footage) -> Iterator[Planned]:
    """The pictures of a connection, without waiting."""
    begin = script.time(footage.unit(script.first).dts)
    for n in itertools.count():
        if script.count is not None and n >= script.count:
            return
        unit = footage.unit(script.first + n)
        due, shown = script.time(unit.dts) - begin, script.time(unit.pts) - begin
        changed = Unit(script.change(n, unit.pieces), unit.pts, unit.dts, unit.key)
        wrong = script.odd.get(n, 0.0)
        yield Planned(n, changed, due, script.stamp(shown) + wrong, script.stamp(due) + wrong)


def wait(script: Script, began: float, due: float, over: Callable[[float], bool]) -> bool:
    """Wait until something is due that began at a monotonic time; False when it is over. `over` waits for that."""
    return not over(max(0.0, began + due * script.slow - time.monotonic()))
