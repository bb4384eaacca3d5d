"""Files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) uint8 RGB picture as .png or .jpg.

    Raises:
        OutputError: another ending, or the file cannot be written.
    """
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OutputError(f"{path} must end in .png or .jpg")
    done, data = cv2.imencode(path.suffix.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not done:
        raise OutputError(f"a picture of {picture.shape[1]}×{picture.shape[0]} cannot be encoded as {path.suffix}")
    write_file(path, data.tobytes())


def write_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it; its folder is made if it is missing.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        if partial.exists():
            partial.unlink()
        raise OutputError(f"{path} could not be written ({error.strerror}); choose another place with -o") from None
