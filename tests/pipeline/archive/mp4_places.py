"""Recordings with places as dash-cams write them: boxes, tracks and blocks in MP4, written from their descriptions."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import reduce
from operator import xor
from pathlib import Path

from pipeline.archive.positions.fixes import Fix

KNOT = 1852 / 3600


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of an MP4."""
    data = b"".join(content)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind: bytes, *content: bytes, flags: int = 0) -> bytes:
    """A box with a version and flags."""
    return box(kind, struct.pack(">I", flags), *content)


# Numbers and texts ----------------------------------------------------------------------------------------------------
def ddmm(degrees: float) -> float:
    """Degrees and minutes in one number."""
    whole = int(abs(degrees))
    return 100 * whole + (abs(degrees) - whole) * 60


def sides(fix: Fix) -> tuple[bytes, bytes]:
    """The letters of a fix's hemispheres."""
    return b"S" if fix.latitude < 0 else b"N", b"W" if fix.longitude < 0 else b"E"


def moment(fix: Fix) -> datetime:
    """When a fix was, UTC."""
    return datetime.fromtimestamp(fix.at, UTC)


def sentence(body: str) -> str:
    """With its checksum."""
    return f"${body}*{reduce(xor, body.encode()):02X}"


def rmc(fix: Fix, talker: str = "GN") -> str:
    """A sentence with a fix."""
    north, east = (side.decode() for side in sides(fix))
    speed, course = (fix.speed or 0) / KNOT, fix.heading or 0
    return sentence(
        f"{talker}RMC,{moment(fix):%H%M%S}.00,A,{ddmm(fix.latitude):010.5f},{north},{ddmm(fix.longitude):011.5f},{east},"
        f"{speed:.4f},{course:.2f},{moment(fix):%d%m%y},,,A"
    )


def gga(fix: Fix) -> str:
    """A sentence with a place alone."""
    north, east = (side.decode() for side in sides(fix))
    return sentence(
        f"GPGGA,{moment(fix):%H%M%S}.00,{ddmm(fix.latitude):010.5f},{north},{ddmm(fix.longitude):011.5f},{east},"
        "1,08,1.0,10.0,M,,M,,"
    )


def digits(fix: Fix) -> bytes:
    """Hemispheres, degrees and minutes of four decimals in digits, as texts behind xor 0xAA have them."""
    north, east = sides(fix)
    return b"%s%08d%s%09d" % (
        north, round(ddmm(fix.latitude) * 1e4), east, round(ddmm(fix.longitude) * 1e4),
    )  # fmt: skip


# Samples of tracks of text --------------------------------------------------------------------------------------------
def thinkware(fix: Fix) -> bytes:
    return f"gsensori,4,512,-67,-12,100;{rmc(fix)[1:]}\r\n;CAR,0,0,0,0.0,0,0,0,0,0,0,0,0".encode()


def plain(fix: Fix) -> bytes:
    return f"{rmc(fix, 'GP')}\r\n{gga(fix)}\r\n".encode()


def next_base_322(fix: Fix) -> bytes:
    """Its checksums are of something else."""
    head = bytes(4) + f"{moment(fix):%Y%m%d%H%M%S}".encode() + struct.pack("<3i", -1280, 40, 90)
    lines = (made[:-2] + f"{int(made[-2:], 16) ^ 0x2F:02X}" for made in (rmc(fix, "GP"), gga(fix)))
    return counted(head + b"".join(line.encode().ljust(128, b"\0") for line in lines))


def roadhawk(fix: Fix) -> bytes:
    letters = "-I8XQWRVNZOYPUTA0B1C2SJ9K.L,M$D3E4F5G6H7"
    text = "X0000.2340Y-000.0720Z0000.9900G0001.0400" + rmc(fix, "GP").partition("*")[0]
    return "".join(chr(43 + letters.index(each)) for each in text).encode() + b"*6F~"


def e_prance(fix: Fix) -> bytes:
    text = f"0001\t0002\t0003{rmc(fix, 'GP')}".encode()
    assert text[-3:-2] == b"*"
    return b"\0" + bytes((each - 7) & 0xFF for each in text) + b"\n"


