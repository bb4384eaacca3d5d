"""Blocks `freeGPS ` of dash-cams, one a second: a box of type `free` that begins so, with what the receiver said then.

By the published readings of ExifTool (QuickTimeStream.pl, "ProcessFreeGPS" and "ProcessFreeGPS2") and nvtk_mp42gpx
(sergei.nz), all little endian. `ddmm` is degrees and minutes in one number, `dddmm.mmmm`. Chips write different
layouts, and what says which one it is are the letters at their places:

- sentences of NMEA as they are (NextBase 512GW), or with 16 added to each letter from byte 60 (`4W`b]S<`)
- xor 0xAA from byte 18 (Azdome, EEEkit): from byte 8 of that `yyyymmddhhmmss`, from 37 `[NS]ddmmmmmm`, `[EW]dddmmmmmm`
  (minutes of four decimals), and km/h in eight digits or none
- Ambarella's ring of records of 52 bytes from byte 48 (DOD LS460W), each xor two bytes of its own, with `ATC` in it:
  the latest one is this block's
- `A` at 60, and letters 8 or 16 behind each other: hour, minute, second as uint32 at 48, latitude and longitude as
  float32 or double ddmm; what speed and heading of the first are in is not known
- else `A`, N or S, E or W and a byte, behind hour, minute, second, year since 2000, month and day as uint32: latitude
  and longitude as float32 ddmm, knots and degrees; with `IQS` at 16, ten-millionths of degrees and cm/s as int32

Times are said to be UTC, and are the camera's own with some firmware (github.com/RobXYZ/viofosync, issue 33). What is
enciphered so that nobody knows how (`LIGOGPSINFO` and others) is no place.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime

from pipeline.archive.positions.fixes import Fix
from pipeline.archive.positions.nmea import sentences

MARK = b"freeGPS "
"""Bytes 4 to 12 of a block."""

MOST_BYTES = 2048
"""Of a block that are looked through; the rest is of other sensors, or empty."""

_KNOT, _KILOMETRE_AN_HOUR = 1852 / 3600, 1 / 3.6
"""Metres a second."""

_MOST_KNOTS = 400

_LETTERS = re.compile(rb"A([NS])([EW]).", re.DOTALL)
_SPREAD = re.compile(rb"A\0{3}(.{4})([NS])\0{3}(.{4})([EW])\0{3}", re.DOTALL)
_SPREAD_WIDE = re.compile(rb"A\0{3}(.{8})([NS])\0.{6}(.{8})([EW])\0", re.DOTALL)
_DATE, _PLACE = struct.Struct("<6I"), struct.Struct("<4f")

_TEXT = re.compile(
    rb".{8}(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2}).{16}([NS])(\d{2})(\d{6})([EW])(\d{3})(\d{6})(\d{8})?", re.DOTALL
)

_RECORD = 52

_UNKNOWN = b"LIGOGPSINFO"


def fix_of(data: bytes) -> Fix | None:
    """The fix of a block, at Unix seconds; None where it has none."""
    if data[4:12] != MARK or _UNKNOWN in data:
        return None
    for read in _LAYOUTS:
        fix = read(data)
        if fix is not None:
            return fix if all(map(math.isfinite, (fix.at, fix.latitude, fix.longitude))) else None
    return None


def _nmea(data: bytes) -> Fix | None:
    texts = [data.decode("latin-1")]
    if data[60:67] == b"4W`b]S<":
        texts.append(bytes(each - 16 for each in data[60:140] if each >= 16).decode("latin-1"))
    for text in texts:
        for each in sentences(text):
            if each.at is not None:
                return each.fix(each.at)
    return None


def _text(data: bytes) -> Fix | None:
    if data[20:26] != b"\xf2\xe1\xf0\xee\x54\x54":
        return None
    match = _TEXT.match(bytes(each ^ 0xAA for each in data[18:]))
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    at = _when(hour, minute, second, year, month, day)
    if at is None:
        return None
    north, east = (
        (int(match[k + 1]) + int(match[k + 2]) / 600_000) * (-1 if match[k] in b"SW" else 1) for k in (7, 10)
    )
    return Fix(at, north, east, None if match[13] is None else int(match[13]) * _KILOMETRE_AN_HOUR)


def _ring(data: bytes) -> Fix | None:
    """The latest record of Ambarella's ring."""
    if data[0x45:0x48] != b"ATC":
        return None
    found = [_record(data[at : at + _RECORD]) for at in range(0x30, len(data) - _RECORD + 1, _RECORD)]
    return max((fix for fix in found if fix is not None), key=lambda fix: fix.at, default=None)


