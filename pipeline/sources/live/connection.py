"""The life of a live source as a value: what happened goes in, where it stands and what to do about it comes out.

    connecting ─► streaming ─► stalled ─► backing off ─► connecting …
                                         └► failed         (paused and ended can be entered from anywhere)

No threads, no sockets and no clock: `pipeline.sources.live.camera` brings those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Literal

import msgspec

from pipeline.state import SourceState, StateChange

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]

_LASTING = frozenset({"unauthorized", "unsupported"})
"""Asking again soon does not help, and cameras lock an account after a few wrong passwords."""

_SLOW = _LASTING | {"internal"}


class Reconnect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a lost source is tried again.

    The wait grows from `first` by `factor` with every failure up to `longest`. It is short by default: a connection
    attempt a second costs neither side anything, and a camera is back a second after its own return. One that does not
    accept the password, or sends what cannot be decoded, is left in peace for longer.

    Attributes:
        first: seconds before the first new attempt.
        factor: by which the wait grows.
        longest: seconds it grows to.
        refused: seconds to wait, from the start, where the camera does not accept the password or sends what cannot be
            decoded; seconds it grows to after a mistake of this program's.
        jitter: share of a wait that chance takes away, so that a hundred cameras do not come back in one instant.
        settled: seconds of pictures after which earlier failures are forgotten.
        give_up_after: failures within `give_up_within` seconds after which the stream has failed; never when left out.
        give_up_within: seconds.
        at_start: `fail`: a camera that is not there when the run is started ends the run with the reason; `wait`: the
            run begins once it is there, as a server always does.
    """

    first: Seconds = 0.25
    factor: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2.0
    longest: Seconds = 1.0
    refused: Seconds = 30.0
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25
    settled: Seconds = 5.0
    give_up_after: Annotated[int, msgspec.Meta(ge=1)] | None = None
    give_up_within: Seconds = 60.0
    at_start: Literal["fail", "wait"] = "fail"


def back_off(policy: Reconnect, cause: str, failures: int, chance: float) -> float:
    """Seconds to wait before the next attempt.

    Args:
        policy: the policy.
        cause: why the last one failed.
        failures: attempts that failed in a row before this one.
        chance: in [0, 1).

    >>> [back_off(Reconnect(), "refused", n, 0) for n in range(4)]
    [0.25, 0.5, 1.0, 1.0]
    >>> back_off(Reconnect(), "unauthorized", 0, 0)
    30.0
    >>> [back_off(Reconnect(), cause, 9, 0) for cause in ("not_found", "timeout", "ended", "damaged")]
    [1.0, 1.0, 1.0, 1.0]
    """
    longest = max(policy.refused, policy.longest) if cause in _SLOW else policy.longest
    # Beyond 2^64 nothing grows any more, and a float would overflow after a thousand failures.
    grown = longest if cause in _LASTING else min(longest, policy.first * policy.factor ** min(failures, 64))
    return grown * (1 - policy.jitter * chance)


# What happens --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Due:
    """It is time to connect: at the start, or because the wait is over."""


@dataclass(frozen=True, slots=True)
class Came:
    """A frame has come out of the decoder."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The reader has ended: it could not connect, or the connection broke."""

    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Silent:
    """Nothing has come for longer than it may, though the reader is there."""

    cause: str
    reason: str


@dataclass(frozen=True, slots=True)
class Released:
    """The reader that was abandoned has ended, or has been waited for long enough."""


@dataclass(frozen=True, slots=True)
class Over:
    """The source has come to its end and cannot be opened again, as a pipe."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """Rest."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End."""


Event = Due | Came | Lost | Silent | Released | Over | Pause | Resume | Stop


