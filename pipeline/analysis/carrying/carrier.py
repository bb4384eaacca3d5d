"""The stage between fusing and a stream's own stages that fills the frames which a model did not look at.

Of a file a frame waits until the model has looked again, and what is carried to it comes from the nearer of the two
looks, boxes from in between; so looks may be twice as far apart for the same agreement. Of a live stream, which must
not get old, everything comes from the look before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE
from pipeline.analysis.carrying.agreement import of_boxes, of_maps
from pipeline.analysis.carrying.flow import Motion, motion
from pipeline.analysis.fuse import class_area
from pipeline.frame import Analysis, Box

UInt8 = NDArray[np.uint8]
T = TypeVar("T")

Learned = Callable[[str, int, dict[str, float]], None]
"""Told of a look: the model, how many frames it was since its look before, and how far what was carried from there
agrees with it, of `map` and `boxes`; nothing where there is a cut in between."""


@dataclass(slots=True, eq=False)
class Passing(Generic[T]):
    """An analysis on its way past the carrier.

    Attributes:
        analysis: fused; what the models did not see in its frame is filled in.
        luma: the frame's small luma; None where nothing is moved.
        scene: how many cuts came before it.
        luggage: what travels with it.
    """

    analysis: Analysis
    luma: UInt8 | None
    scene: int
    luggage: T


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """What a model saw: its boxes, and the class map where it is the segmenter."""

    index: int
    time: float
    luma: UInt8 | None
    scene: int
    boxes: tuple[Box, ...]
    area: dict[str, float]
    class_map: UInt8 | None = None
    confidence: UInt8 | None = None
    unsmoothed: UInt8 | None = None

    @property
    def maps(self) -> tuple[UInt8 | None, UInt8 | None, UInt8 | None]:
        return self.class_map, self.confidence, self.unsmoothed


class Carrier(Generic[T]):
    """Fills the frames of one stream that models did not look at, in order.

    Args:
        names: all models, in the order of their boxes.
        sparse: those that do not look at every frame.
        awaited: those of them for whose next look a frame waits.
        segmenter: the one that gives the class map; empty for none.
        judged: those of whose looks `learned` is told, of every one but the first.
        learned: told of a look.
    """

    def __init__(
        self,
        names: Sequence[str],
        sparse: Collection[str],
        awaited: Collection[str],
        segmenter: str = "",
        judged: Collection[str] = (),
        learned: Learned = lambda _model, _gap, _agreement: None,
    ) -> None:
        self._order = {name: place for place, name in enumerate(names)}
        self._sparse = [name for name in names if name in sparse]
        self._awaited, self._segmenter = [*awaited], segmenter
        self._judged, self._learned = judged, learned
        self._looks: dict[str, _Look] = {}
        self._held: deque[Passing[T]] = deque()

    def take(self, passing: Passing[T]) -> list[Passing[T]]:
        """Take an analysis; those that are filled by now, in order."""
        self._held.append(passing)
        looked = passing.analysis.models
        for name in self._sparse:
            if name in looked:
                self._look(name, passing)
            elif name not in self._awaited and name in self._looks:
                self._fill(passing, name, self._looks[name], None)
        return self._released()

    def flush(self) -> list[Passing[T]]:
        """No more will come: those that wait, filled from the looks before them."""
        for name in self._awaited:
            if (look := self._looks.get(name)) is not None:
                for passing in self._between(name, look):
                    self._fill(passing, name, look, None)
        return self.drop()

    def drop(self) -> list[Passing[T]]:
        """Those that wait, as they are; nobody wants them any more."""
        waiting = list(self._held)
        self._held.clear()
        return waiting

    def _released(self) -> list[Passing[T]]:
        ready = list[Passing[T]]()
        while self._held and all(self._settled(name, self._held[0]) for name in self._awaited):
            ready.append(self._held.popleft())
        return ready

    def _settled(self, name: str, passing: Passing[T]) -> bool:
        look = self._looks.get(name)
        return look is None or passing.analysis.frame.index <= look.index

    def _between(self, name: str, before: _Look) -> Iterable[Passing[T]]:
        """What waits since a model's look, and which it did not look at."""
        return (
            passing
            for passing in self._held
            if passing.analysis.frame.index > before.index and name not in passing.analysis.models
        )

    def _look(self, name: str, passing: Passing[T]) -> None:
        analysis, before = passing.analysis, self._looks.get(name)
        maps = (analysis.class_map, analysis.confidence, analysis.unsmoothed) if name == self._segmenter else ()
        boxes = tuple(box for box in analysis.boxes if box.origin == name)
        index, time = analysis.frame.index, analysis.frame.time
        look = _Look(index, time, passing.luma, passing.scene, boxes, analysis.area, *maps)
        self._looks[name] = look
        if before is None:
            return
        if name in self._awaited:
            for each in self._between(name, before):
                self._fill(each, name, before, look)
        if name in self._judged:
            agreement = _agreement(analysis, before, look) if before.scene == look.scene else {}
            self._learned(name, index - before.index, agreement)

    def _fill(self, passing: Passing[T], name: str, before: _Look, after: _Look | None) -> None:
        """Carry what a model saw before and after a frame to it."""
        analysis = passing.analysis
        near = _nearer(passing, before, after)
        analysis.carried_from[name] = near.index
        moved = _motion(passing.luma, near.luma)
        if near.class_map is not None:
            carried = moved.carry(near.maps, _hidden(near.class_map))
            analysis.class_map, analysis.confidence, analysis.unsmoothed = carried
            same = carried[0] is near.class_map
            analysis.area = dict(near.area) if same else class_area(carried[0], analysis.classes)
        boxes = [*_boxes(analysis, name, before, after, near, moved)]
        boxes += (box for box in analysis.boxes if box.origin != name)
        analysis.boxes = tuple(sorted(boxes, key=lambda box: self._order.get(box.origin, 0)))


