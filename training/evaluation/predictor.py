"""Scoring a model of any task on a split: a row of figures a picture, and what pictures drawn anew would make of them.

A checkpoint goes through torch, a bundled or exported model through an engine; what they say is measured alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.metrics.soundness import require_sound
from training.results import Evaluation, Label
from training.task import AnyTask, Outputs, Samples

UInt8 = NDArray[np.uint8]

BATCH = 8


@dataclass(frozen=True)
class Predictor:
    """A model ready to be evaluated, what it is trained for, how it computes, and the size it is made for.

    `predict` takes (n, H, W, 3) uint8 RGB of any size and gives outputs by role, (n, …) each.
    """

    task: AnyTask
    predict: Callable[[UInt8], Outputs]
    name: str
    backend: str
    precision: str
    height: int
    width: int

    def label(self, split: str) -> Label:
        """What a result of this model is of."""
        return Label(self.name, self.backend, self.precision, split)


def measure(predictor: Predictor, data: Samples) -> NDArray[Any]:
    """The rows of a split: (N, …), see `Task.measure`.

    Raises:
        ModelError: what the model says of a picture is no answer; see `require_sound`.
    """
    classes = predictor.task.spec(predictor.height, predictor.width, "", ()).classes
    rows = []
    for start in range(0, len(data), BATCH):
        indices = list(range(start, min(start + BATCH, len(data))))
        outputs = predictor.predict(data.photos[indices])
        require_sound(outputs, classes, predictor.name, [data.names[i] for i in indices])
        rows.append(predictor.task.measure(outputs, data, indices))
    return np.concatenate(rows)


def evaluate(predictor: Predictor, data: Samples, split: str) -> Evaluation:
    """Run a model over a split and score it."""
    return predictor.task.evaluation(measure(predictor, data), data, predictor.label(split))
