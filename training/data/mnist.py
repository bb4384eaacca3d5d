"""MNIST's idx files, and three data sets that code makes of them: foreground masks, enclosing circles, mosaics.

What a network is to find is a function of the picture: nothing is annotated, and a moved or turned digit has an exact
answer, too. Coordinates: pixel (x, y) covers [x, x+1) × [y, y+1), x right, y down, so its centre is at x + ½, y + ½.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import ClassInfo
from engines.errors import SourceError
from engines.tools.pictures import is_file
from training.data.nesting import lies_below

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Split = Literal["train", "fit", "dev", "test"]

SIDE = 28
"""Height and width of a digit's picture, in pixels."""

DIGITS = 10
BACKGROUND = 10
"""The class of a mosaic's pixels that belong to no digit."""

DEV_DIGITS = 5000
"""The last so many digits of the training files are `dev`, the others `fit`. The files go by writer, so that hardly
anybody wrote in both parts."""

_FILES = {"train": "train", "fit": "train", "dev": "train", "test": "t10k"}
_UNSIGNED_BYTE = 0x08
_CHUNK = 1024

_COLORS = (
    (230, 25, 75), (60, 180, 75), (255, 225, 25), (67, 99, 216), (245, 130, 49), (145, 30, 180), (70, 240, 240),
    (240, 50, 230), (188, 246, 12), (250, 190, 190),
)  # fmt: skip

DIGIT_CLASSES = tuple(ClassInfo(digit, str(digit), color) for digit, color in enumerate(_COLORS))
"""Ten classes, each of the id of its digit."""

LICENCE = "MNIST: CC BY-SA 3.0 as usually given"

MOSAIC_CLASSES = (*DIGIT_CLASSES, ClassInfo(BACKGROUND, "background", (0, 0, 0)))
FOREGROUND_CLASSES = (ClassInfo(0, "background", (0, 0, 0)), ClassInfo(1, "digit", (255, 225, 25)))


@dataclass(frozen=True)
class Digits:
    """Pictures and what they show.

    Attributes:
        pictures: (N, 28, 28) uint8, ink bright on black.
        labels: (N,) uint8, 0 to 9.
    """

    pictures: UInt8
    labels: UInt8

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def masks(self) -> UInt8:
        """(N, 28, 28) uint8: 1 on the ink; see `foreground_masks`."""
        return foreground_masks(self.pictures)

    @cached_property
    def circles(self) -> Float32:
        """(N, 3) float32: the smallest circle around each mask; see `enclosing_circles`."""
        return enclosing_circles(self.masks)


@dataclass(frozen=True)
class Sheets:
    """Grey pictures and their class maps: single digits, or mosaics of them.

    Attributes:
        grey: (N, H, W) uint8.
        labels: (N, H, W) uint8 class ids.
        names: of the pictures, for people.
        digits: what they are made of.
    """

    grey: UInt8
    labels: UInt8
    names: tuple[str, ...]
    digits: Digits

    protocol = "masks by the threshold of least within-class sum of squares, of each digit's own picture"

    @property
    def photos(self) -> UInt8:
        """(N, H, W, 3) uint8 RGB, read-only: three times the same."""
        return as_rgb(self.grey)

    def __len__(self) -> int:
        return len(self.grey)


def as_rgb(grey: UInt8) -> UInt8:
    """(N, H, W) uint8 → (N, H, W, 3) uint8, read-only, without a copy."""
    return np.broadcast_to(grey[..., None], (*grey.shape, 3))


def foreground_sheets(digits: Digits, split: str) -> Sheets:
    """Digits with their masks: class 1 is the ink, 0 the rest."""
    return Sheets(digits.pictures, digits.masks, _numbered(split, len(digits)), digits)


def mosaic_sheets(digits: Digits, split: str, seed: int = 0) -> Sheets:
    """Mosaics of four digits, each digit of the split in one of them; see `MOSAIC_CLASSES`.

    The split is made before: a mosaic holds digits of its own part of MNIST only.

    Raises:
        SourceError: there are fewer than four digits.
    """
    if len(digits) < 4:
        raise SourceError(f"{split} holds {len(digits)} digits and a mosaic takes four; fetch MNIST's own files")
    picks = mosaic_picks(len(digits), seed)
    maps = class_maps(digits.masks, digits.labels)
    names = tuple(f"{split} " + " ".join(map(str, four)) for four in picks.tolist())
    return Sheets(compose(digits.pictures, picks), compose(maps, picks), names, digits)


def _numbered(split: str, number: int) -> tuple[str, ...]:
    return tuple(f"{split} {i}" for i in range(number))


