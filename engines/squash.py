"""A whole picture to a model's size: what every engine does with one that is called on a picture of any size."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def squash(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize a whole picture, (h, w, 3) → (height, width, 3), without keeping its aspect.

    By area where it shrinks in both directions (each source pixel counts once: no aliasing), else bilinear.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def check_picture(image: NDArray[np.uint8]) -> None:
    """See that a picture is one that can be squashed.

    Raises:
        ValueError: it is not (h, w, 3) uint8, or empty.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"a picture of {image.dtype} {image.shape}; wanted is uint8 (h, w, 3)")
