"""Looking over a folder of pairs before hours are spent on it; the face of the set, see `training.data.sets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import CheckFailed, SourceError
from engines.tools.pictures import is_folder
from training.data.cityscapes_pairs import decode_label, list_pairs, outside_palette, read_pair
from training.data.contact_sheet import draw_contact_sheet
from training.data.fetch import fetch_pairs as fetch
from training.data.road_users import boxes_file, boxes_of, read_boxes

__all__ = [
    "NAME", "SPLITS", "class_table", "draw_contact_sheet", "fetch", "inspect", "recognises", "require_every_class",
]  # fmt: skip

NAME = "cityscapes-pairs"
SPLITS = ("train", "val", "dev", "fit")
LIKE_OTHERS = True
"""Somebody's own pictures may lie in folders and be called by numbers like these."""


def recognises(folder: Path) -> bool:
    """Whether train/ or val/ holds files named 1.jpg, 2.jpg …, with no file of labels beside them."""
    paths = [path for part in ("train", "val") for path in (folder / part).glob("*.jpg") if path.stem.isdigit()]
    return bool(paths) and not any(
        paths[0].with_suffix(ending).exists() for ending in (".json", ".txt", ".xml", ".png")
    )


class SplitReport(msgspec.Struct, frozen=True):
    """One of `train` and `val`.

    Attributes:
        pairs: files that are there.
        broken: one sentence for each that cannot be used, or of the boxes of road users where there are some.
        class_shares: by class name, of the labelled pixels.
        ignored: share of pixels without a label: void, or too far from every palette colour.
        outside_palette: share of pixels too far from every palette colour.
        worst: the file with the largest such share, and that share.
    """

    pairs: int
    broken: tuple[str, ...]
    class_shares: dict[str, float]
    ignored: float
    outside_palette: float
    worst: tuple[str, float]


class Report(msgspec.Struct, frozen=True):
    """What `roadlens data check` found."""

    splits: dict[str, SplitReport]

    def markdown(self) -> str:
        """The report as a page."""
        lines = []
        for name, split in self.splits.items():
            lines += [
                f"## {name}: {split.pairs} pairs, {len(split.broken)} broken",
                "",
                f"- ignored: {split.ignored:.2%} of the pixels",
                f"- outside the palette: {split.outside_palette:.2%}; most in {split.worst[0]}: {split.worst[1]:.2%}",
                "",
                *class_table(split.class_shares),
                "",
                *(f"- {sentence}" for sentence in split.broken),
            ]
        return "\n".join(lines)

    def raise_if_bad(self, folder: Path) -> None:
        """Raise CheckFailed where a pair cannot be used or a class occurs nowhere in `train`; SourceError where `fit`
        or `dev` has no pair."""
        broken = sum(len(split.broken) for split in self.splits.values())
        if broken:
            raise CheckFailed(
                f"{broken} pairs of {folder} cannot be used (named above); fetch them again, or leave them out with "
                f"--skip-broken"
            )
        require_every_class(folder, self.splits["train"].class_shares)
        for part in ("fit", "dev"):
            list_pairs(folder, part)  # training wants both, and says what is missing


def class_table(shares: Mapping[str, float]) -> list[str]:
    """Lines of a Markdown table of each class's share of the pixels."""
    return ["| class | share |", "|---|---:|", *(f"| {label} | {share:.3%} |" for label, share in shares.items())]


def require_every_class(folder: Path, shares: Mapping[str, float]) -> None:
    """Raise CheckFailed where a class occurs nowhere in `train`."""
    absent = [name for name, share in shares.items() if share == 0]
    if absent:
        raise CheckFailed(f"{folder} has no pixel of {', '.join(absent)} in train; is the set complete?")


def inspect(folder: Path) -> Report:
    """Read every pair of `train` and `val`.

    Raises:
        SourceError: the folder is not the set.
    """
    return Report({"train": _inspect(folder, "train"), "val": _inspect(folder, "val")})


def _inspect(folder: Path, split: Literal["train", "val"]) -> SplitReport:
    paths = list_pairs(folder, split)
    counts = np.zeros(256, np.int64)
    broken: list[str] = []
    outside: dict[str, float] = {}
    for path in paths:
        try:
            _, colors = read_pair(path)
        except SourceError as error:
            broken.append(str(error))
            continue
        outside[path.name] = outside_palette(colors)
        counts += np.bincount(decode_label(colors).ravel(), minlength=256)
    known = counts[: len(CITYSCAPES_CLASSES)]
    worst = max(outside, key=lambda name: outside[name], default="–")
    return SplitReport(
        pairs=len(outside) + len(broken),
        broken=(*broken, *_faults_of_boxes(folder, split, paths)),
        class_shares={
            info.name: float(number / max(known.sum(), 1))
            for info, number in zip(CITYSCAPES_CLASSES, known, strict=True)
        },
        ignored=float(counts[IGNORE] / max(counts.sum(), 1)),
        outside_palette=float(np.mean(list(outside.values()))) if outside else 0.0,
        worst=(worst, outside.get(worst, 0.0)),
    )


def _faults_of_boxes(folder: Path, split: Literal["train", "val"], paths: Sequence[Path]) -> list[str]:
    """What the task of road users would refuse of the boxes beside the pairs; nothing where there are none."""
    if not is_folder(folder / "boxes"):
        return []
    try:
        where = boxes_file(folder, split)
        boxes_of([path.name for path in paths], read_boxes(where), where)
    except SourceError as error:
        return [str(error)]
    return []