class Action(Enum):
    """What is to be done after an event."""

    CONNECT = "start a reader"
    ABANDON = "let the reader go, whatever it is doing"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a source stands.

    Attributes:
        state: its state; `connecting` before the first `Due` as well.
        reading: whether a reader is there that has not been abandoned.
        reason, cause: why it is not streaming.
        attempt: attempts since frames came last.
        failures: attempts that failed since the source was last settled.
        failed_at: when the last failures were, seconds.
        seen: whether frames have ever come.
        reconnects: how often it has come back.
        since: when the state was entered, seconds.
        retry_at: when `Due` is to come, while backing off.
    """

    state: SourceState = SourceState.CONNECTING
    reading: bool = False
    reason: str = ""
    cause: str = ""
    attempt: int = 0
    failures: int = 0
    failed_at: tuple[float, ...] = ()
    seen: bool = False
    reconnects: int = 0
    since: float = 0.0
    retry_at: float | None = None

    def change(self, stream: str, at: float) -> StateChange:
        """The same as others see it, at the wall clock `at`."""
        retry_in = None if self.retry_at is None else max(0.0, self.retry_at - self.since)
        return StateChange(stream, self.state, self.reason, self.cause, at, self.attempt, self.reconnects, retry_in)


def step(
    connection: Connection, event: Event, now: float, policy: Reconnect, chance: float = 0.0
) -> tuple[Connection, tuple[Action, ...]]:
    """Where the source stands after an event, and what to do. An event that has come too late changes nothing.

    Args:
        connection: where it stood.
        event: what happened.
        now: seconds on a monotonic clock.
        policy: when to try again.
        chance: in [0, 1), for the jitter.
    """
    if connection.state.final:
        return connection, ()
    match event:
        case Stop():
            return _end(connection, SourceState.ENDED, "stopped", "stopped", now)
        case Over(reason):
            return _end(connection, SourceState.ENDED, "ended", reason, now)
        case Pause():
            if connection.state is SourceState.PAUSED:
                return connection, ()
            return _end(connection, SourceState.PAUSED, "", "", now)
        case Resume() if connection.state is SourceState.PAUSED:
            return _connect(replace(connection, failures=0, failed_at=(), attempt=0, reason="", cause=""), now)
        case Due() if _may_connect(connection):
            return _connect(connection, now)
        case Came() if connection.state is SourceState.CONNECTING and connection.reading:
            came = replace(
                connection, state=SourceState.STREAMING, reason="", cause=connection.cause if connection.seen else "",
                attempt=0, seen=True, reconnects=connection.reconnects + connection.seen, since=now,
            )  # fmt: skip
            return came, ()
        case Silent(cause, reason) if connection.state is SourceState.STREAMING:
            stalled = replace(
                _settled(connection, now, policy),
                state=SourceState.STALLED, reading=False, cause=cause, reason=reason, since=now,
            )  # fmt: skip
            return stalled, (Action.ABANDON,)
        case Silent(cause, reason) if connection.state is SourceState.CONNECTING and connection.reading:
            return _failed(replace(connection, reading=False), cause, reason, now, policy, chance), (Action.ABANDON,)
        case Lost(cause, reason) if connection.reading:
            lost = replace(_settled(connection, now, policy), reading=False)
            return _failed(lost, cause, reason, now, policy, chance), ()
        case Released() if connection.state is SourceState.STALLED:
            return _failed(connection, connection.cause, connection.reason, now, policy, chance), ()
        case _:
            return connection, ()


def _may_connect(connection: Connection) -> bool:
    first = connection.state is SourceState.CONNECTING and not connection.reading
    return first or connection.state is SourceState.BACKING_OFF


def _connect(connection: Connection, now: float) -> tuple[Connection, tuple[Action, ...]]:
    connecting = replace(
        connection, state=SourceState.CONNECTING, reading=True, attempt=connection.attempt + 1, since=now, retry_at=None
    )
    return connecting, (Action.CONNECT,)


def _end(
    connection: Connection, state: SourceState, cause: str, reason: str, now: float
) -> tuple[Connection, tuple[Action, ...]]:
    ended = replace(connection, state=state, reading=False, cause=cause, reason=reason, since=now, retry_at=None)
    return ended, (Action.ABANDON,) if connection.reading else ()


def _settled(connection: Connection, now: float, policy: Reconnect) -> Connection:
    """Forget the failures before pictures that came for long enough."""
    if connection.state is SourceState.STREAMING and now - connection.since >= policy.settled:
        return replace(connection, failures=0)
    return connection


def _failed(
    connection: Connection, cause: str, reason: str, now: float, policy: Reconnect, chance: float
) -> Connection:
    recent = (*(t for t in connection.failed_at if now - t < policy.give_up_within), now)
    kept = recent[-(policy.give_up_after or 1) :]
    over = replace(connection, reading=False, cause=cause, reason=reason, since=now, retry_at=None, failed_at=kept)
    if not connection.seen and policy.at_start == "fail":
        return replace(over, state=SourceState.FAILED)
    if policy.give_up_after is not None and len(recent) >= policy.give_up_after:
        reason = f"{reason}; given up after {len(recent)} failures within {policy.give_up_within:g} s"
        return replace(over, state=SourceState.FAILED, reason=reason)
    wait = back_off(policy, cause, connection.failures, chance)
    return replace(over, state=SourceState.BACKING_OFF, failures=connection.failures + 1, retry_at=now + wait)
