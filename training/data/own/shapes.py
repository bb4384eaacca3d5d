"""What people draw on pictures: polygons and boxes as COCO, Labelme, YOLO and Pascal VOC write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import SourceError
from training.data.own.classes import Entry

UInt8 = NDArray[np.uint8]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """One thing that was drawn, in pixels of the picture or, where `Drawn.fractions`, in shares of its sides.

    Attributes:
        name: of its class; empty where the file numbers classes.
        number: of its class, where the file numbers them.
        rings: (n, 2) x and y of polygons; empty where there is a box alone.
        box: xyxy, right and bottom exclusive; None where nothing is enclosed.
        sure: False for a crowd or what is marked as difficult: to be found or not.
        mask: COCO's run lengths in place of polygons: (h, w) bool.
        plain: whether it was drawn as a box.
    """

    name: str
    number: int | None
    rings: tuple[Float64, ...]
    box: tuple[float, float, float, float] | None
    sure: bool = True
    mask: NDArray[np.bool_] | None = None
    plain: bool = False


@dataclass(frozen=True)
class Drawn:
    """Everything drawn on one picture, from what lies behind to what lies before.

    Attributes:
        shapes: in that order.
        size: width and height of the picture, as the file says.
        fractions: whether coordinates are shares of the picture's sides.
    """

    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None
    fractions: bool = False

    def label(self, width: int, height: int, number_of: Callable[[Shape], int], behind: int) -> UInt8:
        """The shapes as a class map, (height, width) uint8.

        Args:
            width, height: of the map.
            number_of: the class id of a shape.
            behind: what pixels are that no shape covers.
        """
        canvas = np.full((height, width), behind, np.uint8)
        scale = self._scale(width, height)
        for shape in self.shapes:
            number = number_of(shape)
            if shape.mask is not None:
                mask = cv2.resize(shape.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
                canvas[mask > 0] = number
            # Corners are at pixels' edges: half a pixel before the centre that OpenCV counts from; 1/16 of a pixel.
            for ring in shape.rings:  # one by one: together, what two of them share would be left out
                cv2.fillPoly(canvas, [np.round((ring * scale - 0.5) * 16).astype(np.int32)], (number,), shift=4)
        return canvas

    def boxes(self, width: int, height: int) -> Iterator[tuple[Shape, Float64]]:
        """The shapes that have a box, with it in pixels of a picture of that size: (4,) xyxy."""
        scale = np.tile(self._scale(width, height), 2)
        for shape in self.shapes:
            if shape.box is not None:
                yield shape, np.array(shape.box) * scale

    def _scale(self, width: int, height: int) -> Float64:
        given = (1, 1) if self.fractions else self.size or (width, height)
        return np.array([width / given[0], height / given[1]])


def bounds(rings: tuple[Float64, ...]) -> tuple[float, float, float, float] | None:
    """The box around polygons; None around nothing."""
    if not rings:
        return None
    points = np.concatenate(rings)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return left, top, right, bottom


def rectangle(box: tuple[float, float, float, float]) -> Float64:
    """A box as a polygon: (4, 2) x and y."""
    left, top, right, bottom = box
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def broken(path: Path, what: str, error: object) -> SourceError:
    """What is said of a file that is not what it seems to be."""
    return SourceError(f"{path} cannot be read as {what} ({error}); export it again, or take it away")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}); give rights to read it") from None


# Labelme ------------------------------------------------------------------------------------------------------------


class _LabelmeShape(msgspec.Struct):
    label: str
    points: list[tuple[float, float]]
    shape_type: str = "polygon"


class _Labelme(msgspec.Struct):
    shapes: list[_LabelmeShape]
    imageWidth: int | None = None  # noqa: N815  # Labelme's names
    imageHeight: int | None = None  # noqa: N815


def read_labelme(path: Path) -> Drawn:
    """One picture's polygons, rectangles and circles.

    Raises:
        SourceError: it is not Labelme's JSON, or holds what encloses nothing (points, lines).
    """
    try:
        found = msgspec.json.decode(_read(path), type=_Labelme)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise broken(path, "Labelme's JSON", error) from None
    shapes = []
    for shape in found.shapes:
        points = np.array(shape.points, np.float64).reshape(-1, 2)
        plain = shape.shape_type == "rectangle"
        if plain and len(points) == 2:
            points = rectangle((*points.min(0), *points.max(0)))
        elif shape.shape_type == "circle" and len(points) == 2:
            angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
            points = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(angles), np.sin(angles)], 1)
        elif shape.shape_type not in ("polygon", "rectangle") or len(points) < 3:
            raise SourceError(
                f"{path}: {shape.label} is drawn as a {shape.shape_type} of {len(points)} points, which encloses "
                "nothing; draw polygons, rectangles or circles"
            )
        shapes.append(Shape(shape.label, None, (points,), bounds((points,)), plain=plain))
    size = (found.imageWidth, found.imageHeight) if found.imageWidth and found.imageHeight else None
    return Drawn(tuple(shapes), size)


# COCO ---------------------------------------------------------------------------------------------------------------


class _CocoImage(msgspec.Struct):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class _Rle(msgspec.Struct):
    counts: list[int] | str
    size: tuple[int, int]


class _CocoAnnotation(msgspec.Struct):
    image_id: int | str
    category_id: int
    bbox: list[float] | None = None
    segmentation: list[list[float]] | _Rle | None = None
    area: float | None = None
    iscrowd: int = 0


class _CocoCategory(msgspec.Struct):
    id: int
    name: str
    color: tuple[int, int, int] | None = None
    isthing: int | None = None


class _Coco(msgspec.Struct):
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]
    categories: list[_CocoCategory]


def read_coco(path: Path) -> tuple[dict[str, Drawn], list[Entry]]:
    """What is drawn on each picture, by its `file_name`, and the classes.

    Raises:
        SourceError: it is not COCO's JSON, or an annotation is of a picture or a category that it does not list.
    """
    try:
        found = msgspec.json.decode(_read(path), type=_Coco, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise broken(path, "COCO's JSON", error) from None
    names = {category.id: category.name for category in found.categories}
    stuff = {category.id for category in found.categories if category.isthing == 0}
    shapes: dict[int | str, list[tuple[float, Shape]]] = {image.id: [] for image in found.images}
    for annotation in found.annotations:
        if annotation.category_id not in names:
            known = ", ".join(f"{number} {name}" for number, name in names.items())
            raise SourceError(
                f"{path}: an annotation of picture {annotation.image_id} has the category {annotation.category_id}, "
                f"which is not listed; the categories are {known}"
            )
        if annotation.image_id not in shapes:
            raise SourceError(f"{path}: an annotation is of picture {annotation.image_id}, which is not listed")
        shape = _coco_shape(annotation, names[annotation.category_id], path)
        left, top, right, bottom = shape.box or (0, 0, 0, 0)
        if annotation.category_id in stuff:
            shape = replace(shape, box=None)  # what cannot be counted is not boxed
        shapes[annotation.image_id].append((annotation.area or (right - left) * (bottom - top), shape))
    drawn = {}
    for image in found.images:
        # COCO says nothing of what covers what; the smaller usually lies before the larger.
        order = tuple(shape for _, shape in sorted(shapes[image.id], key=lambda pair: -pair[0]))
        drawn[image.file_name] = Drawn(order, (image.width, image.height) if image.width and image.height else None)
    entries = [
        Entry(category.name, category.id, category.color, None if category.isthing is None else bool(category.isthing))
        for category in found.categories
    ]
    return drawn, entries


def _coco_shape(annotation: _CocoAnnotation, name: str, path: Path) -> Shape:
    rings: tuple[Float64, ...] = ()
    mask, box = None, None
    if isinstance(annotation.segmentation, list):
        odd = [ring for ring in annotation.segmentation if len(ring) % 2 or len(ring) < 6]
        if odd:
            raise SourceError(
                f"{path}: a {name} of picture {annotation.image_id} has a polygon of {len(odd[0])} numbers; wanted are "
                "pairs of x and y, three or more"
            )
        rings = tuple(np.array(ring, np.float64).reshape(-1, 2) for ring in annotation.segmentation)
    elif annotation.segmentation is not None:
        mask = run_lengths(annotation.segmentation.counts, *annotation.segmentation.size)
    if annotation.bbox and len(annotation.bbox) == 4:
        left, top, width, height = annotation.bbox
        box = (left, top, left + width, top + height)
    return Shape(name, None, rings, box or bounds(rings), not annotation.iscrowd, mask, not rings and mask is None)


def run_lengths(counts: list[int] | str, height: int, width: int) -> NDArray[np.bool_]:
    """COCO's run lengths, down the columns, as (height, width) bool.

    Text is their compressed form (`pycocotools`, maskApi.c): five bits a character from 48 on, the sixth bit for more,
    and from the third number on the difference to the one two before.
    """
    if isinstance(counts, str):
        numbers: list[int] = []
        value, shift = 0, 0
        for character in counts.encode():
            piece = character - 48
            value |= (piece & 31) << shift
            shift += 5
            if not piece & 32:
                if piece & 16:
                    value |= -1 << shift
                numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
                value, shift = 0, 0
        counts = numbers
    flat = np.zeros(height * width, np.bool_)
    start, inside = 0, False
    for count in counts:
        if inside:
            flat[start : start + count] = True
        start, inside = start + count, not inside
    return flat.reshape(width, height).T


# Pascal VOC and YOLO ------------------------------------------------------------------------------------------------


def parse_xml(path: Path) -> ET.Element:
    """The root of an XML file.

    Raises:
        SourceError: it is none.
    """
    try:
        return ET.fromstring(_read(path))  # noqa: S314  # expat refuses what grows without bound (libexpat 2.4.1 on)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise broken(path, "XML", error) from None


def read_voc(path: Path) -> Drawn:
    """One picture's boxes, from Pascal VOC's XML.

    Raises:
        SourceError: it is not VOC's XML, or a box lacks a side.
    """
    root, shapes = parse_xml(path), []
    for node in root.iter("object"):
        name = (node.findtext("name") or "").strip()
        try:
            left, top, right, bottom = (
                float(node.findtext(f"bndbox/{key}") or "nan") for key in ("xmin", "ymin", "xmax", "ymax")
            )
        except ValueError as error:
            raise broken(path, "Pascal VOC's XML", error) from None
        # VOC counts pixels from 1, and its last one is inside.
        box = (left - 1, top - 1, right, bottom)
        shapes.append(Shape(name, None, (), box, node.findtext("difficult") != "1", plain=True))
    width, height = (int(float(root.findtext(f"size/{key}") or 0)) for key in ("width", "height"))
    return Drawn(tuple(shapes), (width, height) if width and height else None)


def read_yolo(path: Path) -> Drawn:
    """One picture's boxes (class, centre x and y, width, height) or polygons (class, x and y, …), as YOLO writes them.

    Raises:
        SourceError: a line that is neither, by its number.
    """
    shapes = []
    for number, line in enumerate(_read(path).decode("utf-8", "replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[1:]]
            label = int(words[0])
        except ValueError:
            raise SourceError(
                f"{path}, line {number}: {line.strip()!r} is no line of YOLO's: wanted are numbers"
            ) from None
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise SourceError(
                f"{path}, line {number} has {len(words)} numbers; wanted are 5 (class, centre x, centre y, width, "
                "height), or a class and pairs of x and y"
            )
        if not all(-0.05 <= value <= 1.05 for value in values):
            raise SourceError(
                f"{path}, line {number}: YOLO's numbers are shares of the picture, 0 to 1, not "
                f"{max(values, key=abs):g}; are they pixels?"
            )
        if len(values) == 4:
            x, y, width, height = values
            shapes.append(
                Shape("", label, (), (x - width / 2, y - height / 2, x + width / 2, y + height / 2), plain=True)
            )
        else:
            ring = (np.array(values, np.float64).reshape(-1, 2),)
            shapes.append(Shape("", label, ring, bounds(ring)))
    return Drawn(tuple(shapes), None, fractions=True)


def kind_of_json(content: Mapping[str, Any]) -> str | None:
    """`coco` or `labelme` by a JSON file's keys; None for anything else."""
    if {"images", "annotations", "categories"} <= content.keys():
        return "coco"
    return "labelme" if "shapes" in content else None
