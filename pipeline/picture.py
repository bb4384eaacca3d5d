"""Pictures as the decoder left them: views of their planes, and the few conversions that are ever made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import av
import cv2
import numpy as np
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
    data = image.planes[index]
    # PyAV's stubs cannot say below Python 3.12 that a plane is a buffer.
    buffer: UInt8 = np.frombuffer(cast("memoryview[int]", data), np.uint8)
    rows = buffer[: data.line_size * data.height].reshape(data.height, data.line_size)
    if image.format.name == "nv12" and index == 1:
        return rows[:, : data.width * 2].reshape(data.height, data.width, 2)
    return rows[:, : data.width]


# AVColorSpace and AVColorRange of FFmpeg (libavutil/pixfmt.h); PyAV's enums leave some of them out.
_MATRICES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt601", 9: "bt2020", 10: "bt2020"}
_FULL_RANGE = 2


@dataclass(frozen=True, slots=True)
class Colorimetry:
    """How a stream's YUV is to be read: the matrix (`bt601`, `bt709`, `bt2020`) and whether it uses the full range."""

    matrix: str
    full_range: bool

    @classmethod
    def of(cls, image: av.VideoFrame) -> Colorimetry:
        """What the picture says of itself; what it leaves open is BT.709 from 720 rows up, else BT.601, limited."""
        full = image.color_range == _FULL_RANGE or image.format.name.startswith("yuvj")
        default = "bt709" if image.height >= 720 else "bt601"
        return cls(_MATRICES.get(image.colorspace, default), full)

    def yuv(self, rgb: tuple[int, int, int]) -> tuple[int, int, int]:
        """An sRGB colour, 0 to 255 each, as (Y, Cb, Cr) levels, 0 to 255 (ITU-R BT.601-7, BT.709-6, BT.2020-2)."""
        kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[self.matrix]
        red, green, blue = (channel / 255 for channel in rgb)
        luma = kr * red + (1 - kr - kb) * green + kb * blue
        cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
        if self.full_range:
            levels = (255 * luma, 255 * cb + 128, 255 * cr + 128)
        else:
            levels = (16 + 219 * luma, 224 * cb + 128, 224 * cr + 128)
        y, u, v = (min(max(round(level), 0), 255) for level in levels)
        return y, u, v


@dataclass(frozen=True, slots=True)
class ColorTags:
    """What a stream says of its colours, as FFmpeg numbers it (libavutil/pixfmt.h); 2 and 0 are "not said"."""

    matrix: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2

    @classmethod
    def of(cls, image: av.VideoFrame) -> ColorTags:
        return cls(image.colorspace, image.color_range, image.color_primaries, image.color_trc)


_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, -90: cv2.ROTATE_90_CLOCKWISE}


def rotated(image: av.VideoFrame, degrees: int) -> av.VideoFrame:
    """The picture turned by a multiple of 90 degrees counter-clockwise, as its display matrix asks for."""
    turn = (degrees + 180) % 360 - 180 or 0
    if turn == -180:
        turn = 180
    if turn not in _ROTATIONS:
        return image
    if CHROMA_SHIFT.get(image.format.name, (1, 0)) not in ((1, 1), (0, 0)) or image.format.name == "nv12":
        image = converted(image, "yuv420p")
    width, height = (image.width, image.height) if turn == 180 else (image.height, image.width)
    result = av.VideoFrame(width, height, image.format.name)
    for index in range(3):
        plane(result, index)[:] = cv2.rotate(plane(image, index), _ROTATIONS[turn])
    copy_properties(image, result)
    return result


def copy_properties(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Time and colour properties, everything but the pixels."""
    target.pts, target.time_base = source.pts, source.time_base
    target.colorspace, target.color_range = source.colorspace, source.color_range
    target.color_primaries, target.color_trc = source.color_primaries, source.color_trc


def converted(
    image: av.VideoFrame, pixel_format: str, width: int | None = None, height: int | None = None
) -> av.VideoFrame:
    """The picture in another pixel format or size (bicubic), its time and colour properties kept."""
    result = image.reformat(width=width, height=height, format=pixel_format, interpolation="BICUBIC")
    result.pts, result.time_base = image.pts, image.time_base
    return result


def blendable_format(pixel_format: str, width: int, height: int) -> str:
    """The pixel format in which overlays are blended and video is encoded.

    The picture's own where it is 8-bit YUV; else 4:2:0, and 4:4:4 where an odd size does not divide by the
    subsampling.
    """
    chosen = pixel_format if pixel_format in CHROMA_SHIFT else "yuv420p"
    across, down = CHROMA_SHIFT[chosen]
    if (across and width % 2) or (down and height % 2):
        return "yuvj444p" if chosen.startswith("yuvj") else "yuv444p"
    return chosen


def network_input(image: av.VideoFrame, height: int, width: int) -> UInt8:
    """The whole picture squashed to a model's size: (height, width, 3) uint8 RGB.

    One pass of FFmpeg's scaler straight from the decoder's planes; nothing at full size is ever converted. When
    shrinking by two or more it averages (AREA), since sampling alone loses thin objects.
    """
    shrinking = image.width >= 2 * width or image.height >= 2 * height
    small = image.reformat(
        width=width, height=height, format="rgb24", interpolation="AREA" if shrinking else "BILINEAR", threads=1
    )
    return np.ascontiguousarray(small.to_ndarray())
