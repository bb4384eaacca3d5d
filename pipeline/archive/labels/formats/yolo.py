"""YOLO's text for segmentation: a class and a polygon a line, as Ultralytics and others read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from engines.classes import ClassInfo
from pipeline.archive.labels.formats.outlines import Ring, outlines
from pipeline.archive.labels.labelled import Area, Labelled, areas

LABELS = "labels/train"

INSIDE = 0.375
"""Where in a pixel its corners are written, of 1: readers that cut off, round, or take a pixel's middle to be at one
half all come to the same pixel."""


class Yolo:
    """`labels/train/NAME.txt` and `data.yaml`, in which nothing is held out: `val` is `train`.

    A line is one part of a road user or of a class: the form has no way to say that two belong together. Corners go
    through the middle of the outermost pixels, and into a hole and back by a row of pixels. A box without a pixel of
    its class is left out, for a rectangle would be taken for its outline; where there is no class map, lines are boxes.
    """

    pictures = "images/train"

    def __init__(self, folder: Path, classes: tuple[ClassInfo, ...]) -> None:
        self._folder, self._classes = folder, classes
        self.passed_over = 0
        (folder / LABELS).mkdir(parents=True)

    def add(self, labelled: Labelled) -> None:
        mapped = labelled.class_map is not None
        lines: list[str] = []
        for area in areas(labelled, self._classes):
            if area.region is None and mapped:
                self.passed_over += 1
            lines += _lines(area, labelled.width, labelled.height, mapped=mapped)
        text = "".join(f"{line}\n" for line in lines)
        (self._folder / LABELS / f"{labelled.stem}.txt").write_text(text, encoding="utf-8")

    def finish(self) -> None:
        names = [info.name for info in self._classes]
        listed = "".join(f"  {place}: {_quoted(name)}\n" for place, name in enumerate(names))
        text = f"train: {self.pictures}\nval: {self.pictures}\nnc: {len(names)}\nnames:\n{listed}"
        (self._folder / "data.yaml").write_text(text, encoding="utf-8")


def _lines(area: Area, width: int, height: int, *, mapped: bool) -> list[str]:
    if area.region is not None:
        corner = np.array([area.region.x, area.region.y], np.int32)
        rings = outlines(area.region.mask.astype(np.uint8))
        return [f"{area.place} {_shares(ring + corner, width, height)}" for ring in rings]
    if area.box is None or mapped:
        return []
    x1, y1, x2, y2 = area.box
    shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
    return [f"{area.place} {' '.join(f'{share:.6f}' for share in shares)}"]


def _shares(ring: Ring, width: int, height: int) -> str:
    shares = (ring + INSIDE) / np.array([width, height])
    return " ".join(f"{share:.6f}" for share in shares.ravel())


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
