"""Views of a picture's planes in host memory, and what all pictures say of themselves."""

from __future__ import annotations

from typing import cast

import av
import numpy as np
from av.video.format import VideoFormat
from av.video.plane import VideoPlane
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]

CHROMA_SHIFT: dict[str, tuple[int, int]] = {
    "yuv420p": (1, 1),
    "yuvj420p": (1, 1),
    "nv12": (1, 1),
    "yuv422p": (1, 0),
    "yuvj422p": (1, 0),
    "yuv444p": (0, 0),
    "yuvj444p": (0, 0),
}
"""The pixel formats that overlays blend into directly: log2 of the chroma subsampling (horizontal, vertical)."""


def plane(image: av.VideoFrame, index: int) -> UInt8:
    """A plane of a picture without copying: (height, width) uint8; the second plane of NV12 is (height, width, 2)."""
    return _view(image.planes[index], image.format.name == "nv12" and index == 1)


def planes(image: av.VideoFrame) -> list[UInt8]:
    """All planes as `plane` has them; PyAV makes all of them each time that it is asked for one."""
    nv12 = image.format.name == "nv12"
    return [_view(data, nv12 and index == 1) for index, data in enumerate(image.planes)]


def _view(data: VideoPlane, pairs: bool) -> UInt8:
    # PyAV's stubs cannot say below Python 3.12 that a plane is a buffer.
    buffer: UInt8 = np.frombuffer(cast("memoryview[int]", data), np.uint8)
    rows = buffer[: data.line_size * data.height].reshape(data.height, data.line_size)
    if pairs:
        return rows[:, : data.width * 2].reshape(data.height, data.width, 2)
    return rows[:, : data.width]


def own_format(image: av.VideoFrame) -> VideoFormat:
    """The format of the picture's pixels, wherever they lie: the format of one in GPU memory says that alone."""
    return image.sw_format or image.format


def pixel_format(image: av.VideoFrame) -> str:
    """FFmpeg's name of that format."""
    return own_format(image).name


def cropped(image: av.VideoFrame, left: int, top: int, right: int, bottom: int) -> av.VideoFrame:
    """A copy of a part of a picture in host memory, 8-bit YUV; where chroma is subsampled the edges are even."""
    across, down = CHROMA_SHIFT[image.format.name]
    result = av.VideoFrame(right - left, bottom - top, image.format.name)
    for index, (source, target) in enumerate(zip(planes(image), planes(result), strict=True)):
        x, y = (left >> across, top >> down) if index else (left, top)
        target[:] = source[y : y + target.shape[0], x : x + target.shape[1]]
    copy_properties(image, result)
    return result


def copy_properties(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Time and colour properties, everything but the pixels."""
    target.pts = source.pts
    if source.time_base:
        target.time_base = source.time_base
    target.colorspace, target.color_range = source.colorspace, source.color_range
    target.color_primaries, target.color_trc = source.color_primaries, source.color_trc
