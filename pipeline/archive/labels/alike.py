"""Pictures that show nearly the same: a perceptual hash of 64 bits, and how many of them differ.

The hash is dHash (Krawetz, "Kind of Like That", 2013): the picture's brightness in nine columns of eight rows, and of
each two beside each other whether the right one is brighter.
"""

from __future__ import annotations

import av
import numpy as np

from pipeline.pictures.picture import Picture

ALIKE = 6
"""Bits, of 64, in which two pictures differ at most that show nearly the same. In eleven clips of streets and highways
no two pictures of different clips differ in fewer than 8, and 1 % of them in fewer than 16. Of neighbours half a second
apart half differ in 5 or fewer in slow traffic at night, in 11 to 17 on highways."""


def difference_hash(image: av.VideoFrame) -> int:
    """The 64 bits of a picture, row by row, the first one highest."""
    luma = Picture.of(image).luma(8, 9)
    return int.from_bytes(np.packbits(luma[:, 1:] > luma[:, :-1]).tobytes(), "big")


def near(one: int, other: int) -> bool:
    """Whether two pictures of these hashes show nearly the same.

    >>> near(0b0111111, 0), near(0b1111111, 0)
    (True, False)
    """
    return (one ^ other).bit_count() <= ALIKE
