"""Boxes of road users that go with the Cityscapes image pairs, and what a heat map of centres is to learn of them.

`boxes/train.jsonl` and `boxes/val.jsonl` hold a line a picture: `index` is the number of the pair and `boxes` a list
of `[x1, y1, x2, y2, class, flags]` in pixels of the pair. A box reaches round the hidden parts of its object, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES, IGNORE
from engines.errors import SourceError
from training.data.augmentation import affine, random_damage, random_photometry, stretched, warp
from training.data.cityscapes_pairs import SIDE, Pairs, Split, load_pairs
from training.data.void import VOID, draw_void
from training.recipe import Augmentation

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

ROAD_USERS = tuple(info for info in CITYSCAPES_CLASSES if info.thing)
"""The classes that have boxes, in the order in which networks and figures number them; their ids follow each other."""

LEAST_FILL, LEAST_OWN = 0.35, 0.15
"""A box is sure if at least this share of it shows its class, all boxes or only what no nearer box covers counted."""

LEAST_HEIGHT, LEAST_WIDTH = 4.0, 2.0
"""A box smaller than this, in pixels of the network's input, is not sure."""

LEAST_VISIBLE = 0.4
"""A box that a view cuts down to less than this share of its area is not sure."""

HIDDEN = 0.9
"""A box that is covered by this share in a view is not in it; from half of that on it is not sure."""

SPREAD = 0.12
"""Standard deviation of the bell around a centre, in sides of the box."""

LEAST_SPREAD = 0.35
"""The same in cells, at least."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture.

    Attributes:
        corners: (n, 4) float32 xyxy in pixels.
        labels: (n,) int64 places in `ROAD_USERS`.
        sure: (n,) bool; what a network says about the others is neither right nor wrong.
    """

    corners: Float32
    labels: NDArray[np.int64]
    sure: NDArray[np.bool_]


@dataclass(frozen=True)
class RoadUserPairs:
    """A split held in memory: pictures with labels, and the boxes of each picture."""

    pairs: Pairs
    boxes: tuple[Boxes, ...]

    @property
    def photos(self) -> UInt8:
        return self.pairs.photos

    @property
    def names(self) -> Sequence[str]:
        return self.pairs.names

    @property
    def protocol(self) -> str:
        return f"{self.pairs.protocol}; sure boxes count, the others are ignored"

    def __len__(self) -> int:
        return len(self.pairs)


