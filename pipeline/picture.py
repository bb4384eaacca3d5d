"""Pictures as the decoder left them: views of their planes, and the few conversions that are ever made of them."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from engines.loading import Degraded

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


def on_device(image: av.VideoFrame) -> bool:
    """Whether the picture lies in GPU memory, where NVDEC left it. It has no planes to look at: see `on_host`."""
    return image.format.name == "cuda"


def pixel_format(image: av.VideoFrame) -> str:
    """The format of the picture's pixels, wherever they lie."""
    own = image.sw_format if on_device(image) else None
    return image.format.name if own is None else own.name


def stays_on_device(image: av.VideoFrame) -> bool:
    """Whether a picture in GPU memory can be worked on there: NV12 of even size, which is what cameras send."""
    return on_device(image) and pixel_format(image) == "nv12" and image.width % 2 == 0 and image.height % 2 == 0


def on_host(image: av.VideoFrame) -> av.VideoFrame:
    """The picture in host memory: itself, or one download of it."""
    if not on_device(image):
        return image
    if stays_on_device(image):
        from pipeline import device_pictures  # torch

        return device_pictures.downloaded(device_pictures.borrowed(image), image)
    result = image.reformat(format=pixel_format(image))
    copy_properties(image, result)
    return result


# AVColorSpace and AVColorRange of FFmpeg (libavutil/pixfmt.h); PyAV's enums leave some of them out.
# SMPTE 240M (7) is far nearer to BT.709 than to BT.601.
_MATRICES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}
_SCALER_MATRICES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
_FULL_RANGE = 2


@dataclass(frozen=True, slots=True)
class Colorimetry:
    """How a stream's YUV is to be read: the matrix (`bt601`, `bt709`, `bt2020`) and whether it uses the full range."""

    matrix: str
    full_range: bool

    @classmethod
    def of(cls, image: av.VideoFrame) -> Colorimetry:
        """What the picture says of itself; what it leaves open is BT.709 from 720 rows up, else BT.601, limited."""
        full = image.color_range == _FULL_RANGE or pixel_format(image).startswith("yuvj")
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


def upright(image: av.VideoFrame) -> av.VideoFrame:
    """The picture turned by quarters and mirrored as its display matrix asks for; itself where there is none.

    What the matrix says beyond that (a scale, a turn by a few degrees) is left out.
    """
    try:
        matrix = image.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV refuses to list side data of which it does not know one kind (Exif); the rotation it knows regardless.
        return rotated(image, image.rotation)
    if matrix is None:
        return image
    numbers = struct.unpack("=9i", cast("bytes", matrix))
    return _oriented(image, numbers[0], numbers[1], numbers[3], numbers[4])


