"""What a training run is made of: one typed YAML file under `training/recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
Rate = Annotated[float, msgspec.Meta(gt=0)]


class Optimizer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """AdamW with one peak learning rate for the fresh layers and one for the pre-trained encoder."""

    learning_rate: Rate = 2e-3
    encoder_learning_rate: Rate = 4e-4
    weight_decay: float = 0.02
    warmup_steps: int = 200
    gradient_clip: float = 5.0


class Augmentation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ranges of the random views; see `training.data.augmentation`."""

    scale: tuple[float, float] = (0.75, 2.0)
    aspect: float = 0.2
    photometry: float = 0.7


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cross-entropy with class balance plus Lovász-softmax; see `training.losses`."""

    balance_power: float = 0.5
    balance_limit: float = 6.0
    lovasz_weight: float = 0.5


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run. `steps` counts optimizer steps of `batch` pictures each."""

    name: str
    task: Literal["segmentation"]
    data: Literal["cityscapes-pairs"]
    model: Literal["unet"]
    steps: Positive
    decoder: tuple[int, ...] = (192, 128, 64, 32)
    batch: Positive = 16
    evaluate_every: Positive = 500
    seed: int = 0
    frozen_stages: Annotated[int, msgspec.Meta(ge=0, le=5)] = 0
    freeze_encoder_norm: bool = True
    ema_decay: float = 0.999
    precision: Literal["bf16-mixed", "32-true"] = "bf16-mixed"
    split: Literal["fit", "train"] = "fit"
    optimizer: Optimizer = Optimizer()
    augmentation: Augmentation = Augmentation()
    loss: Loss = Loss()
    encoder_weights: Path | None = None
