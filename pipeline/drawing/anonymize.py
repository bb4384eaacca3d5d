"""People and number plates made unrecognisable in the picture itself, before anything is drawn on it or leaves with it.

The stage puts a blurred picture in the place of the frame's own, so that no output, whichever it is, has the original:
what is not in the analysis cannot leak. It is the first of the stages; one's own stages see the blurred picture too.

Covered are people, and of every vehicle the lower part, where plates are. `sparing` covers heads, and the plates of
vehicles near enough that one can be read: by the boxes of a model that gives some, and by the class map where no box
tells of what it shows. Of whoever stands behind a car no more is seen than a head, and no model finds it: what is just
above the roofs of near cars is covered, too, by their boxes. Figures: `tests/benchmarks/anonymizing.py`.

It is as good as the models: a person they do not see at all stays visible. Therefore regions are widened, and last
for a while after they were seen, and of files before as well: frames wait until what lies a second behind them is
known. To read a file twice would be to decode it twice, and to infer twice or keep all that was found in hours.

Whole, 200 validation pairs of Cityscapes, cityscapes-unet, single pictures: of 553 people (the smallest of
12 pixels in 256×256) 86 % were covered whole (more than 95 % of them) and 92 % by half or more, with 18 % of the
picture blurred; at a margin of 0.02 77 %, 90 % and 14 %; without any 35 %, 72 % and 7 %.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.bundled import DEFAULT
from engines.classes import ClassInfo
from engines.errors import UsageError
from pipeline.contracts import StreamInfo
from pipeline.drawing.blurring import blurred
from pipeline.drawing.sightings import HAIR, Sightings
from pipeline.frame import Analysis, Box, Ignored
from pipeline.pictures.picture import Picture

UInt8 = NDArray[np.uint8]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

_HELD = 64
"""Most frames that a file is looked ahead, and most masks kept of the past."""

_SHORTEST = 0.2
"""Seconds for which boxes are remembered at least: longer than from a frame to the next."""

_WAITING = 256_000_000
"""Most bytes of the pictures of a file that wait while it is looked ahead."""

_CLOSE_HEADS, _CLOSE_PLATES = 0.5, 0.1
"""How much of the margin is left where it is sparing. Heads are small and cost little of the picture; the rows in which
the plates of a vehicle may be are many as it is."""

_ABOVE, _BESIDE = 0.08, 0.04
"""How far a head's region reaches above and beside its person's box, as a share of the box's height, and a plate's
beside its vehicle's, as a share of the width: what boxes are off by."""

_STANDING, _HEAD_TO_WIDTH = 2.2, 1.6
"""How many times higher than wide somebody is of whom more than head and shoulders is seen; and how high, in widths, a
head and its neck are at most where less is seen."""

_OFF = 0.08
"""The same for what the class map shows of an object of which a box tells, as a share of both sides."""

_PLATE_ROWS = {"car": (0.3, 0.96), "truck": (0.5, 0.98), "bus": (0.55, 0.98), "motorcycle": (0.2, 0.9)}
"""Where the plates of a vehicle may be, as shares of its height from above."""

_PLATE_TO_HEIGHT = {"car": 0.09, "truck": 0.06, "bus": 0.05, "motorcycle": 0.15}
"""Height of a plate as a share of its vehicle's at most: 11 to 14 cm of 1.3 m and more."""

_PLATE_TO_WIDTH = 0.065
"""The same of the width of a vehicle that is seen from its front or back: 11 cm of 1.7 m."""

_LOW, _ROOF, _HEAD_TO_HEIGHT = ("car",), 0.1, 0.14
"""Vehicles lower than people, the share of their height below their box's upper edge that may be behind them still, and
the height of a head as a share of theirs: 23 cm of 1.45 m."""

_DOUBT = 0.75
"""Share of the height asked for from which on a plate is covered: what sizes are off by."""


class AnonymizeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is blurred in every picture that leaves the process.

    Attributes:
        sparing: whether heads alone are blurred, and plates of vehicles near enough that one can be read; else people
            are whole, and of every vehicle the lower part.
        people: names of classes of which all, or where `sparing` the head is blurred.
        vehicles: names of classes that have plates.
        head_share: share of a person's height, from above, that is blurred where `sparing`.
        plate_pixels: height, in pixels of the full-size picture, from which on a plate is blurred where `sparing`.
        plate_share: share of a vehicle's height, from below, that is blurred where not `sparing`; 1 for all of it.
        roof_share: share of a near car's height, above its roof, that is blurred: of people behind it a head is seen
            there, too little for a model to find. Not where `people` is empty; 0 for none.
        margin: how far regions reach beyond what the models say, as a share of the picture's width and height; of heads
            half of it where `sparing`, of plates a tenth.
        hold: seconds that a region stays blurred after it was seen last, and, of a file, before it was seen first; the
            frame before always counts.
        hold_people: the same of people of whom a model gave two boxes or more, who go on as they moved.
        ahead: seconds that a file is looked ahead. An object found again within this time is covered in between, on its
            way from the one place to the other. Frames wait for it, with 64 pictures or 256 MB at most.
        blocks: most blocks across the longer side of a region.
    """

    sparing: bool = False
    people: tuple[str, ...] = ("person", "rider")
    vehicles: tuple[str, ...] = ("car", "truck", "bus", "motorcycle")
    head_share: Share = 0.3
    plate_pixels: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 12.0
    plate_share: Share = 0.6
    roof_share: Share = 0.2
    margin: Annotated[float, msgspec.Meta(ge=0, le=0.25)] = 0.03
    hold: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.2
    hold_people: Annotated[float, msgspec.Meta(ge=0, le=10)] = 1.0
    ahead: Annotated[float, msgspec.Meta(ge=0, le=5)] = 1.0
    blocks: Annotated[int, msgspec.Meta(ge=1, le=16)] = 8

    def of_stills(self) -> AnonymizeOptions:
        """For pictures that have nothing to do with each other."""
        return msgspec.structs.replace(self, hold=0.0, hold_people=0.0, ahead=0.0)

    def frames_ahead(self, info: StreamInfo) -> int:
        """How many frames of a file are looked at before one of them is blurred."""
        picture = info.width * info.height * 3 // 2
        return min(math.ceil(self.ahead * info.rate), _HELD, _WAITING // picture)

    def warm_up(self, info: StreamInfo) -> int:
        """How many frames before the first one that is given out have to be looked at."""
        return max(math.ceil(max(self.hold, self.hold_people, self.ahead) * info.rate), 1)


def check_segmenter(
    options: AnonymizeOptions, name: str, classes: Sequence[ClassInfo], every: int | Literal["auto"]
) -> None:
    """See that a run's segmenter can say what is to be blurred.

    Args:
        options: what is to be blurred.
        name: of the segmenter; empty where the run has none.
        classes: its label set.
        every: it looks at every n-th frame, or as often as their content asks for.

    Raises:
        UsageError: there is no segmenter, it does not know the classes, or it does not look at every frame.
    """
    if not name:
        raise UsageError(f"anonymize needs a segmenter to find people and vehicles; add one such as {DEFAULT}")
    known = [info.name for info in classes]
    for wanted, key in ((options.people, "people"), (options.vehicles, "vehicles")):
        if wanted and not any(each in known for each in wanted):
            raise UsageError(
                f"anonymize cannot blur {', '.join(wanted)}: {name} knows only {', '.join(known)}; "
                f"name its own under anonymize.{key}, or take another model"
            )
    if every != 1:
        rarely = "as many as their content asks for" if every == "auto" else f"every {every}-th"
        raise UsageError(
            f"anonymize needs {name} to look at every frame, not at {rarely}: people move in between; "
            "leave out its `every`"
        )


_Find = Callable[[UInt8, Sequence[ClassInfo], Sequence[Box], tuple[int, int], AnonymizeOptions], UInt8]
"""`sensitive` or `private_parts`."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What the models say of a frame: where its class map shows somebody, None where it has none; and boxes."""

    index: int
    time: float
    shown: UInt8 | None
    boxes: Sequence[Box]


