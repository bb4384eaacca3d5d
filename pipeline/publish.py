"""Analyses out over ZeroMQ: PUB loses rather than waits, PUSH waits rather than loses.

What is bounded, and by what (imagezmq, Savant and pyzmq users suffer from all three: old frames, silent loss, growth):

- ZeroMQ's own queue by `high_water` messages a peer, set before the bind;
- the kernel's send buffer by `SEND_BUFFER` bytes: left to itself it grows to megabytes, which is a minute of old
  masks for a reader that is a little too slow;
- the wait of PUSH, once `stop` says so, by `linger` seconds.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import re
import secrets
import socket as sockets
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import zmq

from engines.errors import OutputError, RoadlensError, UsageError
from pipeline.frame import Analysis
from pipeline.messages import EndMessage, EndReason, Header, HeaderFormat, MaskOption, encode, from_analysis, topic

log = logging.getLogger(__name__)

Pattern = Literal["pub", "push"]

SEND_BUFFER = 64 * 1024
"""Bytes of the kernel's send buffer of one peer."""

POLL_MS = 50
"""Milliseconds between two looks at `stop` while PUSH waits for its reader."""

PATIENCE = 2.0
"""Seconds that PUSH waits in silence before it says what it is waiting for."""


class Publisher:
    """A sink that sends every analysis over one ZeroMQ socket. May be called from several threads, one a stream.

    `pub`: any number of subscribers; one that is slow loses messages and sees it by their sequence numbers; nobody
    ever waits. While no one is subscribed, nothing is encoded. `push`: every message goes to exactly one reader;
    without a reader, or with a slow one, `consume` waits. TCP keep-alive, not a ZeroMQ heartbeat, finds dead hosts: a
    reader that is merely full answers no heartbeat, and would be cut off.

    Example:
        >>> with Publisher("tcp://127.0.0.1:5555", "push") as publisher:  # doctest: +SKIP
        ...     for analysis in analyses:
        ...         publisher.consume(analysis)
        ...     publisher.end("drive")

    Args:
        endpoint: where to bind: `tcp://host:port` (port 0 or `*`: a free one) or `ipc:///path`.
        pattern: `pub` or `push`.
        header: how the headers are written.
        mask: how the class maps are written; `none` leaves them out.
        high_water: messages queued for a peer that does not read.
        linger: seconds that a run being stopped still waits for readers, over all messages and `close` together; with
            `pub` also how long `close` delivers what is queued. A run that is not being stopped delivers everything
            over `push`, however long it takes.
        stop: says whether the run is being stopped. An `Event().is_set` fits.
        allow_remote: whether an address that other machines can reach may be bound.
        first_sequence: where the numbering of a stream goes on after an interrupted run; 0 for one not named.
        curve_secret_key: the server's secret key (Z85, 40 characters): the socket then speaks CurveZMQ only. It proves
            who the publisher is and encrypts; it does not choose among subscribers.

    Attributes:
        endpoint: the address bound, with the port that was chosen.
        sent: messages handed to ZeroMQ by stream, ends included.
        unsent: analyses given up by stream because PUSH waited longer than a run being stopped may.

    Raises:
        OutputError: the endpoint is malformed, in use, or not of this machine.
        UsageError: the endpoint is open to other machines and `allow_remote` is not set, or the key is not one.
    """

    def __init__(
        self,
        endpoint: str,
        pattern: Pattern = "pub",
        *,
        header: HeaderFormat = "msgpack",
        mask: MaskOption = "png",
        high_water: int = 16,
        linger: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        allow_remote: bool = False,
        first_sequence: Mapping[str, int] | None = None,
        curve_secret_key: str = "",
    ) -> None:
        bindable = _checked(endpoint, allow_remote)
        self.pattern = pattern
        self.sent: dict[str, int] = {}
        self.unsent: dict[str, int] = {}
        self._header = header
        self._mask = mask
        self._linger = linger
        self._stop = stop
        self._run = secrets.token_hex(4)
        self._first = dict(first_sequence or {})
        self._next: dict[str, int] = {}
        self._open: dict[str, None] = {}
        self._dropped: dict[str, int] = {}
        self._subscriptions: set[bytes] = set()
        self._deadline: float | None = None
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # XPUB is PUB that hears who subscribes: without a subscriber no mask need be encoded.
        self._socket = self._context.socket(zmq.XPUB if pattern == "pub" else zmq.PUSH)
        try:
            self._socket.set_hwm(high_water)
            self._socket.setsockopt(zmq.SNDBUF, SEND_BUFFER)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, 30)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, 10)
            self._socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, 3)
            self._socket.setsockopt(zmq.IPV6, 1 if "[" in bindable else 0)
            if curve_secret_key:
                _secure(self._socket, curve_secret_key)
            _bind(self._socket, bindable)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.endpoint: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def consume(self, analysis: Analysis) -> None:
        """Send an analysis under the next sequence number of its stream; one thread a stream."""
        stream = analysis.frame.stream
        with self._lock:
            sequence, first = self._number(stream)
            self._open[stream] = None
            self._dropped[stream] = self._dropped.get(stream, 0) + analysis.dropped_since_last
            if not self._wanted(topic(stream, "analysis")):
                return
        message = from_analysis(analysis, sequence, run=self._run, run_start=first)
        parts = encode(message, analysis.class_map, analysis.classes, header=self._header, mask=self._mask)
        with self._lock:
            if not self._send(message, parts):
                self.unsent[stream] = self.unsent.get(stream, 0) + 1

    def end(self, stream: str, reason: EndReason = "complete", dropped: int | None = None) -> None:
        """Tell the readers that a stream is over. `close` says `stopped` of every stream that has not ended by then.

        Args:
            stream: its id.
            reason: `complete` only where the source was read to its end.
            dropped: frames of the stream dropped over the run; left out, the sum over its analyses.
        """
        with self._lock:
            sequence, first = self._number(stream)
            self._open.pop(stream, None)
            message = EndMessage(
                stream=stream,
                sequence=sequence,
                run=self._run,
                run_start=first,
                frames=sequence,
                dropped=self._dropped.get(stream, 0) if dropped is None else dropped,
                reason=reason,
            )
            if self._wanted(topic(stream, "end")):
                self._send(message, encode(message, header=self._header))

    def close(self) -> None:
        """End what has not ended, deliver what is queued (see `linger`), and free the socket. Twice is allowed.

        Leaving the `with` block by an exception counts as stopping.
        """
        if self._socket.closed:
            return
        for stream in list(self._open):
            self.end(stream, "stopped")
        with self._lock:
            if self.pattern == "pub":
                self._socket.close(linger=round(self._linger * 1000))
                self._context.term()
            else:
                self._deliver()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._stop = lambda: True
        self.close()

    def _number(self, stream: str) -> tuple[int, int]:
        """Take the next sequence number of a stream; and the first of this run."""
        first = self._first.get(stream, 0)
        sequence = self._next.get(stream, first)
        self._next[stream] = sequence + 1
        return sequence, first

    def _wanted(self, subject: bytes) -> bool:
        """Whether anyone would get a message on this topic."""
        if self.pattern == "push":
            return True
        try:
            while True:
                notice = self._socket.recv(zmq.NOBLOCK)
                (self._subscriptions.add if notice[:1] == b"\x01" else self._subscriptions.discard)(notice[1:])
        except zmq.Again:
            return any(subject.startswith(prefix) for prefix in self._subscriptions)

    def _send(self, message: Header, parts: list[bytes]) -> bool:
        """Hand the parts to ZeroMQ, with PUSH as soon as a reader takes them; False when stopped before that."""
        began = time.monotonic()
        silent = True
        while True:
            try:
                self._socket.send_multipart(parts, zmq.NOBLOCK)
            except zmq.Again:
                if self._out_of_time():
                    return False
                if silent and time.monotonic() - began > PATIENCE:
                    log.warning("%s waits for a reader that takes its messages", self.endpoint)
                    silent = False
                self._socket.poll(POLL_MS, zmq.POLLOUT)
            else:
                self.sent[message.stream] = self.sent.get(message.stream, 0) + 1
                return True

    def _deliver(self) -> None:
        """Close a PUSH socket once its queue is empty; when stopped, after at most `linger` seconds.

        ZeroMQ fixes a socket's linger when it is closed and then waits in one call that nothing interrupts. So that
        call is made in a thread of its own, which is left behind (with the last messages) if it outlives the bound.
        """
        self._socket.close(linger=-1)
        waiting = threading.Thread(target=self._context.term, name=f"linger {self.endpoint}", daemon=True)
        waiting.start()
        while waiting.is_alive():
            waiting.join(POLL_MS / 1000)
            if self._out_of_time() and waiting.is_alive():
                log.warning("%s was closed before its reader had taken the last messages", self.endpoint)
                return

    def _out_of_time(self) -> bool:
        """Whether the run is being stopped and has been for longer than `linger`."""
        if self._deadline is None and self._stop():
            self._deadline = time.monotonic() + self._linger
        return self._deadline is not None and time.monotonic() >= self._deadline


def _secure(socket: zmq.Socket[bytes], secret_key: str) -> None:
    """Make a socket a CurveZMQ server.

    Raises:
        UsageError: the key is not one.
    """
    try:
        public = zmq.curve_public(secret_key.encode("ascii"))
    except (ValueError, zmq.ZMQError) as error:
        raise UsageError("the CurveZMQ secret key is not one: a key is 40 characters of Z85") from error
    socket.curve_secretkey = secret_key.encode("ascii")
    socket.curve_publickey = public
    socket.curve_server = True


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