def read_idx(path: Path, dimensions: int) -> UInt8:
    """Read an idx file of unsigned bytes, gzipped or not (format: yann.lecun.com/exdb/mnist, at the foot).

    Args:
        path: of the file; `.gz` is unpacked.
        dimensions: how many it is to have: 3 for pictures, 1 for labels.

    Raises:
        SourceError: no such file, a damaged gzip, another magic number, or more or fewer bytes than announced.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise SourceError(f"there is no {path}; wanted are MNIST's four idx files, gzipped or not") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path} is a damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); give a folder with MNIST's idx files") from None
    magic, head = bytes((0, 0, _UNSIGNED_BYTE, dimensions)), 4 + 4 * dimensions
    if content[:4] != magic or len(content) < head:
        raise SourceError(
            f"{path} starts with {content[:4].hex() or 'nothing'} where {magic.hex()} is wanted: it is no idx file of "
            f"unsigned bytes in {dimensions} dimensions; put MNIST's own file there"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    if math.prod(shape) != len(content) - head:
        sizes = "×".join(map(str, shape))
        raise SourceError(
            f"{path} announces {sizes} bytes and holds {len(content) - head}; it is cut off or damaged: fetch it again"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def load_digits(root: Path, split: Split) -> Digits:
    """Read a split into memory.

    Args:
        root: the folder of the four idx files, gzipped or not.
        split: `fit` and `dev` are the two parts of `train`; see `DEV_DIGITS`.

    Raises:
        SourceError: a file is missing or damaged, or pictures and labels do not belong together.
    """
    name = f"{_FILES[split]}-images-idx3-ubyte"
    pictures_path = _find(root, name)
    if not is_file(pictures_path) and (below := lies_below(root, lambda path: is_file(_find(path, name)))):
        raise SourceError(f"{root} holds no {name}{below}")
    labels_path = _find(root, f"{_FILES[split]}-labels-idx1-ubyte")
    pictures, labels = read_idx(pictures_path, 3), read_idx(labels_path, 1)
    if pictures.shape[1:] != (SIDE, SIDE):
        height, width = pictures.shape[1:]
        raise SourceError(f"{pictures_path} holds pictures of {width}×{height} pixels; MNIST's have {SIDE}×{SIDE}")
    if len(pictures) != len(labels):
        raise SourceError(
            f"{pictures_path} holds {len(pictures)} pictures and {labels_path.name} {len(labels)} labels; fetch both "
            f"again"
        )
    if not len(labels):
        raise SourceError(f"{labels_path} holds no digits; fetch MNIST's own files")
    if labels.max() >= DIGITS:
        raise SourceError(f"{labels_path} holds the label {labels.max()}; MNIST's go from 0 to {DIGITS - 1}")
    if split in ("fit", "dev") and len(labels) == 1:
        raise SourceError(f"{labels_path} holds one digit, which cannot be divided into fit and dev; fetch it again")
    # A set smaller than MNIST (a test's) keeps at least one digit in each part.
    first_dev = len(labels) - min(DEV_DIGITS, max(len(labels) // 12, 1))
    match split:
        case "fit":
            return Digits(pictures[:first_dev], labels[:first_dev])
        case "dev":
            return Digits(pictures[first_dev:], labels[first_dev:])
        case _:
            return Digits(pictures, labels)


def _find(root: Path, name: str) -> Path:
    plain = root / name
    return plain if plain.exists() else root / f"{name}.gz"


def foreground_thresholds(pictures: UInt8) -> UInt8:
    """The threshold of each picture that minimises the within-class sum of squares (Otsu 1979), exactly.

    The sum over both classes of squared distances to the class's mean is the total less n₀·n₁·(m₁ − m₀)²/n, so the
    largest of the latter over all 256 thresholds is looked for; of equals, the lowest wins.

    Args:
        pictures: (N, H, W) uint8.

    Returns:
        (N,) uint8: what is brighter than it is foreground. A picture of one grey level has no foreground.
    """
    thresholds = np.empty(len(pictures), np.uint8)
    levels = np.arange(256)
    for start in range(0, len(pictures), _CHUNK):
        flat = pictures[start : start + _CHUNK].reshape(-1, math.prod(pictures.shape[1:]))
        total = flat.shape[1]
        places = np.arange(len(flat))[:, None] * 256 + flat
        histograms = np.bincount(places.ravel(), minlength=len(flat) * 256).reshape(-1, 256)
        below, sums = histograms.cumsum(1), (histograms * levels).cumsum(1)
        between = (sums[:, -1:] * below - sums * total).astype(np.float64) ** 2
        sizes = below * (total - below)
        found = np.divide(between, sizes, out=np.zeros_like(between), where=sizes > 0).argmax(1)
        found[(histograms > 0).sum(1) < 2] = 255
        thresholds[start : start + _CHUNK] = found
    return thresholds


def foreground_masks(pictures: UInt8) -> UInt8:
    """(N, H, W) uint8 pictures → (N, H, W) uint8 masks: 1 above the picture's threshold, 0 elsewhere."""
    return (pictures > foreground_thresholds(pictures)[:, None, None]).astype(np.uint8)


