"""What several models say of a frame, made one `Analysis`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines.classes import IGNORE, ClassInfo
from engines.engine import Prediction
from engines.spec import ModelSpec
from pipeline.components import ComponentOptions, component_boxes
from pipeline.frame import Analysis, Box, Frame, Mode
from pipeline.tracking import Tracker, TrackingOptions

UInt8 = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FuseOptions:
    """How predictions become boxes and tracks.

    Attributes:
        components: boxes from the class map.
        tracking: track numbers.
        min_score: smallest score of a localizer's box.
    """

    components: ComponentOptions = ComponentOptions()
    tracking: TrackingOptions = TrackingOptions()
    min_score: float = 0.5


class Fuser:
    """Fuses the predictions of one stream, frame by frame in order.

    A model that looks at every n-th frame only keeps speaking in between: a segmenter's last class map is repeated,
    a localizer's boxes move on with their tracks. `Analysis.models` says who looked at this very frame.

    Args:
        specs: the models, by name; at most one segmenter, whose label set becomes the analysis'.
        options: how to fuse.
        first_track: number of the first track.
    """

    def __init__(self, specs: Sequence[ModelSpec], options: FuseOptions, first_track: int = 1) -> None:
        self.options = options
        self.specs = {spec.name: spec for spec in specs}
        self.classes: tuple[ClassInfo, ...] = next((s.classes for s in specs if s.task == "segmentation"), ())
        self._tracker = Tracker(options.tracking, first_track)
        self._segmented: Prediction | None = None
        self._localized: dict[str, tuple[float, list[Box]]] = {}

    def fuse(self, frame: Frame, mode: Mode, predictions: Mapping[str, Prediction]) -> Analysis:
        """The analysis of a frame; `predictions` holds those of the models that looked at it, by model name."""
        boxes: list[Box] = []
        for name, spec in self.specs.items():
            prediction = predictions.get(name)
            if spec.task == "segmentation":
                boxes += self._segment(spec, prediction, frame)
            elif prediction is not None:
                boxes += self._localize(spec, prediction, frame)
        tracked = self._tracker.update(boxes, frame.time)
        for name, spec in self.specs.items():
            if spec.task == "localization" and name in predictions:
                self._localized[name] = (frame.time, [b for b in tracked if b.origin == name])
            elif spec.task == "localization" and name in self._localized:
                tracked += [self._moved(box, frame.time) for box in self._localized[name][1]]
        segmented = self._segmented or Prediction()
        return Analysis(
            frame=frame,
            mode=mode,
            models=tuple(predictions),
            class_map=segmented.class_map,
            confidence=segmented.confidence,
            classes=self.classes,
            boxes=tuple(tracked),
            area=class_area(segmented.class_map, self.classes),
        )

    def _segment(self, spec: ModelSpec, prediction: Prediction | None, frame: Frame) -> list[Box]:
        if prediction is not None:
            self._segmented = prediction
        if self._segmented is None or self._segmented.class_map is None:
            return []
        size = (frame.image.width, frame.image.height)
        return component_boxes(
            self._segmented.class_map, self._segmented.confidence, spec.classes, size, self.options.components, spec.name
        )

    def _localize(self, spec: ModelSpec, prediction: Prediction, frame: Frame) -> list[Box]:
        if prediction.boxes is None or prediction.scores is None:
            return []
        names = {info.id: info.name for info in spec.classes}
        labels = np.zeros(len(prediction.boxes), np.int32) if prediction.labels is None else prediction.labels
        scale = np.array([frame.image.width, frame.image.height] * 2, np.float32)
        result = []
        for corners, score, label in zip(prediction.boxes * scale, prediction.scores, labels, strict=True):
            x1, y1, x2, y2 = (float(v) for v in corners)
            if score >= self.options.min_score and x2 > x1 and y2 > y1:
                name = names.get(int(label), str(int(label)))
                result.append(Box(x1, y1, x2, y2, int(label), name, float(score), spec.name))
        return result

    def _moved(self, box: Box, time: float) -> Box:
        expected = None if box.track is None else self._tracker.expected(box.track, time)
        if expected is None:
            return box
        x1, y1, x2, y2 = expected
        return replace(box, x1=x1, y1=y1, x2=x2, y2=y2)


def class_area(class_map: UInt8 | None, classes: Sequence[ClassInfo]) -> dict[str, float]:
    """Share of the picture by class name, of the classes present, largest first; unlabelled pixels count for none."""
    if class_map is None:
        return {}
    counts = np.bincount(class_map.ravel(), minlength=256)
    shares = {c.name: float(counts[c.id] / class_map.size) for c in classes if c.id != IGNORE and counts[c.id]}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
