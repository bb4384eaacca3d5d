"""Looking over Cityscapes as it is published before hours are spent on it; see `training.data.sets`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import CheckFailed, SourceError
from engines.frames import decode_file
from training.data.cityscapes import load_cityscapes, train_ids
from training.data.cityscapes_pairs import Split
from training.data.cityscapes_pairs_inspection import class_table, require_every_class
from training.data.contact_sheet import arrange, color_label

UInt8 = NDArray[np.uint8]

NAME = "cityscapes"
SPLITS = ("train", "val", "dev", "fit")

_PHOTO, _LABEL = "_leftImg8bit.png", "_gtFine_labelIds.png"


class SplitReport(msgspec.Struct, frozen=True):
    """One of `train` and `val`.

    Attributes:
        pictures: that are there.
        broken: one sentence for each photo without a readable label, or the other way round.
        class_shares: by class name, of the labelled pixels.
        ignored: share of pixels without a label.
    """

    pictures: int
    broken: tuple[str, ...]
    class_shares: dict[str, float]
    ignored: float


class Report(msgspec.Struct, frozen=True):
    """What `roadlens data check` found."""

    splits: dict[str, SplitReport]

    def markdown(self) -> str:
        """The report as a page."""
        lines = []
        for name, split in self.splits.items():
            lines += [
                f"## {name}: {split.pictures} pictures, {len(split.broken)} broken",
                "",
                f"- ignored: {split.ignored:.2%} of the pixels",
                "",
                *class_table(split.class_shares),
                "",
                *(f"- {sentence}" for sentence in split.broken),
            ]
        return "\n".join(lines)

    def raise_if_bad(self, folder: Path) -> None:
        """Raise CheckFailed where a picture cannot be used, or a class occurs nowhere in `train`."""
        broken = sum(len(split.broken) for split in self.splits.values())
        if broken:
            raise CheckFailed(
                f"{broken} pictures of {folder} cannot be used (named above); unpack the archives again, or leave them "
                "out with --skip-broken"
            )
        require_every_class(folder, self.splits["train"].class_shares)


def recognises(folder: Path) -> bool:
    """Whether leftImg8bit/ is there."""
    return (folder / "leftImg8bit").is_dir()


def inspect(folder: Path) -> Report:
    """Read every label of `train` and `val`, and see whether it has its photo.

    Raises:
        SourceError: the folder is not the set.
    """
    return Report({split: _inspect(folder, split) for split in ("train", "val")})


def _inspect(folder: Path, split: str) -> SplitReport:
    photos = {p.name.removesuffix(_PHOTO) for p in (folder / "leftImg8bit" / split).glob(f"*/*{_PHOTO}")}
    labels = {p.name.removesuffix(_LABEL): p for p in (folder / "gtFine" / split).glob(f"*/*{_LABEL}")}
    if not photos or not labels:
        raise SourceError(
            f"{folder} is not Cityscapes: wanted are pictures in leftImg8bit/{split}/*/ and gtFine/{split}/*/"
        )
    broken = [f"{name}{_PHOTO} has no label {name}{_LABEL}" for name in sorted(photos - labels.keys())]
    broken += [f"{name}{_LABEL} has no photo {name}{_PHOTO}" for name in sorted(labels.keys() - photos)]
    counts = np.zeros(256, np.int64)
    for name in sorted(labels):
        ids = decode_file(labels[name], cv2.IMREAD_UNCHANGED)
        if ids is None or ids.ndim != 2 or ids.dtype != np.uint8:
            broken.append(f"{labels[name].name} is not a readable picture of label ids")
            continue
        counts += np.bincount(train_ids(np.asarray(ids, np.uint8)).ravel(), minlength=256)
    known = counts[: len(CITYSCAPES_CLASSES)]
    shares = known / max(known.sum(), 1)
    return SplitReport(
        len(photos | labels.keys()), tuple(broken),
        {info.name: float(share) for info, share in zip(CITYSCAPES_CLASSES, shares, strict=True)},
        float(counts[IGNORE] / max(counts.sum(), 1)),
    )  # fmt: skip


def draw_contact_sheet(folder: Path, split: str, number: int, columns: int = 2) -> UInt8:
    """Pictures spread evenly over a split at 512×256, each beside its label.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SourceError: the folder is not the set, or a picture cannot be read.
    """
    pairs = load_cityscapes(folder, cast("Split", split), 256, 512, most=number)
    tiles = [
        np.concatenate([photo, color_label(label)], axis=1)
        for photo, label in zip(pairs.photos, pairs.labels, strict=True)
    ]
    return arrange(tiles, columns)
