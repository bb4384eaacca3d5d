"""Anybody's pictures with boxes, looked over; the face of such a folder, see `training.data.sets`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.inspection.own import SPLITS
from training.data.own.findings import Findings, inspect_own
from training.data.own.folder import holds
from training.data.own.sheet import draw_sheet

__all__ = ["GENERAL", "NAME", "SPLITS", "draw_contact_sheet", "inspect", "recognises"]

GENERAL = True
NAME = "own-boxes"


def recognises(folder: Path) -> bool:
    """Whether boxes of YOLO, Pascal VOC, COCO or CVAT lie beside pictures, and no labels of pixels."""
    return holds(folder) == "boxes"


def inspect(folder: Path) -> Findings:
    """Read every picture with its boxes; see `inspect_own`."""
    return inspect_own(folder, "boxes")


def draw_contact_sheet(folder: Path, split: str, number: int) -> NDArray[np.uint8]:
    """Pictures with their boxes; see `draw_sheet`."""
    return draw_sheet(folder, "boxes", split, number)
