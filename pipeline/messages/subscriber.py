"""The client library: typed messages from a roadlens publisher, with what was missed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

import zmq
from zmq.utils.monitor import recv_monitor_message

from engines.errors import SourceError, UsageError
from pipeline.messages.headers import (
    AnalysisMessage,
    EndMessage,
    HeartbeatMessage,
    Kind,
    MessageError,
    StatusMessage,
    kind_of,
)
from pipeline.messages.sockets.contexts import destroy
from pipeline.messages.sockets.keys import ClientKeys, trust
from pipeline.messages.topics import PICTURE_PREFIX, PREFIX, class_topic, of_unknown_kind, topic
from pipeline.messages.wire import Received, decode

SubscriberPattern = Literal["sub", "pull"]

RECEIVE_BUFFER = 64 * 1024
"""Bytes of the kernel's receive buffer: left to itself it grows to megabytes of messages that are old when read."""

MAX_MESSAGE = 128 << 20
"""Bytes of the largest part of a message that is taken from a stranger; a larger one ends the connection."""

MOST_STREAMS = 10_000
"""Streams of which numbers are kept; a publisher that names more makes them up."""

_MECHANISM_MISMATCH = 0x11000002
"""ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH of zmq.h: one end speaks CurveZMQ and the other does not."""

_LONGEST_WAIT = 0.5
"""Seconds: a Ctrl-C that comes between Python's last look and the wait does not end the wait."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a stream that never came.

    Attributes:
        stream: id of the stream.
        first: sequence number of the first of them.
        count: how many.
        restarted: whether the publisher was started again in between.
    """

    stream: str
    first: int
    count: int
    restarted: bool = False


@dataclass(slots=True)
class StreamTally:
    """What came of one stream's analyses and its end, and what did not.

    Attributes:
        first: sequence number of the first message seen; what was sent before it is not counted as missed.
        received: messages seen, the end included.
        missed: messages lost in between.
        restarts: times that the publisher was started again.
        end: the stream's last message, once it has come.
    """

    first: int
    received: int = 0
    missed: int = 0
    restarts: int = 0
    end: EndMessage | None = None
    _run: str = ""
    _next: int = 0

    def add(self, header: AnalysisMessage | EndMessage) -> Gap:
        """Count a message; the gap before it, of `count` 0 where nothing is missing.

        A publisher that was started again begins at its `run_start` (0, or further on where it resumed a file): what
        lies between the last message seen and that, and between that and this message, was missed.
        """
        begun = self.received > 0
        restarted = begun and (header.run != self._run or header.sequence < self._next)
        wanted = self._next if begun else header.sequence
        if restarted and header.run_start < wanted:
            wanted = min(header.run_start, header.sequence)
        gap = Gap(header.stream, wanted, header.sequence - wanted, restarted)
        self.received += 1
        self.missed += gap.count
        self.restarts += restarted
        self.end = header if isinstance(header, EndMessage) else None
        self._run = header.run
        self._next = header.sequence + 1
        return gap

    def overdue(self, heartbeat: HeartbeatMessage) -> Gap:
        """Count what a heartbeat says was sent before it and has not come; messages do not overtake each other."""
        if not self.received or heartbeat.run != self._run or heartbeat.next_sequence <= self._next:
            return Gap(heartbeat.stream, self._next, 0)
        gap = Gap(heartbeat.stream, self._next, heartbeat.next_sequence - self._next)
        self.missed += gap.count
        self._next = heartbeat.next_sequence
        return gap

    def repeats(self, header: AnalysisMessage) -> bool:
        """Whether this is the message seen last: one with two of the classes asked for comes under each of them."""
        return self.received > 0 and header.run == self._run and header.sequence == self._next - 1


class SilenceError(SourceError):
    """Nothing came for as long as a reader was willing to wait."""


