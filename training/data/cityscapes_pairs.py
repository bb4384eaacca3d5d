"""The Cityscapes image pairs (the Kaggle / pix2pix set): 512×256 JPEG composites, photo left, colour label right.

Both halves were resized from 2:1 to 256×256 and stored as JPEG, so a label's colours are only near the palette's.
Decoding takes the nearest palette colour through a look-up table and ignores what lies too far from any.
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import OutputError, SourceError
from engines.tools.pictures import is_folder, listed, read_picture
from training.data.nesting import lies_below

UInt8 = NDArray[np.uint8]

SIDE = 256
"""Height and width in pixels of each half of a composite."""

MAX_COLOR_DISTANCE = 40.0
"""A label pixel further than this (Euclidean, RGB levels) from every palette colour is ignored."""

MAX_OUTSIDE_PALETTE = 0.3
"""A label with a larger share of pixels further than that from the palette is refused; the set has up to 0.12."""

HOLD_OUT_EVERY = 20
"""Pairs of `train` whose number is a multiple of this are set aside (split `dev`) to choose epochs and settings on."""

_VOID_COLORS = ((0, 0, 0), (111, 74, 0), (81, 0, 81), (250, 170, 160), (230, 150, 140), (180, 165, 180),
                (150, 100, 100), (150, 120, 90), (0, 0, 90), (0, 0, 110))  # fmt: skip
_THIN = np.isin(np.arange(256), [4, 5, 6, 7, 11, 12, 17, 18])
_DECODER_VERSION = 3
_TOO_FAR = 254

Split = Literal["fit", "dev", "train", "val"]


@cache
def _color_table() -> UInt8:
    """(2^24,) uint8: class id of the colour red·2^16 + green·2^8 + blue, 255 for void, 254 too far from the palette.

    Every colour has its own place: 16 MB and about a second, once, instead of 29 distances a pixel.
    """
    palette = np.array([c.color for c in CITYSCAPES_CLASSES] + list(_VOID_COLORS), np.float32)
    ids = np.array([c.id for c in CITYSCAPES_CLASSES] + [IGNORE] * len(_VOID_COLORS), np.uint8)
    axis = np.arange(256, dtype=np.float32)
    green, blue = np.meshgrid(axis, axis, indexing="ij")
    table = np.empty((256, 65536), np.uint8)
    for red in range(256):
        colors = np.stack([np.full(65536, red, np.float32), green.ravel(), blue.ravel()], axis=1)
        # |c|² − 2c·p + |p|² in whole numbers below 2^24: exact in float32.
        squared = (colors**2).sum(1, keepdims=True) - 2 * colors @ palette.T + (palette**2).sum(1)
        nearest = squared.argmin(1)
        too_far = squared[np.arange(65536), nearest] > MAX_COLOR_DISTANCE**2
        table[red] = np.where(too_far, _TOO_FAR, ids[nearest])
    return table.ravel()


def _look_up(rgb: UInt8) -> UInt8:
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    found: UInt8 = _color_table()[(red << 16) | (green << 8) | blue]
    return found


def decode_label(rgb: UInt8) -> UInt8:
    """Class ids of a colour label: nearest palette colour, 255 where void or further than `MAX_COLOR_DISTANCE`.

    This is the label the evaluation counts: no pixel is dropped for being near an edge. Of colours equally near the
    one that stands first in the palette wins, void last.

    Args:
        rgb: (H, W, 3) uint8, RGB order.

    Returns:
        (H, W) uint8 trainIds.
    """
    label = _look_up(rgb)
    label[label == _TOO_FAR] = IGNORE
    return label


def outside_palette(rgb: UInt8) -> float:
    """Share of an (H, W, 3) uint8 RGB label's pixels further than `MAX_COLOR_DISTANCE` from every palette colour."""
    return float((_look_up(rgb) == _TOO_FAR).mean())


def ignore_doubtful_pixels(label: UInt8) -> UInt8:
    """The label the loss sees: pixels that the resize and JPEG made doubtful become 255.

    Two kinds: a blend of two neighbouring colours that landed on a third class (fewer than 4 pixels of its own class
    in its 3×3 window), and the edge between two *thick* classes. Edges of thin classes (poles, lights, signs,
    people, two-wheelers, fences) are kept: a band along them swallows the whole object at this size.

    Args:
        label: (H, W) uint8 trainIds.

    Returns:
        (H, W) uint8, a copy.
    """
    result = label.copy()
    for class_id in np.unique(label):
        if class_id == IGNORE:
            continue
        mask = (label == class_id).astype(np.uint8)
        support = cv2.boxFilter(mask, cv2.CV_8U, (3, 3), normalize=False, borderType=cv2.BORDER_REFLECT_101)
        result[(mask == 1) & (support < 4)] = IGNORE
    thick = ~_THIN[label] & (label != IGNORE)
    for here, there in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1, :], np.s_[1:, :]),
    ):
        edge = (label[here] != label[there]) & thick[here] & thick[there]
        result[here][edge] = IGNORE
        result[there][edge] = IGNORE
    return result


def edge_band(label: UInt8) -> NDArray[np.bool_]:
    """Pixels within one pixel of a label edge: (H, W) bool. Evaluation is printed with and without them."""
    kernel = np.ones((3, 3), np.uint8)
    band: NDArray[np.bool_] = cv2.dilate(label, kernel) != cv2.erode(label, kernel)
    return band