def ambarella(fix: Fix, head: bytes = b"XKZD\xfe\xfe") -> bytes:
    body = (
        head + f"{moment(fix):%Y%m%d%H%M%S}".encode() + b"\x0c" + b"011910160708590"[:15] + digits(fix)
        + b"+0157" + b"%03d" % round((fix.speed or 0) * 3.6) + b"-000-023-003-000"
    )  # fmt: skip
    return b"\0\0" + bytes(each ^ 0xAA for each in body.ljust(309, b"\0"))


def blue_sky_sea(fix: Fix) -> bytes:
    body = (
        b"\0\0\0\0\xfe\xfe" + f"{moment(fix):%Y%m%d%H%M%S}".encode() + bytes(16) + digits(fix)
        + bytes(5) + b"%03d" % round((fix.speed or 0) * 3.6)
    )  # fmt: skip
    return b"\0\0" + bytes(each ^ 0xAA for each in body.ljust(300, b"\0"))


def garmin(fix: Fix) -> bytes:
    scale = (1 << 31) / 180
    return (
        b"PNDM" + bytes(4) + struct.pack(">HH", round((fix.speed or 0) / 0.44704), 0)
        + struct.pack(">ii", round(fix.latitude * scale), round(fix.longitude * scale)) + bytes(4)
    )  # fmt: skip


def garmin_behind_a_length(fix: Fix) -> bytes:
    return struct.pack(">I", 24) + garmin(fix)


def mini(fix: Fix) -> bytes:
    north, east = (side.decode() for side in sides(fix))
    return (
        f"A,{moment(fix):%d%m%y,%H%M%S}.000,{ddmm(fix.latitude):09.4f},{north},{ddmm(fix.longitude):010.4f},{east},"
        "000.0,331.0M,+01.84,-09.80,-00.61;\n"
    ).encode()


def drone(fix: Fix) -> bytes:
    return f"F/3.5, SS 1000, ISO 100, EV 0, GPS ({fix.longitude:.6f}, {fix.latitude:.6f}, 18), D 24.26m\n".encode()


def counted(sample: bytes) -> bytes:
    """Behind a length, as a track of text has them."""
    return struct.pack(">H", len(sample)) + sample


