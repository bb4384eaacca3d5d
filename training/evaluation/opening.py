"""Opening what a user calls a model: a checkpoint goes through torch, a bundled or exported model through an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

import engines
from engines.bundled import fp32_file, resolve
from engines.errors import ModelError, SourceError, UsageError
from engines.spec import ModelSpec, OutputRole, read_spec
from training.catalogue import bundled_recipes, decode_recipe, open_task, read_recipe
from training.data.own.folder import Kind
from training.data.sets import data_set_in
from training.evaluation.predictor import BATCH, Predictor, UInt8
from training.recipe import RECIPE_KEY, Recipe
from training.task import AnyTask, Outputs, at_size
from training.tasks.own import OwnTask, SegmenterRecipe
from training.tasks.own_boxes import OwnBoxesRecipe

if TYPE_CHECKING:
    from concurrent.futures import Future

    from engines.engine import Precision, Prediction


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
        from training.evaluation.checkpoints import checkpoint_predictor  # torch, for checkpoints only

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
    """The recipe that an exported file says it was made by, or the bundled one of its name and kind; None where there
    is none.

    Raises:
        ModelError: what stands there is no recipe.
        UsageError: a recipe of a task that is not there, or with keys that it does not know.
    """
    if (written := _written_recipe(path)) is not None or spec.name not in bundled_recipes():
        return written
    namesake = read_recipe(spec.name)
    return namesake if open_task(namesake).fits(spec) else None


def task_of_file(path: Path, spec: ModelSpec, recipe: Recipe | None = None) -> AnyTask:
    """The task that an exported model was trained for.

    Args:
        path: the file.
        spec: its spec.
        recipe: the one it was made by; without one, the first bundled recipe that makes models of the same kind, and
            without such the one for anybody's pictures.

    Raises:
        ModelError: the recipe makes models that do something else.
    """
    if recipe is not None:
        task = open_task(recipe)
        if not task.fits(spec):
            raise ModelError(
                f"{path} is not what recipe {recipe.name} makes: it does {spec.task} of {len(spec.classes)} classes; "
                "give its own recipe with --recipe"
            )
        return task
    for name in bundled_recipes():
        task = open_task(read_recipe(name))
        if task.fits(spec):
            return task
    return general_task(spec, "masks" if "class_map" in spec.outputs else "boxes")


def general_task(spec: ModelSpec, kind: Kind) -> AnyTask:
    """The task by which any model is scored on a folder of labelled pictures; see `training.data.own`.

    Args:
        spec: of the model.
        kind: of truth that the folder has.

    Raises:
        UsageError: the model says nothing of that kind.
    """
    wanted: OutputRole = "class_map" if kind == "masks" else "boxes"
    if wanted not in spec.outputs:
        raise UsageError(f"{spec.name} gives no {wanted.replace('_', ' ')}, and the truth there is {kind}")
    made = SegmenterRecipe if kind == "masks" else OwnBoxesRecipe
    return open_task(
        made(name=spec.name, steps=1, height=spec.height, width=spec.width, classes=spec.classes, frozen_stages=0)
    )


def task_there(task: AnyTask, spec: ModelSpec, folder: Path) -> AnyTask:
    """The task by which a model is scored on a folder: its own, or the general one where somebody's labelled pictures
    lie there.

    Raises:
        UsageError: the model says nothing of the kind of the truth.
    """
    if isinstance(task, OwnTask):
        return task
    try:
        name = data_set_in(folder).NAME
    except SourceError:
        return task
    kinds: dict[str, Kind] = {"own": "masks", "own-boxes": "boxes"}
    return general_task(spec, kinds[name]) if name in kinds else task


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
