"""The report's section on the models of a task that brings none of its own: figures, speed, curves, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.tools.benchmark import Benchmark
from training.figures import in_words
from training.report.curves import curves
from training.report.measuring import Measured, best_and_worst, milliseconds, predict_again
from training.report.pictures import data_url, draw_outputs
from training.task import Samples

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


@dataclass(frozen=True)
class Shown:
    """A picture of the split, its truth and every model's answer drawn on it, as data URLs.

    Attributes:
        name: of the picture.
        truth: the picture with what is true.
        answers: label, picture and score of each model.
    """

    name: str
    truth: str
    answers: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True)
class ScoresSection:
    """Everything about the models of one task on one split, ready to be written."""

    title: str
    anchor: str
    models: tuple[Measured, ...]
    score: str
    split: str
    pictures: int
    protocol: str
    best: tuple[Shown, ...]
    worst: tuple[Shown, ...]

    @property
    def speeds(self) -> tuple[Benchmark, ...]:
        """What the milliseconds were measured on."""
        return tuple(model.speed for model in self.models if model.speed is not None)

    @property
    def names(self) -> list[str]:
        """The figures of the table: those that any of the models has."""
        return list(dict.fromkeys(name for model in self.models for name in model.shown.evaluation.headline()))

    def html(self, environment: Environment) -> Markup:
        """The section as HTML."""
        from markupsafe import Markup

        text = environment.get_template("scores.html").render(section=self, curves=curves(self.models, self.score))
        return Markup(text)  # noqa: S704  # rendered by a template that escapes what it is given

    def markdown(self) -> str:
        """The table of models for a README, and what its figures mean."""
        heads = [in_words(name) for name in self.names]
        lines = [
            f"| model | recipe | input | parameters | {' | '.join(heads)} | ms a picture | runs as |",
            "|---" * (6 + len(heads)) + "|",
        ]
        for model in self.models:
            subject, shown = model.subject, model.shown
            figures = shown.evaluation.headline()
            values = [figures[name].value if name in figures else None for name in self.names]
            scores = " | ".join("–" if value is None else f"{value:.3f}" for value in values)
            lines.append(
                f"| `{subject.label}` | {subject.description} | {subject.width}×{subject.height} | "
                f"{subject.parameters / 1e6:.1f} M | {scores} | {milliseconds(shown.row)} | "
                f"{shown.backend} {shown.precision} |"
            )
        return "\n".join(
            [*lines, "", f"{self.title}: {self.pictures} pictures of `{self.split}`, {self.protocol}.", ""]
        )


def scores_section(models: Sequence[Measured], data: Samples, split: str) -> ScoresSection:
    """The section on models of one task that were measured on the same pictures.

    Args:
        models: what was measured of them.
        data: the split.
        split: its name.
    """
    task = models[0].subject.task
    by_model = [picture_scores(model) for model in models]
    best, worst = best_and_worst(np.mean(by_model, axis=0))
    chosen = [*best, *worst]
    answers = [predict_again(model, data, chosen) for model in models]
    classes = [m.subject.task.spec(m.subject.height, m.subject.width, "", ()).classes for m in models]
    shown = []
    for place, index in enumerate(chosen):
        photo = data.photos[index]
        drawn = [
            (model.subject.label, _url(draw_outputs(photo, found[place], own)), float(scores[index]))
            for model, found, own, scores in zip(models, answers, classes, by_model, strict=True)
        ]
        truth = _url(draw_outputs(photo, task.truth(data, index), classes[0]))
        shown.append(Shown(data.names[index], truth, tuple(drawn)))
    name = task.recipe.task.rpartition(".")[2]
    return ScoresSection(
        title=task.title or name.replace("_", " ").capitalize(), anchor=name.replace("_", "-"), models=tuple(models),
        score=task.score, split=split, pictures=len(data), protocol=data.protocol, best=tuple(shown[: len(best)]),
        worst=tuple(shown[len(best) :]),
    )  # fmt: skip


def picture_scores(model: Measured) -> NDArray[np.float64]:
    """What each picture scores alone: (N,), NaN where that is not defined."""
    task, rows = model.subject.task, model.shown.rows
    return np.array([task.scores(rows[i : i + 1])[task.score] for i in range(len(rows))], np.float64)


def _url(picture: NDArray[np.uint8]) -> str:
    return data_url(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
