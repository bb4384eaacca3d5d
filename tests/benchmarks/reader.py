"""Reads every analysis that a publisher sends, without the library's own subscriber: at the least cost."""

from __future__ import annotations

import threading
import time

import msgspec
import zmq


class Head(msgspec.Struct):
    """What the benchmarks look at of a header."""

    stream: str
    sequence: int
    run: str
    age_ms: float


class Reader:
    """Reads in a thread of its own, for as long as the process lives.

    Attributes:
        seen: every analysis that came, with the moment (monotonic clock) at which it came.
        missing: how many did not.
    """

    def __init__(self, endpoint: str) -> None:
        self.seen: list[tuple[float, Head]] = []
        self.missing = 0
        self._next: dict[str, int] = {}
        threading.Thread(target=self._read, args=(endpoint,), daemon=True).start()

    def _read(self, endpoint: str) -> None:
        socket = zmq.Context().socket(zmq.SUB)
        socket.rcvhwm = 0
        socket.subscribe(b"roadlens/v1/")
        socket.connect(endpoint)
        decode = msgspec.msgpack.Decoder(Head).decode
        while True:
            subject, header, *_ = socket.recv_multipart()
            if subject.endswith(b"/analysis"):
                head = decode(header)
                self.missing += head.sequence - self._next.get(head.stream, head.sequence)
                self._next[head.stream] = head.sequence + 1
                self.seen.append((time.monotonic(), head))
