"""What a source or a live output is doing, as values: their states and the changes between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

EndReason = Literal["complete", "stopped", "failed"]
"""How a stream ended: read to its end, told to stop before that, or by an error."""


class SourceState(StrEnum):
    """Where a source stands; a file knows only `connecting`, `streaming`, `failed` and `ended`."""

    CONNECTING = "connecting"
    """Being opened; nothing has been decoded since."""
    STREAMING = "streaming"
    """Frames come."""
    BLIND = "blind"
    """Pictures come, and almost none of them reaches an output; the reason says why."""
    STALLED = "stalled"
    """Open, but no frame has come for longer than it may; its reader is being abandoned."""
    BACKING_OFF = "backing_off"
    """Waiting before the next attempt."""
    PAUSED = "paused"
    """Told to rest; the connection is closed."""
    FAILED = "failed"
    """Given up, with a reason. Nothing more will come."""
    ENDED = "ended"
    """Over, in order or because it was told to stop. Nothing more will come."""

    @property
    def final(self) -> bool:
        """Whether nothing more will come."""
        return self in {SourceState.FAILED, SourceState.ENDED}


@dataclass(frozen=True, slots=True)
class StateChange:
    """A source entered a state.

    Attributes:
        stream: id of the stream.
        state: the state entered.
        reason: one line on why, without credentials; empty where there is nothing to say.
        cause: the reason's kind, one of a few words fit for a metric's label: `refused`, `unauthorized`, `not_found`,
            `unsupported`, `timeout`, `silent`, `ended`, `damaged`, `runaway`, `unreachable`, `blind`, `internal` (a
            fault of roadlens itself), `stopped`, or empty.
        at: wall clock, Unix seconds.
        attempt: connection attempts since frames came last; 0 while streaming.
        reconnects: how often the stream has come back so far.
        retry_in: seconds until the next attempt, while backing off.
    """

    stream: str
    state: SourceState
    reason: str = ""
    cause: str = ""
    at: float = 0.0
    attempt: int = 0
    reconnects: int = 0
    retry_in: float | None = None


class OutputState(StrEnum):
    """Where an output stands."""

    CONNECTING = "connecting"
    """Pictures have been sent; the peer has not taken one yet."""
    RUNNING = "running"
    """Pictures are taken."""
    BACKING_OFF = "backing_off"
    """Waiting before the next attempt, with a reason."""
    PAUSED = "paused"
    """Recording rests because the disk is full or cannot be written, with a reason."""
    CLOSED = "closed"
    """Over."""


@dataclass(frozen=True, slots=True)
class OutputChange:
    """An output entered a state.

    Attributes:
        stream: id of the stream.
        output: name of the output within its stream, such as `rtsp`, `hls` or `recording`.
        state: the state entered.
        reason: one line on why, without credentials; empty where there is nothing to say.
        at: wall clock, Unix seconds.
    """

    stream: str
    output: str
    state: OutputState
    reason: str = ""
    at: float = 0.0


OutputObserver = Callable[[OutputChange], None]
"""Called from the output's own thread; it must not wait."""