def with_text(clip: Path, samples: Sequence[bytes], handler: bytes = b"text", entry: bytes = b"text") -> None:
    """Put a track of text with a sample a second into a clip."""
    data = bytearray(clip.read_bytes())
    where = data.index(b"moov") - 4
    assert data.index(b"mdat") < where
    description = full(b"stsd", struct.pack(">I", 1), box(entry, bytes(6) + struct.pack(">H", 1) + bytes(51)))

    def track(offset: int) -> bytes:
        table = box(
            b"stbl", description,
            full(b"stts", struct.pack(">III", 1, len(samples), 1000)),
            full(b"stsc", struct.pack(">IIII", 1, 1, len(samples), 1)),
            full(b"stsz", struct.pack(">II", 0, len(samples)), *(struct.pack(">I", len(each)) for each in samples)),
            full(b"stco", struct.pack(">II", 1, offset)),
        )  # fmt: skip
        lasts = 1000 * len(samples)
        matrix = struct.pack(">9I", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
        return box(
            b"trak",
            full(b"tkhd", struct.pack(">5I", 0, 0, 9, 0, lasts), bytes(16), matrix, bytes(8), flags=3),
            box(
                b"mdia", full(b"mdhd", struct.pack(">4IHH", 0, 0, 1000, lasts, 0x55C4, 0)),
                full(b"hdlr", b"\0\0\0\0" + handler + bytes(12) + b"GPS\0"),
                box(
                    b"minf", full(b"nmhd"),
                    box(b"dinf", full(b"dref", struct.pack(">I", 1), full(b"url ", flags=1))), table,
                ),
            ),
        )  # fmt: skip

    (length,) = struct.unpack_from(">I", data, where)
    moved = len(track(0))
    data[where : where + 4] = struct.pack(">I", length + moved)
    data[where + length : where + length] = track(len(data) + moved + 8)
    clip.write_bytes(bytes(data) + box(b"mdat", *samples))


# Boxes of BlackVue ----------------------------------------------------------------------------------------------------
def with_blackvue(clip: Path, lines: Sequence[tuple[int, str]], begun: int | None = None) -> None:
    """Put sentences, each with Unix milliseconds, into the box that BlackVue has behind `ftyp`."""
    text = "".join(f"[{stamp}]{line}\r\n" for stamp, line in lines).encode()
    inside = [box(b"cprt", b" Pittasoft Co., Ltd.;DR900S-1CH;1.008;English;1;D90SS1HAE00661;T69;\0")]
    if begun is not None:
        inside.append(box(b"sttm", struct.pack(">Q", begun)))
    data = clip.read_bytes().replace(b"\0\0\0\x08free", b"\0\0\0\x08skip", 1)  # mapillary_tools looks into the first
    clip.write_bytes(data + box(b"free", *inside, box(b"gps ", text + bytes(64))))


# The box of 70mai -----------------------------------------------------------------------------------------------------
def with_70mai(clip: Path, records: Sequence[bytes]) -> None:
    """Put records into the box that 70mai has in a file."""
    data = bytearray(clip.read_bytes())
    insert(data, data.index(b"mdat") - 4, box(b"GPS ", *records, bytes(72)))
    clip.write_bytes(data)


def seventymai(fix: Fix, second: int) -> bytes:
    north, east = sides(fix)
    return (
        struct.pack("<4I", 1, 1, second, round((fix.speed or 0) * 3600)) + north
        + struct.pack("<I", round(ddmm(fix.latitude) * 1000)) + east
        + struct.pack("<I", round(ddmm(fix.longitude) * 1000)) + bytes(10)
    )  # fmt: skip


# Blocks freeGPS -------------------------------------------------------------------------------------------------------
def block(at_16: bytes, size: int = 0x400) -> bytes:
    """A block with what is from its byte 16 on."""
    body = at_16.ljust(size - 16, b"\0")
    return struct.pack(">I", size) + b"freeGPS " + struct.pack("<I", len(at_16)) + body


def clock(fix: Fix, since: int = 2000) -> bytes:
    at = moment(fix)
    return struct.pack("<6I", at.hour, at.minute, at.second, at.year - since, at.month, at.day)


def viofo(fix: Fix, offset: int = 0x30) -> bytes:
    letters = b"A" + b"".join(sides(fix)) + b"\0"
    numbers = struct.pack("<4f", ddmm(fix.latitude), ddmm(fix.longitude), (fix.speed or 0) / KNOT, fix.heading or 0)
    return block(bytes(offset - 16) + clock(fix) + letters + numbers)


def viofo_v3(fix: Fix) -> bytes:
    return viofo(fix, 16)


def akaso(fix: Fix) -> bytes:
    north, east = sides(fix)
    time, day = clock(fix, 0)[:12], clock(fix, 0)[12:]
    place = struct.pack("<f", ddmm(fix.latitude)) + north.ljust(4, b"\0")
    place += struct.pack("<f", ddmm(fix.longitude)) + east.ljust(4, b"\0")
    return block(bytes(32) + time + b"A\0\0\0" + place + struct.pack("<2f", 22.5, 105.5) + day)


def azdome(fix: Fix) -> bytes:
    text = (
        b"\0\0XKZD\xfe\xfe" + f"{moment(fix):%Y%m%d%H%M%S}".encode() + b"\x0c" + b"5567GP".ljust(15, b"\0")
        + digits(fix) + b"%08d" % round((fix.speed or 0) * 3.6)
    )  # fmt: skip
    return block(b"\x01\x03" + bytes(each ^ 0xAA for each in text.ljust(0x101, b"\0")))


def next_base(fix: Fix) -> bytes:
    return block(bytes(36) + f"{moment(fix):%Y%m%d%H%M%S}".encode() + bytes(14) + f"{rmc(fix, 'GP')}\r\n".encode())


def enciphered(fix: Fix) -> bytes:
    return block(bytes(44) + bytes(each + 16 for each in rmc(fix, "GP").encode()).ljust(80, b"\x10"))


def ring(fixes: Sequence[Fix], last: int, keys: tuple[int, int] = (0x5A, 0xC3)) -> bytes:
    """Ambarella's, with the records until one, and older ones behind it."""
    records = [bytearray(52) for _ in range(30)]
    for number, fix in enumerate(fixes[: last + 1]):
        at = moment(fix)
        record = records[number % 30] = bytearray(52)
        record[0x0D:0x10] = bytes(((at.hour - 1) & 0xFF, at.minute, at.second))
        struct.pack_into("<i", record, 0x10, round(fix.latitude * 1e7))
        struct.pack_into("<i", record, 0x18, round(fix.longitude * 1e7))
        record[0x15:0x18], record[0x1D:0x20] = b"ATC", b"001"
        heading = (fix.heading or 0) if (fix.heading or 0) < 180 else (fix.heading or 0) - 360
        struct.pack_into("<ihHi", record, 0x20, round((fix.speed or 0) * 100), round(heading * 100), 0, 500_000)
        struct.pack_into("<HBB", record, 0x2C, at.year, at.month, at.day)
        for place in (*range(0x15), *range(0x18, 0x1C)):
            record[place] ^= keys[0]
        for place in (0x1C, *range(0x20, 0x33)):
            record[place] ^= keys[1]
    first = b"May 15 2015, 19:00:00".ljust(16, b"\0")[:16]
    return block(b"IQS20130306B".ljust(16, b"\0") + first + b"".join(map(bytes, records)), 0x8000)


def wide(fix: Fix) -> bytes:
    north, east = (side.ljust(8, b"\0") for side in sides(fix))
    time, day = clock(fix)[:12], clock(fix)[12:]
    place = b"A\0\0\0" + struct.pack("<d", ddmm(fix.latitude)) + north + struct.pack("<d", ddmm(fix.longitude)) + east
    speed = struct.pack("<2d", (fix.speed or 0) / KNOT, fix.heading or 0)
    return block(b"20130815.01".ljust(16, b"\0") + b"Jun 10 2017, 14:" + time + place + speed + day + bytes(12), 0x8000)


def iqs(fix: Fix) -> bytes:
    letters = b"A" + b"".join(sides(fix)) + b"\0"
    numbers = struct.pack(
        "<3if", round(abs(fix.latitude) * 1e7), round(abs(fix.longitude) * 1e7), round((fix.speed or 0) * 100), 5e5
    )
    return block(b"IQS_A7_20150417\0Mar 29 2017, 16:" + clock(fix) + letters + numbers, 0x8000)


def anticlock(fix: Fix) -> bytes:
    north, east = (side.ljust(4, b"\0") for side in sides(fix))
    time, day = clock(fix)[:12], clock(fix)[12:]
    place = b"A\0\0\0" + struct.pack("<f", ddmm(fix.latitude)) + north + struct.pack("<f", ddmm(fix.longitude)) + east
    head = b"20130325A".ljust(16, b"\0") + b"Apr  6 2016, 16:"
    return block(head + time + place + struct.pack("<2f", 0.5, 12.2) + day + bytes(12), 0x8000)


def with_list(clip: Path, blocks: Sequence[bytes]) -> None:
    """Put blocks into a clip as a Novatek chip does: boxes at the end of the file, and their list in `moov`."""
    data = bytearray(clip.read_bytes())
    where = data.index(b"moov") - 4
    (length,) = struct.unpack_from(">I", data, where)
    moved = 16 + 8 * len(blocks)
    at, listed = len(data) + moved, b""
    for each in blocks:
        listed += struct.pack(">II", at, len(each))
        at += len(each)
    data[where : where + 4] = struct.pack(">I", length + moved)
    data[where + 8 : where + 8] = box(b"gps ", struct.pack(">II", 0x101, len(blocks)), listed)
    clip.write_bytes(bytes(data) + b"".join(blocks))


def insert(data: bytearray, where: int, inside: bytes) -> None:
    """Put bytes before the pictures, which move."""
    data[where:where] = inside
    at = data.index(b"stco")
    (count,) = struct.unpack_from(">I", data, at + 8)
    offsets = struct.unpack_from(f">{count}I", data, at + 12)
    struct.pack_into(f">{count}I", data, at + 12, *(each + len(inside) for each in offsets))


def with_blocks(clip: Path, blocks: Sequence[bytes]) -> None:
    """Put blocks into `mdat`, before the pictures, with no list."""
    data = bytearray(clip.read_bytes())
    begin = data.index(b"mdat") - 4
    (length,) = struct.unpack_from(">I", data, begin)
    inside = b"".join(blocks)
    data[begin : begin + 4] = struct.pack(">I", length + len(inside))
    insert(data, begin + 8, inside)
    clip.write_bytes(data)
