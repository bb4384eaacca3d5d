"""What a model reaches on a split: figures with their intervals, as JSON, as a page and for its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import UsageError
from engines.spec import Metric
from training.figures import in_words
from training.files import write_file, write_picture

UInt8 = NDArray[np.uint8]
Scoring = Callable[[NDArray[Any]], Mapping[str, float]]
"""Rows of pictures, one a picture, → the scores of all of them together, by name."""


class Interval(msgspec.Struct, frozen=True):
    """From and to, of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Label:
    """What a result is of: a model, what computed it and how, and the split."""

    model: str
    backend: str
    precision: str
    split: str


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What a model reaches on a split; each task says it in a struct derived from this one."""

    model: str
    backend: str
    precision: str
    split: str
    pictures: int
    protocol: str

    def headline(self) -> dict[str, Figure]:
        """The figures that count, by name."""
        raise NotImplementedError

    def metrics(self) -> tuple[Metric, ...]:
        """Those figures as they go into a `ModelSpec`; one that is not defined is left out."""
        protocol = f"{self.protocol}; {self.backend} {self.precision}, {self.pictures} pictures"
        return tuple(
            Metric(name, round(figure.value, 4), self.split, protocol)
            for name, figure in self.headline().items()
            if figure.value is not None
        )

    def markdown(self) -> str:
        """The figures as a page."""
        raise NotImplementedError

    def drawings(self) -> dict[str, UInt8]:
        """Pictures that go with the page, by file name: (H, W, 3) uint8 RGB."""
        return {}


class Figure(msgspec.Struct, frozen=True):
    """A measured figure and its 95 % interval, pictures drawn with replacement; None where it is not defined."""

    value: float | None
    interval: Interval | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        spread = "" if self.interval is None else f" ({self.interval.low:.4f} to {self.interval.high:.4f})"
        return f"{self.value:.4f}{spread}"


class Figures(Evaluation, frozen=True, kw_only=True):
    """The scores of a task that needs no more than their names: `details` are those with a slash in it."""

    figures: dict[str, Figure]
    details: dict[str, float | None]

    def headline(self) -> dict[str, Figure]:
        return self.figures

    def markdown(self) -> str:
        lines = [
            f"# {self.model} on {self.split}: {self.backend} {self.precision}, {self.pictures} pictures",
            "",
            f"{self.protocol}.",
            "Intervals: 95 %, bootstrap over pictures.",
            "",
            "| | score | interval |",
            "|---|---:|---:|",
        ]
        for name, figure in self.figures.items():
            value = "–" if figure.value is None else f"{figure.value:.4f}"
            between = "–" if figure.interval is None else f"{figure.interval.low:.4f} to {figure.interval.high:.4f}"
            lines.append(f"| {in_words(name)} | {value} | {between} |")
        if self.details:
            lines += ["", "| | score |", "|---|---:|"]
            lines += [f"| {name} | {'–' if v is None else f'{v:.4f}'} |" for name, v in self.details.items()]
        return "\n".join(lines) + "\n"


def summarise(score: Scoring, rows: NDArray[Any], protocol: str, label: Label) -> Figures:
    """The figures of a split from the rows of its pictures.

    Args:
        score: the scores of a set of pictures from its rows.
        rows: (N, …), one a picture; see `training.task.Task.measure`.
        protocol: of the data, in a clause.
        label: what the result is of.
    """
    scores = score(rows)
    main = [name for name in scores if "/" not in name]

    def main_scores(drawn: NDArray[Any]) -> dict[str, float]:
        # A score that needs what none of these pictures has may be missing altogether.
        found = score(drawn)
        return {name: found.get(name, float("nan")) for name in main}

    intervals = bootstrap(rows, main_scores)
    return Figures(
        model=label.model, backend=label.backend, precision=label.precision, split=label.split, pictures=len(rows),
        protocol=protocol, figures={name: Figure(_or_none(scores[name]), intervals[name]) for name in main},
        details={name: _or_none(value) for name, value in scores.items() if "/" in name},
    )  # fmt: skip


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def bootstrap(rows: NDArray[Any], score: Scoring, resamples: int = 1000, seed: int = 0) -> dict[str, Interval | None]:
    """95 % intervals of scores: N pictures drawn with replacement, percentiles of what they score.

    Args:
        rows: (N, …), a row a picture.
        score: the scores of a set of rows, by name; NaN where not defined.
        resamples: how often a set is drawn.
        seed: of the draws.

    Returns:
        By name; None for a score that no set has.
    """
    rng, number = np.random.default_rng(seed), len(rows)
    drawn = [score(rows[rng.integers(0, number, number)]) for _ in range(resamples)]
    return {name: interval([values[name] for values in drawn]) for name in drawn[0]}


def interval(values: list[float]) -> Interval | None:
    """From the 2.5th to the 97.5th percentile of what is not NaN; None where nothing is."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))


# Files --------------------------------------------------------------------------------------------------------------


def as_json(evaluation: Evaluation) -> bytes:
    """An evaluation as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(evaluation), indent=2)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write evaluation.json, evaluation.md and the pictures that go with it.

    Raises:
        OutputError: the folder cannot be written to.
    """
    write_file(folder / "evaluation.json", as_json(evaluation))
    write_file(folder / "evaluation.md", evaluation.markdown().encode())
    for name, picture in evaluation.drawings().items():
        write_picture(folder / name, picture)


S = TypeVar("S", bound=Evaluation)


def read_evaluation(path: Path, kind: type[S]) -> S:
    """Read an evaluation.json.

    Args:
        path: the file.
        kind: the struct of its task.

    Raises:
        UsageError: no such file, or not an evaluation of that task.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give an evaluation.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not an evaluation of `roadlens eval --output` ({error})") from None
