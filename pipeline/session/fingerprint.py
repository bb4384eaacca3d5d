"""What footage is, in a few bytes read of it: enough to see that a run is resumed with the footage it began with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

_ENDS = 64 << 10
"""Bytes at the head and at the tail of a file that are hashed: the head says how it was made, the tail is its last
pictures. All of a file would have to be read from the card once more."""


def fingerprints(address: str, paths: Sequence[Path]) -> list[str]:
    """One for each file of a source, in order; of a source without files one of its address. The names of files do not
    count: what was moved is the same footage.
    """
    if not paths:
        return [hashlib.sha256(address.encode(errors="replace")).hexdigest()]
    return [fingerprint(path) for path in paths]


def fingerprint(path: Path) -> str:
    """Of the size and both ends of a file; empty for one that cannot be read, which gives no frames either."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = hashlib.sha256(size.to_bytes(8, "big"))
            found.update(file.read(_ENDS))
            file.seek(max(size - _ENDS, 0))
            found.update(file.read(_ENDS))
    except OSError:
        return ""
    return found.hexdigest()


def goes_on(begun: Sequence[str], now: Sequence[str]) -> bool:
    """Whether footage is what a run began with; a trip may have got more clips since, behind those that were there."""
    return list(begun) == list(now[: len(begun)])
