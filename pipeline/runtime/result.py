"""How streams and runs ended: frame counts, stage times, errors, and their sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.contracts import Recorded
from pipeline.frame import Mode
from pipeline.runtime.stageclock import StageTime
from pipeline.state import EndReason

K = TypeVar("K")


@dataclass(slots=True)
class StreamCounts:
    """Where the frames of a stream went: `decoded == emitted + sum(dropped.values())` once the run is over. `faults` is
    what models said that cannot be so, by model and name of `pipeline.analysis.sound.FAULTS`. Of the frames emitted
    each model looked at `looked`, and to `carried` what it says was carried from others; the rest are those before its
    first look. So often was a look `put_off` to a newer frame, for the engine did not keep up.
    """

    decoded: int = 0
    emitted: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    looked: Counter[str] = field(default_factory=Counter)
    carried: Counter[str] = field(default_factory=Counter)
    put_off: int = 0


@dataclass(slots=True)
class StreamResult:
    """How a stream ended: `complete`, `stopped` or `failed`, with the error that ended it; `not_stopped` names the
    threads of it that still run, `recorded` says when its clips were made. The `packets` of a camera are its decoded
    frames, those `skipped`, by reason, and the decode errors.
    """

    stream: str
    mode: Mode
    counts: StreamCounts
    reason: EndReason
    error: Exception | None
    decode_errors: int
    skipped_clips: list[tuple[str, str]]
    not_stopped: list[str] = field(default_factory=list)
    own_outputs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    recorded: list[Recorded] = field(default_factory=list)
    packets: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class RunResult:
    """A run that is over: the streams it had last. `stages` sums wall and CPU seconds by stage over all threads of the
    runtime, and `removed` the frames of the streams that were removed: streams may come and go for months.
    """

    streams: list[StreamResult]
    stages: dict[str, StageTime]
    seconds: float
    cpu_seconds: float
    not_stopped: list[str]
    removed: StreamCounts = field(default_factory=StreamCounts)

    @property
    def error(self) -> Exception | None:
        """The first error of any of the streams."""
        return next((s.error for s in self.streams if s.error is not None), None)


def summed(one: StreamCounts, other: StreamCounts) -> StreamCounts:
    """The sums of both."""
    return StreamCounts(
        one.decoded + other.decoded, one.emitted + other.emitted, _both(one.dropped, other.dropped),
        _both(one.faults, other.faults), _both(one.looked, other.looked), _both(one.carried, other.carried),
        one.put_off + other.put_off,
    )  # fmt: skip


def _both(one: Counter[K], other: Counter[K]) -> Counter[K]:
    result = Counter(one)
    result.update(dict(other))
    return result


def added(one: Mapping[str, StageTime], other: Mapping[str, StageTime]) -> dict[str, StageTime]:
    """The sums of both by stage."""
    names = dict.fromkeys((*one, *other))
    none = StageTime()
    return {
        name: StageTime(a.calls + b.calls, a.wall + b.wall, a.cpu + b.cpu)
        for name, a, b in ((name, one.get(name, none), other.get(name, none)) for name in names)
    }
