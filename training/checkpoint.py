"""Checkpoints: written whole or not at all, read back as a recipe and a model."""

from __future__ import annotations

import filecmp
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from torch import nn

from engines.errors import ModelError, OutputError, UsageError
from training.catalogue import decode_recipe, open_task, recipe_as_dict
from training.recipe import CHANGEABLE, RECIPE_KEY, Recipe
from training.task import AnyTask
from training.weights import NOT_TORCH, read_weights

_EARLIER_KEY = "roadlens_recipe"
"""Where checkpoints held their recipe before exported files and they shared a key."""

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


def check_same_recipe(path: Path, stored: Recipe, recipe: Recipe) -> None:
    """Refuse to go on from a checkpoint of another run.

    Keys that change nothing of what is learned may differ (`training.recipe.CHANGEABLE`), and so may the way in which
    the path of the same file is written.

    Args:
        path: of the checkpoint, for the sentence.
        stored: the recipe it was made with.
        recipe: of the run that goes on.

    Raises:
        UsageError: another recipe; the first key that differs is named.
    """
    old, new = _flatten(stored), _flatten(recipe)
    for key in sorted(old.keys() | new.keys()):
        if key not in CHANGEABLE and not _same(old.get(key), new.get(key)):
            raise UsageError(
                f"{path} was made with {key} = {old.get(key)}, this run has {key} = {new.get(key)}; give the same "
                "recipe, or another --output"
            )


def _flatten(value: object, prefix: str = "") -> dict[str, object]:
    """The values of a recipe by their dotted keys; paths stay paths."""
    if isinstance(value, msgspec.Struct):
        kind = type(value).__struct_config__.tag
        items = {name: getattr(value, name) for name in value.__struct_fields__}
        groups = items if kind is None else {"kind": kind} | items
    elif isinstance(value, dict):
        groups = value
    else:
        return {prefix: value}
    flat: dict[str, object] = {}
    for key, item in groups.items():
        flat |= _flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _same(old: object, new: object) -> bool:
    if not (isinstance(old, Path) and isinstance(new, Path)):
        return old == new
    if old == new or old.resolve() == new.resolve():
        return True
    # The same file after the folder was moved or copied; where the first is gone, its name has to do.
    return old.name == new.name and (not old.is_file() or not new.is_file() or filecmp.cmp(old, new, shallow=False))


@dataclass(frozen=True)
class Content:
    """What stands in a checkpoint: its plain values and tensors, not yet read from the disk, and its recipe."""

    plain: dict[str, Any]
    recipe: Recipe | None


def read_checkpoint(path: Path) -> Content:
    """What stands in a checkpoint.

    Raises:
        ModelError: the file is missing, or not a checkpoint; of a torn one, whether the best one beside it is whole.
    """
    if not path.exists():
        raise ModelError(f"there is no checkpoint {path}; give a .ckpt file that `roadlens train` wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        # One that was cut off may also be too short to be mapped, which the system calls an invalid argument.
        raise ModelError(
            f"the checkpoint {path} cannot be read ({error.strerror}); {_whole_one_beside(path)}give a .ckpt file"
        ) from None
    except NOT_TORCH:
        raise ModelError(
            f"{path} is not a readable checkpoint; {_whole_one_beside(path)}give a .ckpt file that `roadlens train` "
            "wrote"
        ) from None
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ModelError(f"{path} is not a checkpoint: it holds no state_dict")
    plain = content.get(RECIPE_KEY, content.get(_EARLIER_KEY))
    return Content(content, None if plain is None else decode_recipe(plain, f"the recipe in {path}"))


def _whole_one_beside(path: Path) -> str:
    """Where a checkpoint of the same run can still be read: a clause, or nothing."""
    for other in sorted(path.parent.glob("*.ckpt")):
        if other == path:
            continue
        try:
            step = torch.load(other, map_location="cpu", weights_only=True, mmap=True)["global_step"]
        except (OSError, TypeError, *NOT_TORCH):
            continue
        return f"{other.name} beside it is whole, of step {step}: take {path.name} away and go on from that one, or "
    return ""


def stored_recipe(path: Path) -> Recipe | None:
    """The recipe in a checkpoint, or None in one that holds none.

    Raises:
        ModelError: the file is missing, or not a checkpoint.
    """
    return read_checkpoint(path).recipe


def open_checkpoint(path: Path, recipe: Recipe | None = None) -> tuple[AnyTask, nn.Module]:
    """The task of a checkpoint, and the moving average of its network, ready to predict.

    Args:
        path: a checkpoint of `training.loop.run.train`.
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


def pack_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as what `torch.load(weights_only=True)` reads back: plain values only."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe_as_dict(recipe)))
    return plain
