"""A model that a report is about: what is known of it before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from engines.bundled import fp32_file, int8_file, resolve
from engines.engine import Precision
from engines.errors import UsageError
from engines.settings import nearest
from engines.spec import read_spec
from training.catalogue import open_task
from training.evaluation.opening import stated_recipe, task_of_file, task_there
from training.report.runs import JOURNAL, Run, read_run
from training.task import AnyTask

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Subject:
    """One model of a report.

    Attributes:
        label: what it is called in the report; no two are called alike.
        given: as it was given: a bundled name, an .onnx or a .ckpt.
        path: its file.
        task: what it was trained for.
        description: its recipe in words; a dash where it is not known.
        height, width: of its input, in pixels.
        parameters: weights that it computes with.
        precisions: it can run in here, the reference first.
        run: the journal of its training, where one was found or given.
        bundled: whether it comes with the package.
    """

    label: str
    given: str
    path: Path
    task: AnyTask
    description: str
    height: int
    width: int
    parameters: int
    precisions: tuple[Precision, ...]
    run: Run | None
    bundled: bool

    @property
    def is_checkpoint(self) -> bool:
        return self.path.suffix == ".ckpt"

    def file(self, precision: str) -> Path:
        """The file that is loaded for a precision."""
        return int8_file(self.path) if precision == "int8" else self.path


def open_subjects(models: Sequence[str], runs: Mapping[str, Path]) -> list[Subject]:
    """Look at the files of all models; nothing is measured yet.

    Args:
        models: bundled names, .onnx files, checkpoints.
        runs: folders of runs by the name of a model, as it is given or as it calls itself.

    Raises:
        ModelError: no such model, or a file that is none.
        UsageError: a run for a model that is not there, a folder that is not a run's, or a model given twice.
    """
    if double := next((model for i, model in enumerate(models) if model in models[:i]), None):
        raise UsageError(f"{double} was given twice; name every model of the report once")
    subjects: list[Subject] = []
    unused = dict(runs)
    for given in models:
        subject = _open(given)
        folder = unused.pop(given, None) or unused.pop(subject.label, None)
        if folder is None and (subject.path.parent / JOURNAL).is_file():
            folder = subject.path.parent
        subjects.append(_with_run(subject, None if folder is None else read_run(folder)))
    if unused:
        known = sorted({name for subject in subjects for name in (subject.given, subject.label)})
        raise _unknown("--run", next(iter(unused)), known)
    return _told_apart(subjects)


def folders_by_model(subjects: Sequence[Subject], data: Mapping[str, Path]) -> list[Path]:
    """The folder of data of each model.

    Args:
        subjects: the models.
        data: folders by the name of a model, as it is given or as it calls itself; that of all others under "".

    Raises:
        UsageError: a folder for a model that is not there, or a model without one.
    """
    known = sorted({name for subject in subjects for name in (subject.given, subject.label)})
    if strange := next((name for name in data if name and name not in known), None):
        raise _unknown("--data", strange, known)
    found = [data.get(s.given) or data.get(s.label) or data.get("") for s in subjects]
    for subject, folder in zip(subjects, found, strict=True):
        if folder is None:
            raise UsageError(
                f"{subject.given} has no data to be scored on; add --data FOLDER for all models without one"
            )
    return [folder for folder in found if folder is not None]


def on_folder(subject: Subject, folder: Path) -> Subject:
    """The model as it is scored on a folder: on labelled pictures of somebody's by what its classes are there.

    Raises:
        UsageError: it says nothing of the kind of the truth.
    """
    if subject.is_checkpoint:
        return subject
    return replace(subject, task=task_there(subject.task, read_spec(subject.path), folder))


def _unknown(option: str, name: str, known: Sequence[str]) -> UsageError:
    close = nearest(name, known)
    hint = f"the nearest is {close}" if close else f"the models are {', '.join(known)}"
    return UsageError(f"{option} {name}=… is for a model that the report is not about; {hint}")


def _open(given: str) -> Subject:
    if given.endswith(".ckpt"):
        return _open_checkpoint(given)
    from engines.openvino import precisions_of

    path = resolve(given)
    spec = read_spec(path)
    recipe = stated_recipe(path, spec)
    task = task_of_file(path, spec, recipe)
    # A quantised file holds its weights beside their scales: the plain file it was made from is easier to count.
    plain = fp32_file(path)
    return Subject(
        spec.name, given, path, task, "–" if recipe is None else task.describe(), spec.height, spec.width,
        count_parameters(plain if plain.is_file() else path), precisions_of(path), None, path != Path(given),
    )  # fmt: skip


def _open_checkpoint(given: str) -> Subject:
    from training.checkpoint import open_checkpoint

    task, model = open_checkpoint(Path(given))
    recipe, parameters = task.recipe, sum(p.numel() for p in model.parameters())
    return Subject(
        recipe.name, given, Path(given), task, task.describe(), recipe.height, recipe.width, parameters, ("fp32",),
        None, bundled=False,
    )  # fmt: skip


def _with_run(subject: Subject, run: Run | None) -> Subject:
    if run is None or run.recipe is None or run.recipe.task != subject.task.recipe.task:
        return replace(subject, run=run)
    task = open_task(run.recipe)
    return replace(subject, run=run, task=task, description=task.describe())


def _told_apart(subjects: list[Subject]) -> list[Subject]:
    """The same; a label that several have gets behind it what was given, which no two have alike."""
    labels = [subject.label for subject in subjects]
    return [replace(s, label=f"{s.label} ({s.given})") if labels.count(s.label) > 1 else s for s in subjects]


def count_parameters(path: Path) -> int:
    """Weights and biases of the convolutions and linear layers in an ONNX file, quantised or not.

    Batch norm is folded into them by the export, auxiliary heads are gone; constants that are no weights, such as the
    matrices of pyramid pooling, are not counted.
    """
    import onnx

    model = onnx.load(path)
    sizes = {weight.name: prod(weight.dims) for weight in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(
        _size(name, sizes, made_by)
        for node in model.graph.node
        if node.op_type in ("Conv", "ConvTranspose", "Gemm")
        for name in node.input[1:]
    )


def _size(name: str, sizes: Mapping[str, int], made_by: Mapping[str, onnx.NodeProto]) -> int:
    dequantize = made_by.get(name)
    return sizes.get(name if dequantize is None else dequantize.input[0], 0)
