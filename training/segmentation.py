"""The segmentation task: data, loss, metrics and optimizer around an untouched model, run by Lightning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset, TensorDataset

from engines.classes import CITYSCAPES_CLASSES
from training.checkpoint import RECIPE_KEY, pack_recipe
from training.data.augmentation import random_geometry, random_photometry
from training.data.cityscapes_pairs import Pairs, class_frequencies, ignore_doubtful_pixels
from training.data.stepwise import StepwiseBatches
from training.evaluation import Scores, confusion_matrix
from training.losses import auxiliary_loss, class_balance, segmentation_loss
from training.models import Segmenter
from training.recipe import Augmentation, PSPNetSettings, Recipe
from training.schedule import warmup_poly

UInt8 = NDArray[np.uint8]


def network_input(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, H, W) float32 in [−1, 1], channels-last in memory."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def _averaging(decay: float) -> Callable[..., None]:
    update: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no types here
    return update


@dataclass(frozen=True)
class RandomViews:
    """Random views of labelled pictures; see `training.data.augmentation`.

    Attributes:
        photos: (N, H, W, 3) uint8 RGB.
        labels: (N, H, W) uint8, 255 ignored.
        options: ranges of the randomness.
    """

    photos: UInt8
    labels: UInt8
    options: Augmentation

    def __call__(self, index: int, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
        """A view of picture `index`: (H, W, 3) and (H, W) uint8."""
        options = self.options
        picture, label = random_geometry(self.photos[index], self.labels[index], rng, options.scale, options.aspect)
        return random_photometry(picture, rng, options.photometry), label


class SegmentationTask(L.LightningModule):
    """Trains `model` on `fit`, watches the mean IoU of its moving average on `dev`.

    Args:
        model: (N, 3, H, W) → (N, C, H, W) logits.
        recipe: the run.
        fit: training pairs.
        dev: pairs set aside; the shipped epochs and settings are chosen on them, never on `val`.
    """

    def __init__(self, model: Segmenter, recipe: Recipe, fit: Pairs, dev: Pairs) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.recipe, self.dev_pairs = recipe, dev
        self.average = AveragedModel(self.model, multi_avg_fn=_averaging(recipe.ema_decay), use_buffers=True)
        for p in self.average.parameters():
            p.requires_grad_(False)
        for p in self.model.encoder.stage_parameters(recipe.frozen_stages):
            p.requires_grad_(False)
        frequencies = torch.from_numpy(class_frequencies(fit.labels))
        weights = class_balance(frequencies, recipe.loss.balance_power, recipe.loss.balance_limit)
        self.register_buffer("class_weights", weights, persistent=False)
        self.class_weights: Tensor
        labels = np.stack([ignore_doubtful_pixels(label) for label in fit.labels]) if fit.blurred else fit.labels
        self.views = RandomViews(fit.photos, labels, recipe.augmentation)
        self.confusion = np.zeros((len(CITYSCAPES_CLASSES),) * 2, np.int64)

    # Data -----------------------------------------------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches from the trainer's current step on, so that a resumed run goes on where it stopped."""
        batches = StepwiseBatches(
            self.views, len(self.views.photos), self.recipe.batch, self.recipe.seed, self.trainer.global_step,
            self.recipe.steps, self.trainer.global_rank, self.trainer.world_size, self.recipe.workers,
        )  # fmt: skip
        return DataLoader(batches, batch_size=None, pin_memory=self.device.type == "cuda")

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The pairs set aside; with several processes each takes its share, and the counts are added up."""
        pairs = TensorDataset(torch.from_numpy(self.dev_pairs.photos), torch.from_numpy(self.dev_pairs.labels))
        share = range(self.trainer.global_rank, len(pairs), self.trainer.world_size)
        return DataLoader(Subset(pairs, share), batch_size=16)

    # Steps ----------------------------------------------------------------------------------------------------------
    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        if self.recipe.freeze_encoder_norm:
            # Batch norm of a MobileNet-like encoder drifts under small batches; its statistics stay as they were
            # loaded. Lightning puts everything back into training mode after each evaluation.
            self.model.encoder.eval()
        pictures, target = batch
        labels = target.long()
        step = self.global_step
        logits, auxiliary = self.model.training_scores(network_input(pictures))
        loss = segmentation_loss(
            logits, labels, self.class_weights, self.recipe.loss.lovasz_weight, phase=(step % 4, step // 4 % 4)
        )
        if auxiliary is not None and isinstance(self.recipe.model, PSPNetSettings):
            loss = loss + self.recipe.model.auxiliary_weight * auxiliary_loss(auxiliary, labels, self.class_weights)
        self.log("loss", loss)
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The step, and the moving average after it: before any callback, so that a checkpoint holds both."""
        super().optimizer_step(*args, **kwargs)
        # The number of steps so far limits the decay, so that the first steps do not haunt the average.
        done = self.global_step + 1
        decay = min(self.recipe.ema_decay, (1 + done) / (10 + done))
        self.average.multi_avg_fn = _averaging(decay)
        self.average.update_parameters(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[RECIPE_KEY] = pack_recipe(self.recipe)

    def on_validation_epoch_start(self) -> None:
        self.confusion[:] = 0
        if self.trainer.world_size > 1:
            # Batch norm's statistics differ by process; all are to evaluate the model that the first one saves.
            for buffer in self.average.buffers():
                torch.distributed.broadcast(buffer, 0)

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        pictures, labels = batch
        predicted = self.average(network_input(pictures)).argmax(1).to(torch.uint8)
        self.confusion += confusion_matrix(labels.cpu().numpy(), predicted.cpu().numpy(), len(CITYSCAPES_CLASSES))

    def on_validation_epoch_end(self) -> None:
        # One matrix over the whole split: the counts of all processes are added, never their means averaged.
        counts = self.trainer.strategy.reduce(torch.from_numpy(self.confusion).to(self.device), reduce_op="sum")
        scores = Scores.from_confusion(counts.cpu().numpy())
        self.log("dev/mean_iou", scores.mean_iou)
        self.log("dev/accuracy", scores.accuracy)
        for info, iou in zip(CITYSCAPES_CLASSES, scores.iou, strict=True):
            self.log(f"dev/iou/{info.name}", float(iou))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        options = self.recipe.optimizer
        encoder = [p for p in self.model.encoder.parameters() if p.requires_grad]
        known = {id(p) for p in self.model.encoder.parameters()}
        fresh = [p for p in self.model.parameters() if id(p) not in known]
        groups = [{"params": fresh, "lr": options.learning_rate}]
        if encoder:
            groups.append({"params": encoder, "lr": options.encoder_learning_rate})
        optimizer = torch.optim.AdamW(groups, weight_decay=options.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly(step, self.recipe.steps, options.warmup_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
