"""Scriptable cameras beside RTSP's: MPEG-TS over UDP, TCP, HTTP and a pipe, FLV over TCP and HTTP, RTMP, MJPEG by HTTP.

with StreamCamera(Footage.of(clip), "rtmp", count=100) as camera:
    Camera("cam", camera.url)
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Literal, Self

from tests.pipeline.listener import Listener
from tests.pipeline.muxing import FlashVideo, TransportStream
from tests.pipeline.rtp import Footage
from tests.pipeline.rtsp_server import free_port
from tests.pipeline.script import Planned, Script, Sent, planned, wait

Way = Literal["ts/udp", "ts/tcp", "ts/http", "ts/pipe", "flv/tcp", "flv/http", "rtmp", "mjpeg/http"]
_DATAGRAM = 7 * TransportStream.packet


class StreamCamera:
    """Sends to whoever connects; by UDP and through a pipe once, as soon as somebody listens.

    Args:
        footage: what it sends.
        way: the protocol.
        script: fields of `Script`.

    Attributes:
        script: what it does, to be changed.
        sent: pictures that went out, in order.
        connections: how many there were.
        pipe: what to read of a pipe: a descriptor.
    """

    def __init__(self, footage: Footage, way: Way, **script: object) -> None:
        self.footage, self.way, self.script = footage, way, Script(**script)  # type: ignore[arg-type]  # as there
        self.sent: list[Sent] = []
        self.pipe = -1
        self.stopped = threading.Event()
        self._listener: Listener | None = None
        self._begun = 0  # connections where there is nothing that listens: datagrams and pipes
        if way == "ts/udp":
            self.port = free_port()
            self.url = f"udp://127.0.0.1:{self.port}"
        elif way == "ts/pipe":
            self.pipe, self._into = os.pipe()
            self.url = "-"
        else:
            self._listener = Listener(self._talk)
            self.port, self.stopped = self._listener.port, self._listener.stopped
            scheme = {"tcp": "tcp", "http": "http", "rtmp": "rtmp"}[way.rpartition("/")[2]]
            path = {"tcp": "", "http": f"/live.{way.partition('/')[0]}", "rtmp": "/live/camera"}[scheme]
            self.url = f"{scheme}://127.0.0.1:{self.port}{path}"

    @property
    def connections(self) -> int:
        return self._begun if self._listener is None else self._listener.connections

    @property
    def whole(self) -> list[Sent]:
        """Pictures that went out without a loss."""
        return [one for one in self.sent if not one.lost]

    def __enter__(self) -> Self:
        if self._listener is not None:
            self._listener.start()
            return self
        target = {"ts/udp": self._send_datagrams, "ts/pipe": self._feed}[self.way]
        threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        if self._listener is not None:
            self._listener.stop()
        if self.pipe >= 0:
            os.close(self.pipe)

    def _play(self) -> Iterator[Planned]:
        """What to send, when it is due; ends when all has been sent."""
        began = time.monotonic()
        for picture in planned(self.script, self.footage):
            hold = self.script.hold(picture.n) * self.script.slow
            if not wait(self.script, began, picture.due, self.stopped.wait) or self.stopped.wait(hold):
                return
            yield picture
        if self.script.end == "silent":
            self.stopped.wait()

    def _note(self, connection: int, picture: Planned, packets: int, lost: int) -> None:
        self.sent.append(Sent(connection, picture.n, picture.unit.key, packets, lost, time.monotonic()))

    # Listening --------------------------------------------------------------------------------------------------------
    def _talk(self, peer: socket.socket, connection: int) -> None:
        with peer, suppress(OSError):
            if self.way == "rtmp":
                self._send_messages(peer, connection)
                return
            if self.way.endswith("http"):
                peer.recv(65536)
                kind = {"ts": "video/mp2t", "flv": "video/x-flv", "mjpeg": "multipart/x-mixed-replace; boundary=frame"}
                kind = kind[self.way.partition("/")[0]]
                peer.sendall(f"HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n\r\n".encode())
            mux = self._mux()
            if mux is not None:
                peer.sendall(mux.head())
            for picture in self._play():
                if mux is None:
                    jpeg = picture.unit.pieces[0]
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                    packets = [head + jpeg + b"\r\n"]
                else:
                    packets = mux.picture(picture.unit, picture.shown, picture.decoded)
                kept = [one for k, one in enumerate(packets) if not self.script.lose(picture.n, k)]
                peer.sendall(b"".join(kept))
                self._note(connection, picture, len(kept), len(packets) - len(kept))

    def _mux(self) -> TransportStream | FlashVideo | None:
        in_band = self.script.sets in {"both", "band"}
        return {
            "ts": lambda: TransportStream(self.footage, in_band), "flv": lambda: FlashVideo(self.footage),
            "mjpeg": lambda: None,
        }[self.way.partition("/")[0]]()  # fmt: skip

    def _send_datagrams(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            while not bound(self.port, "udp"):
                if self.stopped.wait(0.02):
                    return
            own.connect(("127.0.0.1", self.port))
            self._begun += 1
            mux = TransportStream(self.footage, self.script.sets in {"both", "band"})
            for picture in self._play():
                packets = mux.picture(picture.unit, picture.shown, picture.decoded)
                kept = [one for k, one in enumerate(packets) if not self.script.lose(picture.n, k)]
                data = b"".join(kept)
                with suppress(ConnectionError):
                    for at in range(0, len(data), _DATAGRAM):
                        own.send(data[at : at + _DATAGRAM])
                self._note(0, picture, len(kept), len(packets) - len(kept))

    def _feed(self) -> None:
        self._begun += 1
        mux = TransportStream(self.footage, self.script.sets in {"both", "band"})
        with os.fdopen(self._into, "wb", buffering=0) as into, suppress(OSError):
            for picture in self._play():
                packets = mux.picture(picture.unit, picture.shown, picture.decoded)
                into.write(b"".join(packets))
                self._note(0, picture, len(packets), 0)

    # RTMP -------------------------------------------------------------------------------------------------------------
    def _send_messages(self, peer: socket.socket, connection: int) -> None:
        """Adobe's RTMP specification 1.0: shake hands, agree to all that is asked, and send what is played."""
        file = peer.makefile("rb")
        hello = file.read(1537)
        peer.sendall(b"\3" + bytes(1536) + hello[1:])
        file.read(1536)
        peer.sendall(_message(2, 1, 0, 0, struct.pack(">I", _CHUNK)))
        for name, number in _commands(file):
            if name == "play":
                peer.sendall(_message(3, 20, 0, 1, _amf("onStatus", 0.0, None, {"code": "NetStream.Play.Start"})))
                break
            answer = 1.0 if name == "createStream" else {"code": "NetConnection.Connect.Success"}
            peer.sendall(_message(3, 20, 0, 0, _amf("_result", number, None, answer)))
        mux = FlashVideo(self.footage)
        peer.sendall(_message(6, 9, mux.milliseconds(0), 1, mux.configuration()))
        for picture in self._play():
            at = mux.milliseconds(picture.decoded)
            peer.sendall(_message(6, 9, at, 1, mux.body(picture.unit, picture.shown, picture.decoded)))
            self._note(connection, picture, 1, 0)


