"""Pictures with known contents, for the tests of what is done to them."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.planes import plane

UInt8 = NDArray[np.uint8]


def noise(pixel_format: str, width: int, height: int, seed: int = 0) -> av.VideoFrame:
    """A picture of a blendable format with every level in every plane."""
    image, random = av.VideoFrame(width, height, pixel_format), np.random.default_rng(seed)
    for index in range(len(image.planes)):
        view = plane(image, index)
        view[:] = random.integers(0, 256, view.shape, np.uint8)
    return image


def planes(image: av.VideoFrame) -> list[UInt8]:
    """Copies of its planes."""
    return [plane(image, index).copy() for index in range(len(image.planes))]


def of_color(rgb: tuple[int, int, int], width: int = 32, height: int = 16) -> av.VideoFrame:
    """A picture of one colour, rgb24."""
    return av.VideoFrame.from_ndarray(np.full((height, width, 3), rgb, np.uint8), format="rgb24")
