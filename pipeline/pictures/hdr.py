"""Light: what the colours of a picture are by its transfer and its primaries, and the same colours by others.

Models know pictures as displays of standard range show them, and a stream is of one kind of light: its first picture's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.pictures.colors import scaler_colors
from pipeline.pictures.planes import UInt8, plane

Float = NDArray[np.float32]

TRANSFERS = {16: "PQ", 18: "HLG"}
"""HDR by its AVColorTransferCharacteristic (libavutil/pixfmt.h): SMPTE ST 2084 and ARIB STD-B67, both in BT.2100."""

_WHITE = 203.0
"""cd/m² of diffuse white (ITU-R BT.2408-7)."""

_GAMMA = 2.2
"""Of a display of standard range."""

_STEPS = 4096

# Red, green and blue, CIE 1931 x and y, all with D65 as white, by AVColorPrimaries (ITU-T H.273, table 2).
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_D65 = (0.3127, 0.3290)


@dataclass(frozen=True, slots=True)
class Light:
    """How values of red, green and blue are light.

    Attributes:
        transfer: a key of `TRANSFERS`; 0 for standard range, whichever of its transfers.
        primaries: a key of `_PRIMARIES`; 0 where the picture does not say.
    """

    transfer: int
    primaries: int

    @classmethod
    def of(cls, image: av.VideoFrame) -> Light:
        transfer = image.color_trc if image.color_trc in TRANSFERS else 0
        primaries = image.color_primaries if image.color_primaries in _PRIMARIES else 0
        return cls(transfer, primaries or 9 if transfer else primaries)

    def is_like(self, other: Light) -> bool:
        """Whether the same values are the same light, as far as both say."""
        one, two = _PRIMARIES.get(self.primaries), _PRIMARIES.get(other.primaries)
        return self.transfer == other.transfer and (one is None or two is None or one == two)


STANDARD = Light(0, 1)
"""What models know: standard range, BT.709."""


def tone_mapped(rgb: UInt8, transfer: int) -> UInt8:
    """A picture of PQ or HLG as one of standard range.

    Args:
        rgb: (height, width, 3) uint8 RGB, BT.2020 primaries.
        transfer: a key of `TRANSFERS`; a picture of any other is handed back as it is.

    Returns:
        (height, width, 3) uint8 RGB, BT.709 primaries, diffuse white at about 200; brighter light is rolled off.
    """
    return relit(rgb, Light(transfer, 9), STANDARD) if transfer in TRANSFERS else rgb


def relit(rgb: UInt8, own: Light, wanted: Light) -> UInt8:
    """A picture as values of another light.

    From HDR to standard range by Reinhard's curve with a white point of ten times diffuse white, stretched so that
    diffuse white is bright. From standard range to HDR its white becomes diffuse white (ITU-R BT.2408-7).

    Args:
        rgb: (height, width, 3) uint8 RGB.
        own: its light.
        wanted: that of the result.
    """
    light = cast("Float", cv2.LUT(rgb, _linear(own.transfer)))
    light = cast("Float", cv2.transform(light, _between(own.primaries or 1, wanted.primaries or 1)))
    brightest, values = _coded(own.transfer, wanted.transfer)
    # Steps are even in the square root of light, nearly as eyes see.
    steps = np.sqrt(np.clip(light, 0, brightest) * (1 / brightest)) * (_STEPS - 1)
    return cast("UInt8", values[np.round(steps).astype(np.uint16)])


def relit_frame(image: av.VideoFrame, wanted: Light, transfer: int, primaries: int) -> av.VideoFrame:
    """A picture in host memory as RGB of another light.

    Args:
        image: YUV or RGB.
        wanted: the light of the result.
        transfer, primaries: what the result is to say of itself, as FFmpeg numbers it.
    """
    apart = image.reformat(format="gbrp", threads=1, **scaler_colors(image))
    green, blue, red = (plane(apart, index) for index in range(3))
    result = av.VideoFrame.from_ndarray(relit(cast("UInt8", cv2.merge([red, green, blue])), Light.of(image), wanted))
    result.pts, result.color_trc, result.color_primaries = image.pts, transfer, primaries
    if image.time_base:
        result.time_base = image.time_base
    return result


@functools.cache
def _linear(transfer: int) -> Float:
    """Light by code value, 1 at diffuse white (ITU-R BT.2100-2, tables 4 and 5)."""
    signal = np.arange(256) / 255
    if transfer == 16:
        m1, m2, c1, c2, c3 = _PQ
        power = signal ** (1 / m2)
        light = 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) / _WHITE
    elif transfer == 18:
        a, b, c = _HLG
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = 1000 * scene**1.2 / _WHITE
    else:
        light = signal**_GAMMA
    return light.astype(np.float32)


_PQ = (2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128)
_HLG = (0.17883277, 0.28466892, 0.55991073)


@functools.cache
def _coded(own: int, wanted: int) -> tuple[float, UInt8]:
    """The brightest light there is, and code values by the square root of light up to that, in even steps."""
    brightest = float(_linear(own)[-1]) if own else 1.0
    light = brightest * np.linspace(0, 1, _STEPS) ** 2
    if wanted == 16:
        m1, m2, c1, c2, c3 = _PQ
        power = (light * _WHITE / 10_000) ** m1
        signal = ((c1 + c2 * power) / (1 + c3 * power)) ** m2
    elif wanted == 18:
        a, b, c = _HLG
        scene = np.minimum(light * _WHITE / 1000, 1) ** (1 / 1.2)
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    else:
        mapped = np.minimum(1.25 * light * (1 + light / 100) / (1 + light), 1) if own else light
        signal = mapped ** (1 / _GAMMA)
    return brightest, np.round(255 * np.clip(signal, 0, 1)).astype(np.uint8)


@functools.cache
def _between(own: int, wanted: int) -> Float:
    """The matrix from linear light of one kind of primaries to that of another (SMPTE RP 177)."""
    return (np.linalg.inv(_to_xyz(wanted)) @ _to_xyz(own)).astype(np.float32)


def _to_xyz(primaries: int) -> NDArray[np.float64]:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _PRIMARIES[primaries]]).T
    x, y = _D65
    return cast("NDArray[np.float64]", columns * np.linalg.solve(columns, (x / y, 1, (1 - x - y) / y)))
