"""Picture files, read in one way everywhere: photos as 8-bit RGB, labels as the numbers that stand in them.

Formats are told by content, not by name. What was cut off is refused: OpenCV fills up what is missing of a JPEG and
says so only on standard error.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import SourceError

UInt8 = NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"\x89PNG": "PNG", b"BM": "BMP", b"RIFF": "WebP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip
_PALETTE = 3


def file_format(data: bytes) -> str:
    """What a picture file is by its first bytes, whatever its name says: `JPEG`, `GIF` …, or `no picture`."""
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), "no picture")


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, by name, without the hidden files that systems leave there (`.DS_Store`, `._1.jpg`).

    Raises:
        SourceError: there is no such folder, or it cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise SourceError(f"There is no folder {folder}; give the path of one.") from None
    except OSError as error:
        raise SourceError(f"The folder {folder} cannot be read ({error.strerror}); mend its rights.") from None


def is_folder(path: Path) -> bool:
    """Whether there is such a folder.

    Raises:
        SourceError: the one above it cannot be read, so that nobody can tell.
    """
    return _asked(path, Path.is_dir)


def is_file(path: Path) -> bool:
    """Whether there is such a file; the same of files."""
    return _asked(path, Path.is_file)


def _asked(path: Path, question: Callable[[Path], bool]) -> bool:
    try:
        return question(path)
    except OSError as error:
        raise SourceError(f"The folder {path.parent} cannot be read ({error.strerror}); mend its rights.") from None


def read_picture(path: Path, *, upright: bool = True) -> UInt8:
    """A photo as (h, w, 3) uint8 RGB: 16 bits are brought to 8, grey to colours, and transparency is dropped.

    Args:
        path: of the file.
        upright: whether it is turned as its EXIF data say; not where boxes or labels are drawn on the stored pixels.

    Raises:
        SourceError: the file cannot be read, is no picture, was cut off, or is larger than OpenCV takes.
    """
    data = _content(path)
    turning = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    return np.asarray(_decoded(path, data, cv2.IMREAD_COLOR_RGB | turning), np.uint8)


def read_ids(path: Path) -> UInt8:
    """A label as the numbers in its file: (h, w) uint8, not turned; of a palette PNG the places in its palette.

    Grey in three equal channels is grey, and 16 bits are taken where every number is below 256.

    Raises:
        SourceError: the file cannot be read, is no picture, was cut off, is in colours or holds a larger number.
    """
    data = _content(path)
    depth, kind = _png_form(data)
    if kind == _PALETTE:
        return _palette_places(path, data)
    ids = _decoded(path, data, cv2.IMREAD_UNCHANGED)
    if ids.ndim == 3:
        if not (ids[..., :3] == ids[..., :1]).all():
            colors = len(np.unique(ids.reshape(-1, ids.shape[2]), axis=0))
            raise SourceError(
                f"{path} is not an 8-bit grey PNG, nor one with a palette: it is in colours ({colors} of them); wanted "
                "are class ids, 255 where ignored"
            )
        ids = ids[..., 0]
    if not np.issubdtype(ids.dtype, np.integer):
        raise SourceError(f"{path} holds {ids.dtype} numbers; wanted are class ids, a grey PNG or one with a palette")
    if depth < 8:  # of fewer bits OpenCV makes 8 by spreading them from 0 to 255
        ids = ids // (255 // (2**depth - 1))
    largest = int(ids.max(initial=0))
    if largest > 255:
        raise SourceError(
            f"{path} holds the {ids.dtype.itemsize * 8}-bit number {largest}; class ids go from 0 to 254, 255 where "
            "ignored: write them as an 8-bit PNG"
        )
    return np.asarray(ids, np.uint8)


def require_known_ids(path: Path, ids: UInt8, known: Collection[int], what: str) -> None:
    """Refuse a label with a number that is none of its classes.

    Args:
        path: of the label, for the sentence.
        ids: its numbers, of any shape.
        known: numbers that may stand there.
        what: they are, in words, such as "the label ids of Cityscapes are 0 to 33".

    Raises:
        SourceError: it holds another; the most frequent one is named.
    """
    counts = np.bincount(ids.ravel(), minlength=256)
    counts[list(known)] = 0
    if counts.any():
        others = np.flatnonzero(counts).tolist()
        worst = int(counts.argmax())
        more = f" (and {len(others) - 1} other strange numbers)" if len(others) > 1 else ""
        raise SourceError(
            f"{path} holds {worst}, which is no class, in {counts[worst] / max(ids.size, 1):.2%} of its pixels{more}: "
            f"{what}; mend the label, or leave it out"
        )


def is_whole(data: bytes) -> bool:
    """Whether a file's end is there, as far as its format says where it is: of a JPEG, behind the start of its scan."""
    if file_format(data) != "JPEG":
        return bool(data)
    return data.find(b"\xff\xd9", _start_of_scan(data)) >= 0


def _start_of_scan(data: bytes) -> int:
    """Where the pixels of a JPEG begin: a thumbnail before them has an end of its own."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        if data[place + 1] == 0xDA:
            return place
        if data[place + 1] == 0xFF:  # a byte that fills up
            place += 1
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return len(data)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"There is no picture {path}; give the path of one") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); mend its rights, or leave it out") from None


def _decoded(path: Path, data: bytes, flags: int) -> NDArray[Any]:
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if is_whole(data) else None
    except cv2.error as error:
        if "pixels" in str(error).lower():
            raise SourceError(
                f"{path} cannot be decoded as an image: it has more pixels than OpenCV reads, a thousand million; make "
                "it smaller"
            ) from None
        found = None
    if found is None:
        raise _too_deep(path, data) or _broken(path, data)
    return found


def _too_deep(path: Path, data: bytes) -> SourceError | None:
    """What is said of a whole picture of more bits than a photo has, such as the 32 of a depth map in a TIFF."""
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if is_whole(data) else None
    except cv2.error:
        found = None
    if found is None:
        return None
    return SourceError(
        f"{path} holds {found.dtype} numbers, and a photo 8 or 16 bits a colour; save it so, or leave it out"
    )


def _broken(path: Path, data: bytes) -> SourceError:
    kind = file_format(data) if data else "empty"
    return SourceError(
        f"{path} cannot be decoded as an image: it is not a whole picture ({kind}); fetch it again, or leave it out"
    )


def _png_form(data: bytes) -> tuple[int, int]:
    """Bits of a sample and kind of colour of a PNG, as its first chunk has them; 8 and 0 of another file."""
    return (data[24], data[25]) if file_format(data) == "PNG" and len(data) > 26 else (8, 0)


def _palette_places(path: Path, data: bytes) -> UInt8:
    """The places in its palette of a PNG, which OpenCV would give as colours and FFmpeg leaves as they are."""
    try:
        with av.open(io.BytesIO(data), "r", format="png_pipe") as container:
            frame = next(container.decode(video=0))
            plane = np.frombuffer(cast("memoryview[int]", frame.planes[0]), np.uint8)  # PyAV's stubs know no buffers
            places = plane.reshape(frame.height, -1)[:, : frame.width].copy()
            if frame.format.name != "pal8":
                raise SourceError(f"{path} has a palette that cannot be read; save it as a grey PNG of class ids")
            _decoded(path, data, cv2.IMREAD_GRAYSCALE)  # FFmpeg fills up what is missing
            return places
    except (av.FFmpegError, StopIteration):
        raise _broken(path, data) from None
