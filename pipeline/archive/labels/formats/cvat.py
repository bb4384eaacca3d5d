"""CVAT's XML, "CVAT for images 1.1" (docs.cvat.ai, "CVAT annotation format"): boxes, and masks as run lengths."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from engines.classes import ClassInfo
from pipeline.archive.labels.formats.runs import run_lengths
from pipeline.archive.labels.labelled import Area, Labelled, areas

FILE = "annotations.xml"
LABELS = "labels.json"

_BEHIND, _BEFORE = "0", "1"
"""Levels at which classes and road users lie."""


class Cvat:
    """`annotations.xml`, and `labels.json`, which a task of CVAT takes as its labels ("Raw").

    A class is a mask; a road user is a box and a mask of one group. Classes that cannot be counted are labels of type
    `mask`: nobody draws a box of them.
    """

    pictures = "images"

    def __init__(self, folder: Path, classes: tuple[ClassInfo, ...]) -> None:
        self._folder, self._classes = folder, classes
        self._root = ET.Element("annotations")
        ET.SubElement(self._root, "version").text = "1.1"
        labels = ET.SubElement(ET.SubElement(ET.SubElement(self._root, "meta"), "task"), "labels")
        for label in self._labels():
            node = ET.SubElement(labels, "label")
            for key in ("name", "color", "type"):
                ET.SubElement(node, key).text = str(label[key])
            ET.SubElement(node, "attributes")
        self._number = 0
        self.passed_over = 0

    def _labels(self) -> list[dict[str, object]]:
        return [
            {
                "name": info.name, "color": "#{:02x}{:02x}{:02x}".format(*info.color),
                "type": "any" if info.thing else "mask", "attributes": [],
            }
            for info in self._classes
        ]  # fmt: skip

    def add(self, labelled: Labelled) -> None:
        said = {"id": self._number, "name": labelled.name, "width": labelled.width, "height": labelled.height}
        image = ET.SubElement(self._root, "image", {key: str(value) for key, value in said.items()})
        self._number += 1
        group = 0
        for area in areas(labelled, self._classes):
            group += area.box is not None
            self._draw(image, area, str(group) if area.box is not None else "0")

    def _draw(self, image: ET.Element, area: Area, group: str) -> None:
        said = {"label": self._classes[area.place].name, "source": "auto", "occluded": "0", "group_id": group}
        level = _BEHIND if area.box is None else _BEFORE
        if area.region is not None:
            runs = ", ".join(map(str, run_lengths(area.region.mask.ravel())))
            high, wide = area.region.mask.shape
            place = {"left": area.region.x, "top": area.region.y, "width": wide, "height": high}
            where = {key: str(value) for key, value in place.items()}
            ET.SubElement(image, "mask", {**said, "rle": runs, **where, "z_order": level})
        if area.box is not None:
            corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in area.box), strict=True))
            ET.SubElement(image, "box", {**said, **corners, "z_order": level})

    def finish(self) -> None:
        ET.indent(self._root)
        ET.ElementTree(self._root).write(self._folder / FILE, encoding="utf-8", xml_declaration=True)
        labels = msgspec.json.format(msgspec.json.encode(self._labels()), indent=2)
        (self._folder / LABELS).write_bytes(labels + b"\n")
