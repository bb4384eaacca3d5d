"""What a report measures of a model of any task: scores and speed, in every precision that it can run in here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.engine import Precision
from engines.tools.benchmark import Benchmark, Row, benchmark
from training.evaluation.opening import open_predictor
from training.evaluation.predictor import measure
from training.report.subject import Subject
from training.results import Evaluation, Label
from training.task import Outputs, Samples

COLORS = 6
"""Series colours of the style sheet; the seventh model has the first one's again."""

PICTURES = 6
"""How many of the best and of the worst pictures are shown."""

RIVAL = "onnxruntime"


@dataclass(frozen=True)
class Variant:
    """A model in one precision.

    Attributes:
        precision: `fp32`, `bf16` or `int8`.
        backend: that computed it.
        megabytes: of the file that is loaded.
        evaluation: its scores on the split.
        rows: (N, …), its figures picture by picture; see `training.task.Task.measure`.
        row: its speed; None for a checkpoint, which is no engine.
    """

    precision: str
    backend: str
    megabytes: float
    evaluation: Evaluation
    rows: NDArray[Any]
    row: Row | None


@dataclass(frozen=True)
class Measured:
    """A model and everything that was measured of it. `shown` is the variant that runs when nothing is asked for."""

    subject: Subject
    color: int
    variants: tuple[Variant, ...]
    shown: Variant
    speed: Benchmark | None

    @property
    def rival_ms(self) -> float | None:
        """Milliseconds a picture of ONNX Runtime in fp32, in the same run."""
        rows = [] if self.speed is None else self.speed.rows
        return next((row.latency_ms for row in rows if row.side.startswith(RIVAL)), None)


def measure_model(
    subject: Subject, color: int, data: Samples, split: str, seconds: float, say: Callable[[str], None]
) -> Measured:
    """Score a model in every precision that this machine has, and time it.

    Args:
        subject: the model.
        color: its place in the palette of series.
        data: the split.
        split: its name.
        seconds: of timing, for each precision.
        say: gets a line before each step that takes a while.
    """
    speed: Benchmark | None = None
    if not subject.is_checkpoint:
        say(f"{subject.label}: timing")
        plain = "fp32" in subject.precisions and find_spec(RIVAL) is not None
        speed = benchmark(
            subject.path, subject.precisions, frames=list(data.photos[:4]), against="onnxruntime" if plain else None,
            seconds=seconds,
        )  # fmt: skip
    timed = {} if speed is None else {row.side.split()[-1]: row for row in speed.rows if not row.side.startswith(RIVAL)}
    variants = []
    for precision in subject.precisions:
        say(f"{subject.label}: scoring in {precision}")
        with open_predictor(subject.given, precision, recipe=subject.task.recipe) as predictor:
            rows = measure(predictor, data)
        label = Label(subject.label, predictor.backend, predictor.precision, split)
        variants.append(
            Variant(
                precision, predictor.backend, subject.file(precision).stat().st_size / 1e6,
                subject.task.evaluation(rows, data, label), rows, timed.get(precision),
            )
        )  # fmt: skip
    by_name = {variant.precision: variant for variant in variants}
    return Measured(subject, color, tuple(variants), by_name.get("bf16", variants[0]), speed)


def milliseconds(row: Row | None) -> str:
    """A latency for a table; a dash where nothing was timed."""
    return "–" if row is None else f"{row.latency_ms:.1f}"


def predict_again(model: Measured, data: Samples, indices: Sequence[int]) -> list[Outputs]:
    """What the variant that is shown says of some pictures, one by one."""
    precision: Precision = model.shown.precision  # type: ignore[assignment]  # a variant's precision is one
    with open_predictor(model.subject.given, precision, recipe=model.subject.task.recipe) as predictor:
        found = [predictor.predict(data.photos[[i]]) for i in indices]
    return [{name: values[0] for name, values in outputs.items()} for outputs in found]


def best_and_worst(scores: NDArray[np.float64], most: int = PICTURES) -> tuple[list[int], list[int]]:
    """The pictures with the highest and the lowest scores: no picture in both, none whose score is NaN.

    Args:
        scores: (N,) of the pictures.
        most: pictures of each kind.

    Returns:
        Numbers of pictures, the best first in one, the worst first in the other.
    """
    order = [int(i) for i in np.argsort(-scores, kind="stable") if np.isfinite(scores[i])]
    number = min(most, len(order) // 2)
    return order[:number], order[len(order) - number :][::-1]
