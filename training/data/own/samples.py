"""A part of somebody's folder in memory, at one size, in the classes of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.errors import SourceError
from engines.squash import squash
from training.data.own.classes import canonical
from training.data.own.folder import USUAL, Choice, Folder, Kind, Sample, check_part, open_folder, read_sample
from training.data.own.layout import Part
from training.data.road_users import Boxes

UInt8 = NDArray[np.uint8]

SPLITS = ("fit", "dev", "train", "val", "test", "held-out")
"""Parts by what training calls them: `fit` is `train`, `dev` is `val`; `held-out` is `test` where there is one, else
`val`."""


@dataclass(frozen=True)
class OwnPictures:
    """A part held in memory.

    Attributes:
        photos: (N, H, W, 3) uint8 RGB, squashed.
        labels: (N, H, W) uint8 class ids of the model, 255 ignored; (N, 0, 0) for boxes.
        boxes: of each picture, in its pixels; empty for masks.
        names: paths below the folder.
        protocol: see `training.task.Samples`.
    """

    photos: UInt8
    labels: UInt8
    boxes: tuple[Boxes, ...]
    names: tuple[str, ...]
    protocol: str

    def __len__(self) -> int:
        return len(self.names)


def part_in(folder: Folder, split: str) -> Part:
    """The part of a folder that a split of `SPLITS` means."""
    match split:
        case "fit" | "train":
            return "train"
        case "dev" | "val":
            return "val"
        case "test":
            return "test"
        case _:
            return "test" if "test" in folder.parts else "val"


def load_own(
    root: Path, kind: Kind, split: str, size: tuple[int, int], classes: Sequence[ClassInfo], choice: Choice = USUAL,
    *,
    skip_broken: bool = False, say: Callable[[str], None] = print,
) -> OwnPictures:  # fmt: skip
    """Read a part of a folder into memory.

    Args:
        root: the folder.
        kind: of truth.
        split: one of `SPLITS`.
        size: height and width that pictures and labels are brought to.
        classes: of the model; classes of the folder are found among them by name, and those that are not are ignored.
        choice: of trips and parts.
        skip_broken: leave out what cannot be used, and name it to `say`.
        say: gets one sentence for each picture left out, and for classes that the model does not know.

    Raises:
        SourceError: not such a folder, a picture that cannot be used, or no class in common with the model.
        UsageError: a part that is not there.
    """
    folder = open_folder(root, kind, choice)
    part = part_in(folder, split)
    items = check_part(folder, part)
    table, lost = _table(folder, classes)
    if lost:
        say(f"{root}: {', '.join(lost)} {'is' if len(lost) == 1 else 'are'} no class of the model, and ignored")
    photos = np.empty((len(items), *size, 3), np.uint8)
    labels = np.empty((len(items), *(size if kind == "masks" else (0, 0))), np.uint8)
    boxes: list[Boxes] = []
    names: list[str] = []
    for item in items:
        try:
            sample = read_sample(folder, item)
        except SourceError as error:
            if not skip_broken:
                raise
            say(f"left out: {error}")
            continue
        photos[len(names)] = squash(sample.photo, *size)
        if kind == "masks":
            labels[len(names)] = cv2.resize(table[sample.label], size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        else:
            boxes.append(_squashed(sample, size, table))
        names.append(item.name)
    if not names:
        raise SourceError(
            f"none of the {len(items)} pictures of {root} ({part}) can be used; see `roadlens data check`"
        )
    protocol = f"{part} of a folder of one's own, {folder.form}, at {size[1]}×{size[0]}; {'; '.join(folder.notes)}"
    if lost:
        protocol += f"; {', '.join(lost)} ignored"
    return OwnPictures(photos[: len(names)], labels[: len(names)], tuple(boxes), tuple(names), protocol)


def _table(folder: Folder, classes: Sequence[ClassInfo]) -> tuple[UInt8, list[str]]:
    """(256,) class ids of the model by those of the folder, and the folder's classes that it does not have."""
    own = folder.legend.classes
    exact = {info.name.casefold(): info.id for info in classes}
    alike = {canonical(info.name): info.id for info in classes}
    table, lost = np.full(256, IGNORE, np.uint8), []
    for info in own:
        found = exact.get(info.name.casefold(), alike.get(canonical(info.name)))
        if found is None:
            lost.append(info.name)
        else:
            table[info.id] = found
    if len(lost) == len(own):
        raise SourceError(
            f"{folder.root} and the model have no class in common: {', '.join(info.name for info in own)} there, "
            f"{', '.join(info.name for info in classes)} here; rename classes in the folder's class file"
        )
    return table, lost


def _squashed(sample: Sample, size: tuple[int, int], table: UInt8) -> Boxes:
    height, width = sample.photo.shape[:2]
    scale = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    labels = table[sample.labels].astype(np.int64)
    known = labels != IGNORE
    return Boxes(
        (sample.corners * scale)[known], labels[known], sample.sure[known]
    )  # fmt: skip