def read_boxes(path: Path) -> dict[int, Boxes]:
    """The boxes in a file, by the number of the pair.

    Raises:
        SourceError: there is no such file, or a line that does not fit, by its number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SourceError(
            f"the boxes of road users {path} cannot be read ({error.strerror}); a line a picture is wanted there"
        ) from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not text; boxes of road users are wanted, a line of JSON a picture") from None
    found: dict[int, Boxes] = {}
    for number, line in enumerate(lines, 1):
        try:
            index, boxes = _read_line(line)
        except (ValueError, msgspec.DecodeError) as error:
            raise SourceError(
                f"{path}, line {number}: {error}; wanted is "
                f'{{"index": 1, "boxes": [[x1, y1, x2, y2, "car", {{}}]]}} in pixels of a {SIDE}×{SIDE} picture'
            ) from None
        if index in found:
            raise SourceError(f"{path}, line {number}: picture {index} has a line already; leave one of them out")
        kept = [box for box in boxes if not box.flags.dup]
        found[index] = Boxes(
            np.array([box.corners for box in kept], np.float32).reshape(-1, 4),
            np.array([_PLACES[box.label] for box in kept], np.int64),
            np.array([box.flags.sure for box in kept], np.bool_),
        )
    return found


_PLACES = {info.name: place for place, info in enumerate(ROAD_USERS)}


class _Flags(msgspec.Struct):
    dup: bool = False
    tiny: bool = False
    fill: float = 1.0
    own: float = 1.0

    @property
    def sure(self) -> bool:
        return not self.tiny and self.fill >= LEAST_FILL and self.own >= LEAST_OWN


class _Box(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    x1: float
    y1: float
    x2: float
    y2: float
    label: str
    flags: _Flags

    @property
    def corners(self) -> tuple[float, float, float, float]:
        return self.x1, self.y1, self.x2, self.y2


class _Line(msgspec.Struct):
    index: int
    boxes: list[_Box]


def _read_line(line: str) -> tuple[int, list[_Box]]:
    found = msgspec.json.decode(line, type=_Line, strict=False)  # a flag is written as true or as 1
    for box in found.boxes:
        if box.label not in _PLACES:
            raise ValueError(f"no road user is called {box.label!r}, there are {', '.join(_PLACES)}")
        if not (0 <= box.x1 < box.x2 <= SIDE and 0 <= box.y1 < box.y2 <= SIDE):
            raise ValueError(f"the box {', '.join(f'{side:g}' for side in box.corners)} does not lie in the picture")
    return found.index, found.boxes


def load_road_users(
    root: Path, split: Split, cache: Path | None = None, *, skip_broken: bool = False,
    say: Callable[[str], None] = print,
) -> RoadUserPairs:  # fmt: skip
    """Read a split of the pairs with its boxes; see `load_pairs`.

    Raises:
        SourceError: not the set, a pair or a line that cannot be used, or a pair without a line of boxes.
    """
    path = boxes_file(root, split)
    boxes = read_boxes(path)
    pairs = load_pairs(root, split, cache, skip_broken=skip_broken, say=say)
    return RoadUserPairs(pairs, boxes_of(pairs.names, boxes, path))


def boxes_file(root: Path, split: Split) -> Path:
    """Where the boxes of a split stand."""
    return root / "boxes" / ("val.jsonl" if split == "val" else "train.jsonl")


def boxes_of(names: Sequence[str], boxes: Mapping[int, Boxes], path: Path) -> tuple[Boxes, ...]:
    """The boxes of pairs, by the names of their files.

    Args:
        names: such as `7.jpg`.
        boxes: of `read_boxes`.
        path: they were read from.

    Raises:
        SourceError: a pair without a line.
    """
    numbers = [int(Path(name).stem) for name in names]
    if missing := [number for number in numbers if number not in boxes]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise SourceError(f"{path} has no line for picture {missing[0]}{more}; write one, without boxes if it has none")
    return tuple(boxes[number] for number in numbers)


def moved(boxes: Boxes, matrix: Float32, height: int, width: int) -> Boxes:
    """The boxes in a view of their picture; those that are hardly in it, or hardly to be seen, are not sure any more.

    Args:
        boxes: of the picture.
        matrix: (2, 3), takes the centres of the picture's pixels to those of the view's; no turning.
        height, width: of the view, in pixels.
    """
    scale = matrix[[0, 1], [0, 1]]
    # A side lies half a pixel before the centre of its pixel, in the picture as in the view.
    ends = (boxes.corners.reshape(-1, 2, 2) - 0.5) * scale + matrix[:, 2] + 0.5
    corners = np.concatenate([ends.min(1), ends.max(1)], 1)
    cut = np.clip(corners, 0, [width, height, width, height]).astype(np.float32)
    size, whole = cut[:, 2:] - cut[:, :2], corners[:, 2:] - corners[:, :2]
    inside = (size > 0).all(1)
    large = (size[:, 0] >= LEAST_WIDTH) & (size[:, 1] >= LEAST_HEIGHT)
    seen = size.prod(1) >= LEAST_VISIBLE * whole.prod(1)
    return Boxes(cut[inside], boxes.labels[inside], (boxes.sure & large & seen)[inside])


def without_hidden(boxes: Boxes, covered: NDArray[np.bool_]) -> Boxes:
    """The boxes that are not covered; those that are by half are not sure any more.

    Args:
        boxes: in pixels of the view.
        covered: (H, W), of the view.
    """
    if not len(boxes.labels) or not covered.any():
        return boxes
    total = cv2.integral(covered.astype(np.uint8))
    # The nearest whole pixels, one at least.
    limits = np.array(covered.shape[::-1])
    first = np.minimum(np.rint(boxes.corners[:, :2]).astype(int), limits - 1)
    (x1, y1), (x2, y2) = first.T, np.maximum(np.rint(boxes.corners[:, 2:]).astype(int), first + 1).T
    share = (total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1]) / ((x2 - x1) * (y2 - y1))
    shown = share < HIDDEN
    return Boxes(boxes.corners[shown], boxes.labels[shown], (boxes.sure & (share < HIDDEN / 2))[shown])


def draw_targets(
    boxes: Boxes, height: int, width: int, stride: int, classes: int = len(ROAD_USERS)
) -> tuple[Float32, Float32, Float32]:
    """What heat map and sides are to be.

    Args:
        boxes: in pixels of the input.
        height, width: of the map, in cells.
        stride: pixels of a cell.
        classes: T, that there are.

    Returns:
        (T, height, width) heat, 1 at centres, −1 where only a box that is not sure could be; (4, height, width) box of
        the object that a cell belongs to, in pixels; (height, width) weight of a cell, one in sum for each object.
    """
    heat = np.zeros((classes, height, width), np.float32)
    truth, weight = np.zeros((4, height, width), np.float32), np.zeros((height, width), np.float32)
    bells, owner = np.zeros((height, width), np.float32), np.full((height, width), -1)
    for (x1, y1, x2, y2), label in zip(boxes.corners[~boxes.sure] / stride, boxes.labels[~boxes.sure], strict=True):
        heat[label, int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = -1
    sure = np.flatnonzero(boxes.sure)
    for number in sure:
        x1, y1, x2, y2 = boxes.corners[number] / stride
        x, y = min(int((x1 + x2) / 2), width - 1), min(int((y1 + y2) / 2), height - 1)
        spread_x, spread_y = max((x2 - x1) * SPREAD, LEAST_SPREAD), max((y2 - y1) * SPREAD, LEAST_SPREAD)
        reach_x, reach_y = int(3 * spread_x), int(3 * spread_y)
        rows = slice(max(y - reach_y, 0), min(y + reach_y + 1, height))
        columns = slice(max(x - reach_x, 0), min(x + reach_x + 1, width))
        across = np.exp(-(((np.arange(columns.start, columns.stop) - x) / spread_x) ** 2) / 2)
        down = np.exp(-(((np.arange(rows.start, rows.stop) - y) / spread_y) ** 2) / 2)
        bell = (down[:, None] * across).astype(np.float32)
        part = heat[boxes.labels[number], rows, columns]
        np.copyto(part, np.maximum(part, bell), where=(part >= 0) | (bell > 0.5))
        mine = (bell > 0.5) & (bell > bells[rows, columns])
        bells[rows, columns][mine], owner[rows, columns][mine] = bell[mine], number
    for number in sure:
        cells = owner == number
        if cells.any():
            truth[:, cells] = boxes.corners[number][:, None]
            weight[cells] = bells[cells] / bells[cells].sum()
    return heat, truth, weight


@dataclass(frozen=True)
class RandomScenes:
    """Random views of pictures with labels and boxes; see `training.data.augmentation`.

    Attributes:
        photos: (N, H, W, 3) uint8 RGB.
        labels: (N, H, W) uint8, 255 ignored.
        boxes: of the N pictures.
        options: ranges of the randomness.
        stride: pixels of a cell of the heat map.
        size: height and width of a view.
        shares: (N,) how often each picture is drawn, one in sum.
        void: share of the views that something is drawn into which is no picture of the road. None leaves what falls
            outside of a picture, too, without a label.
        damaged: share of the views that `random_damage` is done to.
    """

    photos: UInt8
    labels: UInt8
    boxes: Sequence[Boxes]
    options: Augmentation
    stride: int
    size: tuple[int, int]
    shares: NDArray[np.float64]
    void: float | None = None
    damaged: float = 0.0

    def __call__(self, index: int, rng: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """A view of picture `index`: picture (H, W, 3) and label (H, W), uint8, then what `draw_targets` gives.

        Where pictures come unequally often, `index` says nothing; the picture is drawn.
        """
        if np.ptp(self.shares):
            index = int(rng.choice(len(self.shares), p=self.shares))
        height, width = self.size
        matrix = affine(height, width, rng, self.options.scale, self.options.aspect)
        matrix = stretched(matrix, self.labels[index], self.size)
        outside = IGNORE if self.void is None else VOID
        picture, label = warp(self.photos[index], self.labels[index], matrix, self.size, outside)
        boxes = moved(self.boxes[index], matrix, height, width)
        if self.void is not None and rng.random() < self.void:
            picture, label = draw_void(picture, label, rng)
            boxes = without_hidden(boxes, label == VOID)
        picture = random_photometry(picture, rng, self.options.photometry)
        if self.damaged and rng.random() < self.damaged:
            picture = random_damage(picture, rng)
        return picture, label, *draw_targets(boxes, height // self.stride, width // self.stride, self.stride)
