"""The places that 70mai's dash-cams write: a box `GPS ` of the file, with 36 bytes for each second.

By the published readings of ExifTool (QuickTimeStream.pl, "GPS ") and 70mai-gps-extractor (maigps.c), little endian:
two uint32 that are 1, seconds since the clip began and thousandths of km/h as uint32; N or S and the latitude, E or W
and the longitude, as uint32 of degrees and minutes with three decimals, `dddmmmmm`; ten bytes more.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.archive.positions.boxes import box
from pipeline.archive.positions.fixes import Fix

_RECORD = struct.Struct("<8xIIcIcI10x")

_KILOMETRE_AN_HOUR = 1 / 3.6
"""Metres a second."""

_MOST_BYTES = 16 << 20


def fixes_in(path: Path) -> Iterator[Fix]:
    """The fixes of a file, at seconds of the clip; none where it has no such box."""
    with path.open("rb") as file:
        found = box(file, 0, os.fstat(file.fileno()).st_size, b"GPS ")
        if found is None:
            return
        file.seek(found[0])
        data = file.read(min(found[1] - found[0], _MOST_BYTES))
    for seconds, speed, north, latitude, east, longitude in _RECORD.iter_unpack(data[: len(data) // 36 * 36]):
        if north in (b"N", b"S") and east in (b"E", b"W"):
            yield Fix(
                float(seconds), _degrees(latitude) * (-1 if north == b"S" else 1),
                _degrees(longitude) * (-1 if east == b"W" else 1), speed / 1000 * _KILOMETRE_AN_HOUR,
            )  # fmt: skip


def _degrees(value: int) -> float:
    degrees, minutes = divmod(value, 100_000)
    return degrees + minutes / 60_000