class AnonymizeStage:
    """A stage that blurs people and plates of one stream, in a new picture that takes the place of the frame's own.

    Of a file it looks ahead. Objects that have boxes are followed to and fro: one is covered in frames that lie between
    two of its boxes, and just before the first and after the last of them (`pipeline.drawing.sightings`). What only the
    class map shows is covered a little before and after, where it was.

    Args:
        options: what is blurred, and how far.
        outlined: name of a model whose boxes are read off its class map and tell nothing new; empty for none. Those of
            all others are covered, too.
        ahead: how many frames of a file it looks ahead.
    """

    name = "anonymize"
    takes_turns = True

    def __init__(self, options: AnonymizeOptions, outlined: str = "", ahead: int = 0) -> None:
        self.ahead = ahead
        self._options, self._outlined = options, outlined
        self._find, self._kinds = _finder(options)
        self._wanted = {*options.people, *options.vehicles}
        self._seen: deque[_Seen] = deque(maxlen=2 * _HELD)
        self._sightings = Sightings(max(options.ahead, options.hold_people, options.hold, _SHORTEST))

    def foresee(self, analysis: Analysis) -> None:
        """See who is in a frame that will be blurred later."""
        frame, shown = analysis.frame, None
        size = (frame.image.width, frame.image.height)
        boxes = [b for b in (*analysis.boxes, *analysis.tentative) if b.origin != self._outlined]
        boxes = [box for box in boxes if box.label in self._wanted]
        if analysis.class_map is not None:
            shown = self._shown(analysis.class_map, analysis.classes, boxes, size)
            if analysis.unsmoothed is not None:  # who is seen now is covered now
                shown |= self._shown(analysis.unsmoothed, analysis.classes, boxes, size)
        self._sightings.add(boxes, frame.time)
        self._seen.append(_Seen(frame.index, frame.time, shown, boxes))

    def remember(self, analysis: Analysis) -> None:
        """Look at a frame before the first that is given out: who is missed in that one is covered still."""
        self._foreseen(analysis)

    def process(self, analysis: Analysis) -> Analysis:
        """Blur; a frame without a class map is blurred as a whole."""
        frame = analysis.frame
        covered = self._covered(self._foreseen(analysis), (frame.image.width, frame.image.height))
        if frame.ignored is not None:
            covered = _looked_at(covered, frame.ignored)
        analysis.frame = replace(frame, image=blurred(Picture.of(frame.image).on_host(), covered, self._options.blocks))
        analysis.picture = None
        analysis.anonymized = True
        return analysis

    def _foreseen(self, analysis: Analysis) -> int:
        """The place of a frame among those seen; it is looked at where nobody showed it ahead."""
        index = analysis.frame.index
        if not self._seen or self._seen[-1].index < index:
            self.foresee(analysis)
        return next(place for place, seen in enumerate(self._seen) if seen.index == index)

    def _covered(self, place: int, size: tuple[int, int]) -> UInt8:
        """The mask of a frame, by what was seen before and after it; the frames next to it always count."""
        now = self._seen[place]
        self._sightings.forget(now.time)
        if now.shown is None:
            return np.full((1, 1), 255, np.uint8)
        beside = [self._seen[k].time for k in (place - 1, place + 1) if 0 <= k < len(self._seen)]
        least = max((abs(time - now.time) for time in beside), default=0.0)
        hold = max(self._options.hold, least)
        longer = max(self._options.hold_people, hold)
        absent = self._sightings.between(
            now.time, lambda label: longer if label in self._options.people else hold, hold
        )
        covered = self._told([*now.boxes, *absent], now.shown, size)
        for seen in self._seen:
            if seen.shown is not None and abs(seen.time - now.time) <= hold + HAIR:
                cv2.bitwise_or(covered, _fitting(seen.shown, covered), dst=covered)
        while self._seen[0].time < now.time - hold and self._seen[1].index < now.index:
            self._seen.popleft()
        return covered

    def _shown(
        self, class_map: UInt8, classes: Sequence[ClassInfo], boxes: Sequence[Box], size: tuple[int, int]
    ) -> UInt8:
        """What a class map shows; where boxes tell of a part of it, that is left to them if `sparing`."""
        mask = np.zeros_like(class_map)
        boxes = boxes if self._options.sparing else ()
        for options, margin in self._kinds:
            found = self._find(class_map, classes, boxes, size, options)
            told = self._find(np.zeros_like(class_map), (), boxes, size, options)
            cv2.bitwise_or(mask, widened(np.asarray(cv2.subtract(found, told), np.uint8), margin), dst=mask)
        return mask

    def _told(self, boxes: Sequence[Box], like: UInt8, size: tuple[int, int]) -> UInt8:
        """What boxes tell of, as a mask of the size of another one."""
        mask, blank = np.zeros_like(like), np.zeros_like(like)
        for options, margin in self._kinds:
            cv2.bitwise_or(mask, widened(self._find(blank, (), boxes, size, options), margin), dst=mask)
        return mask


