"""Labels of boxes, each beside its own, inside the picture, and none over another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.boxes import iou_matrix
from pipeline.drawing.canvas import Rect
from pipeline.drawing.contrast import Measures
from pipeline.frame import Box

_SAME_OBJECT = 0.5
_INSIDE = range(4, 8)
"""Numbers of the places inside a label's own box."""

_HIDDEN = 0.5
"""Most of a label that may stand over other boxes."""

_KEPT = 1.5
"""How much larger than its box a box counts that had a label in the frame before: labels do not come and go."""


class Label(NamedTuple):
    """A text and where it stands."""

    box: Box
    text: str
    at: Rect


class Labels:
    """Finds places for the labels of one stream.

    The largest boxes, which are the nearest, have the choice. A label stays on the side of its box that it had in the
    frame before, as long as it can; one for which there is no place, in full or without its score, is left out.
    """

    def __init__(self) -> None:
        self._sides: dict[tuple[str, int], int] = {}

    def place(
        self,
        boxes: Sequence[Box],
        size: tuple[int, int],
        taken: Sequence[Rect],
        marks: Mapping[int, str] | None = None,
    ) -> list[Label]:
        """Places for the labels of boxes that are in the picture.

        Args:
            boxes: what is drawn, in pixels of the picture, each at least in part in it.
            size: width and height of the picture.
            taken: parts of the picture that must stay free of labels.
            marks: what is said of a track in place of its score, by number.
        """
        measures = Measures.of(*size)
        ground = _Ground(size, max(1, measures.em // 4))
        within = [(box, _inside(box, size)) for box in boxes]
        for _, rect in within:
            ground.spare(rect)
        for rect in taken:
            ground.take(rect)
        sides: dict[tuple[str, int], int] = {}
        labels = []
        for box, inside in sorted(within, key=lambda pair: self._weight(pair[0]), reverse=True):
            key = None if box.track is None else (box.origin, box.track)
            before = self._sides.get(key, 0) if key else 0
            for text in _texts(box, inside.right - inside.left, measures, (marks or {}).get(box.track or 0, "")):
                found = ground.free(_places(inside, _tag(text, measures), size, measures.stroke.casing, before))
                if found is not None:
                    side, at = found
                    ground.take(at)
                    labels.append(Label(box, text, at))
                    if key:
                        sides[key] = side
                    break
        self._sides = sides
        return labels

    def _weight(self, box: Box) -> float:
        known = box.track is not None and (box.origin, box.track) in self._sides
        return (box.x2 - box.x1) * (box.y2 - box.y1) * (_KEPT if known else 1)


class _Ground:
    """What of a picture is taken, in cells of some pixels: whatever touches a cell takes all of it."""

    _SPARED, _TAKEN = 1, 1 << 16  # so that one sum says how much is spared, and whether anything is taken

    def __init__(self, size: tuple[int, int], cell: int) -> None:
        self._cell = cell
        self._cells = np.zeros((-(-size[1] // cell), -(-size[0] // cell)), np.int32)

    def _under(self, rect: Rect) -> NDArray[np.int32]:
        cell = self._cell
        return self._cells[rect.top // cell : -(-rect.bottom // cell), rect.left // cell : -(-rect.right // cell)]

    def take(self, rect: Rect) -> None:
        """Nothing else may stand there."""
        self._under(rect)[:] = self._TAKEN

    def spare(self, rect: Rect) -> None:
        """Something may stand there where there is no other place; before anything is taken."""
        self._under(rect)[:] = self._SPARED

    def free(self, places: Iterable[tuple[int, Rect]]) -> tuple[int, Rect] | None:
        """The first place where there is nothing, else the first that hides little, or only of its own box."""
        second = None
        for place in places:
            under = self._under(place[1])
            hidden = np.add.reduce(under, axis=None)
            if not hidden:
                return place
            if second is None and hidden < self._TAKEN and (place[0] in _INSIDE or hidden <= _HIDDEN * under.size):
                second = place
        return second


def in_picture(box: Box, size: tuple[int, int]) -> bool:
    """Whether anything of a box is in a picture of this width and height; of one that is not a number nothing is."""
    return box.x1 < size[0] and box.y1 < size[1] and box.x2 > 0 and box.y2 > 0


def _inside(box: Box, size: tuple[int, int]) -> Rect:
    """The part of a box that is in the picture."""
    width, height = size
    left, right = round(max(box.x1, 0)), round(min(box.x2, width))
    top, bottom = round(max(box.y1, 0)), round(min(box.y2, height))
    return Rect(left, top, right, bottom)


def _texts(box: Box, width: int, measures: Measures, mark: str) -> list[str]:
    """What may be said of a box, the best first; the score only where it does not make the label wider than the box,
    what it is marked with wherever there is room."""
    short = box.label if box.track is None else f"{box.label} {box.track}"
    if mark:
        return [f"{short}  {mark}", mark]
    full = f"{short} {box.score:.2f}"
    return [full, short] if _tag(full, measures)[0] <= width else [short]


def _tag(text: str, measures: Measures) -> tuple[int, int]:
    """Width and height of a label, even: its edge lies on the grid of the chroma."""
    border = 2 * measures.stroke.casing
    return _even(measures.width(text) + measures.em // 2 + border), _even(measures.row + border)


def _even(pixels: int) -> int:
    return pixels + pixels % 2


def _places(
    box: Rect, tag: tuple[int, int], size: tuple[int, int], line: int, first: int
) -> Iterator[tuple[int, Rect]]:
    """Where in the picture a label may stand: above its box, below it, inside, beside; each side by its number.

    Args:
        box: what it belongs to, within the picture.
        tag: width and height of the label.
        size: of the picture.
        line: thickness of what stays free around the box.
        first: the side that comes before the others.
    """
    width, height = tag
    above, below = (box.top - line - height) // 2 * 2, _even(box.bottom + line)
    top, bottom = _even(box.top + line), (box.bottom - line - height) // 2 * 2
    before, after = (box.left - line - width) // 2 * 2, _even(box.right + line)
    left, right = box.left // 2 * 2, _even(box.right) - width
    sides = (
        (left, above), (right, above), (left, below), (right, below), (left, top), (right, top), (left, bottom),
        (right, bottom), (after, top), (before, top),
    )  # fmt: skip
    roomy = box.bottom - box.top >= 2 * height and box.right - box.left >= width
    for number in (first, *range(len(sides))):
        if number in _INSIDE and not roomy:
            continue
        x, y = sides[number]
        x = min(max(x, 0), size[0] - width)
        if x >= 0 and 0 <= y <= size[1] - height:
            yield number, Rect(x, y, x + width, y + height)


def once_each(boxes: Sequence[Box]) -> list[Box]:
    """The boxes without those that a later model's box of the same object stands for: one car, one rectangle.

    Two models' boxes are of the same object where their intersection over union is at least one half. Only the drawing
    leaves one out; messages carry both.
    """
    if len({box.origin for box in boxes}) < 2:
        return list(boxes)
    order: dict[str, int] = {}
    for box in boxes:
        order.setdefault(box.origin, len(order))
    corners = np.array([[box.x1, box.y1, box.x2, box.y2] for box in boxes], np.float64)
    model = np.array([order[box.origin] for box in boxes])
    hidden = np.any((iou_matrix(corners, corners) >= _SAME_OBJECT) & (model[None, :] > model[:, None]), axis=1)
    return [box for box, gone in zip(boxes, hidden, strict=True) if not gone]
