"""Encoded clips as RTP packets, for the scriptable camera of the tests (`tests.pipeline.rtsp_camera`).

RFC 3550 (RTP and its reports), 6184 (H.264), 7798 (H.265), 2435 (JPEG), 6416 (MPEG-4), 3640 (AAC), 3551 (G.711, G.726).
"""

from __future__ import annotations

import base64
import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

PICTURE_CLOCK = 90_000
_MOST = 1300  # bytes of a picture in one packet
_NTP_EPOCH = 2_208_988_800  # Unix time of 1970 in seconds since 1900


@dataclass(frozen=True, slots=True)
class Unit:
    """A coded picture, or a piece of sound.

    Attributes:
        pieces: NAL units without start codes, or all of it in one piece.
        pts, dts: seconds since the first unit of the clip; dts begins at 0.
        key: whether decoding can begin with it.
    """

    pieces: tuple[bytes, ...]
    pts: float
    dts: float
    key: bool = True


@dataclass(frozen=True)
class Footage:
    """What a camera sends: the units of a clip in the order of decoding, and what is needed to decode them.

    Attributes:
        codec: `h264`, `hevc`, `mjpeg` or `mpeg4`.
        units: pictures.
        sets: parameter sets (H.264: SPS, PPS; H.265: VPS, SPS, PPS; MPEG-4: its configuration).
        length: seconds after which the clip begins anew.
    """

    codec: str
    units: tuple[Unit, ...]
    sets: tuple[bytes, ...]
    length: float

    @classmethod
    def of(cls, clip: Path) -> Footage:
        """The first track of pictures of a clip. One of MJPEG must have FFmpeg's `huffman=default`."""
        with av.open(str(clip)) as container:
            video = container.streams.video[0]
            codec = video.codec_context.name
            rate, extra = video.average_rate, video.codec_context.extradata or b""
            packets = [p for p in container.demux(video) if p.size and p.pts is not None and p.dts is not None]
            base = float(packets[0].dts * packets[0].time_base)
            times = [(float(p.pts * p.time_base) - base, float(p.dts * p.time_base) - base) for p in packets]
            keys = [p.is_keyframe for p in packets]
            if codec in _SETS:
                filtered = BitStreamFilterContext(f"{codec}_mp4toannexb", video)
                contents = [_nal_units(b"".join(map(bytes, filtered.filter(p)))) for p in packets]
                kinds = _SETS[codec]
                sets = tuple(dict.fromkeys(nal for unit in contents for nal in unit if _kind(codec, nal) in kinds))
                contents = [tuple(nal for nal in unit if _kind(codec, nal) not in kinds) for unit in contents]
            else:
                contents, sets = [(bytes(p),) for p in packets], (extra,) if codec == "mpeg4" else ()
        units = tuple(Unit(c, pts, dts, key) for c, (pts, dts), key in zip(contents, times, keys, strict=True))
        assert rate is not None
        return cls(codec, units, sets, len(units) / float(rate))

    def unit(self, number: int) -> Unit:
        """The unit of an endless camera that repeats the clip."""
        again, index = divmod(number, len(self.units))
        one, later = self.units[index], again * self.length
        return Unit(one.pieces, one.pts + later, one.dts + later, one.key)

    def description(self, sets: bool) -> str:
        """Its part of the session description (RFC 8866), with or without parameter sets."""
        name = {"h264": "H264", "hevc": "H265", "mjpeg": "JPEG", "mpeg4": "MP4V-ES"}[self.codec]
        format_ = ""
        if sets and self.codec == "h264":
            coded = ",".join(base64.b64encode(one).decode() for one in self.sets)
            format_ = f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={coded}\r\n"
        elif sets and self.codec == "hevc":
            names = {32: "vps", 33: "sps", 34: "pps"}
            coded = ";".join(f"sprop-{names[_kind('hevc', s)]}={base64.b64encode(s).decode()}" for s in self.sets)
            format_ = f"a=fmtp:96 {coded}\r\n"
        elif sets and self.codec == "mpeg4":
            format_ = f"a=fmtp:96 profile-level-id=1;config={self.sets[0].hex()}\r\n"
        if self.codec == "mjpeg":
            return "m=video 0 RTP/AVP 26\r\na=control:video\r\n"
        return f"m=video 0 RTP/AVP 96\r\na=rtpmap:96 {name}/{PICTURE_CLOCK}\r\n{format_}a=control:video\r\n"

    @property
    def payload_type(self) -> int:
        return 26 if self.codec == "mjpeg" else 96

    def payloads(self, unit: Unit, sets: bool) -> list[bytes]:
        """The payloads of the packets that carry a unit; with parameter sets ahead of a key frame where asked for."""
        if self.codec == "mjpeg":
            return list(_jpeg_payloads(unit.pieces[0]))
        pieces = (*self.sets, *unit.pieces) if sets and unit.key else unit.pieces
        if self.codec == "mpeg4":
            return _cut(b"".join(pieces))
        return [payload for piece in pieces for payload in _nal_payloads(self.codec, piece)]