def enclosing_circles(masks: UInt8) -> Float32:
    """The smallest circle around the centres of each mask's pixels (Welzl 1991, as OpenCV has it).

    Args:
        masks: (N, H, W) uint8, not 0 where foreground is.

    Returns:
        (N, 3) float32: centre x and y, radius, in pixels; the circle may reach beyond the frame. A mask without
        foreground gets radius 0 in the middle of the frame.
    """
    height, width = masks.shape[1:]
    circles = np.empty((len(masks), 3), np.float32)
    for circle, mask in zip(circles, masks, strict=True):
        points = cv2.findNonZero(mask)
        if points is None:
            circle[:] = width / 2, height / 2, 0
            continue
        (x, y), radius = cv2.minEnclosingCircle(points)
        circle[:] = x + 0.5, y + 0.5, radius
    return circles


def class_maps(masks: UInt8, labels: UInt8) -> UInt8:
    """(N, H, W) uint8 masks and (N,) uint8 digits → (N, H, W) uint8 classes, `BACKGROUND` off the mask."""
    return np.where(masks > 0, labels[:, None, None], np.uint8(BACKGROUND)).astype(np.uint8)


def mosaic_picks(digits: int, seed: int) -> Int64:
    """Every digit of a split once, four to a mosaic, in seeded order: (digits // 4, 4) int64; up to three stay over."""
    order = np.random.default_rng(seed).permutation(digits)
    return order[: digits // 4 * 4].reshape(-1, 4)


def compose(tiles: UInt8, picks: Int64) -> UInt8:
    """Tiles laid together two by two.

    Args:
        tiles: (N, h, w) uint8 pictures or class maps.
        picks: (M, 4) int64: which lie top left, top right, bottom left, bottom right.

    Returns:
        (M, 2h, 2w) uint8.
    """
    height, width = tiles.shape[1:]
    grid = tiles[picks].reshape(-1, 2, 2, height, width).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(grid).reshape(-1, 2 * height, 2 * width)


class Distortion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ranges of `distort`: turned by up to `rotation` degrees, made larger or smaller by up to the share `scale`,
    slanted by up to `shear` pixels a pixel, moved by up to `shift` pixels; a `share` of the digits, the others stay."""

    rotation: Annotated[float, msgspec.Meta(ge=0, le=45)] = 12.0
    scale: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    shear: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    shift: Annotated[float, msgspec.Meta(ge=0)] = 1.5
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.7


def distort(picture: UInt8, rng: np.random.Generator, options: Distortion) -> UInt8:
    """A digit somewhat turned, scaled, slanted and moved about the middle of its frame, black around.

    Mask and circle of the result are found as those of any picture are, so that they are exact.

    Args:
        picture: (H, W) uint8.
        rng: source of randomness; the result is a pure function of its state.
        options: ranges.
    """
    if rng.random() >= options.share:
        return picture
    angle = np.deg2rad(rng.uniform(-options.rotation, options.rotation))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    slant = np.array([[1, rng.uniform(-options.shear, options.shear)], [0, 1]])
    linear = rng.uniform(1 - options.scale, 1 + options.scale) * turn @ slant
    height, width = picture.shape
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    offset = middle - linear @ middle + rng.uniform(-options.shift, options.shift, 2)
    matrix = np.concatenate([linear, offset[:, None]], axis=1)
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def draw_circle(picture: UInt8, circle: NDArray[np.floating], digit: int, scale: int = 4) -> UInt8:
    """A picture made larger, with a circle in the colour of its class.

    Args:
        picture: (H, W, 3) uint8 RGB.
        circle: (3,) centre x and y, radius, in pixels of `picture`.
        digit: whose colour the circle gets.
        scale: how much larger.

    Returns:
        (scale·H, scale·W, 3) uint8 RGB.
    """
    height, width = picture.shape[:2]
    canvas = cv2.resize(picture, (width * scale, height * scale), interpolation=cv2.INTER_NEAREST)
    # OpenCV counts from the centre of the first pixel; 4 more bits are a sixteenth of a pixel.
    x, y, radius = (round(float(value) * 16) for value in (*(circle[:2] * scale - 0.5), circle[2] * scale))
    cv2.circle(canvas, (x, y), max(radius, 0), DIGIT_CLASSES[digit].color, 1, cv2.LINE_AA, shift=4)
    return canvas.astype(np.uint8, copy=False)
