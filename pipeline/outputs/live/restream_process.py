"""The process that restreams to one server: compressed pictures in on standard input, FFmpeg's network protocols out.

FFmpeg's calls that connect to a peer hold Python's interpreter lock (PyAV 18: `avio_open` and `avformat_write_header`),
so that in the pipeline's own process one peer that accepts and stays silent would stop every stream. And some of them
know no timeout. So each server has a process; an alarm ends it when a call takes too long, whatever it is stuck in.

It imports nothing of the pipeline, so that it is up fast. Addresses come on standard input: a command line can be read
by every user of the machine.
"""

from __future__ import annotations

import json
import signal
import struct
import sys
from fractions import Fraction
from typing import Any, BinaryIO

HEAD = struct.Struct("<qq?I")
"""In front of every picture: pts and duration in 1/90000 s, whether it is a key frame, bytes that follow."""

_TIME_BASE = Fraction(1, 90_000)


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    return data if len(data) == count else b""


def _say(word: str) -> None:
    sys.stdout.write(word + "\n")
    sys.stdout.flush()


def _send(pictures: BinaryIO) -> None:
    import av
    from av.packet import Packet

    hello = json.loads(pictures.readline())

    def bounded() -> None:
        signal.setitimer(signal.ITIMER_REAL, hello["timeout"])

    container = av.open(hello["address"], "w", format=hello["format"], options=hello["options"])
    stream = container.add_mux_stream(
        "h264", rate=Fraction(hello["rate"]), width=hello["width"], height=hello["height"], time_base=_TIME_BASE
    )
    first: int | None = None
    while head := _read(pictures, HEAD.size):
        pts, duration, key, size = HEAD.unpack(head)
        data = _read(pictures, size)
        if not data:
            break
        begins = first is None
        first = pts if first is None else first
        packet: Packet[Any] = Packet(data)
        packet.pts = packet.dts = pts - first
        packet.duration, packet.time_base, packet.is_keyframe, packet.stream = duration, _TIME_BASE, key, stream
        bounded()
        container.mux(packet)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if begins:
            _say("connected")
    bounded()
    container.close()


def main() -> None:
    """Send until standard input ends; say `connected`, or `error` and why, on standard output."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the default ends the process, inside any call
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pipeline's to handle
    try:
        _send(sys.stdin.buffer)
    except Exception as error:  # noqa: BLE001  # said in one line, by the process that has the log
        _say(f"error {getattr(error, 'strerror', None) or error}")


if __name__ == "__main__":
    main()
