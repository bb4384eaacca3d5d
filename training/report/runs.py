"""What a training run wrote down about itself, read back for its curves."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from engines.errors import UsageError
from training.catalogue import read_recipe
from training.recipe import Recipe

Points = tuple[tuple[float, float], ...]

JOURNAL = "metrics.jsonl"


@dataclass(frozen=True)
class Run:
    """The journal of one run.

    Attributes:
        folder: where it lies.
        recipe: the run's own, where the folder holds it.
        loss: (step, training loss).
        scores: (step, score) by name, `mean_iou` and the like, on the part of `train` set aside.
        images_per_second: median over the journal's spans; None where it says nothing of it.
    """

    folder: Path
    recipe: Recipe | None
    loss: Points
    scores: dict[str, Points]
    images_per_second: float | None


def read_run(folder: Path) -> Run:
    """Read the `metrics.jsonl` of a run, as far as it has come, and its recipe.

    Raises:
        UsageError: there is none, or a line of it is not what a run writes.
    """
    path = folder / JOURNAL
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{folder} is not the folder of a run: it has no readable {JOURNAL}") from None
    loss: list[tuple[float, float]] = []
    scores: dict[str, list[tuple[float, float]]] = {}
    rates: list[float] = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            step = float(record["step"])
            given = {key: float(value) for key, value in record.items() if value is not None}
        except (ValueError, TypeError, KeyError, AttributeError):
            if number == len(lines):
                break  # a run that is going on, or was killed, may have written half of its last line
            raise UsageError(f"{path}, line {number} is not a line of a run's journal; give the run's folder") from None
        figures = {key: value for key, value in given.items() if math.isfinite(value)}  # NaN in journals of before
        if "loss" in figures:
            loss.append((step, figures["loss"]))
        if "images_per_second" in figures:
            rates.append(figures["images_per_second"])
        for key, value in figures.items():
            if key.startswith("dev/"):
                scores.setdefault(key.removeprefix("dev/"), []).append((step, value))
    stored = folder / "recipe.yaml"
    return Run(
        folder,
        read_recipe(str(stored)) if stored.is_file() else None,
        tuple(loss),
        {key: tuple(points) for key, points in scores.items()},
        statistics.median(rates) if rates else None,
    )
