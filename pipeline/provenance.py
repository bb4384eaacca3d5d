"""Videos that roadlens wrote itself, told by a mark in their head: they are no clips of a trip."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

MARK = "overlaid by roadlens"
"""Stands in every video that is written, under `MARK_KEY`."""

MARK_KEY = "keywords"
"""FFmpeg's name of a tag that cameras do not write, and that MP4 has a place for."""

_MOST = 4 << 20
"""Bytes of a file's head (`moov`) that are looked through."""


def is_own_video(path: Path) -> bool:
    """Whether roadlens wrote a video, whole or not. What cannot be read or has no head yet is not known to be ours."""
    try:
        return _marked(path)
    except OSError:
        return False


def without_own(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The files of a folder without those that roadlens wrote, and those. A folder of nothing else is meant as it is:
    whoever names it wants to see them.
    """
    own = [path for path in paths if path.suffix.lower() == ".mp4" and is_own_video(path)]
    left_out = set(own)
    others = [path for path in paths if path not in left_out]
    return (others, own) if others else (list(paths), [])


def _marked(path: Path) -> bool:
    """Whether the head of an MP4 holds the mark: its top-level boxes (ISO/IEC 14496-12 §4.2) are walked to `moov`."""
    with path.open("rb") as file:
        size, position = os.fstat(file.fileno()).st_size, 0
        while position + 8 <= size:
            file.seek(position)
            head = file.read(16)
            length, kind = int.from_bytes(head[:4], "big"), head[4:8]
            if length == 1 and len(head) == 16:
                length = int.from_bytes(head[8:16], "big")
            if kind == b"moov":
                file.seek(position)
                return MARK.encode() in file.read(min(length or size, _MOST))
            if length < 8:
                return False
            position += length
    return False
