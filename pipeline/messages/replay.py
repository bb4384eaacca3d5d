"""Recordings published again: the same messages, bit for bit, at the pace at which they came or as fast as they go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.messages.headers import AnalysisMessage, MessageError
from pipeline.messages.recording import Recorded
from pipeline.messages.sockets.outlet import Outlet
from pipeline.messages.topics import PREFIX, asked_for, class_topics
from pipeline.messages.wire import decode_header

_SLICE = 0.05
"""Seconds between two looks for new readers while there is nothing to send yet."""


@dataclass(slots=True, eq=False)
class Replayed:
    """How a replay went.

    Attributes:
        read: messages of the recording.
        sent: of them, over all outlets.
        unsent: given up because a PUSH reader took nothing while the replay was being stopped.
    """

    read: int = 0
    sent: int = 0
    unsent: int = 0


def replay(
    recording: Iterable[Recorded],
    outlets: Sequence[Outlet],
    *,
    speed: float | None = 1.0,
    wait: bool = False,
    stopped: threading.Event | None = None,
) -> Replayed:
    """Publish a recording.

    Readers cannot tell it from the publisher that was recorded: they may subscribe by class, and who comes late gets
    the newest state of each stream.

    Args:
        recording: the messages, in order.
        outlets: where to.
        speed: 1 for the pace at which they came, 2 for twice that; None for as fast as the readers of PUSH take them,
            or as fast as it goes, which subscribers of PUB will hardly keep up with.
        wait: begin when each PUB has a subscriber. PUSH waits for its reader anyhow.
        stopped: ends it, wherever it is.
    """
    stopped = stopped or threading.Event()
    result = Replayed()
    states: dict[bytes, list[bytes]] = {}
    while wait and not stopped.is_set() and not all(_has_reader(outlet) for outlet in outlets):
        stopped.wait(_SLICE)
    began: tuple[float, int] | None = None
    for message in recording:
        if began is None:
            began = (time.monotonic(), message.at)
        if speed is not None:
            due = began[0] + (message.at - began[1]) / 1e9 / speed
            while (left := due - time.monotonic()) > 0 and not stopped.is_set():
                _greet(outlets, states)
                stopped.wait(min(left, _SLICE))
        if stopped.is_set():
            return result
        _greet(outlets, states)
        parts = list(message.parts)
        if parts[0].startswith(PREFIX) and parts[0].endswith(b"/status"):
            states[parts[0]] = parts
        if parts[0].endswith(b"/heartbeat"):  # as a publisher does, for who comes late behind a proxy
            _repeat(outlets, states.get(parts[0].removesuffix(b"heartbeat") + b"status"))
        result.read += 1
        for outlet in outlets:
            for subject in _topics(parts, outlet):
                if outlet.send([subject, *parts[1:]]):
                    result.sent += 1
                else:
                    result.unsent += 1
    return result


def _has_reader(outlet: Outlet) -> bool:
    outlet.hear()
    return outlet.anybody()


def _greet(outlets: Sequence[Outlet], states: Mapping[bytes, list[bytes]]) -> None:
    """Send the newest states to those who have just subscribed."""
    for outlet in outlets:
        if joined := outlet.joined():
            for subject, parts in states.items():
                if any(subject.startswith(prefix) for prefix in joined):
                    outlet.offer(parts)


def _repeat(outlets: Sequence[Outlet], state: list[bytes] | None) -> None:
    for outlet in outlets:
        if state is not None and outlet.pattern == "pub" and outlet.wanted(state[0]):
            outlet.offer(state)


def _topics(parts: Sequence[bytes], outlet: Outlet) -> list[bytes]:
    """Under what topics somebody wants a message."""
    topics = asked_for(parts[0], outlet.wanted)
    if outlet.pattern == "pub" and parts[0].endswith(b"/analysis") and outlet.anybody():
        try:
            header = decode_header(parts[1])
        except MessageError:
            return topics  # of another version; it is sent as it is
        if isinstance(header, AnalysisMessage):
            topics += [wanted for subject in class_topics(header) for wanted in asked_for(subject, outlet.wanted)]
    return topics
