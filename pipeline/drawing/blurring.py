"""A picture with regions made unrecognisable.

A region is averaged over blocks that are large beside it (an eighth of it: a head is about one block, a plate less
than one high), the averages are rounded to sixteen levels, and the blocks are blended into each other. Rounding is
what keeps many pictures of one person in motion from being added up to a sharp one.
"""

from __future__ import annotations

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.conversion import blendable_format, converted
from pipeline.pictures.planes import CHROMA_SHIFT, copy_properties, plane

UInt8 = NDArray[np.uint8]

_LEAST_BLOCK = 12.0
"""Pixels of the smallest block's side."""


def blurred(image: av.VideoFrame, mask: UInt8, blocks: int = 8) -> av.VideoFrame:
    """A new picture with the regions of a mask made unrecognisable; the picture itself, whose planes are the
    decoder's, is only read.

    Args:
        image: in host memory, 8-bit YUV; any other format is converted to it.
        mask: (h, w) uint8 of any size, stretched over the picture; what is not 0 is covered.
        blocks: most blocks across the longer side of a region.

    Returns:
        A picture of the same size and time, and format where it is 8-bit YUV; the given one where nothing is covered.
    """
    if not mask.any():
        return image
    if image.format.name not in CHROMA_SHIFT:
        image = converted(image, blendable_format(image.format.name, image.width, image.height))
    result = av.VideoFrame(image.width, image.height, image.format.name)
    copy_properties(image, result)
    planes = [(plane(image, index), plane(result, index)) for index in range(len(image.planes))]
    for original, target in planes:
        target[:] = original
    height, width = mask.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for number in range(1, count):
        x, y, across, down = (int(value) for value in stats[number, :4])
        longer = max(across * image.width / width, down * image.height / height)
        block = max(_LEAST_BLOCK, longer / blocks)
        inside = np.asarray(labels[y : y + down, x : x + across] == number, np.uint8)
        for original, target in planes:
            rows, columns = original.shape[:2]
            top, bottom = y * rows // height, -(-(y + down) * rows // height)
            left, right = x * columns // width, -(-(x + across) * columns // width)
            place = (slice(top, bottom), slice(left, right))
            size = (right - left, bottom - top)
            # A block is as large in the picture whatever the plane's subsampling.
            few = (
                max(1, int(size[0] * image.width / columns / block)),
                max(1, int(size[1] * image.height / rows / block)),
            )
            means = np.asarray(cv2.resize(original[place], few, interpolation=cv2.INTER_AREA), np.uint8)
            covering = cv2.resize((means & 0xF0) | 8, size, interpolation=cv2.INTER_LINEAR)
            cv2.copyTo(covering, cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST), target[place])
    return result
