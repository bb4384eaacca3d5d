"""Where the blocks `freeGPS ` of a recording lie, which chips of dash-cams write (`freegps`).

Novatek's are listed by a box `gps ` in `moov` (nvtk_mp42gpx, sergei.nz). Others, such as Ambarella's, lie unlisted in
`mdat`, the first of them within its first two megabytes (ExifTool, QuickTimeStream.pl, "ScanMediaData"): where there is
none, nothing more is looked through.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.archive.positions.boxes import box, boxes
from pipeline.archive.positions.fixes import Fix
from pipeline.archive.positions.freegps import MARK, MOST_BYTES, fix_of

_MOST = 200_000
"""Blocks; one a second fills two days."""

_FIRST_WITHIN = 4 << 20
"""Bytes of `mdat` in which the first block must lie."""


def listed(path: Path) -> Iterator[tuple[int, Fix]]:
    """The fixes of Novatek's blocks, at Unix seconds by whatever clock, each with its place in the list, which has one
    a second; nothing where there is no list.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for place, (at, length) in enumerate(_list(file, size)):
            if at > 0 and at + length <= size:
                file.seek(at)
                fix = fix_of(file.read(min(length, MOST_BYTES)))
                if fix is not None:
                    yield place, fix


def _list(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Where the blocks lie, and how long they are."""
    moov = box(file, 0, size, b"moov")
    found = moov and box(file, *moov, b"gps ")
    if not found:
        return
    begin, end = found
    file.seek(begin)
    data = file.read(min(end - begin, 8 + 8 * _MOST))
    for place in range(8, len(data) - 7, 8):
        yield struct.unpack_from(">II", data, place)


def unlisted(path: Path) -> Iterator[tuple[int, Fix]]:
    """The same of blocks that lie in `mdat` without a list, in their order."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        media = [(begin, end) for kind, begin, end in boxes(file, 0, size) if kind == b"mdat" and begin < end]
        if not media:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for begin, end in media:
                if data.find(MARK, begin, min(begin + _FIRST_WITHIN, end)) >= 0:
                    yield from _in_media(data, begin, end)
                    return


def _in_media(data: mmap.mmap, begin: int, end: int) -> Iterator[tuple[int, Fix]]:
    at = begin
    for place in range(_MOST):
        at = data.find(MARK, at, end)
        if at < 0:
            return
        length = int.from_bytes(data[max(at - 4, 0) : at], "big")
        fix = fix_of(data[max(at - 4, 0) : min(at - 4 + min(max(length, 12), MOST_BYTES), end)])
        if fix is not None:
            yield place, fix
        at += len(MARK)
