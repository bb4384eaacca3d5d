"""A picture's labels at its full size: a class for each pixel, and which of them are of which road user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.spec import ModelSpec
from pipeline.analysis.instances import instance_map
from pipeline.frame import Box

UInt8 = NDArray[np.uint8]


class Region(NamedTuple):
    """Pixels of a picture: the mask, (h, w) bool, of a part of it, and where its left upper corner lies."""

    x: int
    y: int
    mask: NDArray[np.bool_]

    @property
    def pixels(self) -> int:
        """How many."""
        return int(np.count_nonzero(self.mask))

    def whole(self, width: int, height: int) -> NDArray[np.bool_]:
        """The mask of the whole picture, (height, width)."""
        full = np.zeros((height, width), np.bool_)
        full[self.y : self.y + self.mask.shape[0], self.x : self.x + self.mask.shape[1]] = self.mask
        return full


@dataclass(frozen=True, slots=True)
class Area:
    """What is labelled in one piece.

    Attributes:
        place: of its class in the list of classes.
        region: its pixels; None where a box alone is known.
        box: xyxy in pixels of the picture, right and bottom exclusive, as its model says; None for what is no single
            road user.
        score: of the box.
    """

    place: int
    region: Region | None
    box: tuple[float, float, float, float] | None = None
    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture with its labels.

    Attributes:
        name: of the picture's file, `2026-11-29T14-30-00Z_00003.jpg`.
        width, height: in pixels.
        class_map: (height, width) uint8 class ids, 255 where nothing is labelled; None without a segmenter.
        boxes: road users.
    """

    name: str
    width: int
    height: int
    class_map: UInt8 | None
    boxes: tuple[Box, ...]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePosixPath(self.name).stem


def label_set(specs: Sequence[ModelSpec]) -> tuple[ClassInfo, ...]:
    """The classes that labels have: those of the class map with their ids, then those of boxes of other models."""
    mapped = next((spec.classes for spec in specs if "class_map" in spec.outputs), ())
    names, free = {info.name for info in mapped}, max((info.id for info in mapped), default=-1) + 1
    found = list(mapped)
    for info in (info for spec in specs if "class_map" not in spec.outputs for info in spec.classes):
        if info.name not in names:
            names.add(info.name)
            found.append(ClassInfo(free, info.name, info.color, thing=True))
            free += 1
    return tuple(found)


def full_size(class_map: UInt8, width: int, height: int) -> UInt8:
    """A class map at the size of its picture: each pixel has the class of the one that covers it."""
    return np.asarray(cv2.resize(class_map, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def areas(labelled: Labelled, classes: Sequence[ClassInfo]) -> Iterator[Area]:
    """Everything labelled in a picture, each pixel once: road users with those of their class that are theirs, then of
    each class what is left."""
    places = {info.name: place for place, info in enumerate(classes)}
    class_map = labelled.class_map
    boxes = [box for box in labelled.boxes if box.label in places]
    if class_map is None:
        yield from (Area(places[box.label], None, _corners(box), box.score) for box in boxes)
        return
    owners = instance_map(class_map, boxes, classes, (labelled.width, labelled.height), exact=True)
    for number, box in enumerate(boxes, 1):
        yield Area(places[box.label], _region(owners == number), _corners(box), box.score)
    for place, info in enumerate(classes):
        if info.id != IGNORE and (region := _region((class_map == info.id) & (owners == 0))) is not None:
            yield Area(place, region)


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


def _region(mask: NDArray[np.bool_]) -> Region | None:
    """Pixels of a picture, without what lies around them; None where there are none."""
    left, top, wide, high = cv2.boundingRect(mask.view(np.uint8))
    if not wide:
        return None
    return Region(left, top, np.ascontiguousarray(mask[top : top + high, left : left + wide]))
