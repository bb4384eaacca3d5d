"""Random views of a picture with a box: crops that keep the box, a turn, a mirror, other light."""

from __future__ import annotations

from typing import Annotated

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from training.data.augmentation import random_photometry

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Share = Annotated[float, msgspec.Meta(gt=0)]

_GREY = (114, 114, 114)


class BoxViews(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ranges of the random views.

    `crop`: side of what is cut out, as a share of the picture's, drawn log-uniformly; above 1 the picture stands on
    grey. `aspect`: largest relative stretch of width against height. `turn`: largest angle in degrees. `photometry`:
    see `random_photometry`. `erase`: probability that a rectangle outside the box is painted grey.
    """

    crop: tuple[Share, Share] = (0.4, 1.15)
    aspect: Annotated[float, msgspec.Meta(ge=0)] = 0.25
    turn: Annotated[float, msgspec.Meta(ge=0, le=45)] = 12.0
    photometry: Annotated[float, msgspec.Meta(ge=0)] = 0.7
    erase: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


def random_box_view(
    photo: UInt8, box: Float32 | None, rng: np.random.Generator, options: BoxViews, height: int, width: int
) -> tuple[UInt8, Float32]:
    """A random view; the whole box is in what is cut out, and only a turn can push a corner of it over the edge.

    A turned box is taken for the ellipse inside it: the new box holds the turned ellipse, where one around the turned
    corners would grow with the angle. Heads are rounder than boxes.

    Args:
        photo: (H, W, 3) uint8 RGB, any size.
        box: (4,) xyxy fractions, or None.
        rng: source of randomness; the result is a pure function of its state.
        options: ranges.
        height, width: of the view.

    Returns:
        The view, (height, width, 3) uint8, and its box, (4,) float32 xyxy fractions; NaN without one.
    """
    crop = _random_crop(None if box is None else box.astype(np.float64), rng, options)
    angle = np.deg2rad(rng.uniform(-options.turn, options.turn)) if rng.random() < 0.5 else 0.0
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    left, top, across, down = crop
    # Fractions of the picture → of the view, whose middle it is turned around.
    scale = np.array([mirror / across, 1 / down])
    middle = np.array([left + across / 2, top + down / 2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # The turn is in the view's pixels, which need not be square in fractions.
    sides = np.array([width, height], np.float64)
    linear = (turn * sides[None, :] / sides[:, None]) * scale[None, :]
    shift = 0.5 - linear @ middle
    source = np.array([photo.shape[1], photo.shape[0]], np.float64)
    # Of pixel centres, which lie half a pixel inside.
    matrix = linear * sides[:, None] / source[None, :]
    offset = shift * sides - 0.5 + matrix @ np.array([0.5, 0.5])
    warped = cv2.warpAffine(
        photo, np.column_stack([matrix, offset]), (width, height), flags=cv2.INTER_LINEAR, borderValue=_GREY
    )  # fmt: skip
    view: UInt8 = warped.astype(np.uint8, copy=False)
    if box is None:
        seen = np.full(4, np.nan, np.float32)
    else:
        centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
        moved = linear @ centre + shift
        reach = np.sqrt(((linear * half[None, :]) ** 2).sum(1))
        seen = np.concatenate([moved - reach, moved + reach]).clip(0, 1).astype(np.float32)
    if options.erase and rng.random() < options.erase:
        view = _erase(view, seen, rng)
    return random_photometry(view, rng, options.photometry), seen


def _random_crop(
    box: NDArray[np.float64] | None, rng: np.random.Generator, options: BoxViews
) -> tuple[float, float, float, float]:
    """Left, top, width and height of what is cut out, in fractions of the picture."""
    side = float(np.exp(rng.uniform(*np.log(options.crop))))
    stretch = float(np.exp(rng.uniform(-np.log1p(options.aspect), np.log1p(options.aspect)) / 2))
    places = []
    for axis, wanted in ((0, side * stretch), (1, side / stretch)):
        low, high = (0.5, 0.5) if box is None else (float(box[axis]), float(box[axis + 2]))
        extent = max(wanted, min(1.0, 1.05 * (high - low)))
        if extent >= 1:
            start = rng.uniform(1 - extent, 0.0)
        elif box is None:
            start = rng.uniform(0.0, 1 - extent)
        else:
            start = rng.uniform(max(0.0, high - extent), min(low, 1 - extent))
        places.append((start, extent))
    (left, across), (top, down) = places
    return left, top, across, down


def _erase(view: UInt8, box: Float32, rng: np.random.Generator) -> UInt8:
    """Paint a rectangle of 5 to 20 % of the picture grey, unless it would hide more than a quarter of the box."""
    height, width = view.shape[:2]
    area, stretch = rng.uniform(0.05, 0.2), float(np.exp(rng.uniform(-0.7, 0.7)))
    across, down = min((area * stretch) ** 0.5, 0.9), min((area / stretch) ** 0.5, 0.9)
    left, top = rng.uniform(0, 1 - across), rng.uniform(0, 1 - down)
    if np.isfinite(box).all():
        shared = max(0.0, min(left + across, box[2]) - max(left, box[0]))
        shared *= max(0.0, min(top + down, box[3]) - max(top, box[1]))
        if shared > 0.25 * (box[2] - box[0]) * (box[3] - box[1]):
            return view
    result = view.copy()
    result[int(top * height) : int((top + down) * height), int(left * width) : int((left + across) * width)] = _GREY
    return result
