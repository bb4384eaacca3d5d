"""Data sets, their labels, and random views of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from engines.errors import SourceError, UsageError
from engines.tools.pictures import is_folder
from training.data.cityscapes_pairs import SIDE, Pairs, Split, load_pairs
from training.data.nesting import lies_below

__all__ = ["load_split", "recognise"]


DataName = Literal["cityscapes-pairs", "cityscapes"]


def recognise(root: Path) -> DataName:
    """Which data set lies in a folder, by its layout; whatever is not Cityscapes is taken for the pairs.

    Raises:
        SourceError: Cityscapes lies in a folder below, or the folder cannot be read.
    """
    if is_folder(root / "leftImg8bit"):
        return "cityscapes"
    if not is_folder(root / "train") and (below := lies_below(root, lambda path: is_folder(path / "leftImg8bit"))):
        raise SourceError(f"{root} holds Cityscapes, but not directly{below}")
    return "cityscapes-pairs"


def load_split(
    data: DataName, root: Path, split: Split, height: int, width: int, cache: Path | None = None, *,
    skip_broken: bool = False, say: Callable[[str], None] = print,
) -> Pairs:  # fmt: skip
    """Read a split of a data set into memory.

    Args:
        data: name of the set.
        root: its folder.
        split: `fit` and `dev` are the two parts of `train`.
        height, width: of the pictures; the image pairs come in 256×256 only.
        cache: folder for decoded pairs, or None.
        skip_broken: leave out what cannot be used, and name it to `say`.
        say: gets one sentence for each picture left out.

    Raises:
        UsageError: a size that the set does not come in.
        SourceError: not the set, or a file that cannot be used.
    """
    if data == "cityscapes":
        from training.data.cityscapes import load_cityscapes

        if cache is not None:
            raise UsageError("--cache keeps the Cityscapes pairs, and of Cityscapes itself nothing; leave it out")
        return load_cityscapes(root, split, height, width, skip_broken=skip_broken, say=say)
    if (height, width) != (SIDE, SIDE):
        raise UsageError(f"the Cityscapes pairs are {SIDE}×{SIDE} pixels, not {height}×{width}; leave out the size")
    return load_pairs(root, split, cache, skip_broken=skip_broken, say=say)