def split_composite(composite: UInt8, path: Path) -> tuple[UInt8, UInt8]:
    """(photo, colour label), each (256, 256, 3), of a (256, 512, 3) composite.

    Raises:
        SourceError: the composite has another size.
    """
    if composite.shape[:2] != (SIDE, 2 * SIDE):
        height, width = composite.shape[:2]
        raise SourceError(
            f"{path}: a Cityscapes pair is {2 * SIDE}×{SIDE} pixels (photo left, label right), this file is "
            f"{width}×{height}; point --data at the set's folder with train/ and val/"
        )
    return composite[:, :SIDE], composite[:, SIDE:]


@dataclass(frozen=True)
class Pairs:
    """A split held in memory.

    Attributes:
        photos: (N, H, W, 3) uint8, RGB.
        labels: (N, H, W) uint8 trainIds, 255 ignored.
        names: file names, in the order of the arrays.
        blurred: whether the labels went through a resize and JPEG, so that some pixels are in doubt.
        protocol: where the labels come from, for people.
    """

    photos: UInt8
    labels: UInt8
    names: tuple[str, ...]
    blurred: bool = True
    protocol: str = f"labels by nearest palette colour, further than {MAX_COLOR_DISTANCE:g} or void ignored"

    def __len__(self) -> int:
        return len(self.names)


def list_pairs(root: Path, split: Split) -> list[Path]:
    """The composites of a split in numeric order; `fit` and `dev` are the two parts of `train`.

    Raises:
        SourceError: `root` has no such folder, or the folder no pairs.
    """
    folder = root / ("val" if split == "val" else "train")
    if not is_folder(folder):
        below = lies_below(root, lambda path: is_folder(path / folder.name) and (path / folder.name / "1.jpg").exists())
        raise SourceError(
            f"{root} is not the Cityscapes pairs set: it has no folder {folder.name}/ with N.jpg files{below}"
        )
    paths = sorted((p for p in listed(folder) if p.suffix == ".jpg" and p.stem.isdecimal()), key=lambda p: int(p.stem))
    if not paths:
        raise SourceError(f"{folder} holds no pairs: files named 1.jpg, 2.jpg … are wanted")
    if split in ("fit", "dev"):
        own = [p for p in paths if (int(p.stem) % HOLD_OUT_EVERY == 0) == (split == "dev")]
        if not own:
            raise SourceError(
                f"none of the {len(paths)} pairs in {folder} is {split}: those whose number is a multiple of "
                f"{HOLD_OUT_EVERY} are dev, the others fit; name some accordingly"
            )
        return own
    return paths


def read_pair(path: Path) -> tuple[UInt8, UInt8]:
    """(photo, colour label) of a composite, each (256, 256, 3) uint8 RGB.

    Raises:
        SourceError: the file is not a whole picture, has another size, or its right half is not a label.
    """
    photo, colors = split_composite(read_picture(path), path)
    share = outside_palette(colors)
    if share > MAX_OUTSIDE_PALETTE:
        raise SourceError(
            f"{path}: {share:.0%} of the right half is further than {MAX_COLOR_DISTANCE:g} from every Cityscapes "
            f"colour (at most {MAX_OUTSIDE_PALETTE:.0%}); it is not a label in the official palette"
        )
    return photo, colors


def load_pairs(
    root: Path, split: Split, cache_folder: Path | None = None, *, skip_broken: bool = False,
    say: Callable[[str], None] = print,
) -> Pairs:  # fmt: skip
    """Decode a split into memory (about 270 MB a thousand pairs).

    Args:
        root: folder of the set.
        split: of the set.
        cache_folder: where decoded splits are kept; taken from there when decoder and files are the same.
        skip_broken: leave out what cannot be used, and name it to `say`, in place of raising.
        say: gets one sentence for each pair left out.

    Raises:
        SourceError: not the set, or a pair that cannot be used; see `read_pair`.
    """
    paths = list_pairs(root, split)
    stored: Path | None = None
    if cache_folder is not None:
        listing = "\n".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths)
        digest = hashlib.sha256(f"{_DECODER_VERSION} {MAX_COLOR_DISTANCE}\n{listing}".encode()).hexdigest()[:16]
        stored = cache_folder / f"cityscapes-pairs-{split}-{digest}.npz"
        if stored.exists():
            try:
                with np.load(stored) as arrays:
                    return Pairs(arrays["photos"], arrays["labels"], tuple(arrays["names"].tolist()))
            except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
                say(f"{stored} is damaged; the pairs are decoded again")
    photos = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    labels = np.empty((len(paths), SIDE, SIDE), np.uint8)
    names: list[str] = []
    for path in paths:
        try:
            photo, colors = read_pair(path)
        except SourceError as error:
            if not skip_broken:
                raise
            say(f"left out: {error}")
            continue
        photos[len(names)], labels[len(names)] = photo, decode_label(colors)
        names.append(path.name)
    if not names:
        raise SourceError(f"none of the {len(paths)} pairs of {root} ({split}) can be used")
    pairs = Pairs(photos[: len(names)], labels[: len(names)], tuple(names))
    if stored is not None and len(names) == len(paths):
        _store(stored, pairs)
    return pairs


def _store(path: Path, pairs: Pairs) -> None:
    partial = path.with_suffix(".partial.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, photos=pairs.photos, labels=pairs.labels, names=np.array(pairs.names))
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror}); give another --cache or none") from None


def class_frequencies(
    labels: Sequence[UInt8] | UInt8, classes: int = len(CITYSCAPES_CLASSES)
) -> NDArray[np.float64]:  # fmt: skip
    """Share of the labelled pixels that each class holds: (classes,) float64, summing to 1."""
    counts = np.zeros(256, np.int64)
    for label in labels:
        counts += np.bincount(label.ravel(), minlength=256)
    known = counts[:classes].astype(np.float64)
    shares: NDArray[np.float64] = known / max(known.sum(), 1.0)
    return shares
