"""What people's own models say that cannot be so is left out or mended, and counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from engines.engine import Prediction
from pipeline.analysis.fuse import FuseOptions, Fuser
from pipeline.analysis.sound import FAULTS, sound
from pipeline.metrics import Metrics
from pipeline.runtime.counter import FrameCounter
from tests.pipeline.analysis.test_fuse import LOCALIZER, UNET, frame, heads, street

GOOD = (0.1, 0.1, 0.4, 0.5, 0.9)
NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "label", "fault", "left"),
    [
        (GOOD, 0, None, 1),
        ((-0.1, -0.2, 1.1, 1.3, 0.9), 0, None, 1),  # a little over the edge
        ((NAN, 0.1, 0.4, 0.5, 0.9), 0, "nan", 0),
        ((0.1, 0.1, 0.4, 0.5, NAN), 0, "nan", 0),
        ((0.1, float("inf"), 0.4, 0.5, 0.9), 0, "nan", 0),
        ((64, 30, 256, 160, 0.9), 0, "outside", 0),
        ((0.1, 0.1, 0.4, 0.5, 7.5), 0, "score", 1),
        (GOOD, 9, "class", 1),
        ((64, 30, 256, 160, 0.01), 0, None, 1),  # nobody would have been told of it
    ],
)
def test_boxes_that_cannot_be(row: tuple[float, ...], label: int, fault: str | None, left: int) -> None:
    prediction, faults = sound(heads(GOOD, row, labels=(0, label)), LOCALIZER, 0.4)
    assert faults == ({} if fault is None else {fault: 1})
    assert prediction.scores is not None
    told = prediction.scores >= 0.4
    assert int(told.sum()) == 1 + (left if row[4] != 0.01 else 0)
    assert prediction.scores.max() <= 1


def test_a_class_map_with_classes_that_nobody_named() -> None:
    odd = street(10)
    assert odd.class_map is not None
    assert not sound(odd, UNET, 0.5)[1]
    odd.class_map[0, 0], odd.class_map[1, 1] = 255, 200
    assert sound(odd, UNET, 0.5)[1] == {"class": 1}


def test_a_fuser_counts_them_by_model_and_tells_of_none() -> None:
    fuser = Fuser([LOCALIZER], FuseOptions())
    analysis = fuser.fuse(frame(0), "file", {"localizer": heads((64, 30, 256, 160, 0.9), (0.1, 0.1, 0.3, 0.3, 3.0))})
    assert [box.score for box in analysis.boxes] == [1.0]
    assert fuser.faults == {("localizer", "outside"): 1, ("localizer", "score"): 1}


def test_each_fault_is_said_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    counter = FrameCounter("drive", metrics)
    for _ in range(3):
        counter.wrong(Counter({("mine", "nan"): 2}))
    assert [FAULTS["nan"] in record.getMessage() for record in caplog.records] == [True]
    assert counter.counts.faults == {("mine", "nan"): 6}
    labels = {"stream": "drive", "model": "mine", "fault": "nan"}
    assert metrics.registry.get_sample_value("roadlens_model_faults_total", labels) == 6


def test_a_prediction_without_fault_is_the_same_object() -> None:
    prediction = Prediction(boxes=np.zeros((0, 4), np.float32), scores=np.zeros(0, np.float32))
    assert sound(prediction, LOCALIZER, 0.5)[0] is prediction
