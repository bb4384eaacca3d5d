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
import ipaddress
import logging
import re
import socket as sockets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import zmq

from engines.errors import OutputError, RoadlensError, UsageError
from pipeline.keys import ServerKeys, serve_curve

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

PATIENCE = 2.0
"""Seconds that PUSH waits in silence before it says what it is waiting for."""

_NOTICES = 10_000
"""Subscriptions taken in at a time: 10 ms."""


class Outlet:
    """A bound PUB or PUSH socket. One thread at a time: its owner holds a lock.

    Args:
        endpoint: where to bind: `tcp://host:port` (port 0 or `*`: a free one) or `ipc:///path`.
        pattern: `pub` or `push`.
        high_water: messages queued for a peer that does not read.
        linger: seconds that a run being stopped still waits for readers, over all messages and `close` together; with
            `pub` also how long `close` delivers what is queued.
        stop: says whether the run is being stopped.
        allow_remote: whether an address that other machines can reach may be bound.
        curve: keys with which the socket speaks CurveZMQ only; None for a plain one.

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
    ) -> None:
        bindable = _checked(endpoint, allow_remote)
        self.pattern = pattern
        self._linger = linger
        self._stop = stop
        self._deadline: float | None = None
        self._subscriptions: set[bytes] = set()
        self._joined: set[bytes] = set()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._doorkeeper = None
        # XPUB is PUB that hears who subscribes: without a subscriber no mask need be encoded.
        self._socket = self._context.socket(zmq.XPUB if pattern == "pub" else zmq.PUSH)
        try:
            self._socket.set_hwm(high_water)
            self._socket.setsockopt(zmq.SNDBUF, SEND_BUFFER)
            self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION)
            self._socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
            self._socket.setsockopt(zmq.IPV6, 1 if "[" in bindable else 0)
            if pattern == "pub":
                self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # the second to subscribe to a topic is heard of as well
            if curve is not None:
                self._doorkeeper = serve_curve(self._socket, self._context, curve)
            _bind(self._socket, bindable)
        except BaseException:
            self._end_doorkeeper()
            self._context.destroy(linger=0)
            raise
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def closed(self) -> bool:
        return self._socket.closed

    def anybody(self) -> bool:
        """Whether anyone would get anything; with `push` always."""
        if self.pattern == "push":
            return True
        self._hear()
        return bool(self._subscriptions)

    def wanted(self, subject: bytes) -> bool:
        """Whether anyone would get a message on this topic; with `push` always."""
        if self.pattern == "push":
            return True
        self._hear()
        # By the topic's own beginnings, not by all subscriptions: a stranger may have made a million of them.
        return any(subject[:length] in self._subscriptions for length in range(len(subject) + 1))

    def joined(self) -> set[bytes]:
        """The prefixes subscribed to since the last call, those included that somebody had before."""
        if self.pattern == "pub":
            self._hear()
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
        if self.pattern == "pub":
            self._socket.close(linger=round(self._linger * 1000))
            self._end_doorkeeper()
            self._context.term()
        else:
            self._deliver()

    def _hear(self) -> None:
        """Take in who has subscribed to what, so much of it at a time that a flood holds up no frame."""
        try:
            for _ in range(_NOTICES):
                notice = self._socket.recv(zmq.NOBLOCK)
                if notice[:1] == b"\x01":
                    self._subscriptions.add(notice[1:])
                    self._joined.add(notice[1:])
                elif notice[:1] == b"\x00":
                    self._subscriptions.discard(notice[1:])
        except zmq.Again:
            return

    def _deliver(self) -> None:
        """Close a PUSH socket once its queue is empty; when stopped, after at most `linger` seconds.

        ZeroMQ fixes a socket's linger when it is closed and then waits in one call that nothing interrupts. So that
        call is made in a thread of its own, which is left behind (with the last messages) if it outlives the bound.
        """
        self._socket.close(linger=-1)
        self._end_doorkeeper()
        waiting = threading.Thread(target=self._context.term, name=f"linger {self.endpoint}", daemon=True)
        waiting.start()
        while waiting.is_alive():
            waiting.join(POLL_MS / 1000)
            if self._out_of_time() and waiting.is_alive():
                log.warning("%s was closed before its reader had taken the last messages", self.endpoint)
                return

    def _end_doorkeeper(self) -> None:
        if self._doorkeeper is not None:
            self._doorkeeper.stop()

    def _out_of_time(self) -> bool:
        """Whether the run is being stopped and has been for longer than `linger`."""
        if self._deadline is None and self._stop():
            self._deadline = time.monotonic() + self._linger
        return self._deadline is not None and time.monotonic() >= self._deadline


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
    if not allow_remote and not _is_loopback(match["host"]):
        raise UsageError(
            f"{endpoint} would be open to other machines: bind to tcp://127.0.0.1:{match['port']}, "
            "or allow remote readers explicitly"
        )
    host = "127.0.0.1" if match["host"] == "localhost" else match["host"]  # ZeroMQ binds to no names
    return f"tcp://{host}:{'*' if match['port'] == '0' else match['port']}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False  # an interface's or a machine's name


def _check_ipc(endpoint: str) -> None:
    """Refuse a path that ZeroMQ would take over: it removes whatever lies at an ipc path before it binds."""
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.name:
        raise OutputError(f"{endpoint!r} is not an address to publish on: write ipc:///path/to/socket")
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


def _bind(socket: zmq.Socket[Any], endpoint: str) -> None:
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        raise _explained(endpoint, error) from error


def _explained(endpoint: str, error: zmq.ZMQError) -> RoadlensError:
    if error.errno == errno.EADDRINUSE:
        return OutputError(f"{endpoint} is in use by another process: choose another port or stop that process")
    if error.errno in {errno.EADDRNOTAVAIL, errno.ENODEV}:
        return OutputError(f"{endpoint} is no address of this machine: bind to tcp://127.0.0.1:5555 or one of its own")
    if error.errno == errno.EACCES:
        return OutputError(f"{endpoint} may not be bound by this user: choose a port above 1023 or a path of your own")
    return OutputError(f"{endpoint} cannot be bound: {zmq.strerror(error.errno or 0)}")