class Subscriber:
    """Iterates the messages of one publisher. To be used from one thread.

    A state that has come before is passed over: publishers repeat the newest one for those who come late.

    The connection is made, and made again after a loss or a restart of the publisher, in the background.

    Example:
        >>> with Subscriber("tcp://127.0.0.1:5555", streams=["front"]) as subscriber:  # doctest: +SKIP
        ...     for received in subscriber:
        ...         print(received.header.sequence, received.missed, received.class_map)

    Args:
        endpoint: where the publisher is: `tcp://host:port` or `ipc:///path`.
        pattern: `sub` for a publisher that is `pub`, `pull` for one that is `push`.
        streams: ids of the streams wanted, or None for all. With `pull` every message is taken from the publisher and
            those of other streams are discarded.
        kinds: of the messages wanted. Analyses and ends by default; `picture` has the publisher make pictures, where
            it is set up to.
        classes: names of classes; only analyses in which one of them is seen are wanted (`topics.classes_seen`), or
            None for all. Those between them are not sent, so nothing is counted as missed. With `sub` only; and
            messages of other kinds then need `streams`.
        masks: whether class maps are decoded.
        timeout: seconds to wait for a message, or None for as long as it takes.
        until_end: whether to stop once every stream has ended: every one of `streams`, or where that is None every one
            seen so far.
        on_gap: called with each gap and each restart, before the message behind it is returned; with a gap at the end
            of what has come, when a heartbeat tells of it.
        high_water: messages queued here before the publisher sees that this reader is slow.
        curve: the publisher's key and one's own, where it speaks CurveZMQ.

    Attributes:
        tallies: analyses and ends received and missed, by stream.

    Raises:
        UsageError: the endpoint or a key is malformed, or what is asked for does not go together.
    """

    def __init__(
        self,
        endpoint: str,
        pattern: SubscriberPattern = "sub",
        *,
        streams: Collection[str] | None = None,
        kinds: Collection[Kind] = ("analysis", "end"),
        classes: Collection[str] | None = None,
        masks: bool = True,
        timeout: float | None = None,
        until_end: bool = False,
        on_gap: Callable[[Gap], None] = lambda _: None,
        high_water: int = 16,
        curve: ClientKeys | None = None,
    ) -> None:
        if classes is not None and pattern == "pull":
            raise UsageError("classes are chosen by the topics of PUB; PUSH gives every message to one reader")
        if classes is not None and until_end and streams is None:
            raise UsageError("to read one class until the end, name the streams: ends come by stream")
        self.tallies: dict[str, StreamTally] = {}
        self._endpoint = endpoint
        self._streams = None if streams is None else frozenset(streams)
        self._kinds = frozenset(kinds)
        self._classes = classes
        self._masks = masks
        self._broken_off = 0
        self._states: dict[str, tuple[str, int]] = {}
        self._timeout = timeout
        self._until_end = until_end
        self._on_gap = on_gap
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB if pattern == "sub" else zmq.PULL)
        try:
            self._connect(high_water, curve, self._prefixes(until_end) if pattern == "sub" else ())
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(
                f"{endpoint!r} is not the address of a publisher: write tcp://host:5555 or ipc:///path/to/socket"
            ) from error
        except BaseException:
            self.close()
            raise

    def _connect(self, high_water: int, curve: ClientKeys | None, prefixes: Iterable[bytes]) -> None:
        self._socket.set_hwm(high_water)
        self._socket.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        self._socket.setsockopt(zmq.IPV6, 1 if "[" in self._endpoint else 0)  # with it, `localhost` means ::1 only
        if curve is not None:
            trust(self._socket, curve)
        for prefix in prefixes:
            self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
        self._handshakes = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        )
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._handshakes, zmq.POLLIN)
        self._socket.connect(self._endpoint)

    @property
    def received(self) -> int:
        """Analyses and ends received of all streams."""
        return sum(tally.received for tally in self.tallies.values())

    @property
    def missed(self) -> int:
        """Analyses and ends missed of all streams."""
        return sum(tally.missed for tally in self.tallies.values())

    @property
    def ended(self) -> bool:
        """Whether every stream has ended: of those asked for, or else of those seen."""
        wanted = self.tallies if self._streams is None else self._streams
        return bool(wanted) and all(name in self.tallies and self.tallies[name].end is not None for name in wanted)

    def receive(self) -> Received:
        """The next message of the kinds wanted; kinds that this version does not know are passed over.

        Raises:
            MessageError: what came is not a roadlens message; the next call goes on behind it.
            SilenceError: nothing came within `timeout`.
            SourceError: the publisher does not let this reader in.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            parts = self._arrived(deadline)
            if of_unknown_kind(parts[0]):
                continue
            received = decode(parts, masks=self._masks)
            header = received.header
            if self._streams is not None and header.stream not in self._streams:
                continue
            if isinstance(header, AnalysisMessage | EndMessage):
                gap = self._count(header)
                if gap is None:
                    continue
                if gap.count or gap.restarted:
                    self._on_gap(gap)
                    received = replace(received, missed=gap.count, restarted=gap.restarted)
            elif isinstance(header, StatusMessage) and self._repeats(header):
                continue
            elif isinstance(header, HeartbeatMessage) and self._classes is None and header.stream in self.tallies:
                late = self.tallies[header.stream].overdue(header)
                if late.count:
                    self._on_gap(late)
            if kind_of(header) in self._kinds:
                return received

    def _arrived(self, deadline: float | None) -> list[bytes]:
        while True:
            left = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
            ready = dict(self._poller.poll(round(min(left, _LONGEST_WAIT) * 1000)))
            if self._socket in ready:
                return self._socket.recv_multipart()
            if self._handshakes in ready:
                self._look_at_handshake()
                continue
            if left > _LONGEST_WAIT:
                continue
            raise SilenceError(
                f"nothing came from {self._endpoint} within {self._timeout:g} s: "
                "see that the publisher is running, of the same pattern and publishing these streams"
                + (", and that the key given is its key: it breaks the handshake off" if self._broken_off > 1 else "")
            )

    def _look_at_handshake(self) -> None:
        event = recv_monitor_message(self._handshakes)
        if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise SourceError(
                f"{self._endpoint} does not let this reader in: have its public key put on the publisher's allow-list"
            )
        if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._broken_off += 1  # once may be a publisher that was just being stopped
        elif event["value"] == _MECHANISM_MISMATCH:
            raise SourceError(
                f"{self._endpoint} and this reader do not agree on CurveZMQ: give the publisher's key if it has one, "
                "and none if it has not"
            )

    def _count(self, header: AnalysisMessage | EndMessage) -> Gap | None:
        """Count a message; None for one that has come before."""
        stream = header.stream
        if stream not in self.tallies:
            if len(self.tallies) >= MOST_STREAMS:
                raise MessageError(f"the publisher names more than {MOST_STREAMS} streams; {stream!r:.40} is one more")
            self.tallies[stream] = StreamTally(first=header.sequence)
        tally = self.tallies[stream]
        if self._classes is None:
            return tally.add(header)
        if isinstance(header, AnalysisMessage) and tally.repeats(header):
            return None
        gap = tally.add(header)
        tally.missed -= gap.count  # it was not asked for
        return replace(gap, count=0)

    def _repeats(self, status: StatusMessage) -> bool:
        """Whether a state has come before: publishers repeat the newest one for those who come late."""
        known = self._states.pop(status.stream, None)
        if len(self._states) < MOST_STREAMS:
            self._states[status.stream] = (status.run, status.sequence)
        return known == (status.run, status.sequence)

    def _prefixes(self, until_end: bool) -> list[bytes]:
        """What to subscribe to: no more than is wanted, as far as the beginning of a topic can say it."""
        streams = None if self._streams is None else sorted(self._streams)
        chosen: list[bytes] = []
        if "picture" in self._kinds:
            chosen += [PICTURE_PREFIX] if streams is None else [topic(s, "picture") for s in streams]
        if self._classes is not None:
            if "analysis" in self._kinds:
                chosen += [class_topic(c, s) for c in sorted(self._classes) for s in streams or (None,)]
        elif "analysis" in self._kinds or (streams is None and (until_end or self._kinds != {"picture"})):
            # Heartbeats come along: they tell of losses at the end.
            return chosen + ([PREFIX] if streams is None else [topic(s) for s in streams])
        others = self._kinds - {"analysis", "picture"} | ({"end"} if until_end else set())
        return chosen + [topic(s, kind) for s in streams or () for kind in sorted(others)]

    @property
    def over(self) -> bool:
        """Whether every stream has ended and that is the end: see `until_end`."""
        return self._until_end and self.ended

    def __iter__(self) -> Iterator[Received]:
        while not self.over:
            yield self.receive()

    def close(self) -> None:
        """Disconnect. Twice is allowed."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            destroy(self._context, self._endpoint)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
