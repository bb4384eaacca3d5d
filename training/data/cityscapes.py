"""Cityscapes as it is published: leftImg8bit and gtFine, brought to one working size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import SourceError
from training.data.cityscapes_pairs import HOLD_OUT_EVERY, Pairs, Split
from training.data.contact_sheet import spread

UInt8 = NDArray[np.uint8]


def train_ids(label_ids: UInt8) -> UInt8:
    """Ids of `…_labelIds.png` → trainIds, 255 for what is not evaluated. Any shape."""
    from torchvision.datasets import Cityscapes  # imports torch

    table = np.full(256, IGNORE, np.uint8)
    for info in Cityscapes.classes:
        if 0 <= info.train_id < len(CITYSCAPES_CLASSES):
            table[info.id] = info.train_id
    found: UInt8 = table[label_ids]
    return found


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
        skip_broken: leave out what cannot be read, and name it to `say`, in place of raising.
        say: gets one sentence for each picture left out.

    Raises:
        SourceError: not the set, or a picture or label that is missing or cannot be read.
    """
    from torchvision.datasets import Cityscapes  # imports torch

    part = "val" if split == "val" else "train"
    try:
        reader = Cityscapes(root, part, mode="fine", target_type="semantic")
    except (RuntimeError, OSError):
        raise SourceError(
            f"{root} is not Cityscapes: wanted are the folders leftImg8bit/{part} and gtFine/{part}"
        ) from None
    order = sorted(range(len(reader)), key=lambda i: Path(reader.images[i]).name)
    if split in ("fit", "dev"):
        order = [i for place, i in enumerate(order) if ((place + 1) % HOLD_OUT_EVERY == 0) == (split == "dev")]
    if most is not None:
        order = [order[i] for i in spread(len(order), most)]
    photos = np.empty((len(order), height, width, 3), np.uint8)
    labels = np.empty((len(order), height, width), np.uint8)
    names: list[str] = []
    for i in order:
        path = Path(reader.images[i])
        try:
            picture, label = reader[i]
            photo, ids = np.asarray(picture), np.asarray(label)
        except OSError as error:  # Pillow's own errors are OSErrors, too
            sentence = f"{error.filename or path} cannot be read ({error.strerror or error})"
            if not skip_broken:
                raise SourceError(f"{sentence}; unpack the archive again, or leave it out with --skip-broken") from None
            say(f"left out: {sentence}")
            continue
        size = (width, height)
        photos[len(names)] = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        labels[len(names)] = cv2.resize(train_ids(ids), size, interpolation=cv2.INTER_NEAREST_EXACT)
        names.append(path.name)
    if not names:
        raise SourceError(f"{root} holds no pictures of {split} that can be read")
    return Pairs(
        photos[: len(names)], labels[: len(names)], tuple(names), blurred=False,
        protocol=f"Cityscapes gtFine, labels at {width}×{height}",
    )  # fmt: skip