def _finder(options: AnonymizeOptions) -> tuple[_Find, list[tuple[AnonymizeOptions, float]]]:
    """What finds regions, and for which of them, with what margin."""
    if not options.people:
        options = msgspec.structs.replace(options, roof_share=0.0)
    if not options.sparing:
        return sensitive, [(options, options.margin)]
    people = msgspec.structs.replace(options, vehicles=()), _CLOSE_HEADS * options.margin
    vehicles = msgspec.structs.replace(options, people=()), _CLOSE_PLATES * options.margin
    return private_parts, [people, vehicles]


def _fitting(mask: UInt8, other: UInt8) -> UInt8:
    """A mask in the size of another one."""
    if mask.shape == other.shape:
        return mask
    return np.asarray(cv2.resize(mask, other.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)


def sensitive(
    class_map: UInt8,
    classes: Sequence[ClassInfo],
    boxes: Sequence[Box],
    size: tuple[int, int],
    options: AnonymizeOptions,
) -> UInt8:
    """Where people and plates are, as the models say.

    Args:
        class_map: (h, w) uint8 class ids.
        classes: the label set.
        boxes: that tell more than the class map, in pixels of the full-size frame.
        size: width and height of that frame.
        options: what counts.

    Returns:
        (h, w) uint8, 255 there and 0 elsewhere.
    """
    table = np.zeros(256, np.uint8)
    table[[info.id for info in classes if info.name in options.people]] = 255
    mask: UInt8 = np.asarray(cv2.LUT(class_map, table), np.uint8)
    for info in classes:
        if info.name in options.vehicles:
            vehicle = class_map == info.id
            if vehicle.any():
                mask[lower_part(vehicle, options.plate_share)] = 255
    height, width = class_map.shape
    across, down = width / size[0], height / size[1]
    for box in boxes:
        tall = box.y2 - box.y1
        if box.label in options.people:
            rows = [(0.0, 1.0)]
        elif box.label in options.vehicles:
            rows = [(1 - options.plate_share, 1.0), *_over_roof(box.label, tall, options)]
        else:
            continue
        for first, last in rows:
            top, bottom = (box.y1 + share * tall for share in (first, last))
            _fill(mask, box.x1 * across, top * down, box.x2 * across, bottom * down)
    return mask


def private_parts(
    class_map: UInt8,
    classes: Sequence[ClassInfo],
    boxes: Sequence[Box],
    size: tuple[int, int],
    options: AnonymizeOptions,
) -> UInt8:
    """Where heads are, and plates that can be read; arguments and result as of `sensitive`.

    A box tells where its object's head or plate is. What of the class map lies in no box is covered by its columns: the
    upper part of a run of people, the lower part of a run of vehicles.
    """
    height, width = class_map.shape
    across, down = width / size[0], height / size[1]
    mask, told = np.zeros_like(class_map), np.zeros_like(class_map)
    for box in boxes:
        if box.label not in options.people and box.label not in options.vehicles:
            continue
        wide, tall = box.x2 - box.x1, box.y2 - box.y1
        beside, above = _OFF * wide, _OFF * tall
        _fill(told, (box.x1 - beside) * across, (box.y1 - above) * down, (box.x2 + beside) * across,
              (box.y2 + above) * down)  # fmt: skip
        if box.label in options.people:
            standing = tall >= _STANDING * wide
            head = options.head_share if standing else min(1.0, _HEAD_TO_WIDTH * wide / max(tall, 1e-6))
            parts = [(-_ABOVE, head + _ABOVE, _ABOVE * tall)]
        else:
            parts = _parts_of_vehicle(box.label, wide, tall, options)
        for first, last, beside in parts:
            _fill(mask, (box.x1 - beside) * across, (box.y1 + first * tall) * down, (box.x2 + beside) * across,
                  (box.y1 + last * tall) * down)  # fmt: skip
    for info in classes:
        if info.name in options.people:
            people = (class_map == info.id) & (told == 0)
            if people.any():
                mask[_heads(people, (across, down), options.head_share)] = 255
        elif info.name in options.vehicles:
            vehicles = (class_map == info.id) & (told == 0)
            if vehicles.any():
                near = _near(vehicles, info.name, (across, down), options)
                mask[lower_part(near, options.plate_share)] = 255
    return mask


def _parts_of_vehicle(
    label: str, wide: float, tall: float, options: AnonymizeOptions
) -> list[tuple[float, float, float]]:
    """First and last row of what is covered of a vehicle, as shares of its height; by how many pixels it is wider."""
    parts = [(*rows, 0.0) for rows in _over_roof(label, tall, options)]
    if _plate_height(label, wide, tall) >= _DOUBT * options.plate_pixels:
        parts.append((*_PLATE_ROWS.get(label, _PLATE_ROWS["car"]), _BESIDE * wide))
    return parts


def _over_roof(label: str, tall: float, options: AnonymizeOptions) -> list[tuple[float, float]]:
    """First and last row of where heads of people behind a vehicle are seen, as shares of its height; none where they
    are too small to be known."""
    near = _HEAD_TO_HEIGHT * tall >= _DOUBT * options.plate_pixels
    return [(-options.roof_share, _ROOF)] if near and options.roof_share and label in _LOW else []


def _plate_height(label: str, wide: float, tall: float) -> float:
    """Pixels that a plate on a vehicle is high at most, when so much of the vehicle is seen."""
    return max(tall * _PLATE_TO_HEIGHT.get(label, _PLATE_TO_HEIGHT["car"]), wide * _PLATE_TO_WIDTH)


def _heads(people: NDArray[np.bool_], scale: tuple[float, float], share: float) -> NDArray[np.bool_]:
    """The upper part of each component that may be somebody standing; all of any other: of whom only the head is seen
    above a car, that is the head."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(people.view(np.uint8), connectivity=8)
    standing = stats[:, 3] / scale[1] >= _STANDING * stats[:, 2] / scale[0]
    standing[0] = True
    upright = people & standing[labels]
    return np.asarray(lower_part(upright[::-1], share)[::-1] | (people & ~upright), np.bool_)


def _near(
    vehicles: NDArray[np.bool_], label: str, scale: tuple[float, float], options: AnonymizeOptions
) -> NDArray[np.bool_]:
    """The components that are large enough for a plate to be read on them."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(vehicles.view(np.uint8), connectivity=8)
    near = np.zeros(count, np.bool_)
    for number in range(1, count):
        wide, tall = stats[number, 2] / scale[0], stats[number, 3] / scale[1]
        # One component may be several vehicles beside each other: its width says nothing.
        near[number] = _plate_height(label, min(wide, tall), tall) >= _DOUBT * options.plate_pixels
    return np.asarray(near[labels], np.bool_)


def _fill(mask: UInt8, x1: float, y1: float, x2: float, y2: float) -> None:
    rows, columns = (slice(max(0, int(np.floor(a))), max(0, int(np.ceil(b)))) for a, b in ((y1, y2), (x1, x2)))
    mask[rows, columns] = 255


def _looked_at(mask: UInt8, ignored: Ignored) -> UInt8:
    """The mask without what is ignored."""
    height, width = ignored.mask.shape
    size = (max(width, mask.shape[1]), max(height, mask.shape[0])) if mask.size == 1 else mask.shape[::-1]
    result = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    result[cv2.resize(ignored.mask, size, interpolation=cv2.INTER_NEAREST) > 0] = 0
    return np.asarray(result, np.uint8)


def lower_part(mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The lower `share` of every vertical run of a mask, (h, w) bool.

    Column by column, for a row of parked cars is one component: where one car hides another, what is seen above it is
    the hidden one's upper part, and its own lower part lies below.
    """
    result = np.zeros_like(mask)
    x, y, width, height = cv2.boundingRect(np.asarray(mask, np.uint8))
    part = mask[y : y + height, x : x + width]  # most of a picture is no vehicle
    rows = np.arange(height, dtype=np.int16)[:, None]
    before = np.maximum.accumulate(np.where(part, np.int16(-1), rows), axis=0)
    after = np.minimum.accumulate(np.where(part, np.int16(height), rows)[::-1], axis=0)[::-1]
    # A pixel's lower edge is `rows - before` below the run's top; the run is `after - before - 1` high.
    result[y : y + height, x : x + width] = part & (rows - before > (1 - share) * (after - before - 1))
    return result


def widened(mask: UInt8, margin: float) -> UInt8:
    """A mask, (h, w) uint8, grown by `margin` of its width and height in every direction, at least a pixel of each."""
    height, width = mask.shape
    reach = [max(1, round(margin * side)) if margin else 0 for side in (width, height)]
    kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (2 * reach[0] + 1, 2 * reach[1] + 1))
    return np.asarray(cv2.dilate(mask, kernel), np.uint8)