_CHUNK = 65_536


def _message(chunk: int, kind: int, at: int, stream: int, body: bytes) -> bytes:
    """An RTMP message with a full head, in chunks of `_CHUNK` bytes."""
    far = struct.pack(">I", at) if at >= 0xFFFFFF else b""
    head = bytes([chunk]) + struct.pack(">I", min(at, 0xFFFFFF))[1:] + struct.pack(">I", len(body))[1:]
    head += bytes([kind]) + struct.pack("<I", stream) + far
    size = 128 if chunk == 2 else _CHUNK
    parts = [body[begin : begin + size] for begin in range(0, len(body), size)]
    return head + (bytes([0xC0 | chunk]) + far).join(parts)


def _amf(*values: object) -> bytes:
    """AMF0."""
    coded = b""
    for value in values:
        match value:
            case None:
                coded += b"\5"
            case str():
                coded += b"\2" + struct.pack(">H", len(value)) + value.encode()
            case float():
                coded += b"\0" + struct.pack(">d", value)
            case dict():
                pairs = (struct.pack(">H", len(k)) + k.encode() + _amf(v) for k, v in value.items())
                coded += b"\3" + b"".join(pairs) + b"\0\0\x09"
    return coded


def _commands(file: BufferedReader) -> Iterator[tuple[str, float]]:
    """The commands that a client sends, with the numbers of their transactions; chunks of 128 bytes until it says."""
    size, kept = 128, dict[int, tuple[int, int, bytes]]()
    while first := file.read(1):
        kind, chunk = first[0] >> 6, first[0] & 63
        length, type_, body = kept.get(chunk, (0, 0, b""))
        if kind < 3:
            head = file.read((11, 7, 3)[kind])
            if kind < 2:
                length, type_ = int.from_bytes(head[3:6], "big"), head[6]
        body += file.read(min(size, length - len(body)))
        if len(body) == length:
            if type_ == 1:
                size = int.from_bytes(body, "big")
            elif type_ == 20:
                ends = 3 + int.from_bytes(body[1:3], "big")
                yield body[3:ends].decode(), struct.unpack(">d", body[ends + 1 : ends + 9])[0]
            body = b""
        kept[chunk] = (length, type_, body)


def bound(port: int, protocol: str) -> bool:
    """Whether somebody listens at a port, by `udp` or `tcp`."""
    lines = Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]
    return any(int(line.split()[1].partition(":")[2], 16) == port for line in lines)
