"""Which way up a photograph is, and when it was taken, as its camera noted it in Exif (CIPA DC-008)."""

from __future__ import annotations

import struct
from pathlib import Path

Orientation = tuple[int, int, int, int]
"""(a, b, c, d): what is at (x, y) is shown at (a·x + c·y, b·x + d·y)."""

_ORIENTATIONS: dict[int, Orientation] = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
_ORIENTATION, _CHANGED, _MORE, _TAKEN, _ZONE = 274, 306, 34_665, 36_867, 36_881
_READ = 1 << 18
"""Bytes in which the Exif of a JPEG or PNG begins; that of a WebP stands at its end."""


def orientation(path: Path) -> Orientation | None:
    """How a JPEG, PNG, WebP or TIFF file is to be turned to be upright; None where it does not say.

    Raises:
        OSError: the file cannot be read.
    """
    number = _noted(path).get(_ORIENTATION)
    return _ORIENTATIONS.get(number) if isinstance(number, int) else None


def taken(path: Path) -> str | None:
    """When such a file was taken, `2024:01:15 14:30:05` with `+01:00` behind it where the zone is noted; else None.

    Raises:
        OSError: the file cannot be read.
    """
    noted = _noted(path)
    time = noted.get(_TAKEN, noted.get(_CHANGED))
    return f"{time}{noted.get(_ZONE, '')}" if isinstance(time, str) else None


def _noted(path: Path) -> dict[int, int | str]:
    """What the first Exif of a file says, by tag."""
    with path.open("rb") as file:
        data = file.read(_READ)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            data += file.read()
    return next((noted for noted in map(_tags, _blocks(data)) if noted), {})


def _blocks(data: bytes) -> list[bytes]:
    """Where TIFF structures with Exif tags may begin in a file of a known kind."""
    if data[:2] == b"\xff\xd8":
        at = data.find(b"Exif\0\0")
    elif data[:4] in (b"II*\0", b"MM\0*"):
        return [data]
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        at = data.find(b"eXIf")
        return [data[at + 4 :]] if at >= 0 else []
    elif data[:4] == b"RIFF":
        at = data.rfind(b"EXIF")
        block = data[at + 8 :]
        return [block.removeprefix(b"Exif\0\0")] if at >= 0 else []
    else:
        return []
    return [data[at + 6 :]] if at >= 0 else []


def _tags(tiff: bytes) -> dict[int, int | str]:
    """The numbers and texts of the first directory of a TIFF structure, and of the one with more Exif."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    found: dict[int, int | str] = {}
    if order is None:
        return found
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        _add_directory(tiff, order, at, found)
        more = found.get(_MORE)
        if isinstance(more, int):
            _add_directory(tiff, order, more, found)
    except struct.error:  # cut off: what was read stands
        pass
    return found


def _add_directory(tiff: bytes, order: str, at: int, found: dict[int, int | str]) -> None:
    (entries,) = struct.unpack_from(f"{order}H", tiff, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
        tag, kind, count, value = struct.unpack_from(f"{order}HHII", tiff, entry)
        if kind == 2:  # text, of more than four bytes elsewhere
            begin = value if count > 4 else entry + 8
            found[tag] = tiff[begin : begin + count].split(b"\0")[0].decode("ascii", "replace").strip()
        elif kind in (3, 4):
            (found[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", tiff, entry + 8)
