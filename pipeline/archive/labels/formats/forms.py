"""What every form of labels has: pictures go in one by one, and files stand in a folder at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from engines.classes import ClassInfo
from pipeline.archive.labels.labelled import Labelled

Format = Literal["cityscapes", "coco", "yolo", "cvat"]


class Form(Protocol):
    """A form of labels, written into a folder beside its pictures.

    Attributes:
        pictures: the folder in that one where the pictures lie.
        passed_over: boxes that the form has no place for.
    """

    pictures: str
    passed_over: int

    def __init__(self, folder: Path, classes: tuple[ClassInfo, ...]) -> None: ...

    def add(self, labelled: Labelled) -> None:
        """Take a picture's labels.

        Raises:
            OSError: they cannot be written.
        """
        ...

    def finish(self) -> None:
        """Write what is of all pictures.

        Raises:
            OSError: it cannot be written.
        """
        ...