def _agreement(analysis: Analysis, before: _Look, look: _Look) -> dict[str, float]:
    """How far what a model saw in one frame agrees with what it saw in an earlier one, carried."""
    moved = _motion(look.luma, before.luma)
    boxes = [box for box in (_shifted(box, moved, analysis) for box in before.boxes) if box is not None]
    agreement = dict[str, float]()
    if (overlap := of_boxes(look.boxes, boxes)) is not None:
        agreement["boxes"] = overlap
    if look.class_map is not None and before.class_map is not None:
        carried = moved.carry([before.class_map], _hidden(before.class_map))[0]
        if carried is not None and carried.shape == look.class_map.shape:
            agreement["map"] = of_maps(look.class_map, carried)
    return agreement


def _nearer(passing: Passing[T], before: _Look, after: _Look | None) -> _Look:
    """The look that a frame is filled from: the nearer one, and none beyond a cut if another one is on this side."""
    if after is None or before.scene == passing.scene != after.scene:
        return before
    if after.scene == passing.scene != before.scene:
        return after
    index = passing.analysis.frame.index
    return after if after.index - index < index - before.index else before


def _motion(now: UInt8 | None, other: UInt8 | None) -> Motion:
    return Motion(None) if now is None or other is None else motion(now, other)


def _hidden(class_map: UInt8) -> UInt8 | None:
    """Where a class map says none of the classes: what is not looked at, and the own car, go with the camera."""
    none = np.asarray(cv2.inRange(class_map, IGNORE, IGNORE), np.uint8)
    return none if cv2.countNonZero(none) else None


def _boxes(
    analysis: Analysis, name: str, before: _Look, after: _Look | None, near: _Look, moved: Motion
) -> Iterable[Box]:
    """The boxes of a model in a frame that it did not look at: those that it found on both sides from in between, else
    those of the nearer side, moved.
    """
    expected = {box.track: box for box in analysis.boxes if box.origin == name and box.track is not None}
    follows = after is not None and before.scene == after.scene
    later = {box.track: box for box in after.boxes if box.track is not None} if after is not None and follows else {}
    earlier = {box.track: box for box in before.boxes if box.track is not None} if follows else {}
    for box in near.boxes:
        if after is not None and box.track in earlier and box.track in later:
            share = (analysis.frame.time - before.time) / (after.time - before.time)
            found: Box | None = _between_both(earlier[box.track], later[box.track], share, box)
        elif near is before and box.track is not None:
            found = expected.get(box.track)  # as its track goes on
        else:
            found = _shifted(box, moved, analysis)
        if found is not None and not (analysis.frame.ignored is not None and analysis.frame.ignored.hides(found)):
            yield found


def _between_both(first: Box, last: Box, share: float, like: Box) -> Box:
    """A box on its way from one place to another; class and score of `like`."""
    x1, y1, x2, y2 = (
        start + share * (end - start)
        for start, end in zip(
            (first.x1, first.y1, first.x2, first.y2), (last.x1, last.y1, last.x2, last.y2), strict=True
        )
    )
    return replace(like, x1=x1, y1=y1, x2=x2, y2=y2)


def _shifted(box: Box, moved: Motion, analysis: Analysis) -> Box | None:
    """The box of another frame moved as the picture in it has; None where that is outside the frame."""
    width, height = float(analysis.frame.image.width), float(analysis.frame.image.height)
    right, down = moved.shift(box.x1 / width, box.y1 / height, box.x2 / width, box.y2 / height)
    x1, x2 = (min(max(x + right * width, 0.0), width) for x in (box.x1, box.x2))
    y1, y2 = (min(max(y + down * height, 0.0), height) for y in (box.y1, box.y2))
    return replace(box, x1=x1, y1=y1, x2=x2, y2=y2) if x2 > x1 and y2 > y1 else None
