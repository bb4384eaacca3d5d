"""What stands at the beginning of a picture, and labels as they lie in their files.

Photos are read by `engines.tools.pictures.read_picture`, as everywhere.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import SourceError, UsageError

if TYPE_CHECKING:
    from PIL import Image

UInt8 = NDArray[np.uint8]

MOST_PIXELS = 180_000_000
"""A picture of more is refused: it would take gigabytes, and is no frame of a camera in a car."""

_WIDE = ("I", "I;16", "I;16B", "I;16L", "F")


@dataclass(frozen=True)
class Head:
    """What the beginning of a file says: size as stored, Pillow's mode, EXIF orientation (1 is upright), format."""

    width: int
    height: int
    mode: str
    turn: int
    format: str


def read_head(path: Path) -> Head:
    """Look at the beginning of a picture.

    Raises:
        SourceError: it is none, or cannot be read.
    """
    with _opened(path) as image:
        return Head(image.width, image.height, image.mode, _turn(image), image.format or "")


@dataclass(frozen=True)
class Raw:
    """A label as it lies in its file.

    Attributes:
        values: (H, W) int64, or (H, W, 3) uint8 RGB.
        palette: (256, 3) colours of the numbers of a palette PNG.
        hidden: (H, W) where it is wholly transparent, or None.
        lossy: whether the format blurs colours.
    """

    values: NDArray[Any]
    palette: UInt8 | None
    hidden: NDArray[np.bool_] | None
    lossy: bool


def read_raw(path: Path, turn: int = 1) -> Raw:
    """A label's numbers or colours.

    Args:
        path: of the file.
        turn: EXIF orientation of its photo, which the label is turned by.

    Raises:
        SourceError: it cannot be read, is cut off, or has a mode that no label has.
    """
    with _opened(path) as image:
        _load(image, path)
        image.getexif()[0x0112] = turn
        lossy = image.format in ("JPEG", "WEBP")
        turned = _upright(image)
        if turned.mode == "P":
            colors = np.zeros((256, 3), np.uint8)
            found = np.array(turned.getpalette() or [], np.uint8).reshape(-1, 3)
            colors[: len(found)] = found
            return Raw(np.asarray(turned).astype(np.int64), colors, None, lossy)
        if turned.mode in ("L", "1", *_WIDE):
            return Raw(np.asarray(turned).astype(np.int64), None, None, lossy)
        if turned.mode in ("RGB", "RGBA", "LA"):
            full = np.array(turned.convert("RGBA"), np.uint8)
            hidden = full[..., 3] == 0
            return Raw(np.ascontiguousarray(full[..., :3]), None, hidden if hidden.any() else None, lossy)
        raise SourceError(f"{path} has the mode {turned.mode}; a label is grey, with a palette, or RGB: save it as PNG")


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _opened(path: Path) -> Image.Image:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UsageError("reading your own pictures needs Pillow; install it with: pip install '.[train]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
    except UnidentifiedImageError:
        raise SourceError(f"{path} is not a picture, whatever its name says; export it again or take it away") from None
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SourceError(f"{path} cannot be read ({reason}); mend it or take it away") from None
    if image.width * image.height > MOST_PIXELS:
        size = f"{image.width}×{image.height}"
        image.close()
        raise SourceError(f"{path} has {size} pixels, more than {MOST_PIXELS // 10**6} million; make it smaller")
    return image


def _load(image: Image.Image, path: Path) -> None:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise SourceError(f"{path} is damaged ({error}); copy it again, or leave it out with --skip-broken") from None


def _turn(image: Image.Image) -> int:
    try:
        turn = int(image.getexif().get(0x0112, 1))
    except (OSError, ValueError, TypeError, SyntaxError):
        return 1
    return turn if 1 <= turn <= 8 else 1
