"""The sending end of a ZeroMQ connection: where it binds, who has subscribed to what, and what is bounded.

What is bounded, and by what (imagezmq, Savant and pyzmq users suffer from all of these: old frames, silent loss,
growth):

- ZeroMQ's own queue by `high_water` messages a peer, set before the bind;
- the kernel's send buffer by `SEND_BUFFER` bytes: left to itself it grows to megabytes, which is a minute of old
  masks for a reader that is a little too slow;
- what a peer may send, which is subscriptions and nothing else, by `MAX_SUBSCRIPTION` bytes: a larger frame ends its
  connection;
- the wait of PUSH, once `stop` says so, by `linger` seconds.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket as sockets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import zmq

from engines.errors import OutputError, RoadlensError, UsageError
from pipeline.addresses import is_loopback
from pipeline.messages.sockets.contexts import destroy, end_within, terminated
from pipeline.messages.sockets.keys import ServerKeys, serve_curve

log = logging.getLogger(__name__)

Pattern = Literal["pub", "push"]

SEND_BUFFER = 64 * 1024
"""Bytes of the kernel's send buffer of one peer."""

MAX_SUBSCRIPTION = 2048
"""Bytes of the longest frame that a peer may send."""

HANDSHAKE_MS = 10_000
"""Milliseconds that a connection may take to become one of ZeroMQ."""

POLL_MS = 50
"""Milliseconds between two looks at `stop` while PUSH waits for its reader."""

_SETTLE = 0.02
"""Seconds between the last message and the closing of its socket."""

PATIENCE = 2.0
"""Seconds that PUSH waits in silence before it says what it is waiting for."""

_NOTICES = 10_000
"""Subscriptions taken in at a time: 10 ms."""

FAREWELL = b""
"""The last message to a relay, which sends it back."""

MOST_IPC_BYTES = 107
"""Bytes of the longest path of a Unix socket (`sun_path`, its end left out)."""


