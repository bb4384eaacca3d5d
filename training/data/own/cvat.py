"""What people draw in CVAT: boxes, polygons and painted masks, as "CVAT for images 1.1" writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from training.data.own.classes import Color, Entry
from training.data.own.shapes import Drawn, Shape, bounds, broken, rectangle


@dataclass(frozen=True)
class _Drawing:
    """A shape, on which level it lies, and of which group it is; 0 for none."""

    order: int
    group: int
    shape: Shape


def read_cvat(path: Path, root: ET.Element) -> tuple[dict[str, Drawn], list[Entry]]:
    """What is drawn on each picture, by its name, and the classes.

    A box and an outline of one group are one thing, of which the outline has no box of its own. On a picture with masks
    the pixels of things are painted, and a box says no more than where one is. A label of type `mask` cannot be
    counted, and has no box.

    Raises:
        SourceError: a number that is none, or a mask that does not fill its rectangle or leaves the picture.
    """
    entries, painted = [], set()
    for label in root.iter("label"):
        name, color = label.findtext("name"), label.findtext("color")
        if name:
            entries.append(Entry(name, None, _hex(color)))
            if label.findtext("type") == "mask":
                painted.add(name)
    drawn: dict[str, Drawn] = {}
    try:
        for image in root.iter("image"):
            size = int(image.get("width", "0")), int(image.get("height", "0"))
            found = [drawing for node in image if (drawing := _drawing(node, size, painted)) is not None]
            stacked = sorted(_as_one(found), key=lambda drawing: drawing.order)
            drawn[image.get("name", "")] = Drawn(tuple(drawing.shape for drawing in stacked), size)
    except ValueError as error:
        raise broken(path, "CVAT's XML", error) from None
    return drawn, entries


def _drawing(node: ET.Element, size: tuple[int, int], painted: set[str]) -> _Drawing | None:
    shape = _shape(node, size)
    if shape is None:
        return None
    if shape.name in painted:
        shape = replace(shape, box=None)
    return _Drawing(int(node.get("z_order", "0")), int(node.get("group_id", "0")), shape)


def _shape(node: ET.Element, size: tuple[int, int]) -> Shape | None:
    name = node.get("label", "")
    if node.tag == "polygon":
        points = np.array([pair.split(",") for pair in node.get("points", "").split(";")], np.float64)
        return Shape(name, None, (points,), bounds((points,)))
    if node.tag == "box":
        left, top, right, bottom = (float(node.get(key, "nan")) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Shape(name, None, (rectangle((left, top, right, bottom)),), (left, top, right, bottom), plain=True)
    if node.tag == "mask":
        left, top, width, height = (int(float(node.get(key, "nan"))) for key in ("left", "top", "width", "height"))
        mask = np.zeros(size[::-1], np.bool_)
        if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
            raise ValueError(f"a mask of {name} leaves the picture")
        mask[top : top + height, left : left + width] = _filled(node.get("rle", ""), width, height, name)
        return Shape(name, None, (), (left, top, left + width, top + height), mask=mask)
    return None


def _filled(runs: str, width: int, height: int, name: str) -> NDArray[np.bool_]:
    """Run lengths in a rectangle, row by row, those of what is outside first, as (height, width) bool."""
    counts = [int(count) for count in runs.split(",")]
    if min(counts) < 0 or sum(counts) != width * height:
        raise ValueError(f"a mask of {name} has runs of {sum(counts)} pixels in {width}×{height}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)


def _as_one(found: Sequence[_Drawing]) -> list[_Drawing]:
    """The drawings of a picture, of which none says again, or otherwise, what another one says better."""
    boxed = {drawing.group for drawing in found if drawing.group and drawing.shape.plain}
    painted = any(drawing.shape.mask is not None for drawing in found)
    made = []
    for drawing in found:
        shape = drawing.shape
        if shape.plain and painted:
            shape = replace(shape, rings=())
        elif not shape.plain and drawing.group in boxed:
            shape = replace(shape, box=None)
        made.append(replace(drawing, shape=shape))
    return made


def _hex(color: str | None) -> Color | None:
    if color is None or len(color) != 7:
        return None
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue
