"""What several models say of a frame, made one `Analysis`."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.boxes import distinct, iou_matrix
from engines.classes import IGNORE, ClassInfo
from engines.engine import Prediction
from engines.spec import ModelSpec
from pipeline.analysis.components import ComponentOptions, component_boxes
from pipeline.analysis.ignore import whole_map
from pipeline.analysis.own_car import OwnCar
from pipeline.analysis.smoothing import SmoothingOptions, TemporalSmoother
from pipeline.analysis.sound import sound
from pipeline.analysis.tracking import Tracker, TrackingOptions, alike
from pipeline.frame import Analysis, Box, Frame, Ignored, Mode, Rect
from pipeline.pictures.picture import Picture

UInt8 = NDArray[np.uint8]


HOLD = 0.8
"""Share of the smallest score that is enough for a box that was there before."""


FAINT = 0.6
"""Share of the smallest score of all that is enough for a tentative box, by which somebody is blurred."""


@dataclass(frozen=True, slots=True)
class FuseOptions:
    """How predictions become class maps, boxes and tracks.

    Attributes:
        components: boxes from the class map.
        tracking: track numbers.
        min_score: smallest score of a model's box; None takes what the model's spec says.
        hold_score: smallest score of one that was there when its model looked last: a box whose score wavers about
            `min_score` does not flicker. None is `HOLD` of the other.
        smoothing: of class maps over time, before anything is read off them; None for none.
    """

    components: ComponentOptions = field(default_factory=ComponentOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    min_score: float | None = None
    hold_score: float | None = None
    smoothing: SmoothingOptions | None = None

    def of_stills(self) -> FuseOptions:
        """For pictures that have nothing to do with each other: what is found in one need not be in the next."""
        return replace(self, tracking=self.tracking.of_stills())


class Fuser:
    """Fuses the predictions of one stream, frame by frame in order.

    A model that looks at every n-th frame only keeps speaking in between: a segmenter's last class map is repeated,
    and boxes move on with their tracks. `Analysis.models` says who looked at this very frame.

    Args:
        specs: the models; at most one gives a class map, and its label set becomes the analysis'. Boxes come in their
            order; they are read off the class map only where its model gives none.
        options: how to fuse.
        first_track: number of the first track.
        own_car: whether the own car, where the class map says so now and then, is kept in mind.

    Attributes:
        faults: what models said so far that cannot be so, by model and `FAULTS`; whoever has told of it may clear it.
    """

    def __init__(
        self, specs: Sequence[ModelSpec], options: FuseOptions, first_track: int = 1, *, own_car: bool = False
    ) -> None:
        self.options = options
        self.specs = {spec.name: spec for spec in specs}
        self.classes: tuple[ClassInfo, ...] = next((s.classes for s in specs if "class_map" in s.outputs), ())
        numbers = itertools.count(first_track)
        self._trackers = {
            name: Tracker(options.tracking, numbers, self._bounds(spec)[0] if "boxes" in spec.outputs else 0.0)
            for name, spec in self.specs.items()
        }
        self._found: dict[str, list[Box]] = {}
        self._smoother = None if options.smoothing is None else TemporalSmoother(options.smoothing)
        self._own_car = OwnCar() if own_car else None
        self._segmented = Prediction()
        self._unsmoothed: UInt8 | None = None
        self._crop: Rect | None = None
        self._area: dict[str, float] = {}
        self.faults: Counter[tuple[str, str]] = Counter()

    def fuse(
        self,
        frame: Frame,
        mode: Mode,
        predictions: Mapping[str, Prediction],
        inputs: Mapping[tuple[int, int], UInt8] | None = None,
    ) -> Analysis:
        """The analysis of a frame.

        Args:
            frame: the frame.
            mode: of its stream.
            predictions: of the models that looked at it, by model name.
            inputs: model inputs made of it, (height, width, 3) uint8 RGB by (height, width); one that smoothing needs
                and that is not there is made.
        """
        boxes, tentative = list[Box](), list[Box]()
        for name, spec in self.specs.items():
            if (prediction := predictions.get(name)) is None:
                moved = (self._moved(box, frame) for box in self._found.get(name, ()))
                boxes += (box for box in moved if box is not None)
                continue
            prediction, faults = sound(prediction, spec, min(self._bounds(spec)) * FAINT)
            self.faults.update({(name, fault): count for fault, count in faults.items()})
            if "class_map" in spec.outputs:
                shown = self._without_own_car(self._smoothed(spec, prediction, frame, inputs or {}), frame)
                self._segmented = _whole(shown, frame.ignored)
                if frame.ignored is not None and self._unsmoothed is not None:
                    self._unsmoothed = whole_map(self._unsmoothed, frame.ignored)
                self._area = class_area(self._segmented.class_map, spec.classes)
            if "boxes" in spec.outputs:
                found, faint = self._localize(spec, prediction, frame)
            else:
                found, faint = self._components(spec, self._segmented, frame), []
            if frame.ignored is not None:
                found = [box for box in found if not frame.ignored.hides(box)]
                faint = [box for box in faint if not frame.ignored.hides(box)]
            tracked = (_inside(box, frame) for box in self._trackers[name].update(found, frame.time, faint))
            self._found[name] = [box for box in tracked if box is not None]
            boxes += self._found[name]
            tentative += (*self._trackers[name].tentative, *self._trackers[name].unclaimed)
        return Analysis(
            frame=frame,
            mode=mode,
            models=tuple(name for name in self.specs if name in predictions),
            class_map=self._segmented.class_map,
            confidence=self._segmented.confidence,
            unsmoothed=self._unsmoothed,
            classes=self.classes,
            boxes=tuple(boxes),
            tentative=tuple(tentative),
            area=dict(self._area),
        )

    def _smoothed(
        self, spec: ModelSpec, prediction: Prediction, frame: Frame, inputs: Mapping[tuple[int, int], UInt8]
    ) -> Prediction:
        if self._smoother is None or prediction.class_map is None:
            return prediction
        size, crop = (spec.height, spec.width), frame.crop
        if crop != self._crop:  # maps of two crops have nothing to do with each other
            self._crop, self._smoother = crop, TemporalSmoother(self._smoother.options)
        picture = inputs[size] if size in inputs else Picture.of(frame.image).network_input(*size, crop)
        self._unsmoothed = prediction.class_map
        class_map, confidence = self._smoother.smooth(self._unsmoothed, prediction.confidence, picture, frame.time)
        return replace(prediction, class_map=class_map, confidence=confidence)

    def _without_own_car(self, seen: Prediction, frame: Frame) -> Prediction:
        if self._own_car is None or seen.class_map is None:
            return seen
        class_map, confidence = self._own_car.fill(seen.class_map, seen.confidence, _looked_at(frame), frame.time)
        return replace(seen, class_map=class_map, confidence=confidence)

    def _components(self, spec: ModelSpec, prediction: Prediction, frame: Frame) -> list[Box]:
        if prediction.class_map is None:
            return []
        size = (frame.image.width, frame.image.height)
        present = [info for info in spec.classes if info.name in self._area]
        return component_boxes(
            prediction.class_map, prediction.confidence, present, size, self.options.components, spec.name
        )

    def _localize(self, spec: ModelSpec, prediction: Prediction, frame: Frame) -> tuple[list[Box], list[Box]]:
        """A model's boxes, and its faint ones."""
        if prediction.boxes is None or prediction.scores is None:
            return [], []
        least, held = self._bounds(spec)
        likely = np.flatnonzero(prediction.scores >= min(held, least) * FAINT)
        scores = prediction.scores[likely]
        labels = np.zeros(len(likely), np.int32) if prediction.labels is None else prediction.labels[likely]
        corners = np.clip(prediction.boxes[likely].astype(np.float64), 0, 1)
        names = {info.id: info.name for info in spec.classes}
        crop = _looked_at(frame)
        size = np.array([crop.x2 - crop.x1, crop.y2 - crop.y1] * 2, np.float64)
        corner = np.array([crop.x1, crop.y1] * 2, np.float64)
        result = []
        for place in distinct(corners, scores, labels):
            (x1, y1, x2, y2), label = (corners[place] * size + corner).tolist(), int(labels[place])
            if x2 > x1 and y2 > y1:
                name = names.get(label, str(label))
                result.append(Box(x1, y1, x2, y2, label, name, float(scores[place]), spec.name))
        found, faint = list[Box](), list[Box]()
        for box in result:
            (found if box.score >= least or (box.score >= held and self._was_there(box)) else faint).append(box)
        return found, faint

    def _bounds(self, spec: ModelSpec) -> tuple[float, float]:
        """The smallest score of a box, and of one that was there before."""
        least = spec.min_score if self.options.min_score is None else self.options.min_score
        return least, least * HOLD if self.options.hold_score is None else self.options.hold_score

    def _was_there(self, box: Box) -> bool:
        """Whether the box's model found it when it looked last."""
        found = (*self._found.get(box.origin, ()), *self._trackers[box.origin].tentative)
        before = [other for other in found if alike(other, box)]
        if not before:
            return False
        corners = np.array([[b.x1, b.y1, b.x2, b.y2] for b in (box, *before)], np.float64)
        return bool(iou_matrix(corners[:1], corners[1:]).max() >= max(self.options.tracking.min_iou, 1e-6))

    def _moved(self, box: Box, frame: Frame) -> Box | None:
        """The box where its object should be by now: as it was where that is not known, None outside the picture."""
        expected = None if box.track is None else self._trackers[box.origin].expected(box.track, frame.time)
        if expected is None:
            return box
        x1, y1, x2, y2 = expected
        return _inside(replace(box, x1=x1, y1=y1, x2=x2, y2=y2), frame)


def _looked_at(frame: Frame) -> Rect:
    """What models see of a frame."""
    return frame.crop or Rect(0, 0, frame.image.width, frame.image.height)


def _inside(box: Box, frame: Frame) -> Box | None:
    """What of a box is in the picture; None where nothing is."""
    width, height = float(frame.image.width), float(frame.image.height)
    if box.x1 >= 0 and box.y1 >= 0 and box.x2 <= width and box.y2 <= height and box.x2 > box.x1 and box.y2 > box.y1:
        return box
    x1, x2 = (min(max(x, 0.0), width) for x in (box.x1, box.x2))
    y1, y2 = (min(max(y, 0.0), height) for y in (box.y1, box.y2))
    return replace(box, x1=x1, y1=y1, x2=x2, y2=y2) if x2 > x1 and y2 > y1 else None


def _whole(seen: Prediction, ignored: Ignored | None) -> Prediction:
    """A segmenter's prediction of what it saw, as one of the whole frame."""
    if ignored is None or seen.class_map is None:
        return seen
    confidence = None if seen.confidence is None else whole_map(seen.confidence, ignored, 0)
    return replace(seen, class_map=whole_map(seen.class_map, ignored), confidence=confidence)


def class_area(class_map: UInt8 | None, classes: Sequence[ClassInfo]) -> dict[str, float]:
    """Share of the picture by class name, of the classes present, largest first; unlabelled pixels count for none."""
    if class_map is None:
        return {}
    counts = cv2.calcHist([class_map], [0], None, [256], [0, 256]).ravel()  # half of np.bincount's time
    shares = {c.name: float(counts[c.id] / class_map.size) for c in classes if c.id != IGNORE and counts[c.id]}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
