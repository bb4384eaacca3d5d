"""Random views of a labelled picture, made with OpenCV on uint8: about a millisecond for 256×256."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE

UInt8 = NDArray[np.uint8]


def affine(
    height: int, width: int, rng: np.random.Generator, scale: tuple[float, float], aspect: float
) -> NDArray[np.float32]:
    """A random mirroring, zoom, stretch and shift of a picture: (2, 3), from the picture's pixels to the view's.

    Args:
        height, width: of the picture and of its view.
        rng: source of randomness; the result is a pure function of its state.
        scale: range of the zoom, drawn log-uniformly.
        aspect: largest relative stretch of width against height.
    """
    zoom = float(np.exp(rng.uniform(np.log(scale[0]), np.log(scale[1]))))
    stretch = float(np.exp(rng.uniform(-np.log1p(aspect), np.log1p(aspect))))
    sx, sy = zoom * stretch**0.5, zoom / stretch**0.5
    # Where the view is larger than the frame the spare pixels are on both sides; where smaller, it may lie anywhere.
    tx = rng.uniform(min(0.0, width * (1 - sx)), max(0.0, width * (1 - sx)))
    ty = rng.uniform(min(0.0, height * (1 - sy)), max(0.0, height * (1 - sy)))
    if rng.random() < 0.5:
        return np.array([[-sx, 0, tx + sx * (width - 1)], [0, sy, ty]], np.float32)
    return np.array([[sx, 0, tx], [0, sy, ty]], np.float32)


def stretched(matrix: NDArray[np.float32], picture: UInt8, size: tuple[int, int]) -> NDArray[np.float32]:
    """`matrix` for a picture that is stretched to the view's size first: (2, 3), from the picture's own pixels.

    Args:
        matrix: of `affine`, for a picture of the view's size.
        picture: (H, W) or (H, W, 3).
        size: height and width of the view.
    """
    scale = np.array([size[1] / picture.shape[1], size[0] / picture.shape[0]])
    # Pixels are counted from the centre of the first, which lies half a pixel inside.
    shift = matrix[:, :2] @ (scale / 2 - 0.5) + matrix[:, 2]
    return np.column_stack([matrix[:, :2] * scale, shift]).astype(np.float32)


def warp(
    image: UInt8, label: UInt8, matrix: NDArray[np.float32], size: tuple[int, int] | None = None,
    outside: int = IGNORE,
) -> tuple[UInt8, UInt8]:  # fmt: skip
    """A view of a picture and its label alike; what falls outside is black.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) uint8, 255 ignored.
        matrix: of `affine` or `stretched`.
        size: height and width of the view; those of the label if left out.
        outside: label of what falls outside.
    """
    height, width = size or label.shape
    view = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    truth = cv2.warpAffine(label, matrix, (width, height), flags=cv2.INTER_NEAREST, borderValue=(outside,))
    return view.astype(np.uint8, copy=False), truth.astype(np.uint8, copy=False)


def random_geometry(
    image: UInt8, label: UInt8, rng: np.random.Generator, scale: tuple[float, float], aspect: float
) -> tuple[UInt8, UInt8]:
    """A random view of a picture and its label; see `affine` and `warp`."""
    return warp(image, label, affine(label.shape[0], label.shape[1], rng, scale, aspect))


def random_photometry(image: UInt8, rng: np.random.Generator, strength: float) -> UInt8:
    """Gamma, contrast, brightness and colour cast through one look-up table a channel, then saturation and blur.

    Cameras differ from the one that took the set: a dash-cam is brighter, more saturated and compressed.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: source of randomness.
        strength: 0 changes nothing; 1 is strong.
    """
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    gamma = np.exp(rng.uniform(-0.5, 0.5) * strength)
    contrast = 1 + rng.uniform(-0.4, 0.5) * strength
    brightness = rng.uniform(-0.15, 0.2) * strength
    cast = 1 + rng.uniform(-0.12, 0.12, size=(1, 3)).astype(np.float32) * strength
    table = ((ramp**gamma - 0.4) * contrast + 0.4 + brightness) * cast
    lut = np.clip(np.rint(table * 255), 0, 255).astype(np.uint8).reshape(1, 256, 3)
    result = cv2.LUT(image, lut)
    saturation = 1 + rng.uniform(-0.6, 0.8) * strength
    gray = cv2.cvtColor(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    result = cv2.addWeighted(result, saturation, gray, 1 - saturation, 0)
    if rng.random() < 0.25 * strength:
        result = cv2.GaussianBlur(result, (3, 3), 0)
    return result.astype(np.uint8, copy=False)


def random_damage(image: UInt8, rng: np.random.Generator) -> UInt8:
    """One of what bad light, a cheap camera and a low bit rate do to a picture: dusk, noise, loss of detail, JPEG.

    Args:
        image: (H, W, 3) uint8 RGB.
        rng: source of randomness.
    """
    kind = rng.integers(4)
    if kind == 0:
        level = np.linspace(0, 1, 256) ** rng.uniform(1.3, 2.8) * rng.uniform(100, 255)
        dark = cv2.LUT(image, np.rint(level).astype(np.uint8))
        return np.asarray(cv2.add(dark, rng.integers(0, rng.integers(2, 12), image.shape, np.uint8)), np.uint8)
    if kind == 1:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(3, 16))
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    if kind == 2:
        height, width = image.shape[:2]
        share = rng.uniform(0.35, 0.8)
        small = cv2.resize(image, (int(width * share), int(height * share)), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(8, 50))])
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
