"""A task small enough to be trained a dozen times in a test: whether a grey picture is bright."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.classes import ClassInfo
from engines.spec import Metric, ModelSpec
from training.recipe import Recipe
from training.task import Outputs, Task, View

SIDE = 16


class ShadeRecipe(Recipe, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`spoilt_from`: the step from which on the loss is NaN. `flat`: the score is always the same. `list_file`: a path
    that changes nothing."""

    task: str = "tests.training.loop.shade_task"
    height: int = SIDE
    width: int = SIDE
    batch: int = 4
    evaluate_every: int = 2
    checkpoint_every: int = 3
    report_every: int = 1
    precision: str = "32-true"
    ema_decay: float = 0.9
    spoilt_from: int | None = None
    flat: bool = False
    dropout: float = 0.0
    list_file: Path | None = None


@dataclass(frozen=True)
class Shades:
    photos: np.ndarray
    bright: np.ndarray
    names: tuple[str, ...]
    protocol: str = "drawn"

    def __len__(self) -> int:
        return len(self.names)


def write_shades(folder: Path, seed: int = 0) -> Path:
    """fit.npy and dev.npy: mean levels of 8 and 4 pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, number in (("fit", 8), ("dev", 4)):
        np.save(folder / f"{split}.npy", rng.permutation(np.linspace(20, 230, number)).astype(np.uint8))
    return folder


class Shade(Task[ShadeRecipe, nn.Sequential, Shades]):
    recipe_type = ShadeRecipe
    splits = ("fit", "dev")
    score = "agreement"

    def build_model(self) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Dropout(self.recipe.dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 1),
        )  # fmt: skip

    def load(
        self, folder: Path, split: str, *, size: tuple[int, int] | None = None, cache: Path | None = None,
        skip_broken: bool = False, say: Callable[[str], None] = print,
    ) -> Shades:  # fmt: skip
        levels = np.load(folder / f"{split}.npy")
        photos = np.broadcast_to(levels[:, None, None, None], (len(levels), SIDE, SIDE, 3))
        return Shades(photos, levels > 127, tuple(f"{split} {i}" for i in range(len(levels))))

    def views(self, fit: Shades) -> View:
        def view(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            noisy = fit.photos[index] + rng.normal(0, 8, (SIDE, SIDE, 3))
            return np.clip(noisy, 0, 255).astype(np.uint8), np.array(fit.bright[index], np.float32)

        return view

    def loss(self, model: nn.Sequential, batch: tuple[Tensor, ...], step: int) -> Tensor:
        pictures, bright = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self._logits(model, pictures), bright)
        spoilt = self.recipe.spoilt_from
        return loss * float("nan") if spoilt is not None and step >= spoilt else loss

    def _logits(self, model: nn.Sequential, pictures: Tensor) -> Tensor:
        found: Tensor = model(pictures.permute(0, 3, 1, 2).float() / 128 - 1)
        return found.squeeze(1)

    def predict(self, model: nn.Sequential, pictures: Tensor) -> dict[str, Tensor]:
        scores = self._logits(model, pictures).sigmoid()[:, None]
        return {"scores": scores, "boxes": torch.tensor([0.0, 0, 1, 1]).repeat(len(pictures), 1, 1)}

    def measure(self, outputs: Outputs, data: Shades, indices: Sequence[int]) -> np.ndarray:
        return np.stack([outputs["scores"][:, 0], data.bright[list(indices)]], axis=1)

    def scores(self, rows: np.ndarray) -> dict[str, float]:
        agreement = 0.5 if self.recipe.flat else float(1 - np.abs(rows[:, 0] - rows[:, 1]).mean())
        return {"agreement": agreement, "undefined": float("nan")}

    def spec(self, height: int, width: int, version: str, metrics: tuple[Metric, ...]) -> ModelSpec:
        classes = (ClassInfo(0, "bright", (255, 255, 255)),)
        outputs: dict[Any, str] = {"boxes": "boxes", "scores": "scores"}
        return ModelSpec(
            name=self.recipe.name, version=version, task="localization", height=height, width=width, classes=classes,
            outputs=outputs, metrics=metrics,
        )  # fmt: skip
