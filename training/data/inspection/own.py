"""Anybody's pictures with a class for each pixel, looked over; the face of such a folder, see `training.data.sets`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.own.findings import Findings, inspect_own
from training.data.own.folder import holds
from training.data.own.samples import SPLITS as _SPLITS
from training.data.own.sheet import draw_sheet

GENERAL = True
NAME = "own"
SPLITS = ("train", *(split for split in _SPLITS if split != "train"))


def recognises(folder: Path) -> bool:
    """Whether pictures and labels of the same names lie there, or polygons drawn on pictures."""
    return holds(folder) == "masks"


def inspect(folder: Path) -> Findings:
    """Read every picture with its label; see `inspect_own`."""
    return inspect_own(folder, "masks")


def draw_contact_sheet(folder: Path, split: str, number: int) -> NDArray[np.uint8]:
    """Pictures with their classes; see `draw_sheet`."""
    return draw_sheet(folder, "masks", split, number)
