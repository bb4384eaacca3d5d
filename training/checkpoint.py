"""Checkpoints: written whole or not at all, read back as a recipe and a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from engines.errors import ModelError, OutputError, UsageError
from training.models.encoder import NOT_TORCH, read_weights
from training.recipe import Recipe, decode_recipe, recipe_as_dict
from training.task import Task, open_task

RECIPE_KEY = "roadlens_recipe"
"""Where a checkpoint holds its recipe, as plain values."""

_AVERAGE = "average.module."


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file and renames: a kill or a full disk leaves the checkpoint before it as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OutputError: the disk is full, or the folder cannot be written to.
        """
        if storage_options is not None:
            raise TypeError("storage options are for remote paths; this writes local files")
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
            partial.unlink(missing_ok=True)
            kept = "; the one before it is still good" if path.exists() else ""
            reason = str(error).splitlines()[0]
            raise OutputError(
                f"the checkpoint {path} could not be written ({reason}){kept}: free some space and use --resume"
            ) from error


def check_same_recipe(path: Path, recipe: Recipe) -> None:
    """Refuse to go on from a checkpoint of another run.

    Raises:
        UsageError: the checkpoint was made by another recipe; the first key that differs is named.
        ModelError: the file is not a checkpoint.
    """
    stored = stored_recipe(path)
    if stored is None or stored == recipe:
        return
    old, new = _flatten(recipe_as_dict(stored)), _flatten(recipe_as_dict(recipe))
    key = next(k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k))
    raise UsageError(
        f"{path} was made with {key} = {old.get(key)}, this run has {key} = {new.get(key)}; give the same recipe, or "
        f"another --output"
    )


def stored_recipe(path: Path) -> Recipe | None:
    """The recipe in a checkpoint, or None in one that holds none.

    Raises:
        ModelError: the file is missing, or not a checkpoint.
    """
    if not path.exists():
        raise ModelError(f"there is no checkpoint {path}; give a .ckpt file that `roadlens train` wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise ModelError(f"the checkpoint {path} cannot be read ({error.strerror}); give a .ckpt file") from None
    except NOT_TORCH:
        raise ModelError(
            f"{path} is not a readable checkpoint; give a .ckpt file that `roadlens train` wrote"
        ) from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ModelError(f"{path} is not a checkpoint: it holds no state_dict")
    plain = content.get(RECIPE_KEY)
    return None if plain is None else decode_recipe(plain, f"the recipe in {path}")


def load_model(path: Path, recipe: Recipe | None = None) -> tuple[nn.Module, Recipe]:
    """The network of `open_checkpoint`, with the recipe in the place of the task."""
    task, model = open_checkpoint(path, recipe)
    return model, task.recipe


def open_checkpoint(path: Path, recipe: Recipe | None = None) -> tuple[Task[Any, Any, Any], nn.Module]:
    """The task of a checkpoint, and the moving average of its network, ready to predict.

    Args:
        path: a checkpoint of `training.run.train`.
        recipe: the recipe it was made with, for a checkpoint that holds none.

    Raises:
        ModelError: not a checkpoint, or its weights do not fit the recipe's model.
        UsageError: the checkpoint holds no recipe and none is given.
    """
    recipe = stored_recipe(path) or recipe
    if recipe is None:
        raise UsageError(f"{path} does not say which recipe made it; name it with --recipe")
    weights = read_weights(path)
    state = {key.removeprefix(_AVERAGE): value for key, value in weights.items() if key.startswith(_AVERAGE)}
    task = open_task(recipe)
    model: nn.Module = task.build_model()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        line = str(error).splitlines()[1].strip().split(", ")[0].rstrip(".")
        raise ModelError(
            f"{path} does not fit the model of recipe {recipe.name}: {line} …; give its own recipe"
        ) from None
    return task, model.eval()


def _flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def pack_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as what `torch.load(weights_only=True)` reads back: plain values only."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe_as_dict(recipe)))
    return plain
