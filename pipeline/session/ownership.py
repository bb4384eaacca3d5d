"""Files that roadlens wrote itself, told by what is in them: those may be written over."""

from __future__ import annotations

from pathlib import Path

from pipeline.messages.headers import MessageError
from pipeline.messages.wire import decode_header
from pipeline.provenance import is_own_video

_MOST_LINE = 1 << 20
"""Bytes of a line that are looked at."""

_MCAP_LIBRARY = b"roadlens"


def is_own(path: Path) -> bool:
    """Whether roadlens wrote a file: an overlaid video, JSON lines, or a recording of messages, whole or not.

    What cannot be read or has no head yet is not known to be ours.
    """
    look = {".mp4": is_own_video, ".jsonl": _says_message, ".mcap": _names_library}.get(path.suffix.lower())
    try:
        return look is not None and look(path)
    except OSError:
        return False


def _says_message(path: Path) -> bool:
    with path.open("rb") as file:
        line = file.readline(_MOST_LINE)
    try:
        decode_header(line)
    except MessageError:
        return False
    return True


def _names_library(path: Path) -> bool:
    with path.open("rb") as file:
        return _MCAP_LIBRARY in file.read(128)
