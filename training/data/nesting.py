"""Sets that were unpacked a folder deeper than somebody looks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from engines.errors import SourceError
from engines.tools.pictures import is_folder, listed

_DEPTH = 2
_MOST = 64


def lies_below(root: Path, fits: Callable[[Path], bool]) -> str:
    """Where below a folder the set lies that is missed in it: a clause for a sentence, or nothing.

    Args:
        root: what was given.
        fits: whether a folder is what was looked for.
    """
    found = next((folder for folder in _below(root, _DEPTH) if fits(folder)), None)
    return "" if found is None else f"; it lies in {found}: give that folder"


def _below(folder: Path, depth: int) -> Iterator[Path]:
    """Folders in a folder, the nearer ones first; what cannot be read is passed over."""
    try:
        inside = [path for path in listed(folder)[:_MOST] if is_folder(path)] if is_folder(folder) else []
    except SourceError:
        return
    yield from inside
    if depth > 1:
        for path in inside:
            yield from _below(path, depth - 1)
