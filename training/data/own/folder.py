"""The reader of somebody's folder of labelled pictures: looking over, training and scoring all go through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.errors import SourceError, UsageError
from engines.settings import nearest
from engines.tools.pictures import read_picture
from training.data.own.annotations import Annotations, read_annotations
from training.data.own.classes import Legend, find_class_file, make_legend, read_class_file
from training.data.own.layout import Layout, Part, Place, lay_out, match
from training.data.own.masks import found_legend, to_label
from training.data.own.photos import read_head, read_raw
from training.data.own.shapes import Drawn, Shape
from training.data.own.trips import hold_out, trips_of

UInt8 = NDArray[np.uint8]
Kind = Literal["masks", "boxes"]

COVERED = 0.9
"""Where polygons cover more than this of the pictures, what is left between them is ignored; else it is background."""

SAME_ASPECT = 0.01
"""A label of another size than its picture is stretched if its sides are in the same proportion to within this."""


@dataclass(frozen=True)
class Choice:
    """What of the reading is ours to choose.

    Attributes:
        trips: see `training.data.own.trips.trips_of`.
        held_out: share of the pictures held out, where folders say no parts.
        seed: of that draw.
        ignore_strays: see `to_label`.
    """

    trips: str = ""
    held_out: float = 0.2
    seed: int = 0
    ignore_strays: bool = False


USUAL = Choice()
"""How a folder is read when nothing is said."""


@dataclass(frozen=True)
class Item:
    """A picture and its truth.

    Attributes:
        name: path below the folder.
        picture: file.
        part: None for one that is left out between two parts of a trip.
        trip: that it is of.
        label: file of the truth; None for a picture without one.
        drawn: what is drawn on it, where the truth is no picture.
        fault: why its truth cannot be read.
    """

    name: str
    picture: Path
    part: Part | None
    trip: str
    label: Path | None = None
    drawn: Drawn | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Folder:
    """Labelled pictures as they lie in a folder.

    Attributes:
        root: the folder.
        kind: whether truth is a class for each pixel, or boxes.
        form: of the truth, in words.
        legend: what numbers, colours and names stand for.
        items: in order of trips and names.
        behind: class id of what no polygon covers.
        ignore_strays: see `to_label`.
        orphans: labels without a picture.
        unlabelled: pictures without a label, which are left out.
        notes: what was found out and how, a sentence each.
    """

    root: Path
    kind: Kind
    form: str
    legend: Legend
    items: tuple[Item, ...]
    behind: int
    ignore_strays: bool
    orphans: tuple[str, ...]
    unlabelled: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def parts(self) -> dict[Part, int]:
        """How many pictures each part has, of the parts that there are."""
        order: tuple[Part, ...] = ("train", "val", "test")
        counts = {part: sum(item.part == part for item in self.items) for part in order}
        return {part: count for part, count in counts.items() if count}

    def of(self, part: Part) -> list[Item]:
        """The pictures of a part."""
        return [item for item in self.items if item.part == part]


@dataclass(frozen=True)
class Sample:
    """One picture as it is read: (H, W, 3) uint8 RGB, upright, its truth, and what is odd about it, a clause each.

    `label` is (H, W) uint8 class ids for masks; `corners` (n, 4) float32 xyxy in pixels, `labels` (n,) int64 class ids
    and `sure` (n,) bool for boxes.
    """

    photo: UInt8
    label: UInt8
    corners: NDArray[np.float32]
    labels: NDArray[np.int64]
    sure: NDArray[np.bool_]
    notes: tuple[str, ...]


def holds(root: Path) -> Kind | None:
    """Whether a folder holds labelled pictures, by names and the beginnings of annotations; masks before boxes."""
    try:
        layout = lay_out(root)
        if layout.pictures and match(layout.pictures, layout.masks)[0]:
            return "masks"
        found = read_annotations(layout) if layout.pictures else None
    except SourceError:
        return None
    if found is None or not any(found.drawn.values()):
        return None
    return "masks" if found.polygons else "boxes"


def open_folder(root: Path, kind: Kind, choice: Choice = USUAL) -> Folder:
    """Find pictures, truth, classes, trips and parts; pictures themselves are read by `read_sample`.

    Raises:
        SourceError: no such folder, nothing in it that goes together, or classes that cannot be made out.
        UsageError: a pattern of trips that does not fit.
    """
    layout = lay_out(root)
    if not layout.pictures:
        raise SourceError(f"{root} holds no pictures (.jpg, .png …) beside labels; give the folder with both")
    masks, orphans = match(layout.pictures, layout.masks)
    if kind == "masks" and masks:
        paths = sorted(masks.values())
        legend = _from_file(root, [root, *{path.parent for path in paths}]) or found_legend(paths)
        items = [_item(place, layout, masks.get(place.path)) for place in layout.pictures]
        folder = Folder(
            root, kind, f"labels as pictures ({_modes(paths)})", legend, tuple(items), IGNORE, choice.ignore_strays,
            tuple(str(path.relative_to(root)) for path in orphans), (), (),
        )  # fmt: skip
    else:
        folder = _drawn_folder(root, kind, layout, choice.ignore_strays)
    named = [item for item in folder.items if item.label is not None]
    without = tuple(item.name for item in folder.items if item.label is None)
    return _with_parts(replace(folder, items=tuple(named), unlabelled=without), layout, choice)


def _nothing_matches(layout: Layout, kind: Kind, orphans: Sequence[str]) -> SourceError:
    root, first = layout.root, layout.pictures[0].path.relative_to(layout.root)
    if orphans:
        close = nearest(first.stem, [Path(name).stem for name in orphans])
        label = next((name for name in orphans if Path(name).stem == close), orphans[0])
        return SourceError(
            f"no label of {root} has the name of a picture (such as {first}, but {label}); name them alike"
        )
    wanted = "masks/NAME.png, or polygons of COCO, CVAT or Labelme" if kind == "masks" else "those of YOLO, VOC or COCO"
    return SourceError(
        f"{root} has {len(layout.pictures)} pictures (such as {first}) and no labels for them; wanted are {wanted} "
        "(see training/OWN.md)"
    )


def _item(place: Place, layout: Layout, label: Path | None) -> Item:
    name = place.path.relative_to(layout.root).as_posix()
    return Item(name, place.path, layout.part(place), "/".join(place.trip), label)


def _modes(paths: Sequence[Path]) -> str:
    words = {"P": "with a palette", "L": "numbers", "1": "two levels", "RGB": "colours", "RGBA": "colours"}
    found = set()
    for path in paths[:20]:
        try:
            head = read_head(path)
        except SourceError:
            continue
        found.add(f"{head.format} {words.get(head.mode, head.mode)}")
    return ", ".join(sorted(found)) or "none readable"


def _from_file(root: Path, folders: Sequence[Path]) -> Legend | None:
    path = find_class_file(dict.fromkeys(folders))
    return None if path is None else make_legend(read_class_file(path), path.relative_to(root).as_posix())


def _drawn_folder(root: Path, kind: Kind, layout: Layout, ignore_strays: bool) -> Folder:
    found = read_annotations(layout)
    known = set(found.files.values())
    orphans = [*(str(p.relative_to(root)) for p in found.single if p not in known), *found.missing(layout.pictures)]
    legend = _from_file(root, [root, *sorted({path.parent for path in known})]) or found.legend()
    if not known or legend is None:
        unmatched = [str(place.path.relative_to(root)) for place in layout.masks] if kind == "masks" else []
        raise _nothing_matches(layout, kind, orphans or unmatched)
    items = []
    for place in layout.pictures:
        drawn, fault, file = found.of(place)
        part = layout.part(place) or (None if file is None else found.part_of_file(file))
        items.append(replace(_item(place, layout, file), drawn=drawn, fault=fault, part=part))
    folder = Folder(
        root, kind, f"{'polygons' if kind == 'masks' else 'boxes'} of {found.form}", legend, tuple(items), IGNORE,
        ignore_strays, tuple(orphans), (), (),
    )  # fmt: skip
    return _with_background(folder, found) if kind == "masks" else folder


def _with_background(folder: Folder, found: Annotations) -> Folder:
    """What no polygon covers: a class of its own, or nothing."""
    if not found.polygons:
        raise SourceError(
            f"{folder.root} holds boxes and no polygons ({found.form}); train them with `roadlens train own-boxes`"
        )
    legend = folder.legend
    grid = 96
    shares = [
        float((item.drawn.label(grid, grid, lambda _: 1, 0) > 0).mean())
        for item in folder.items
        if item.drawn is not None
    ]
    covered = float(np.mean(shares)) if shares else 0.0
    own = next((info.id for info in legend.classes if info.name.casefold() in ("background", "other")), None)
    if own is None and covered > COVERED:
        note = f"polygons cover {covered:.0%} of the pictures; what is between them is ignored"
        return replace(folder, notes=(*folder.notes, note))
    if own is None:
        own = len(legend.classes)
        classes = (*legend.classes, ClassInfo(own, "background", (0, 0, 0)))
        legend = replace(legend, classes=classes, names=legend.names | {"background": own})
    note = f"polygons cover {covered:.0%} of the pictures; the rest is the class {legend.classes[own].name}"
    return replace(folder, legend=legend, behind=own, notes=(*folder.notes, note))


# Parts --------------------------------------------------------------------------------------------------------------


def _with_parts(folder: Folder, layout: Layout, choice: Choice) -> Folder:
    places = {place.path: place for place in layout.pictures}
    stems = [places[item.picture].stem for item in folder.items]
    trips, told = trips_of(stems, [places[item.picture].trip for item in folder.items], choice.trips)
    items = [replace(item, trip=trip) for item, trip in zip(folder.items, trips, strict=True)]
    items.sort(key=lambda item: (item.trip, item.name))
    given = {item.part for item in items}
    if "train" in given and ("val" in given or "test" in given):
        lost = sum(item.part is None for item in items)
        note = "parts are those of the folders or lists" + (
            f"; {lost} pictures are in none and left out" if lost else ""
        )
        if "val" not in given:
            items = [replace(item, part="val") if item.part == "test" else item for item in items]
            note += "; test is taken for val, which there is none of"
    else:
        parts, note = hold_out([item.trip for item in items], choice.held_out, choice.seed)
        items = [replace(item, part=part) for item, part in zip(items, parts, strict=True)]
    trip_note = f"{len(set(trips))} trips, told {told}"
    return replace(folder, items=tuple(items), notes=(*folder.notes, trip_note, note))


# Reading ------------------------------------------------------------------------------------------------------------


def read_sample(folder: Folder, item: Item) -> Sample:
    """A picture with its truth.

    Raises:
        SourceError: the picture or its truth cannot be read, their sizes do not fit, or a class is none of the legend.
    """
    if item.fault is not None:
        raise SourceError(item.fault)
    head, notes = read_head(item.picture), list[str]()
    photo = read_picture(item.picture)
    height, width = photo.shape[:2]
    if head.turn != 1:
        notes.append(f"EXIF turns it (orientation {head.turn}): it is read upright, {width}×{height}")
    empty = (np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    if item.drawn is None:
        assert item.label is not None
        label = _label(folder, item, (width, height), head.turn, notes)
        return Sample(photo, label, *empty, tuple(notes))
    _check_size(item, item.drawn.size, (width, height), head.turn)
    number_of = _numbers(folder, item)
    if folder.kind == "masks":
        return Sample(photo, item.drawn.label(width, height, number_of, folder.behind), *empty, tuple(notes))
    found = _boxes(item, (width, height), number_of, notes)
    return Sample(photo, np.zeros((0, 0), np.uint8), *found, tuple(notes))


def _label(folder: Folder, item: Item, size: tuple[int, int], turn: int, notes: list[str]) -> UInt8:
    assert item.label is not None
    head = read_head(item.label)
    # A label made without regard to EXIF lies as the pixels do, not as the picture is seen.
    lies = turn != 1 and (head.width, head.height) != size and (head.height, head.width) == size
    if lies:
        notes.append("its label lies unturned and is turned alike")
    label = to_label(
        read_raw(item.label, turn if lies else 1), folder.legend, item.label, ignore_strays=folder.ignore_strays
    )
    found = (label.shape[1], label.shape[0])
    if found == size:
        return label
    if abs(found[0] * size[1] / (found[1] * size[0]) - 1) > SAME_ASPECT:
        raise SourceError(
            f"{item.label} is {found[0]}×{found[1]} and its picture {size[0]}×{size[1]}: they do not lie "
            "on each other; export the label in its picture's size"
        )
    notes.append(f"its label is {found[0]}×{found[1]} and stretched to {size[0]}×{size[1]}")
    return np.asarray(cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _check_size(item: Item, stated: tuple[int, int] | None, size: tuple[int, int], turn: int) -> None:
    if stated is None or stated == size:
        return
    if turn >= 5 and stated[::-1] == size:
        raise SourceError(
            f"{item.picture} is turned by EXIF, and what is drawn on it ({item.label}) is of the unturned picture; "
            "save the picture without EXIF and draw again, or take it away"
        )
    if abs(stated[0] * size[1] / (stated[1] * size[0]) - 1) > SAME_ASPECT:
        raise SourceError(
            f"{item.label} is of a picture of {stated[0]}×{stated[1]}, and {item.picture} is {size[0]}×{size[1]}; give "
            "the picture that was drawn on"
        )


def _numbers(folder: Folder, item: Item) -> Callable[[Shape], int]:
    legend = folder.legend

    def number_of(shape: Shape) -> int:
        if shape.number is not None:
            own = legend.ids.get(shape.number)
        else:
            own = legend.names.get(shape.name.strip().casefold())
        if own is not None:
            return own
        if folder.ignore_strays:
            return IGNORE
        called = f"the id {shape.number}" if shape.number is not None else f"the class {shape.name!r}"
        close = None if shape.number is not None else nearest(shape.name, [info.name for info in legend.classes])
        raise SourceError(
            f"{item.label} ({item.name}) has {called}, which is none of the classes: {legend.described()} "
            f"({legend.source}){f'; the nearest is {close}' if close else ''}: add it there, or train with "
            "strays=ignore"
        )

    return number_of


def _boxes(
    item: Item, size: tuple[int, int], number_of: Callable[[Shape], int], notes: list[str]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    assert item.drawn is not None
    corners, labels, sure, cut = list[NDArray[np.float64]](), list[int](), list[bool](), 0
    for shape, box in item.drawn.boxes(*size):
        number = number_of(shape)
        inside = np.clip(box, 0, [*size, *size])
        if not np.isfinite(box).all() or (box[2:] <= box[:2]).any() or (inside[2:] - inside[:2] < 0.5).any():
            name = shape.name or shape.number
            raise SourceError(
                f"{item.label} ({item.name}) has a box of {name} at {', '.join(f'{v:.4g}' for v in box)} (left, top, "
                f"right, bottom), which holds nothing of a picture of {size[0]}×{size[1]}; mend it or take it away"
            )
        cut += bool((np.abs(inside - box) > 2).any())
        corners.append(inside)
        labels.append(0 if number == IGNORE else number)
        sure.append(shape.sure and number != IGNORE)
    if cut:
        notes.append(f"{cut} boxes reach outside it and are cut there")
    return np.array(corners, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(sure, np.bool_)


def check_part(folder: Folder, part: Part) -> list[Item]:
    """The pictures of a part, of which there is at least one.

    Raises:
        UsageError: there are none.
    """
    items = folder.of(part)
    if not items:
        have = ", ".join(f"{name} ({count} pictures)" for name, count in folder.parts.items())
        raise UsageError(f"{folder.root} has no part {part}; there are {have}")
    return items
