"""The places that BlackVue's dash-cams write: sentences of NMEA in the box `gps ` of a box `free`.

By the published readings of mapillary_tools (blackvue_parser.py) and ExifTool (QuickTime.pm, "Pittasoft"): each line is
a sentence behind the camera's Unix milliseconds in brackets, `[1623057074211]$GPGGA,…`; `sttm` beside it is when the
recording began by the same clock, milliseconds as uint64, big endian, or 0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.archive.positions.boxes import boxes
from pipeline.archive.positions.nmea import Sentence, sentences

_MOST_BYTES = 64 << 20

_LINE = re.compile(r"\[(\d{10,16})\]([^\[]*)")

_SOONER = 5000
"""Milliseconds by which what is written may be older than the beginning of its recording."""


def sentences_of(path: Path) -> list[tuple[float, Sentence]]:
    """What the receiver said, with seconds of the clip; nothing where the file has no such boxes. Where there are RMC
    they alone are given: GGA of the same moments have no speed.
    """
    text, begun = _content(path)
    lines = [(int(match[1]), match[2]) for match in _LINE.finditer(text)]
    if not lines:
        return []
    first = lines[0][0]
    origin = begun if begun and first - begun >= -_SOONER else first
    found = [((stamp - origin) / 1000, each) for stamp, line in lines for each in sentences(line, sealed=True)]
    whole = [(at, each) for at, each in found if each.day is not None]
    return whole or found


def _content(path: Path) -> tuple[str, int]:
    """The text of `gps `, and what `sttm` says."""
    text, begun = "", 0
    with path.open("rb") as file:
        for kind, begin, end in _inside(file, os.fstat(file.fileno()).st_size):
            file.seek(begin)
            if kind == b"gps " and not text:
                text = file.read(min(end - begin, _MOST_BYTES)).decode("ascii", "replace")
            elif kind == b"sttm" and end - begin >= 8:
                begun = int.from_bytes(file.read(8), "big")
    return text, begun


def _inside(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes in each box `free` of a file."""
    for kind, begin, end in boxes(file, 0, size):
        if kind == b"free":
            yield from boxes(file, begin, end)
