"""What a file that cannot be opened lacks, in words."""

from __future__ import annotations

from pathlib import Path

_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"uuid", b"styp", b"sidx"})
"""Boxes that an MP4 or MOV begins with (ISO/IEC 14496-12, QuickTime File Format)."""

_REMEDY = (
    "put the card back into the camera, which may mend it, or mend it with untrunc and a whole recording of that camera"
)


def missing(path: Path) -> str:
    """Why FFmpeg finds no video in a file, as a clause.

    A recording that was not closed, for the power was cut, is an MP4 without the index that is written last.
    """
    kinds, cut = _top_level(path)
    if not kinds or kinds[0] not in _BOXES:
        return "not a video file FFmpeg can read, or damaged at its head"
    if b"moov" not in kinds:
        return f"its index (moov) is missing, as where the power was cut before the recording was closed; {_REMEDY}"
    if cut and kinds[-1] == b"moov":
        return f"its index (moov) is cut off, the file is not whole; copy it again, or {_REMEDY}"
    return "its index (moov) is damaged, FFmpeg cannot read it; copy it again if there is another copy"


def index_is_cut(path: Path) -> bool:
    """Whether the index of an MP4 goes beyond the file's end, which FFmpeg may take for one without tracks."""
    kinds, cut = _top_level(path)
    return cut and kinds[-1] == b"moov"


def _top_level(path: Path) -> tuple[list[bytes], bool]:
    """The kinds of a file's boxes as far as they can be followed, and whether the last one goes beyond its end."""
    kinds: list[bytes] = []
    try:
        size, position = path.stat().st_size, 0
        with path.open("rb") as file:
            while position + 8 <= size and len(kinds) < 10_000:
                file.seek(position)
                head = file.read(16)
                length, kind = int.from_bytes(head[:4], "big"), head[4:8]
                if length == 1:
                    length = int.from_bytes(head[8:16], "big")
                elif length == 0:
                    length = size - position
                kinds.append(kind)
                position += length
                if length < 8:
                    break
    except OSError:
        return kinds, False
    return kinds, position > size
