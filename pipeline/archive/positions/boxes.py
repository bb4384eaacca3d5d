"""Boxes of an MP4 (ISO/IEC 14496-12 §4.2), those that FFmpeg passes over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

_MOST = 100_000
"""Boxes beside each other that are looked at."""


def boxes(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The boxes from a place to another: type, and where the content begins and ends."""
    at = begin
    for _ in range(_MOST):
        if at + 8 > end:
            return
        file.seek(at)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        header = 8
        if length == 1 and len(head) == 16:
            length, header = int.from_bytes(head[8:16], "big"), 16
        if length == 0:
            length = end - at
        if length < header:
            return
        yield kind, at + header, min(at + length, end)
        at += length


def box(file: BinaryIO, begin: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    """Where the content of the first box of a type begins and ends; None where there is none."""
    return next(((start, stop) for kind, start, stop in boxes(file, begin, end) if kind == wanted), None)