class Outlet:
    """A PUB or PUSH socket. One thread at a time: its owner holds a lock.

    Args:
        endpoint: where to bind: `tcp://host:port` (port 0 or `*`: a free one) or `ipc:///path`.
        pattern: `pub` or `push`.
        high_water: messages queued for a peer that does not read.
        linger: seconds that a run being stopped still waits for readers, over all messages and `close` together; with
            `pub` also how long `close` delivers what is queued.
        stop: says whether the run is being stopped.
        allow_remote: whether an address that other machines can reach may be bound.
        curve: keys with which the socket speaks CurveZMQ only; None for a plain one.
        relay: an address to connect to instead, where `pipeline.workers.relay` passes on what is sent to `endpoint`.
        trees: beginnings of topics that few subscribe to; see `anybody_in_trees`.

    Attributes:
        endpoint: the address bound, with the port that was chosen.

    Raises:
        OutputError: the endpoint is malformed, in use, or not of this machine.
        UsageError: the endpoint is open to other machines and `allow_remote` is not set.
    """

    def __init__(
        self,
        endpoint: str,
        pattern: Pattern = "pub",
        *,
        high_water: int = 16,
        linger: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        allow_remote: bool = False,
        curve: ServerKeys | None = None,
        relay: str | None = None,
        trees: tuple[bytes, ...] = (),
    ) -> None:
        self.pattern = pattern
        self._trees, self._in_trees = trees, 0
        self._linger = linger
        self._stop = stop
        self._relayed = relay is not None
        self._deadline: float | None = None
        self._subscriptions: set[bytes] = set()
        self._lengths: Counter[int] = Counter()
        self._joined: set[bytes] = set()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket = sending_socket(self._context, pattern, high_water, to_relay=relay is not None)
            self._end_doorkeeper: Callable[[], None] = lambda: None
            if relay is None:
                self._end_doorkeeper = bind(self._socket, self._context, endpoint, allow_remote, curve)
            else:
                self._socket.connect(relay)
        except BaseException:
            destroy(self._context, endpoint)
            raise
        self.endpoint: str = endpoint if relay else self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def closed(self) -> bool:
        return self._socket.closed

    def anybody(self) -> bool:
        """Whether anyone would get anything, as far as was heard; with `push` always."""
        return self.pattern == "push" or bool(self._subscriptions)

    def anybody_in_trees(self) -> bool:
        """Whether anyone has subscribed to something below `trees`, as far as was heard: where nobody has, no topic
        there need be thought of."""
        return self._in_trees > 0

    def wanted(self, subject: bytes, tree: bytes = b"") -> bool:
        """Whether anyone would get a message on this topic, as far as was heard; with `push` always.

        Args:
            subject: the topic.
            tree: what a subscription has to begin with to count as one to this topic; by default any does.
        """
        if self.pattern == "push":
            return True
        # By the topic's own beginnings, not by all subscriptions: a stranger may have made a million of them.
        most, least = len(subject), len(tree)
        return any(subject[:length] in self._subscriptions for length in self._lengths if least <= length <= most)

    def hear(self) -> None:
        """Take in who has subscribed to what, so much of it at a time that a flood holds up no frame."""
        if self.pattern == "push":
            return
        try:
            for _ in range(_NOTICES):
                notice = self._socket.recv(zmq.NOBLOCK)
                begins, prefix = notice[:1], notice[1:]
                if begins == b"\x01":
                    self._joined.add(prefix)
                    if prefix not in self._subscriptions:
                        self._subscriptions.add(prefix)
                        self._in_trees += prefix.startswith(self._trees)
                        self._lengths[len(prefix)] += 1
                elif begins == b"\x00" and prefix in self._subscriptions:
                    self._subscriptions.remove(prefix)
                    self._in_trees -= prefix.startswith(self._trees)
                    self._lengths[len(prefix)] -= 1
                    if not self._lengths[len(prefix)]:
                        del self._lengths[len(prefix)]
        except zmq.Again:
            return

    def joined(self) -> set[bytes]:
        """The prefixes subscribed to since the last call, those included that somebody had before."""
        self.hear()
        joined, self._joined = self._joined, set()
        return joined

    def offer(self, parts: list[bytes]) -> bool:
        """Hand a message to ZeroMQ without waiting; False where PUSH has no reader that takes it.

        PUB always takes it, and loses it for those who are too slow.
        """
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def send(self, parts: list[bytes]) -> bool:
        """Hand a message to ZeroMQ, with PUSH as soon as a reader takes it; False when stopped before that."""
        began = time.monotonic()
        silent = True
        while not self.offer(parts):
            if self._out_of_time():
                return False
            if silent and time.monotonic() - began > PATIENCE:
                log.warning("%s waits for a reader that takes its messages", self.endpoint)
                silent = False
            self._socket.poll(POLL_MS, zmq.POLLOUT)
        return True

    def stop_now(self) -> None:
        """From now on the run counts as being stopped."""
        self._stop = lambda: True

    def close(self) -> None:
        """Deliver what is queued (see `linger`) and free the socket. Twice is allowed."""
        if self._socket.closed:
            return
        self._settle()
        if self.pattern == "pub":
            self._socket.close(linger=round(self._linger * 1000))
            self._end_doorkeeper()
            end_within(self._linger, self._context.term, self.endpoint)
        elif self._relayed:
            self._take_leave()
        else:
            self._deliver()

    def _take_leave(self) -> None:
        """Close a socket to a relay once that has taken everything: what still lies in a Unix socket is lost when its
        sender closes while the receiver's queue is full.
        """
        if self.send([FAREWELL]):
            while not self._out_of_time() and not self._socket.poll(POLL_MS):
                pass
        destroy(self._context, self.endpoint)

    def _settle(self) -> None:
        """Let ZeroMQ take in that a reader has just left: closed between two of its steps, a socket may never end."""
        time.sleep(_SETTLE)
        self._socket.poll(0)

    def _deliver(self) -> None:
        """Close a PUSH socket once its queue is empty; when stopped, after at most `linger` seconds.

        ZeroMQ fixes a socket's linger when it is closed, so what bounds it is the wait for the context's end.
        """
        self._socket.close(linger=-1)
        self._end_doorkeeper()
        if not terminated(self._context.term, self.endpoint, self._out_of_time):
            log.warning("%s was closed before its reader had taken the last messages", self.endpoint)

    def _out_of_time(self) -> bool:
        """Whether the run is being stopped and has been for longer than `linger`."""
        if self._deadline is None and self._stop():
            self._deadline = time.monotonic() + self._linger
        return self._deadline is not None and time.monotonic() >= self._deadline


