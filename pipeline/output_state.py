"""What a live output is doing, as values for logs, metrics and the API's event log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


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
