"""What several models say of a frame, made one `Analysis`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.engine import Prediction
from engines.spec import ModelSpec
from pipeline.components import ComponentOptions, component_boxes
from pipeline.frame import Analysis, Box, Frame, Mode
from pipeline.picture import network_input
from pipeline.smoothing import SmoothingOptions, TemporalSmoother
from pipeline.tracking import Tracker, TrackingOptions, iou_matrix

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FuseOptions:
    """How predictions become class maps, boxes and tracks.

    Attributes:
        components: boxes from the class map.
        tracking: track numbers.
        min_score: smallest score of a localizer's box.
        hold_score: smallest score of one that was there when its model looked last: a box whose score wavers about
            `min_score` does not flicker.
        smoothing: of class maps over time, before anything is read off them; None for none.
    """

    components: ComponentOptions = field(default_factory=ComponentOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)
    min_score: float = 0.5
    hold_score: float = 0.4
    smoothing: SmoothingOptions | None = None


class Fuser:
    """Fuses the predictions of one stream, frame by frame in order.

    A model that looks at every n-th frame only keeps speaking in between: a segmenter's last class map is repeated,
    and boxes move on with their tracks. `Analysis.models` says who looked at this very frame.

    Args:
        specs: the models; at most one segmenter, whose label set becomes the analysis'. Boxes come in their order.
        options: how to fuse.
        first_track: number of the first track.
    """

    def __init__(self, specs: Sequence[ModelSpec], options: FuseOptions, first_track: int = 1) -> None:
        self.options = options
        self.specs = {spec.name: spec for spec in specs}
        self.classes: tuple[ClassInfo, ...] = next((s.classes for s in specs if s.task == "segmentation"), ())
        numbers = itertools.count(first_track)
        self._trackers = {name: Tracker(options.tracking, numbers) for name in self.specs}
        self._found: dict[str, list[Box]] = {}
        self._smoother = None if options.smoothing is None else TemporalSmoother(options.smoothing)
        self._segmented = Prediction()
        self._unsmoothed: UInt8 | None = None
        self._area: dict[str, float] = {}

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
        boxes: list[Box] = []
        for name, spec in self.specs.items():
            if (prediction := predictions.get(name)) is None:
                moved = (self._moved(box, frame) for box in self._found.get(name, ()))
                boxes += (box for box in moved if box is not None)
                continue
            if spec.task == "segmentation":
                found = self._segment(spec, self._smoothed(spec, prediction, frame, inputs or {}), frame)
            else:
                found = self._localize(spec, prediction, frame)
            self._found[name] = self._trackers[name].update(found, frame.time)
            boxes += self._found[name]
        return Analysis(
            frame=frame,
            mode=mode,
            models=tuple(name for name in self.specs if name in predictions),
            class_map=self._segmented.class_map,
            confidence=self._segmented.confidence,
            unsmoothed=self._unsmoothed,
            classes=self.classes,
            boxes=tuple(boxes),
            area=dict(self._area),
        )

    def _smoothed(
        self, spec: ModelSpec, prediction: Prediction, frame: Frame, inputs: Mapping[tuple[int, int], UInt8]
    ) -> Prediction:
        if self._smoother is None or prediction.class_map is None:
            return prediction
        size = (spec.height, spec.width)
        picture = inputs[size] if size in inputs else network_input(frame.image, *size)
        self._unsmoothed = prediction.class_map
        class_map, confidence = self._smoother.smooth(self._unsmoothed, prediction.confidence, picture, frame.time)
        return replace(prediction, class_map=class_map, confidence=confidence)

    def _segment(self, spec: ModelSpec, prediction: Prediction, frame: Frame) -> list[Box]:
        self._segmented, self._area = prediction, class_area(prediction.class_map, spec.classes)
        if prediction.class_map is None:
            return []
        size = (frame.image.width, frame.image.height)
        present = [info for info in spec.classes if info.name in self._area]
        return component_boxes(
            prediction.class_map, prediction.confidence, present, size, self.options.components, spec.name
        )

    def _localize(self, spec: ModelSpec, prediction: Prediction, frame: Frame) -> list[Box]:
        if prediction.boxes is None or prediction.scores is None:
            return []
        names = {info.id: info.name for info in spec.classes}
        labels = np.zeros(len(prediction.boxes), np.int32) if prediction.labels is None else prediction.labels
        size = np.array([frame.image.width, frame.image.height] * 2, np.float64)
        result = []
        for corners, score, label in zip(prediction.boxes, prediction.scores, labels, strict=True):
            x1, y1, x2, y2 = (np.clip(corners.astype(np.float64), 0, 1) * size).tolist()
            if score >= min(self.options.hold_score, self.options.min_score) and x2 > x1 and y2 > y1:
                name = names.get(int(label), str(int(label)))
                result.append(Box(x1, y1, x2, y2, int(label), name, float(score), spec.name))
        return [box for box in result if box.score >= self.options.min_score or self._was_there(box)]

    def _was_there(self, box: Box) -> bool:
        """Whether the box's model found it when it looked last."""
        before = [other for other in self._found.get(box.origin, ()) if other.class_id == box.class_id]
        if not before:
            return False
        corners = np.array([[b.x1, b.y1, b.x2, b.y2] for b in (box, *before)], np.float64)
        return bool(iou_matrix(corners[:1], corners[1:]).max() >= max(self.options.tracking.min_iou, 1e-6))

    def _moved(self, box: Box, frame: Frame) -> Box | None:
        """The box where its object should be by now: as it was where that is not known, None outside the picture."""
        expected = None if box.track is None else self._trackers[box.origin].expected(box.track, frame.time)
        if expected is None:
            return box
        x1, x2 = (min(max(x, 0.0), float(frame.image.width)) for x in expected[::2])
        y1, y2 = (min(max(y, 0.0), float(frame.image.height)) for y in expected[1::2])
        return replace(box, x1=x1, y1=y1, x2=x2, y2=y2) if x2 > x1 and y2 > y1 else None


def class_area(class_map: UInt8 | None, classes: Sequence[ClassInfo]) -> dict[str, float]:
    """Share of the picture by class name, of the classes present, largest first; unlabelled pixels count for none."""
    if class_map is None:
        return {}
    counts = cv2.calcHist([class_map], [0], None, [256], [0, 256]).ravel()  # half of np.bincount's time
    shares = {c.name: float(counts[c.id] / class_map.size) for c in classes if c.id != IGNORE and counts[c.id]}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
