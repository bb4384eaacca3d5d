"""Scoring a model of any task on a split: a row of figures a picture, and what pictures drawn anew would make of them.

A checkpoint goes through torch, a bundled or exported model through an engine; what they say is measured alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

import engines
from engines.bundled import fp32_file, resolve
from engines.errors import ModelError, UsageError
from engines.spec import Metric, ModelSpec, read_spec
from engines.squash import squash
from training.figures import in_words
from training.files import write_file, write_picture
from training.recipe import Recipe, bundled_recipes, decode_recipe, read_recipe
from training.task import Outputs, Samples, Task, open_task

if TYPE_CHECKING:
    from concurrent.futures import Future

    from engines.engine import Precision, Prediction

UInt8 = NDArray[np.uint8]
AnyTask = Task[Any, Any, Any]

BATCH = 8
RECIPE_KEY = "roadlens.recipe"
"""The key in an exported file's `metadata_props` whose value is the recipe as JSON."""


# Results ------------------------------------------------------------------------------------------------------------


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


def summarise(task: AnyTask, rows: NDArray[Any], data: Samples, label: Label) -> Figures:
    """The figures of a split from the rows of its pictures.

    Args:
        task: whose rows they are.
        rows: (N, …); see `Task.measure`.
        data: the split.
        label: what the result is of.
    """
    scores = task.scores(rows)
    main = [name for name in scores if "/" not in name]

    def main_scores(drawn: NDArray[Any]) -> dict[str, float]:
        # A score that needs what none of these pictures has may be missing altogether.
        found = task.scores(drawn)
        return {name: found.get(name, float("nan")) for name in main}

    intervals = bootstrap(rows, main_scores)
    return Figures(
        model=label.model, backend=label.backend, precision=label.precision, split=label.split, pictures=len(data),
        protocol=data.protocol, figures={name: Figure(_or_none(scores[name]), intervals[name]) for name in main},
        details={name: _or_none(value) for name, value in scores.items() if "/" in name},
    )  # fmt: skip


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def bootstrap(
    rows: NDArray[Any], scores: Callable[[NDArray[Any]], Mapping[str, float]], resamples: int = 1000, seed: int = 0
) -> dict[str, Interval | None]:
    """95 % intervals of scores: N pictures drawn with replacement, percentiles of what they score.

    Args:
        rows: (N, …), a row a picture.
        scores: of a set of rows, by name; NaN where not defined.
        resamples: how often a set is drawn.
        seed: of the draws.

    Returns:
        By name; None for a score that no set has.
    """
    rng, number = np.random.default_rng(seed), len(rows)
    drawn = [scores(rows[rng.integers(0, number, number)]) for _ in range(resamples)]
    return {name: interval([values[name] for values in drawn]) for name in drawn[0]}


def interval(values: list[float]) -> Interval | None:
    """From the 2.5th to the 97.5th percentile of what is not NaN; None where nothing is."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(float(low), float(high))


# Models -------------------------------------------------------------------------------------------------------------


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
    """The rows of a split: (N, …), see `Task.measure`."""
    rows = []
    for start in range(0, len(data), BATCH):
        indices = list(range(start, min(start + BATCH, len(data))))
        rows.append(predictor.task.measure(predictor.predict(data.photos[indices]), data, indices))
    return np.concatenate(rows)


def evaluate(predictor: Predictor, data: Samples, split: str) -> Evaluation:
    """Run a model over a split and score it."""
    return predictor.task.evaluation(measure(predictor, data), data, predictor.label(split))


def at_size(photos: UInt8, height: int, width: int) -> UInt8:
    """(n, h, w, 3) uint8 at the size of a model, as an engine squashes one picture: (n, height, width, 3)."""
    if photos.shape[1:3] == (height, width):
        return photos
    return np.stack([squash(photo, height, width) for photo in photos])


@contextlib.contextmanager
def open_predictor(
    model: str, precision: Precision = "auto", device: engines.Device = "auto", recipe: Recipe | None = None
) -> Iterator[Predictor]:
    """A checkpoint (`….ckpt`, through torch), or a bundled or exported model through an engine.

    Args:
        model: the path of a checkpoint, the path of an ONNX file, or a bundled model's name.
        precision: of the engine; a checkpoint computes in fp32 (`auto`) or bf16.
        device: of the engine.
        recipe: the one it was made with, where the file does not say.

    Raises:
        ModelError: no such model, one that does not do what its recipe's task does, or a precision it does not have.
        UsageError: a model that does not say its recipe, and none is given.
    """
    if model.endswith(".ckpt"):
        from training.prediction import checkpoint_predictor  # torch, for checkpoints only

        yield checkpoint_predictor(Path(model), precision, recipe)
        return
    path = resolve(model)
    described = read_spec(path)
    task = task_of_file(path, described, recipe or stated_recipe(path, described))
    engine = engines.load(model, device=device, precision=precision, max_batch=BATCH)
    try:
        spec = engine.spec

        def predict(photos: UInt8) -> Outputs:
            inputs = at_size(photos, spec.height, spec.width)
            future: Future[list[Prediction]] = engine.submit([np.ascontiguousarray(one) for one in inputs])
            found = future.result()
            return {role: np.stack([getattr(one, role) for one in found]) for role in spec.outputs}

        yield Predictor(task, predict, spec.name, engine.backend, engine.precision, spec.height, spec.width)
    finally:
        engine.close()


def stated_recipe(path: Path, spec: ModelSpec) -> Recipe | None:
    """The recipe that an exported file says it was made by, or the bundled one of its name; None where there is none.

    Raises:
        ModelError: what stands there is no recipe.
        UsageError: a recipe of a task that is not there, or with keys that it does not know.
    """
    return _written_recipe(path) or (read_recipe(spec.name) if spec.name in bundled_recipes() else None)


def task_of_file(path: Path, spec: ModelSpec, recipe: Recipe | None = None) -> AnyTask:
    """The task that an exported model was trained for.

    Args:
        path: the file.
        spec: its spec.
        recipe: the one it was made by; without one, the first bundled recipe that makes models of the same kind.

    Raises:
        ModelError: the recipe makes models that do something else.
        UsageError: no recipe is given, and no bundled one makes such models.
    """
    if recipe is not None:
        task = open_task(recipe)
        if not _makes(task, spec):
            raise ModelError(
                f"{path} is not what recipe {recipe.name} makes: it does {spec.task} of {len(spec.classes)} classes; "
                "give its own recipe with --recipe"
            )
        return task
    for name in bundled_recipes():
        task = open_task(read_recipe(name))
        if _makes(task, spec):
            return task
    raise UsageError(
        f"{path} does {spec.task} and does not say which recipe made it; export it again, or evaluate it with --recipe"
    )


def _makes(task: AnyTask, spec: ModelSpec) -> bool:
    made = task.spec(spec.height, spec.width, spec.version, ())
    return made.task == spec.task and made.classes == spec.classes


def _written_recipe(path: Path) -> Recipe | None:
    """The recipe in an exported file, or in the one that it was quantised from."""
    import onnx

    for file in dict.fromkeys((path, fp32_file(path))):
        if file.is_file():
            for entry in onnx.load(file, load_external_data=False).metadata_props:
                if entry.key == RECIPE_KEY:
                    return _decode_recipe(entry.value, file)
    return None


def _decode_recipe(text: str, file: Path) -> Recipe:
    try:
        plain = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"the recipe in {file} cannot be read ({error}); export the model again") from None
    return decode_recipe(plain, f"the recipe in {file}")


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
