"""Looking over MNIST and what is made of it: counts, balance, circles, and a sheet of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import CheckFailed, SourceError
from training.data.fetch import fetch_mnist as fetch
from training.data.mnist import (
    BACKGROUND,
    DIGITS,
    MOSAIC_CLASSES,
    SIDE,
    Digits,
    Split,
    draw_circle,
    foreground_thresholds,
    load_digits,
    mosaic_sheets,
)

__all__ = ["NAME", "SPLITS", "draw_contact_sheet", "fetch", "inspect", "recognises"]

UInt8 = NDArray[np.uint8]

NAME = "mnist"
SPLITS = ("train", "test", "dev", "fit")

_CAPTION, _MARGIN, _SCALE = 16, 4, 4


class PartReport(msgspec.Struct, frozen=True):
    """The training or the test files.

    Attributes:
        digits: how many.
        shares: of each digit, 0 to 9.
        thresholds: smallest, median and largest grey level above which is ink.
        ink: mean share of a picture's pixels that are ink.
        radius: mean of the enclosing circles', in pixels.
        outside: share of the circles that reach beyond the frame.
        empty: pictures without ink.
    """

    digits: int
    shares: tuple[float, ...]
    thresholds: tuple[int, int, int]
    ink: float
    radius: float
    outside: float
    empty: int


class Report(msgspec.Struct, frozen=True):
    """What `roadlens data check` found. `broken`: one sentence for each part that cannot be read."""

    parts: dict[str, PartReport]
    broken: tuple[str, ...]

    def markdown(self) -> str:
        """The report as a page."""
        lines = []
        for name, part in self.parts.items():
            low, middle, high = part.thresholds
            lines += [
                f"## {name}: {part.digits} digits",
                "",
                f"- ink: {part.ink:.2%} of the pixels, those above a grey level of {low} to {high}, median {middle}",
                f"- enclosing circles: mean radius {part.radius:.2f} pixels, {part.outside:.2%} reach beyond the frame",
                f"- pictures without ink: {part.empty}",
                "",
                "| digit | share |",
                "|---|---:|",
                *(f"| {digit} | {share:.2%} |" for digit, share in enumerate(part.shares)),
                "",
            ]
        return "\n".join([*lines, *(f"- {sentence}" for sentence in self.broken)])

    def raise_if_bad(self, folder: Path) -> None:
        """Raise CheckFailed where a part cannot be read, a digit is missing, or a picture is empty."""
        if self.broken:
            raise CheckFailed(f"{len(self.broken)} of the 2 parts of {folder} cannot be read (named above)")
        for name, part in self.parts.items():
            if missing := [str(digit) for digit, share in enumerate(part.shares) if not share]:
                raise CheckFailed(f"{name} of {folder} holds no {', '.join(missing)}; is the set complete?")
            if part.empty:
                raise CheckFailed(f"{part.empty} pictures of {name} of {folder} show nothing; fetch the files again")


def recognises(folder: Path) -> bool:
    """Whether the training pictures are there, packed or not."""
    return any(folder.glob("train-images-idx3-ubyte*"))


def inspect(folder: Path) -> Report:
    """Read the training and the test files."""
    parts: dict[str, PartReport] = {}
    broken: list[str] = []
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        try:
            parts[split] = _inspect(load_digits(folder, split))
        except SourceError as error:
            broken.append(str(error))
    return Report(parts, tuple(broken))


def _inspect(digits: Digits) -> PartReport:
    thresholds = foreground_thresholds(digits.pictures)
    x, y, radius = digits.circles.T
    outside = (np.minimum(x, y) < radius) | (np.maximum(x, y) + radius > SIDE)
    shares = np.bincount(digits.labels, minlength=DIGITS) / len(digits)
    return PartReport(
        digits=len(digits),
        shares=tuple(shares.tolist()),
        thresholds=(int(thresholds.min()), int(np.median(thresholds)), int(thresholds.max())),
        ink=float(digits.masks.mean()),
        radius=float(radius.mean()),
        outside=float(outside.mean()),
        empty=int((~digits.masks.any((1, 2))).sum()),
    )


def draw_contact_sheet(folder: Path, split: Split, number: int, columns: int = 6) -> UInt8:
    """Digits spread evenly over a split, each beside its mask and its circle, and a mosaic beside its classes for
    every six of them.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the folder is not MNIST, or a file is damaged.
    """
    digits = load_digits(folder, split)
    chosen = np.unique(np.linspace(0, len(digits) - 1, min(number, len(digits))).round().astype(int))
    tiles = [_digit_tile(digits, int(index)) for index in chosen]
    if len(digits) >= 4:
        mosaics = mosaic_sheets(digits, split)
        table = np.array([info.color for info in MOSAIC_CLASSES], np.uint8)
        table[BACKGROUND] = 255
        for index in range(min(-(-len(tiles) // 6), len(mosaics))):
            strip = np.concatenate([mosaics.photos[index], table[mosaics.labels[index]]], axis=1)
            tiles.append(_tile(_enlarged(strip, 2), mosaics.names[index]))
    width = max(tile.shape[1] for tile in tiles)
    tiles = [_padded(tile, width) for tile in tiles]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)


def _digit_tile(digits: Digits, index: int) -> UInt8:
    grey = np.repeat(digits.pictures[index][..., None], 3, axis=2)
    mask = np.where(digits.masks[index][..., None] > 0, np.uint8(255), grey // 4)
    label, circle = int(digits.labels[index]), digits.circles[index]
    strip = np.concatenate(
        [draw_circle(grey, circle, label, _SCALE), cv2.resize(mask, None, fx=_SCALE, fy=_SCALE, interpolation=0)],
        axis=1,
    )
    return _tile(strip, f"{index}: {label}, radius {circle[2]:.1f}")


def _enlarged(picture: UInt8, scale: int) -> UInt8:
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def _tile(strip: UInt8, caption: str) -> UInt8:
    height, width = strip.shape[:2]
    tile = np.full((height + _CAPTION + _MARGIN, width + 2 * _MARGIN, 3), 255, np.uint8)
    tile[_CAPTION : _CAPTION + height, _MARGIN : _MARGIN + width] = strip
    cv2.putText(tile, caption, (_MARGIN, _CAPTION - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (40, 40, 40), 1, cv2.LINE_AA)
    return tile


def _padded(tile: UInt8, width: int) -> UInt8:
    return np.pad(tile, ((0, 0), (0, width - tile.shape[1]), (0, 0)), constant_values=255)
