"""How a stream's YUV is to be read: matrix, range and the tags that say so."""

from __future__ import annotations

from dataclasses import dataclass

import av
from av.video.reformatter import ColorRange, Colorspace

from pipeline.pictures.planes import own_format, pixel_format

# AVColorSpace and AVColorRange of FFmpeg (libavutil/pixfmt.h); PyAV's enums leave some of them out.
# SMPTE 240M (7) is far nearer to BT.709 than to BT.601.
_MATRICES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}
SCALER_MATRICES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
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


def is_yuv(image: av.VideoFrame) -> bool:
    """Whether the pixels are luma and two chroma components."""
    own = own_format(image)
    return not own.is_rgb and not own.has_palette and len(own.components) >= 3


def scaler_range(colors: Colorimetry) -> ColorRange:
    """The range as FFmpeg's scaler takes it."""
    return ColorRange.JPEG if colors.full_range else ColorRange.MPEG


def read_as(colors: Colorimetry | None) -> dict[str, int]:
    """How FFmpeg's scaler is to read YUV of these colours, as arguments of `reformat`; nothing for what is no YUV."""
    if colors is None:
        return {}
    return {"src_colorspace": SCALER_MATRICES[colors.matrix], "src_color_range": scaler_range(colors)}


def scaler_colors(image: av.VideoFrame) -> dict[str, int]:
    """How FFmpeg's scaler is to read the picture, as arguments of `reformat`: left alone it takes all for BT.601."""
    return read_as(Colorimetry.of(image) if is_yuv(image) else None)
