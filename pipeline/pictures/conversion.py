"""Pictures as the decoder left them: views of their planes, and the few conversions that are ever made of them."""

from __future__ import annotations

import math
import struct
from typing import cast

import av
import cv2
from av.sidedata.sidedata import SideDataContainer

from pipeline.pictures.colors import SCALER_MATRICES, Colorimetry, is_yuv, read_as, scaler_range
from pipeline.pictures.picture import Picture
from pipeline.pictures.planes import CHROMA_SHIFT, copy_properties, pixel_format, plane


def display_matrix(image: av.VideoFrame) -> tuple[float, float, float, float]:
    """(a, b, c, d) of the picture's display matrix: what is at (x, y) is shown at (a·x + c·y, b·x + d·y)
    (libavutil/display.h). (1, 0, 0, 1) where there is none."""
    try:
        # `image.side_data` and the picture would hold each other until the collector runs.
        matrix = SideDataContainer(image).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # missing in PyAV's stub
    except ValueError:
        # PyAV refuses to list side data of which it does not know one kind (Exif); the rotation it knows regardless.
        return _rotation(image.rotation)
    if matrix is None:
        return 1, 0, 0, 1
    numbers = struct.unpack("=9i", cast("bytes", matrix))
    return numbers[0], numbers[1], numbers[3], numbers[4]


def transposes(matrix: tuple[float, float, float, float]) -> bool:
    """Whether a display matrix swaps width and height."""
    a, b, c, d = matrix
    return abs(a) + abs(d) < abs(b) + abs(c)


def _rotation(degrees: float) -> tuple[float, float, float, float]:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return cosine, -sine, sine, cosine


def oriented(image: av.VideoFrame, a: float, b: float, c: float, d: float) -> av.VideoFrame:
    """The picture with what is at (x, y) shown at (a·x + c·y, b·x + d·y) (libavutil/display.h), to the nearest quarter
    turn and mirroring."""
    transposed = transposes((a, b, c, d))
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
    image = Picture.of(image).on_host()
    own = Colorimetry.of(image) if is_yuv(image) else None
    if colors is None:
        colors = own or Colorimetry(Colorimetry.of(image).matrix, pixel_format.startswith("yuvj"))
    result = image.reformat(
        width=width,
        height=height,
        format=pixel_format,
        interpolation="BICUBIC",
        threads=1,
        dst_colorspace=SCALER_MATRICES[colors.matrix],
        dst_color_range=scaler_range(colors),
        **read_as(own),
    )
    if result is image:
        return image
    result.pts = image.pts
    if image.time_base:
        result.time_base = image.time_base
    if own == colors:
        result.colorspace = image.colorspace
        if image.color_range or not own.full_range:
            result.color_range = image.color_range
        result.color_primaries, result.color_trc = image.color_primaries, image.color_trc
    return result


def fitted(
    image: av.VideoFrame, pixel_format: str, width: int, height: int, aspect: float, colors: Colorimetry | None = None
) -> av.VideoFrame:
    """The whole picture in the middle of a black one.

    Args:
        pixel_format: one that can be blended.
        width, height: of the result, in pixels.
        aspect: how many times wider than high the picture shall be in pixels of the result.
        colors: as for `converted`.
    """
    across, down = CHROMA_SHIFT[pixel_format]
    inner_width = min(width, max(1 << across, round(height * aspect) >> across << across))
    inner_height = min(height, max(1 << down, round(width / aspect) >> down << down))
    inner = converted(image, pixel_format, inner_width, inner_height, colors)
    result = av.VideoFrame(width, height, pixel_format)
    left, top = (width - inner_width) // 2 >> across << across, (height - inner_height) // 2 >> down << down
    black = 0 if Colorimetry.of(inner).full_range else 16
    for index in range(len(inner.planes)):
        x, y = (left >> across, top >> down) if index else (left, top)
        target, pixels = plane(result, index), plane(inner, index)
        target[:] = 128 if index else black
        target[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
    copy_properties(inner, result)
    return result


def for_players(pixel_format: str, width: int, height: int) -> str:
    """The 4:2:0 twin of a format that can be blended, which is what players take; itself where the size is odd."""
    chosen = "yuvj420p" if pixel_format.startswith("yuvj") else "nv12" if pixel_format == "nv12" else "yuv420p"
    return pixel_format if width % 2 or height % 2 else chosen


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
