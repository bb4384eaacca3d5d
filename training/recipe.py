"""What a training run is made of: one typed YAML file, read as the recipe of the task that it names.

Here stands what the recipes of several tasks share; what a task adds stands with the task, under `training/tasks`.
`training.catalogue` reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

RECIPE_KEY = "roadlens.recipe"
"""The key under which a checkpoint and the `metadata_props` of an exported file hold the recipe."""

CHANGEABLE = frozenset({"steps", "workers", "evaluate_every", "checkpoint_every", "report_every", "patience"})
"""Keys that a run may change when it goes on: how long, with how many threads, and how often it looks at itself."""

_LARGEST = 2**63 - 1
"""Of a whole number that JSON and YAML readers agree on."""

Precision = Literal["bf16-mixed", "16-mixed", "32-true"]
Positive = Annotated[int, msgspec.Meta(ge=1, le=_LARGEST)]
Whole = Annotated[int, msgspec.Meta(ge=0, le=_LARGEST)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
"""What every generator of random numbers takes."""
Rate = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
EncoderName = Literal[
    "mobilenet_v2", "resnet18", "resnet50", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"
]


class UNetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="unet"):
    """See `training.models.unet.UNet`. `decoder`: channels of the stages at strides 16, 8, 4 and 2; the first `refined`
    of them have a second convolution."""

    encoder: EncoderName = "mobilenet_v2"
    decoder: tuple[Positive, Positive, Positive, Positive] = (192, 128, 64, 32)
    refined: Annotated[int, msgspec.Meta(ge=0, le=4)] = 4


class PSPNetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="pspnet"):
    """See `training.models.pspnet.PSPNet`. `auxiliary_weight`: factor of the auxiliary head's loss."""

    encoder: EncoderName = "mobilenet_v2"
    stride: Literal[8, 16] = 16
    pooled: Positive = 64
    width: Positive = 96
    detail: bool = True
    auxiliary_weight: Share = 0.4


class OwnSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="own"):
    """A network of somebody else's.

    `network` is a class derived from `training.models.segmenter.Segmenter`, as `module:Class` of a module that Python
    finds. It is called with the encoder, the number of classes, and `options` by name.
    """

    network: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    encoder: EncoderName = "mobilenet_v2"
    options: dict[str, Any] = {}


ModelSettings = UNetSettings | PSPNetSettings | OwnSettings


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """AdamW with one peak learning rate for the fresh layers and one for the pre-trained encoder.

    The rate climbs over `warmup_steps` and falls by `training.loop.schedule.warmup_poly`; gradients are clipped to the
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
    weights, which is what gets evaluated and exported. `workers` threads prepare views. With `patience` a run ends
    where so many evaluations in a row brought no better score. With `accumulate` a step computes its batch in so many
    parts, one after the other, and adds up their gradients: the memory of a part, the step of the whole batch.
    """

    name: str
    task: str
    steps: Positive
    height: Positive = 256
    width: Positive = 256
    batch: Positive = 16
    accumulate: Positive = 1
    evaluate_every: Positive = 500
    checkpoint_every: Positive = 100
    report_every: Positive = 50
    patience: Positive | None = None
    seed: Seed = 0
    split: Literal["fit", "train"] = "fit"
    ema_decay: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.999
    precision: Precision = "bf16-mixed"
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
