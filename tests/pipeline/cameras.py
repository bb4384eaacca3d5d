"""Small cameras for the tests: what they send was encoded before, so that they cost no CPU."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av

from tests.pipeline.listener import Listener


def transport_stream(clip: Path) -> list[bytes]:
    """The clip as an MPEG transport stream, one piece a picture."""
    target, pieces, end = io.BytesIO(), [], 0
    with av.open(str(clip)) as source, av.open(target, "w", format="mpegts", options={"flush_packets": "1"}) as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is None:
                continue
            packet.stream = stream
            out.mux(packet)
            pieces.append(target.getvalue()[end:])
            end = len(target.getvalue())
    pieces[-1] += target.getvalue()[end:]
    return pieces


class TcpCamera:
    """Serves pieces over TCP to whoever connects, again and again from the start, at `rate` a second.

    Args:
        pieces: what to send.
        rate: pieces a second; 0 for as fast as they are taken.
        behave: called with the number of the connection (from 0) and of the piece before it is sent; False closes
            the connection. It may wait: then the camera is silent.
        head: sent first, such as the head of an HTTP answer.
        repeat: begin anew at the end instead of closing.
    """

    def __init__(
        self,
        pieces: list[bytes],
        rate: float = 25.0,
        behave: Callable[[int, int], bool] = lambda _connection, _piece: True,
        head: bytes = b"",
        repeat: bool = False,
    ) -> None:
        self.pieces, self.rate, self.behave, self.head, self.repeat = pieces, rate, behave, head, repeat
        self._listener = Listener(self._send)
        self.port = self._listener.port

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        return self._listener.connections

    def _send(self, peer: socket.socket, connection: int) -> None:
        with peer, suppress(OSError):
            if self.head:
                peer.recv(65536)
                peer.sendall(self.head)
            due, piece = time.monotonic(), 0
            while self.repeat or piece < len(self.pieces):
                if self._listener.stopped.is_set() or not self.behave(connection, piece):
                    return
                peer.sendall(self.pieces[piece % len(self.pieces)])
                piece += 1
                if self.rate:
                    due = max(due + 1 / self.rate, time.monotonic())
                    self._listener.stopped.wait(due - time.monotonic())

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.stop()


def multipart(clip: Path) -> list[bytes]:
    """The clip's pictures as a camera's MJPEG page sends them."""
    from pipeline.pictures.jpeg import encode_jpeg

    with av.open(str(clip)) as source:
        pictures: list[Any] = [encode_jpeg(f)[0] for f in source.decode(source.streams.video[0])]
    return [
        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
        for jpeg in pictures
    ]


MULTIPART_HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