def _record(data: bytes) -> Fix | None:
    keys = data[0x14], data[0x1C]
    plain = bytearray(data)
    for places, key in (((range(0x15), range(0x18, 0x1C)), keys[0]), ((range(0x1C, 0x1D), range(0x20, 0x33)), keys[1])):
        for place in (place for each in places for place in each):
            plain[place] ^= key
    if plain[0x15:0x18] != b"ATC":
        return None
    year, month, day = struct.unpack_from("<H2B", plain, 0x2C)
    at = _when((plain[0x0D] + 1) & 0xFF, plain[0x0E], plain[0x0F], year, month, day)
    latitude, longitude, speed = (struct.unpack_from("<i", plain, place)[0] for place in (0x10, 0x18, 0x20))
    course = struct.unpack_from("<h", plain, 0x24)[0]
    if at is None:
        return None
    return Fix(at, latitude / 1e7, longitude / 1e7, speed / 100 if speed >= 0 else None, course / 100 % 360)


def _spread(data: bytes) -> Fix | None:
    """Letters that have four bytes each, with places of four between them."""
    match = _SPREAD.match(data, 60)
    if match is None or len(data) < 0x64:
        return None
    at = _when(*struct.unpack_from("<3I", data, 48), *struct.unpack_from("<3I", data, 0x58))
    north, east = (struct.unpack("<f", match[k])[0] for k in (1, 3))
    return None if at is None else Fix(at, _signed(north, match[2]), _signed(east, match[4]))


def _spread_wide(data: bytes) -> Fix | None:
    """The same with places of eight."""
    match = _SPREAD_WIDE.match(data, 60)
    if match is None or len(data) < 0x7C:
        return None
    at = _when(*struct.unpack_from("<3I", data, 48), *struct.unpack_from("<3I", data, 0x70))
    north, east = (struct.unpack("<d", match[k])[0] for k in (1, 3))
    knots, course = struct.unpack_from("<2d", data, 0x60)
    if at is None:
        return None
    return Fix(at, _signed(north, match[2]), _signed(east, match[4]), _speed(knots), _course(course))


def _letters(data: bytes) -> Fix | None:
    for match in _LETTERS.finditer(data, 12 + _DATE.size):
        at = _when(*_DATE.unpack_from(data, match.start() - _DATE.size))
        if at is None or match.end() + _PLACE.size > len(data):
            continue
        if data[16:19] == b"IQS":
            north, east, speed = struct.unpack_from("<3i", data, match.end())
            sides = (-1 if match[1] == b"S" else 1), (-1 if match[2] == b"W" else 1)
            return Fix(at, abs(north) / 1e7 * sides[0], abs(east) / 1e7 * sides[1], speed / 100 if speed >= 0 else None)
        latitude, longitude, knots, course = _PLACE.unpack_from(data, match.end())
        if latitude == 0:  # doubles that are enciphered follow (Akaso V1, Redtiger F7N)
            return None
        return Fix(at, _signed(latitude, match[1]), _signed(longitude, match[2]), _speed(knots), _course(course))
    return None


_LAYOUTS: tuple[Callable[[bytes], Fix | None], ...] = (_nmea, _text, _ring, _spread, _spread_wide, _letters)


def _when(hour: int, minute: int, second: int, year: int, month: int, day: int) -> float | None:
    try:
        return datetime(2000 + year if year < 100 else year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def _signed(value: float, side: bytes) -> float:
    """Degrees of `dddmm.mmmm`; NaN where it is none, as of what is enciphered."""
    if not math.isfinite(value):
        return math.nan
    degrees, minutes = divmod(abs(value), 100)
    return math.nan if minutes >= 60 else (degrees + minutes / 60) * (-1 if side in b"SW" else 1)


def _speed(knots: float) -> float | None:
    return knots * _KNOT if 0 <= knots < _MOST_KNOTS else None


def _course(course: float) -> float | None:
    return course % 360 if 0 <= course <= 360 else None