@dataclass(frozen=True)
class Sound:
    """A sine of a second, again and again.

    Attributes:
        codec: `pcmu`, `pcma`, `g726` or `aac`.
    """

    codec: str
    units: tuple[Unit, ...] = field(init=False)
    clock: int = field(init=False)
    _extra: bytes = field(init=False)

    def __post_init__(self) -> None:
        name = {"pcmu": "pcm_mulaw", "pcma": "pcm_alaw", "g726": "g726", "aac": "aac"}[self.codec]
        clock = 16_000 if self.codec == "aac" else 8_000
        encoder = av.CodecContext.create(name, "w")
        assert isinstance(encoder, av.AudioCodecContext)
        encoder.sample_rate, encoder.layout, encoder.time_base = clock, "mono", Fraction(1, clock)
        encoder.format = "fltp" if self.codec == "aac" else "s16"
        step = 1024 if self.codec == "aac" else 160
        coded: list[bytes] = []
        for begin in range(0, clock, step):
            wave = 0.3 * np.sin(2 * np.pi * 440 / clock * np.arange(begin, begin + step))
            samples = wave.astype(np.float32) if self.codec == "aac" else (wave * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format=encoder.format.name, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = clock, begin, Fraction(1, clock)
            coded += [bytes(packet) for packet in encoder.encode(frame)]
        units = tuple(Unit((data,), n * step / clock, n * step / clock) for n, data in enumerate(coded))
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "clock", clock)
        object.__setattr__(self, "_extra", encoder.extradata or b"")

    def unit(self, number: int) -> Unit:
        again, index = divmod(number, len(self.units))
        later = again * (self.units[1].pts * len(self.units))
        one = self.units[index]
        return Unit(one.pieces, one.pts + later, one.dts + later)

    @property
    def payload_type(self) -> int:
        return {"pcmu": 0, "pcma": 8, "g726": 97, "aac": 97}[self.codec]

    def description(self) -> str:
        kind = self.payload_type
        name = {"pcmu": "PCMU", "pcma": "PCMA", "g726": "G726-32", "aac": "mpeg4-generic"}[self.codec]
        format_ = ""
        if self.codec == "aac":
            format_ = (
                f"a=fmtp:{kind} streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;"
                f"indexdeltalength=3;config={self._extra.hex()}\r\n"
            )
        return f"m=audio 0 RTP/AVP {kind}\r\na=rtpmap:{kind} {name}/{self.clock}\r\n{format_}a=control:sound\r\n"

    def payload(self, unit: Unit) -> bytes:
        data = unit.pieces[0]
        return struct.pack(">HH", 16, len(data) << 3) + data if self.codec == "aac" else data


def packet(kind: int, marker: bool, number: int, stamp: int, source: int, payload: bytes) -> bytes:
    """An RTP packet."""
    return struct.pack(">BBHII", 0x80, marker << 7 | kind, number & 0xFFFF, stamp & 0xFFFFFFFF, source) + payload


def sender_report(source: int, unix: float, stamp: int, packets: int, size: int) -> bytes:
    """An RTCP sender report: what a clock showed (Unix seconds) when the stamps were at `stamp`."""
    ntp = int((unix + _NTP_EPOCH) * 2**32) & 0xFFFFFFFFFFFFFFFF
    report = struct.pack(
        ">BBHIQIII", 0x80, 200, 6, source, ntp, stamp & 0xFFFFFFFF, packets & 0xFFFFFFFF, size & 0xFFFFFFFF
    )
    name = b"camera"
    chunk = struct.pack(">IBB", source, 1, len(name)) + name
    chunk += bytes(4 - len(chunk) % 4)
    return report + struct.pack(">BBH", 0x81, 202, len(chunk) // 4) + chunk


def goodbye(source: int) -> bytes:
    """An RTCP BYE, after an empty receiver report as RFC 3550 (6.1) wants it."""
    return struct.pack(">BBHI", 0x80, 201, 1, source) + struct.pack(">BBHI", 0x81, 203, 1, source)


# Payloads -------------------------------------------------------------------------------------------------------------
_SETS = {"h264": {7, 8}, "hevc": {32, 33, 34}}


def _kind(codec: str, nal: bytes) -> int:
    return nal[0] & 31 if codec == "h264" else nal[0] >> 1 & 63


def _nal_units(stream: bytes) -> tuple[bytes, ...]:
    return tuple(part.rstrip(b"\0") for part in re.split(b"\0\0\0?\1", stream) if part.rstrip(b"\0"))


def _cut(data: bytes, most: int = _MOST) -> list[bytes]:
    return [data[at : at + most] for at in range(0, len(data), most)]


def _nal_payloads(codec: str, nal: bytes) -> Iterator[bytes]:
    """A NAL unit as it is, or in fragments (FU-A, FU)."""
    if len(nal) <= _MOST:
        yield nal
        return
    if codec == "h264":
        head, kind, body = bytes([nal[0] & 0xE0 | 28]), nal[0] & 31, nal[1:]
    else:
        head, kind, body = bytes([nal[0] & 0x81 | 49 << 1, nal[1]]), nal[0] >> 1 & 63, nal[2:]
    parts = _cut(body)
    for index, part in enumerate(parts):
        yield head + bytes([(index == 0) << 7 | (index == len(parts) - 1) << 6 | kind]) + part


def _jpeg_payloads(jpeg: bytes) -> Iterator[bytes]:
    """A baseline JPEG with the usual Huffman tables, its own quantisation tables in the first packet."""
    at, tables, kind, width, height = 2, b"", 1, 0, 0
    while True:
        marker, length = jpeg[at + 1], struct.unpack_from(">H", jpeg, at + 2)[0]
        body = jpeg[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDB:
            tables += b"".join(body[i + 1 : i + 65] for i in range(0, len(body), 65))
        elif marker == 0xC0:
            height, width = struct.unpack_from(">HH", body, 1)
            kind = {0x21: 0, 0x22: 1}[body[7]]
        elif marker == 0xDA:
            break
    scan = jpeg[at : jpeg.rindex(b"\xff\xd9")]
    for index, offset in enumerate(itertools.accumulate(map(len, parts := _cut(scan)), initial=0)):
        if index == len(parts):
            return
        head = struct.pack(">I", offset) + bytes([kind, 255, width // 8, height // 8])
        yield head + (struct.pack(">HH", 0, len(tables)) + tables if index == 0 else b"") + parts[index]
