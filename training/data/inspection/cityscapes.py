"""Looking over Cityscapes as it is published before hours are spent on it; see `training.data.sets`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import CheckFailed, SourceError
from training.data.cityscapes import list_places, load_cityscapes, places_of, read_place, spare_labels
from training.data.cityscapes_pairs import Split
from training.data.contact_sheet import arrange, color_label
from training.data.inspection.cityscapes_pairs import class_table, require_every_class

UInt8 = NDArray[np.uint8]

NAME = "cityscapes"
SPLITS = ("train", "val", "dev", "fit")


class SplitReport(msgspec.Struct, frozen=True):
    """One of `train` and `val`.

    Attributes:
        pictures: that are there.
        broken: one sentence for each photo or label that cannot be used.
        class_shares: by class name, of the labelled pixels.
        ignored: share of pixels without a label.
        spare_labels: labels without a photo, which nobody misses unless photos are missing.
    """

    pictures: int
    broken: tuple[str, ...]
    class_shares: dict[str, float]
    ignored: float
    spare_labels: int = 0


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
                f"- labels without a photo: {split.spare_labels}",
                "",
                *class_table(split.class_shares),
                "",
                *(f"- {sentence}" for sentence in split.broken),
            ]
        return "\n".join(lines)

    def raise_if_bad(self, folder: Path) -> None:
        """Raise CheckFailed where a picture cannot be used or a class occurs nowhere in `train`; SourceError where
        `fit` or `dev` has no picture."""
        broken = sum(len(split.broken) for split in self.splits.values())
        if broken:
            raise CheckFailed(
                f"{broken} pictures of {folder} cannot be used (named above); unpack the archives again, or leave them "
                "out with --skip-broken"
            )
        require_every_class(folder, self.splits["train"].class_shares)
        for part in ("fit", "dev"):
            places_of(folder, part)  # training wants both, and says what is missing


def recognises(folder: Path) -> bool:
    """Whether leftImg8bit/ is there."""
    return (folder / "leftImg8bit").is_dir()


def inspect(folder: Path) -> Report:
    """Read every photo and label of `train` and `val`, as training reads them.

    Raises:
        SourceError: the folder is not the set.
    """
    return Report({"train": _inspect(folder, "train"), "val": _inspect(folder, "val")})


def _inspect(folder: Path, split: Literal["train", "val"]) -> SplitReport:
    places = list_places(folder, split)
    broken: list[str] = []
    counts = np.zeros(256, np.int64)
    for place in places:
        try:
            _, ids = read_place(place)
        except SourceError as error:
            broken.append(str(error))
            continue
        counts += np.bincount(ids.ravel(), minlength=256)
    known = counts[: len(CITYSCAPES_CLASSES)]
    shares = known / max(known.sum(), 1)
    return SplitReport(
        len(places), tuple(broken),
        {info.name: float(share) for info, share in zip(CITYSCAPES_CLASSES, shares, strict=True)},
        float(counts[IGNORE] / max(counts.sum(), 1)), spare_labels(folder, split),
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