def rotated(image: av.VideoFrame, degrees: float) -> av.VideoFrame:
    """The picture turned counter-clockwise by `degrees`, to the nearest quarter."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return _oriented(image, cosine, -sine, sine, cosine)


def _oriented(image: av.VideoFrame, a: float, b: float, c: float, d: float) -> av.VideoFrame:
    """The picture with what is at (x, y) shown at (a·x + c·y, b·x + d·y) (libavutil/display.h), to the nearest quarter
    turn and mirroring."""
    transposed = abs(a) + abs(d) < abs(b) + abs(c)
    mirrored, flipped = (c < 0, b < 0) if transposed else (a < 0, d < 0)
    turned = mirrored or flipped
    if not (transposed or turned):
        return image
    chosen = blendable_format(pixel_format(image), image.width, image.height)
    across, down = CHROMA_SHIFT[chosen]
    if transposed and across != down:
        chosen = "yuv444p"
    if chosen != image.format.name:
        image = converted(image, chosen)
    width, height = (image.height, image.width) if transposed else (image.width, image.height)
    result = av.VideoFrame(width, height, chosen)
    for index in range(len(image.planes)):
        # OpenCV turns a plane four to ten times as fast as NumPy copies a turned view.
        pixels = cv2.transpose(plane(image, index)) if transposed else plane(image, index)
        plane(result, index)[:] = cv2.flip(pixels, -1 if mirrored and flipped else int(mirrored)) if turned else pixels
    copy_properties(image, result)
    return result


def copy_properties(source: av.VideoFrame, target: av.VideoFrame) -> None:
    """Time and colour properties, everything but the pixels."""
    target.pts = source.pts
    if source.time_base is not None:
        target.time_base = source.time_base
    target.colorspace, target.color_range = source.colorspace, source.color_range
    target.color_primaries, target.color_trc = source.color_primaries, source.color_trc


def converted(
    image: av.VideoFrame,
    pixel_format: str,
    width: int | None = None,
    height: int | None = None,
    colors: Colorimetry | None = None,
) -> av.VideoFrame:
    """The picture in another YUV format, size (bicubic) or colorimetry; its time is kept.

    Without `colors` a YUV picture keeps its own, and any other gets what `Colorimetry.of` takes for granted at its
    height. The result says which it has where that is not what the picture said: FFmpeg's scaler takes everything
    unsaid for BT.601, players do not.
    """
    image = on_host(image)
    own = Colorimetry.of(image) if _is_yuv(image) else None
    if colors is None:
        colors = own or Colorimetry(Colorimetry.of(image).matrix, pixel_format.startswith("yuvj"))
    result = image.reformat(
        width=width,
        height=height,
        format=pixel_format,
        interpolation="BICUBIC",
        threads=1,
        dst_colorspace=_SCALER_MATRICES[colors.matrix],
        dst_color_range=_range(colors),
        **_read_as(own),
    )
    if result is image:
        return image
    result.pts = image.pts
    if image.time_base is not None:
        result.time_base = image.time_base
    if own == colors:
        result.colorspace = image.colorspace
        if image.color_range or not own.full_range:
            result.color_range = image.color_range
    return result


def _is_yuv(image: av.VideoFrame) -> bool:
    own = (image.sw_format if on_device(image) else None) or image.format
    return not own.is_rgb and not own.has_palette and len(own.components) >= 3


def _range(colors: Colorimetry) -> ColorRange:
    return ColorRange.JPEG if colors.full_range else ColorRange.MPEG


def _read_as(colors: Colorimetry | None) -> dict[str, int]:
    if colors is None:
        return {}
    return {"src_colorspace": _SCALER_MATRICES[colors.matrix], "src_color_range": _range(colors)}


def scaler_colors(image: av.VideoFrame) -> dict[str, int]:
    """How FFmpeg's scaler is to read the picture, as arguments of `reformat`: left alone it takes all for BT.601."""
    return _read_as(Colorimetry.of(image) if _is_yuv(image) else None)


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
    shrinking by two or more it averages (AREA), since sampling alone loses thin objects. The scaler writes planes: to
    packed RGB it gives every pair of pixels one chroma and rounds down, 2 levels off on average and a third slower.
    """
    if on_device(image):
        return cast("UInt8", network_inputs([image], height, width)[0])
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
    green, blue, red = (plane(small, index) for index in range(3))
    return cast("UInt8", cv2.merge([red, green, blue]))


def network_inputs(
    images: Sequence[av.VideoFrame],
    height: int,
    width: int,
    stay: bool = False,
    degraded: Callable[[Degraded], None] = lambda _what: None,
) -> list[Any]:
    """`network_input` of several pictures; those in GPU memory are all converted in one launch.

    Where they may `stay`, their inputs lie in GPU memory, too: as PyTorch's tensors of the same shape and type. Where
    the GPU has no room they are made on the CPU, and `degraded` is told.
    """
    device = [image for image in images if stays_on_device(image)]
    if not device:
        return [network_input(on_host(image), height, width) for image in images]
    from pipeline import device_pictures  # torch

    try:
        made = iter(device_pictures.network_inputs(device, height, width, stay))
    except device_pictures.OutOfMemory:
        degraded(device_pictures.no_room("model inputs"))
        return [network_input(on_host(image), height, width) for image in images]
    return [next(made) if stays_on_device(image) else network_input(on_host(image), height, width) for image in images]


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
