"""GoPro's telemetry: the track `gpmd` of its MP4s, in GPMF (github.com/gopro/gpmf-parser).

GPMF is keys of four letters, a type, a size and a count each, big endian, padded to four bytes; a type of 0 holds
others. `GPS5` is latitude, longitude, altitude, speed and speed in space as int32 over `SCAL`; `GPS9` has days since
2000, seconds of the day, dilution of precision and the kind of fix behind them for each sample, which stand in `GPSU`
(UTC of the first of them, `yymmddhhmmss.sss`), `GPSP` and `GPSF` else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.archive.positions.fixes import Fix

_LEAST_FIX = 2
"""Kinds of fix: 0 none, 2 a place, 3 a place and a height."""

_WHOLE_FIX = 3
"""The kind of fix that a receiver's time is believed with: four satellites or more."""

_DAYS_BEGIN = datetime(2000, 1, 1, tzinfo=UTC).timestamp()

_WORST_DILUTION = 1000
"""A hundredfold; from ten on (1000) a receiver does not know where it is."""

_DEEPEST = 8

_FIVE, _WHOLE = struct.Struct(">5i"), struct.Struct(">7i2H")
"""A sample of `GPS5` and one of `GPS9`."""


def fixes_of(samples: Sequence[tuple[float, float, bytes]]) -> Iterator[Fix]:
    """Fixes of a track; what a sample holds is spread evenly over its time, as the camera's maker does.

    Args:
        samples: of the track: when each begins and how long it lasts, seconds of the clip, and its bytes.
    """
    for begin, lasts, data in samples:
        for stream in _streams(data, 0):
            rows = list(_rows(stream))
            for place, row in enumerate(rows):
                if row is not None:
                    yield Fix(begin + lasts * place / len(rows), *row)


def clock_of(samples: Sequence[tuple[float, float, bytes]]) -> Iterator[tuple[float, float]]:
    """When it was by the receiver where it knew well: seconds of the clip, and Unix seconds.

    Args:
        samples: as `fixes_of` has them.
    """
    for begin, lasts, data in samples:
        for stream in _streams(data, 0):
            moments = _moments(stream)
            for place, at in enumerate(moments):
                if at is not None:
                    yield begin + lasts * place / len(moments), at


def _moments(keys: dict[bytes, tuple[int, int, bytes]]) -> list[float | None]:
    """Unix seconds of each sample of a stream, or of the first alone; None where it is not known well."""
    if b"GPS9" not in keys:
        _, size, payload = keys.get(b"GPSU", (0, 0, b""))
        at = _utc(payload[:size] if size > 1 else payload)
        well = _one(keys, b"GPSF", 0) >= _WHOLE_FIX and _one(keys, b"GPSP", 0) <= _WORST_DILUTION
        return [at if well else None]
    _, size, payload = keys[b"GPS9"]
    if size != _WHOLE.size:
        return []
    scales = _scales(keys, 9)
    return [
        _DAYS_BEGIN + values[5] / scales[5] * 86_400 + values[6] / scales[6]
        if values[8] >= _WHOLE_FIX and values[7] <= _WORST_DILUTION
        else None
        for values in _WHOLE.iter_unpack(payload[: len(payload) // size * size])
    ]


def _utc(text: bytes) -> float | None:
    try:
        return datetime.strptime(text.decode("ascii"), "%y%m%d%H%M%S.%f").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _streams(data: bytes, depth: int) -> Iterator[dict[bytes, tuple[int, int, bytes]]]:
    """The keys of each stream that has places."""
    keys: dict[bytes, tuple[int, int, bytes]] = {}
    for key, kind, size, payload in _entries(data):
        if kind == 0 and depth < _DEEPEST:
            yield from _streams(payload, depth + 1)
        else:
            keys[key] = kind, size, payload
    if b"GPS5" in keys or b"GPS9" in keys:
        yield keys


def _entries(data: bytes) -> Iterator[tuple[bytes, int, int, bytes]]:
    at = 0
    while at + 8 <= len(data):
        key, kind, size, count = struct.unpack_from(">4sBBH", data, at)
        length = size * count
        payload = data[at + 8 : at + 8 + length]
        if not any(key) or len(payload) < length:  # padding; cut off
            return
        yield key, kind, size, payload
        at += 8 + -(-length // 4) * 4


def _rows(keys: dict[bytes, tuple[int, int, bytes]]) -> Iterator[tuple[float, float, float] | None]:
    """Latitude, longitude and speed of each sample of a stream; None for one without a fix."""
    whole = b"GPS9" in keys
    _, size, payload = keys[b"GPS9" if whole else b"GPS5"]
    layout = _WHOLE if whole else _FIVE
    if size != layout.size:
        return
    scales = _scales(keys, len(layout.unpack(bytes(size))))
    if not whole and not (_one(keys, b"GPSF", 0) >= _LEAST_FIX and _one(keys, b"GPSP", 0) <= _WORST_DILUTION):
        return
    for values in layout.iter_unpack(payload):
        known = not whole or (values[8] >= _LEAST_FIX and values[7] <= _WORST_DILUTION)
        yield None if not known else (values[0] / scales[0], values[1] / scales[1], values[3] / scales[3])


def _scales(keys: dict[bytes, Any], count: int) -> list[float]:
    kind, size, payload = keys.get(b"SCAL", (0, 0, b""))
    number = {(ord("l"), 4): "i", (ord("s"), 2): "h", (ord("L"), 4): "I", (ord("S"), 2): "H"}.get((kind, size))
    found = [] if number is None else [float(value) for (value,) in struct.iter_unpack(f">{number}", payload)]
    if len(found) == 1:
        found *= count
    return [value or 1.0 for value in found] if len(found) >= count else [1.0] * count


def _one(keys: dict[bytes, Any], key: bytes, otherwise: int) -> int:
    _, size, payload = keys.get(key, (0, 0, b""))
    return int.from_bytes(payload[:size], "big") if payload else otherwise
