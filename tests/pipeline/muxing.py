"""MPEG-TS and FLV as cameras write them, picture by picture and with whatever stamps a script says.

FFmpeg's own muxers refuse clocks that step back. ISO/IEC 13818-1 (transport stream), Adobe's FLV specification 10.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.pipeline.rtp import PICTURE_CLOCK, Footage, Unit

_PMT, _PICTURES = 0x100, 0x101
_TYPES = {"h264": 0x1B, "hevc": 0x24, "mpeg4": 0x10}
_START = 10.0  # seconds on the clock of the first picture, so that none steps back before zero
_WRAP = 1 << 33


class TransportStream:
    """An MPEG transport stream.

    Args:
        footage: of H.264, H.265 or MPEG-4.
        sets: whether parameter sets stand before each key frame.
        sized: whether each picture's length is said, as some cameras do; FFmpeg's muxer says none.
    """

    packet = 188

    def __init__(self, footage: Footage, sets: bool = True, sized: bool = False) -> None:
        self._footage, self._sets, self._sized = footage, sets, sized
        self._counters = {0: 0, _PMT: 0, _PICTURES: 0}

    def head(self) -> bytes:
        """What is said before the first picture: nothing, for the tables come with each key frame."""
        return b""

    def picture(self, unit: Unit, shown: float, decoded: float) -> list[bytes]:
        """Its packets; seconds on the camera's clock."""
        pieces = (*self._footage.sets, *unit.pieces) if self._sets and unit.key else unit.pieces
        if self._footage.codec == "mpeg4":
            content = b"".join(pieces)
        else:
            delimiter = {"h264": b"\x09\xf0", "hevc": b"\x46\x01\x50"}[self._footage.codec]
            content = b"".join(b"\0\0\0\1" + piece for piece in (delimiter, *pieces))
        pts, dts = (round((t + _START) * PICTURE_CLOCK) % _WRAP for t in (shown, decoded))
        fields = _time(3, pts) + _time(1, dts)
        length = len(content) + len(fields) + 3 if self._sized else 0
        head = b"\0\0\1\xe0" + struct.pack(">H", length if length < 65536 else 0) + b"\x80\xc0" + bytes([len(fields)])
        tables = self._tables() if unit.key else []
        return tables + list(self._cut(head + fields + content, dts, unit.key))

    def _tables(self) -> list[bytes]:
        program = struct.pack(">BHHBBBHH", 0, 0xB00D, 1, 0xC1, 0, 0, 1, 0xE000 | _PMT)
        kind = _TYPES[self._footage.codec]
        map_ = struct.pack(">BHHBBBHHBHH", 2, 0xB012, 1, 0xC1, 0, 0, 0xE000 | _PICTURES, 0xF000, kind,
                           0xE000 | _PICTURES, 0xF000)  # fmt: skip
        return [self._packet(pid, b"\0" + table + _crc(table)) for pid, table in ((0, program), (_PMT, map_))]

    def _packet(self, pid: int, content: bytes) -> bytes:
        head = struct.pack(">BHB", 0x47, 0x4000 | pid, 0x10 | self._count(pid))
        return (head + content).ljust(188, b"\xff")

    def _count(self, pid: int) -> int:
        self._counters[pid] = (self._counters[pid] + 1) & 15
        return self._counters[pid]

    def _cut(self, data: bytes, clock: int, key: bool) -> Iterator[bytes]:
        first = True
        while data:
            field = b""
            if first:  # the clock reference, and whether decoding can begin here
                field = bytes([0x50 if key else 0x10]) + struct.pack(">IH", clock >> 1, (clock & 1) << 15 | 0x7E00)
            room = 184 - (len(field) + 1 if field else 0)
            part, data = data[:room], data[room:]
            if len(part) < room:
                short = room - len(part)
                field = field + b"\xff" * short if field else (b"\0" + b"\xff" * (short - 2) if short > 1 else b"")
                adaptation = bytes([len(field)]) + field
            else:
                adaptation = bytes([len(field)]) + field if field else b""
            control = (0x30 if adaptation else 0x10) | self._count(_PICTURES)
            yield struct.pack(">BHB", 0x47, first << 14 | _PICTURES, control) + adaptation + part
            first = False


class FlashVideo:
    """FLV of H.264, as it is sent over HTTP; its `tags` are RTMP's messages, too."""

    packet = 0

    def __init__(self, footage: Footage, sets: bool = True) -> None:
        self._footage, self._sets = footage, sets

    def head(self) -> bytes:
        return b"FLV\1\1\0\0\0\x09\0\0\0\0" + flv_tag(self.configuration(), 0)

    def configuration(self) -> bytes:
        """The body of the tag with the parameter sets (AVCDecoderConfigurationRecord, ISO/IEC 14496-15)."""
        sps, pps = self._footage.sets[:2]
        record = b"\1" + sps[1:4] + b"\xff\xe1" + struct.pack(">H", len(sps)) + sps
        return b"\x17\0\0\0\0" + record + b"\1" + struct.pack(">H", len(pps)) + pps

    def body(self, unit: Unit, shown: float, decoded: float) -> bytes:
        content = b"".join(struct.pack(">I", len(piece)) + piece for piece in unit.pieces)
        shift = round((shown - decoded) * 1000)
        return bytes([0x17 if unit.key else 0x27, 1]) + struct.pack(">i", shift)[1:] + content

    @staticmethod
    def milliseconds(decoded: float) -> int:
        return round((decoded + _START) * 1000) & 0xFFFFFFFF

    def picture(self, unit: Unit, shown: float, decoded: float) -> list[bytes]:
        return [flv_tag(self.body(unit, shown, decoded), self.milliseconds(decoded))]


def flv_tag(body: bytes, at: int) -> bytes:
    """A tag of pictures with what follows it; `at` in milliseconds."""
    head = b"\x09" + struct.pack(">I", len(body))[1:] + struct.pack(">I", at)[1:] + bytes([at >> 24]) + b"\0\0\0"
    return head + body + struct.pack(">I", len(head) + len(body))


def _time(prefix: int, ticks: int) -> bytes:
    return struct.pack(">BHH", prefix << 4 | ticks >> 29 & 14 | 1, ticks >> 14 & 0xFFFE | 1, ticks << 1 & 0xFFFE | 1)


def _crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return struct.pack(">I", crc)
