"""What a training run is made of: one typed YAML file, read as the recipe of the task that it names.

Here stands what the recipes of several tasks share; what a task adds stands with the task, under `training/tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from engines.errors import UsageError
from engines.settings import decode, nearest, parse_scalar, read_yaml
from training.task import task_class

Positive = Annotated[int, msgspec.Meta(ge=1)]
Whole = Annotated[int, msgspec.Meta(ge=0)]
Rate = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
EncoderName = Literal["mobilenet_v2", "resnet18", "resnet50"]


class UNetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="unet"):
    """See `training.models.unet.UNet`. `decoder`: channels of the stages at strides 16, 8, 4 and 2."""

    encoder: EncoderName = "mobilenet_v2"
    decoder: tuple[Positive, Positive, Positive, Positive] = (192, 128, 64, 32)


class PSPNetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pspnet"):
    """See `training.models.pspnet.PSPNet`. `auxiliary_weight`: factor of the auxiliary head's loss."""

    encoder: EncoderName = "mobilenet_v2"
    stride: Literal[8, 16] = 16
    pooled: Positive = 64
    width: Positive = 96
    detail: bool = True
    auxiliary_weight: Share = 0.4


ModelSettings = UNetSettings | PSPNetSettings


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """AdamW with one peak learning rate for the fresh layers and one for the pre-trained encoder.

    The rate climbs over `warmup_steps` and falls by `training.schedule.warmup_poly`; gradients are clipped to the
    Euclidean norm `gradient_clip`.
    """

    learning_rate: Rate = 2e-3
    encoder_learning_rate: Rate = 4e-4
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.02
    warmup_steps: Whole = 200
    gradient_clip: Rate = 5.0


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ranges of the random views; see `training.data.augmentation`."""

    scale: tuple[Rate, Rate] = (0.75, 2.0)
    aspect: Annotated[float, msgspec.Meta(ge=0)] = 0.2
    photometry: Annotated[float, msgspec.Meta(ge=0)] = 0.7


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run; a task derives its own recipe from this one and adds the keys that only it has.

    `task` is a module under `training.tasks`, or the dotted path of a module of somebody else's. `steps` counts
    optimizer steps of `batch` pictures each, over all processes together. The network is trained and evaluated on
    pictures of `height` × `width` pixels. `split` is the part of the data that is trained on: `fit` leaves out `dev`,
    on which epochs and settings are chosen; `train` is both. `ema_decay` is that of the moving average of the
    weights, which is what gets evaluated and exported. `workers` threads prepare views.
    """

    name: str
    task: str
    steps: Positive
    height: Positive = 256
    width: Positive = 256
    batch: Positive = 16
    evaluate_every: Positive = 500
    checkpoint_every: Positive = 100
    report_every: Positive = 50
    seed: Whole = 0
    split: Literal["fit", "train"] = "fit"
    ema_decay: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.999
    precision: Literal["bf16-mixed", "16-mixed", "32-true"] = "bf16-mixed"
    workers: Positive = 1
    optimizer: Optimizer = Optimizer()


class EncoderRecipe(Recipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run that starts from an encoder trained before.

    `encoder_weights` is `imagenet` (torchvision's, downloaded) or a file. `frozen_stages` of the encoder's five are
    not trained; `freeze_encoder_norm` keeps the statistics of its batch norm.
    """

    encoder_weights: Path | None = None
    frozen_stages: Annotated[int, msgspec.Meta(ge=0, le=5)] = 0
    freeze_encoder_norm: bool = True


class _Named(msgspec.Struct):
    """As much of a recipe as says how to read the rest. Before there were other tasks, recipes named none."""

    task: str = "segmentation"


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("training"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by the path of its file or the name of a bundled one, with `key=value` changes.

    Args:
        name: `cityscapes-unet`, or a path that ends in `.yaml`.
        overrides: `steps=100`, `optimizer.learning_rate=1e-3`; values as YAML.

    Returns:
        The recipe struct of the task that the file names.

    Raises:
        UsageError: no such recipe, no such task, or a key or value that does not fit.
    """
    bundled = bundled_recipes()
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in bundled:
            close = nearest(name, bundled)
            hint = f"the nearest is {close}" if close else f"known are {', '.join(bundled)}"
            raise UsageError(f"There is no recipe {name!r}; {hint}; or give the path of a YAML file.")
        path = bundled[name]
    recipe = read_yaml(path, task_class(read_yaml(path, _Named).task).recipe_type)
    return override(recipe, overrides) if overrides else recipe


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """The recipe with `key=value` changes; dots reach into a group.

    Raises:
        UsageError: a change that is not `key=value`, or a key or value that does not fit.
    """
    plain = recipe_as_dict(recipe)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UsageError(f"{change!r} is not an override; write key=value, such as optimizer.learning_rate=1e-3.")
        *groups, last = key.split(".")
        place = plain
        for group in groups:
            inside = place.setdefault(group, {})
            if not isinstance(inside, dict):
                raise UsageError(f"{change!r}: {group} is a value, not a group of keys; leave out what follows it.")
            place = inside
        place[last] = parse_scalar(text)
    return decode_recipe(plain, "overrides")


def decode_recipe(plain: object, where: str) -> Recipe:
    """The recipe in plain values, as they stand in YAML, in a checkpoint or in an exported file.

    Args:
        plain: a mapping of keys to values.
        where: what a sentence names in place of a file.

    Raises:
        UsageError: no such task, or a key or value that does not fit.
    """
    recipe: Recipe = decode(plain, task_class(decode(plain, _Named, where).task).recipe_type, where)
    return recipe


def recipe_as_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, as they stand in YAML."""
    plain: dict[str, Any] = msgspec.to_builtins(recipe, enc_hook=str)
    return plain
