"""The client library: typed messages from a roadlens publisher, with what was missed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

import zmq
import zmq.utils.z85

from engines.errors import SourceError, UsageError
from pipeline.messages import KINDS, PREFIX, EndMessage, Header, Received, decode, topic

SubscriberPattern = Literal["sub", "pull"]

RECEIVE_BUFFER = 64 * 1024
"""Bytes of the kernel's receive buffer: left to itself it grows to megabytes of messages that are old when read."""


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
    """What came of one stream, and what did not.

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

    def add(self, header: Header) -> Gap:
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


class Subscriber:
    """Iterates the messages of one publisher. To be used from one thread.

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
        timeout: seconds to wait for a message, or None for as long as it takes.
        until_end: whether to stop once every stream has ended: every one of `streams`, or where that is None every one
            seen so far.
        on_gap: called with each gap and each restart, before the message behind it is returned.
        high_water: messages queued here before the publisher sees that this reader is slow.
        curve_server_key: the publisher's public key (Z85, 40 characters), where it speaks CurveZMQ.

    Attributes:
        tallies: what was received and missed, by stream.

    Raises:
        UsageError: the endpoint or the key is malformed.
    """

    def __init__(
        self,
        endpoint: str,
        pattern: SubscriberPattern = "sub",
        *,
        streams: Collection[str] | None = None,
        timeout: float | None = None,
        until_end: bool = False,
        on_gap: Callable[[Gap], None] = lambda _: None,
        high_water: int = 16,
        curve_server_key: str = "",
    ) -> None:
        self.tallies: dict[str, StreamTally] = {}
        self._endpoint = endpoint
        self._streams = None if streams is None else frozenset(streams)
        self._timeout = timeout
        self._until_end = until_end
        self._on_gap = on_gap
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB if pattern == "sub" else zmq.PULL)
        try:
            self._socket.set_hwm(high_water)
            self._socket.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
            self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
            self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
            self._socket.setsockopt(zmq.IPV6, 1 if "[" in endpoint else 0)  # with it, `localhost` means ::1 only
            if curve_server_key:
                _trust(self._socket, curve_server_key)
            if pattern == "sub":
                for prefix in (PREFIX,) if streams is None else map(topic, streams):
                    self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise UsageError(
                f"{endpoint!r} is not the address of a publisher: write tcp://host:5555 or ipc:///path/to/socket"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def received(self) -> int:
        """Messages received of all streams."""
        return sum(tally.received for tally in self.tallies.values())

    @property
    def missed(self) -> int:
        """Messages missed of all streams."""
        return sum(tally.missed for tally in self.tallies.values())

    @property
    def ended(self) -> bool:
        """Whether every stream has ended: of those asked for, or else of those seen."""
        wanted = self.tallies if self._streams is None else self._streams
        return bool(wanted) and all(name in self.tallies and self.tallies[name].end is not None for name in wanted)

    def receive(self) -> Received:
        """The next message; kinds of message that this version does not know are passed over.

        Raises:
            MessageError: what came is not a roadlens message; the next call goes on behind it.
            SourceError: nothing came within `timeout`.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        while True:
            left = None if deadline is None else max(0, round((deadline - time.monotonic()) * 1000))
            if not self._socket.poll(left):
                raise SourceError(
                    f"nothing came from {self._endpoint} within {self._timeout:g} s: "
                    "see that the publisher is running, of the same pattern and publishing these streams"
                )
            parts = self._socket.recv_multipart()
            if _of_unknown_kind(parts[0]):
                continue
            received = decode(parts)
            stream = received.header.stream
            if self._streams is not None and stream not in self._streams:
                continue
            if stream not in self.tallies:
                self.tallies[stream] = StreamTally(first=received.header.sequence)
            gap = self.tallies[stream].add(received.header)
            if gap.count or gap.restarted:
                self._on_gap(gap)
                received = replace(received, missed=gap.count, restarted=gap.restarted)
            return received

    def __iter__(self) -> Iterator[Received]:
        while not (self._until_end and self.ended):
            yield self.receive()

    def close(self) -> None:
        """Disconnect. Twice is allowed."""
        if not self._context.closed:
            self._context.destroy(linger=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _trust(socket: zmq.Socket[bytes], server_key: str) -> None:
    """Make a socket a CurveZMQ client of the server with this public key, under a key pair made for the occasion."""
    key = server_key.encode("ascii", "replace")
    try:
        if len(zmq.utils.z85.decode(key)) != 32:
            raise ValueError("a key has 32 bytes")
    except (ValueError, KeyError) as error:
        raise UsageError("the CurveZMQ server key is not one: a key is 40 characters of Z85") from error
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
    socket.curve_serverkey = key


def _of_unknown_kind(subject: bytes) -> bool:
    """Whether a message of this version is of a kind that came later; anything else is for `decode` to judge."""
    return subject.startswith(PREFIX) and subject.rpartition(b"/")[2].decode("latin-1") not in KINDS
