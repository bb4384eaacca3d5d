"""Model inputs made of pictures in host memory."""

from __future__ import annotations

import threading
from typing import cast

import av
import cv2
from av.video.reformatter import VideoReformatter

from pipeline.pictures.colors import scaler_colors
from pipeline.pictures.hdr import tone_mapped
from pipeline.pictures.planes import UInt8, cropped, planes

Crop = tuple[int, int, int, int]
"""The part of a picture that is looked at: x1, y1, x2, y2 in pixels, exclusive; even where chroma is subsampled."""


def network_input(image: av.VideoFrame, height: int, width: int, crop: Crop | None = None) -> UInt8:
    """The whole of a picture in host memory, or the `crop` of it, squashed to a model's size: (height, width, 3) uint8
    RGB.

    One pass of FFmpeg's scaler straight from the decoder's planes; nothing at full size is ever converted. When
    shrinking by two or more it averages (AREA), since sampling alone loses thin objects. The scaler writes planes: to
    packed RGB it gives every pair of pixels one chroma and rounds down, 2 levels off on average and a third slower.
    """
    if crop is not None and crop != (0, 0, image.width, image.height):
        image = cropped(image, *crop)
    shrinking = image.width >= 2 * width or image.height >= 2 * height
    small = _scaler(height, width).reformat(
        image,
        width=width,
        height=height,
        format="gbrp",
        interpolation="AREA" if shrinking else "BILINEAR",
        threads=1,
        **scaler_colors(image),
    )
    green, blue, red = planes(small)
    return tone_mapped(cast("UInt8", cv2.merge([red, green, blue])), image.color_trc)


_scalers = threading.local()


def _scaler(height: int, width: int) -> VideoReformatter:
    """This thread's scaler to a size. It keeps its tables as long as what goes in looks the same, where a frame's own
    makes them anew (0.2 of 0.8 ms at 720p); it is not for two threads at once."""
    if not hasattr(_scalers, "by_size"):
        _scalers.by_size = {}
    by_size: dict[tuple[int, int], VideoReformatter] = _scalers.by_size
    if (height, width) not in by_size:
        by_size[height, width] = VideoReformatter()
    return by_size[height, width]
