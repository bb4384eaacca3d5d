"""PNG of class ids in the classes' colours, one for each picture, as those of Cityscapes' `labelTrainIds`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engines.classes import ClassInfo
from engines.errors import UsageError
from pipeline.archive.labels.labelled import Labelled
from pipeline.messages.masks import encode_png

MASKS = "masks"
CLASSES = "classes.json"


class Cityscapes:
    """`masks/NAME.png`, and `classes.json` with each class's name, id, colour, and whether it can be counted.

    A PNG has a palette: its numbers are class ids, what is looked at has the classes' colours, 255 is not labelled.
    Boxes have no place in it.
    """

    pictures = "images"

    def __init__(self, folder: Path, classes: tuple[ClassInfo, ...]) -> None:
        self._folder, self._classes = folder, classes
        self.passed_over = 0
        (folder / MASKS).mkdir()

    def add(self, labelled: Labelled) -> None:
        if labelled.class_map is None:
            raise UsageError("cityscapes is a class for each pixel, and no model gives one; ask for coco, yolo or cvat")
        png = encode_png(labelled.class_map, self._classes)
        (self._folder / MASKS / f"{labelled.stem}.png").write_bytes(png)

    def finish(self) -> None:
        entries = msgspec.to_builtins(self._classes)
        (self._folder / CLASSES).write_bytes(msgspec.json.format(msgspec.json.encode(entries), indent=2) + b"\n")