def sending_socket(
    context: zmq.Context[zmq.Socket[bytes]],
    pattern: Pattern,
    high_water: int,
    *,
    relays: bool = False,
    to_relay: bool = False,
) -> zmq.Socket[bytes]:
    """A socket with all of its bounds, neither bound nor connected.

    Args:
        context: its own; see `bind`.
        pattern: `pub` or `push`.
        high_water: messages queued for a peer that does not read.
        relays: whether what it hears is passed on to publishers: then it hears of every leave, as of every
            subscription, so that they can be counted.
        to_relay: whether a relay is its only peer: DEALER is PUSH that hears an answer.
    """
    # XPUB is PUB that hears who subscribes: without a subscriber no mask need be encoded.
    socket = context.socket(zmq.XPUB if pattern == "pub" else zmq.DEALER if to_relay else zmq.PUSH)
    socket.set_hwm(high_water)
    socket.setsockopt(zmq.SNDBUF, SEND_BUFFER)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
    if pattern == "pub":
        # The second to subscribe to a topic is heard of as well.
        socket.setsockopt(zmq.XPUB_VERBOSER if relays else zmq.XPUB_VERBOSE, 1)
    return socket


def bind(
    socket: zmq.Socket[bytes],
    context: zmq.Context[zmq.Socket[bytes]],
    endpoint: str,
    allow_remote: bool = False,
    curve: ServerKeys | None = None,
) -> Callable[[], None]:
    """Bind a sending socket, with a doorkeeper where it has keys.

    Returns:
        To be called before the context is terminated.

    Raises:
        OutputError: the endpoint is malformed, in use, or not of this machine.
        UsageError: the endpoint is open to other machines and `allow_remote` is not set.
    """
    bindable = _checked(endpoint, allow_remote)
    socket.setsockopt(zmq.IPV6, 1 if "[" in bindable else 0)
    doorkeeper = None if curve is None else serve_curve(socket, context, curve)

    def ended() -> None:
        if doorkeeper is not None:
            doorkeeper.stop()

    try:
        socket.bind(bindable)
    except zmq.ZMQError as error:
        ended()
        raise _explained(bindable, error) from error
    return ended


_TCP = re.compile(r"tcp://(?P<host>\*|\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[A-Za-z0-9_.-]+):(?P<port>\d{1,5}|\*)")


def _checked(endpoint: str, allow_remote: bool) -> str:
    """The endpoint in ZeroMQ's terms, if it can be one and is not open to others by accident."""
    if endpoint.startswith("ipc://"):
        _check_ipc(endpoint)
        return endpoint
    match = _TCP.fullmatch(endpoint)
    if match is None or (match["port"] != "*" and int(match["port"]) > 65535):
        raise OutputError(
            f"{endpoint!r} is not an address to publish on: write tcp://127.0.0.1:5555 or ipc:///path/to/socket"
        )
    if not allow_remote and not is_loopback(match["host"]):
        raise UsageError(
            f"{endpoint} would be open to other machines: bind to tcp://127.0.0.1:{match['port']}, "
            "or allow remote readers explicitly"
        )
    host = "127.0.0.1" if match["host"] == "localhost" else match["host"]  # ZeroMQ binds to no names
    return f"tcp://{host}:{'*' if match['port'] == '0' else match['port']}"


def _check_ipc(endpoint: str) -> None:
    """Refuse a path that ZeroMQ would take over: it removes whatever lies at an ipc path before it binds."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.name:
        raise OutputError(f"{endpoint!r} is not an address to publish on: write ipc:///path/to/socket")
    if (length := len(os.fsencode(path))) > MOST_IPC_BYTES:
        raise OutputError(
            f"the path of {endpoint} has {length} bytes, and that of a socket may have {MOST_IPC_BYTES}: "
            "choose a shorter one, such as ipc:///tmp/roadlens"
        )
    if not path.exists():
        return
    if not path.is_socket():
        raise OutputError(f"{endpoint} is a file and no socket: name a path that does not exist yet")
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return  # left behind by a process that is gone
    raise OutputError(f"{endpoint} is in use by another process: choose another path or stop that process")


def _explained(endpoint: str, error: zmq.ZMQError) -> RoadlensError:
    if error.errno == errno.EADDRINUSE:
        return OutputError(f"{endpoint} is in use by another process: choose another port or stop that process")
    if error.errno in {errno.EADDRNOTAVAIL, errno.ENODEV}:
        return OutputError(f"{endpoint} is no address of this machine: bind to tcp://127.0.0.1:5555 or one of its own")
    if error.errno == errno.EACCES:
        return OutputError(f"{endpoint} may not be bound by this user: choose a port above 1023 or a path of your own")
    return OutputError(f"{endpoint} cannot be bound: {zmq.strerror(error.errno or 0)}")
