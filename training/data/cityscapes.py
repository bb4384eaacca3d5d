"""Cityscapes as it is published: leftImg8bit and gtFine, brought to one working size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import SourceError
from engines.tools.pictures import is_file, is_folder, listed, read_ids, read_picture, require_known_ids
from training.data.cityscapes_pairs import HOLD_OUT_EVERY, Pairs, Split
from training.data.contact_sheet import spread
from training.data.nesting import lies_below

UInt8 = NDArray[np.uint8]

PHOTO, LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"
"""How the names of files end; a photo and its label share what stands before."""

LABEL_IDS = frozenset({*range(34), IGNORE})
"""What may stand in a label: the ids of cityscapesScripts, and 255 for its −1, the licence plate."""


def train_ids(label_ids: UInt8) -> UInt8:
    """Ids of `…_labelIds.png` → trainIds, 255 for what is not evaluated. Any shape."""
    from torchvision.datasets import Cityscapes  # imports torch

    table = np.full(256, IGNORE, np.uint8)
    for info in Cityscapes.classes:
        if 0 <= info.train_id < len(CITYSCAPES_CLASSES):
            table[info.id] = info.train_id
    found: UInt8 = table[label_ids]
    return found


@dataclass(frozen=True)
class Place:
    """Where a photo and its label lie, or would lie."""

    photo: Path
    label: Path


def list_places(root: Path, part: Literal["train", "val"]) -> list[Place]:
    """The photos of a part by file name, each with the label that it has or should have.

    Raises:
        SourceError: `root` is not the set, or a folder cannot be read.
    """
    photos, labels = root / "leftImg8bit" / part, root / "gtFine" / part
    for needed in (photos, labels):
        if not is_folder(needed):
            missing = needed.relative_to(root)
            below = lies_below(root, partial(_has, part=missing))
            raise SourceError(
                f"{root} is not Cityscapes: wanted are the folders leftImg8bit/{part} and gtFine/{part}, and {missing} "
                f"is not there{below}"
            )
    found = _stems(photos, PHOTO)
    if not found:
        raise SourceError(f"{root} is not Cityscapes: there are no files named …{PHOTO} in leftImg8bit/{part}/*/")
    return [Place(photos / city / f"{stem}{PHOTO}", labels / city / f"{stem}{LABEL}") for stem, city in sorted(found)]


def _has(folder: Path, part: Path) -> bool:
    return is_folder(folder / part)


def places_of(root: Path, split: Split) -> list[Place]:
    """The photos of a split; of `train` every twentieth, by file name, is `dev`.

    Raises:
        SourceError: see `list_places`; or the split has no photo.
    """
    places = list_places(root, "val" if split == "val" else "train")
    if split not in ("fit", "dev"):
        return places
    held = range(HOLD_OUT_EVERY - 1, len(places), HOLD_OUT_EVERY)
    own = [place for number, place in enumerate(places) if (number in held) == (split == "dev")]
    if not own:
        raise SourceError(
            f"none of the {len(places)} pictures of {root} is {split}: every twentieth is dev, by name, the others "
            "are fit; give more"
        )
    return own


def spare_labels(root: Path, part: Literal["train", "val"]) -> int:
    """How many labels of a part have no photo: nothing is wrong with a choice of photos, unless it was none."""
    return len(_stems(root / "gtFine" / part, LABEL) - _stems(root / "leftImg8bit" / part, PHOTO))


def _stems(folder: Path, ending: str) -> set[tuple[str, str]]:
    """What stands before the ending of the files of a folder of cities, and the city."""
    return {
        (path.name.removesuffix(ending), city.name)
        for city in listed(folder) if is_folder(city)
        for path in listed(city) if path.name.endswith(ending)
    }  # fmt: skip


def read_place(place: Place) -> tuple[UInt8, UInt8]:
    """A photo, (H, W, 3) uint8 RGB, and its trainIds, (H, W) uint8 of the same shape of picture, 255 ignored.

    Raises:
        SourceError: one of the two is missing or cannot be used; which one is said.
    """
    if not is_file(place.label):
        raise SourceError(f"{place.photo} has no label: there is no {place.label}")
    photo, ids = read_picture(place.photo, upright=False), read_ids(place.label)
    require_known_ids(place.label, ids, LABEL_IDS, "the label ids of Cityscapes are 0 to 33, and 255")
    (height, width), (rows, columns) = photo.shape[:2], ids.shape
    if abs(height * columns - width * rows) > 0.01 * height * columns:
        raise SourceError(
            f"{place.label} is {columns}×{rows} and its photo {width}×{height}, which is another shape; it belongs to "
            "another photo, or was cut"
        )
    return photo, train_ids(ids)


def load_cityscapes(
    root: Path, split: Split, height: int, width: int, *, most: int | None = None, skip_broken: bool = False,
    say: Callable[[str], None] = print,
) -> Pairs:  # fmt: skip
    """Read a split into memory at one size: photos averaged down, labels by nearest neighbour.

    Args:
        root: folder with leftImg8bit/ and gtFine/.
        split: `fit` and `dev` are the two parts of `train`: every twentieth picture, by file name, is `dev`.
        height, width: working size; 2:1 keeps the geometry, a square squashes as the image pairs do.
        most: read no more than so many, spread evenly over the split.
        skip_broken: leave out what cannot be used, and name it to `say`, in place of raising.
        say: gets one sentence for each picture left out.

    Raises:
        SourceError: not the set, or a picture or label that is missing or cannot be read.
    """
    places = places_of(root, split)
    if most is not None:
        places = [places[i] for i in spread(len(places), most)]
    photos = np.empty((len(places), height, width, 3), np.uint8)
    labels = np.empty((len(places), height, width), np.uint8)
    names: list[str] = []
    for place in places:
        try:
            photo, ids = read_place(place)
        except SourceError as error:
            if not skip_broken:
                raise
            say(f"left out: {error}")
            continue
        size = (width, height)
        photos[len(names)] = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        labels[len(names)] = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)
        names.append(place.photo.name)
    if not names:
        raise SourceError(f"{root} holds no pictures of {split} that can be used")
    return Pairs(
        photos[: len(names)], labels[: len(names)], tuple(names), blurred=False,
        protocol=f"Cityscapes gtFine, labels at {width}×{height}",
    )  # fmt: skip
