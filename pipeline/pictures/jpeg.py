"""A picture as a JPEG, straight from its own pixel format."""

from __future__ import annotations

from typing import cast

import av
import cv2
import numpy as np

from pipeline.pictures.colors import scaler_colors
from pipeline.pictures.planes import UInt8


def encode_jpeg(image: av.VideoFrame, quality: int = 80, max_width: int = 0) -> tuple[bytes, int, int]:
    """A picture in host memory as a JPEG.

    One pass of FFmpeg's scaler to the wanted size, then libjpeg-turbo: 2 ms at 720p on one core, half of what FFmpeg's
    own encoder takes.

    Args:
        image: any pixel format.
        quality: 1 to 100.
        max_width: pixels; a wider picture is shrunk to it, its shape kept. 0 for no limit.

    Returns:
        The JPEG, and its width and height in pixels.
    """
    width = min(image.width, max_width or image.width)
    height = max(1, round(image.height * width / image.width))
    pixels = image.reformat(
        width=width,
        height=height,
        format="bgr24",
        interpolation="AREA" if width * 2 <= image.width else "BILINEAR",
        threads=1,
        **scaler_colors(image),
    ).to_ndarray()
    _, jpeg = cv2.imencode(".jpg", cast("UInt8", np.ascontiguousarray(pixels)), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return jpeg.tobytes(), width, height
