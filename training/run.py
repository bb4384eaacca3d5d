"""One training loop for every task: seeds, trainer, checkpoints, a plain `metrics.jsonl`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from engines.classes import CITYSCAPES_CLASSES
from training.data.cityscapes_pairs import load_pairs
from training.models.encoder import load_encoder
from training.models.unet import UNet
from training.recipe import Recipe
from training.segmentation import SegmentationTask


class Journal(L.Callback):
    """Appends a JSON line to `metrics.jsonl` every `every` steps and at each evaluation, and prints it."""

    def __init__(self, path: Path, total: int, batch: int, every: int = 50) -> None:
        self.path, self.total, self.batch, self.every = path, total, batch, every
        self._last: tuple[int, float] | None = None

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every:
            return
        now = time.monotonic()
        record: dict[str, Any] = {"step": step, "loss": round(float(trainer.callback_metrics["loss"]), 4)}
        if self._last is not None and step > self._last[0]:
            rate = (step - self._last[0]) / (now - self._last[1])
            record["images_per_second"] = round(rate * self.batch, 2)
            record["minutes_left"] = round((self.total - step) / rate / 60, 1)
        self._last = (step, now)
        self._write(record)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.sanity_checking:
            return
        scores = {k: round(float(v), 4) for k, v in trainer.callback_metrics.items() if k.startswith("dev/")}
        self._write({"step": trainer.global_step, **scores})
        self._last = None


def train(recipe: Recipe, data: Path, output: Path, cache: Path | None = None, resume: bool = False) -> Path:
    """Train a recipe and write `last.ckpt`, `best.ckpt` (by mean IoU on `dev`) and `metrics.jsonl` into `output`.

    Args:
        recipe: the run.
        data: folder of the data set.
        output: folder for checkpoints and metrics; made if it is missing.
        cache: folder for decoded data, or None.
        resume: go on from `output/last.ckpt`; the result is the one an uninterrupted run gives.

    Returns:
        The path of the last checkpoint.
    """
    output.mkdir(parents=True, exist_ok=True)
    L.seed_everything(recipe.seed, verbose=False)
    model = UNet(len(CITYSCAPES_CLASSES), recipe.decoder)
    if recipe.encoder_weights is not None:
        load_encoder(model.encoder, recipe.encoder_weights)
    task = SegmentationTask(model, recipe, load_pairs(data, recipe.split, cache), load_pairs(data, "dev", cache))
    checkpoints = ModelCheckpoint(
        output, filename="best", monitor="dev/mean_iou", mode="max", save_last=True, enable_version_counter=False
    )
    frequent = ModelCheckpoint(
        output, filename="latest", every_n_train_steps=100, save_top_k=1, enable_version_counter=False
    )
    trainer = L.Trainer(
        max_steps=recipe.steps,
        max_epochs=-1,
        precision=recipe.precision,
        gradient_clip_val=recipe.optimizer.gradient_clip,
        val_check_interval=recipe.evaluate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[checkpoints, frequent, Journal(output / "metrics.jsonl", recipe.steps, recipe.batch)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
        use_distributed_sampler=False,
    )
    latest = output / "latest.ckpt"
    trainer.fit(task, ckpt_path=str(latest) if resume and latest.exists() else None, weights_only=True)
    return latest


def averaged_weights(checkpoint: Path) -> dict[str, Tensor]:
    """The moving average of a checkpoint's model, as a plain state dict."""
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "average.module."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
