"""The segmentation task: data, loss, metrics and optimizer around an untouched model, run by Lightning."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from engines.classes import CITYSCAPES_CLASSES
from training.data.augmentation import random_geometry, random_photometry
from training.data.cityscapes_pairs import Pairs, class_frequencies, ignore_doubtful_pixels
from training.data.stepwise import StepwiseBatches
from training.evaluation import Scores, confusion_matrix
from training.losses import class_balance, segmentation_loss
from training.models.unet import UNet
from training.recipe import Recipe
from training.schedule import warmup_poly

UInt8 = NDArray[np.uint8]


def network_input(pictures: Tensor) -> Tensor:
    """(N, H, W, 3) uint8 RGB → (N, 3, H, W) float32 in [−1, 1], channels-last in memory."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


class SegmentationTask(L.LightningModule):
    """Trains `model` on `fit`, watches the mean IoU of its moving average on `dev`.

    Args:
        model: (N, 3, H, W) → (N, C, H, W) logits.
        recipe: the run.
        fit: training pairs.
        dev: pairs set aside; the shipped epochs and settings are chosen on them, never on `val`.
    """

    def __init__(self, model: UNet, recipe: Recipe, fit: Pairs, dev: Pairs) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.recipe, self.fit_pairs, self.dev_pairs = recipe, fit, dev
        # The number of steps averaged so far limits the decay, so that the first steps do not haunt the average.
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
        for p in self.average.parameters():
            p.requires_grad_(False)
        for p in self.model.encoder.stage_parameters(recipe.frozen_stages):
            p.requires_grad_(False)
        frequencies = torch.from_numpy(class_frequencies(fit.labels))
        weights = class_balance(frequencies, recipe.loss.balance_power, recipe.loss.balance_limit)
        self.register_buffer("class_weights", weights, persistent=False)
        self.labels_for_loss: UInt8 = np.stack([ignore_doubtful_pixels(label) for label in fit.labels])
        self.confusion = np.zeros((len(CITYSCAPES_CLASSES),) * 2, np.int64)

    # Data -----------------------------------------------------------------------------------------------------------
    def view(self, index: int, rng: np.random.Generator) -> tuple[UInt8, UInt8]:
        """A random view of training pair `index`; see `training.data.augmentation`."""
        options = self.recipe.augmentation
        picture, label = random_geometry(
            self.fit_pairs.photos[index], self.labels_for_loss[index], rng, options.scale, options.aspect
        )
        return random_photometry(picture, rng, options.photometry), label

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        """Batches from the trainer's current step on, so that a resumed run goes on where it stopped."""
        batches = StepwiseBatches(
            self.view, len(self.fit_pairs), self.recipe.batch, self.recipe.seed, self.trainer.global_step,
            self.recipe.steps, self.trainer.global_rank, self.trainer.world_size,
        )  # fmt: skip
        return DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        pairs = self.dev_pairs
        return DataLoader(TensorDataset(torch.from_numpy(pairs.photos), torch.from_numpy(pairs.labels)), batch_size=16)

    # Steps ----------------------------------------------------------------------------------------------------------
    def on_train_epoch_start(self) -> None:
        self._set_norm_mode()

    def _set_norm_mode(self) -> None:
        # Batch norm of a MobileNet-like encoder drifts under small batches; its statistics stay as they were loaded.
        if self.recipe.freeze_encoder_norm:
            self.model.encoder.eval()

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        self._set_norm_mode()
        pictures, labels = batch
        step = self.global_step
        loss = segmentation_loss(
            self.model(network_input(pictures)), labels.long(), self.class_weights, self.recipe.loss.lovasz_weight,
            phase=(step % 4, step // 4 % 4),
        )  # fmt: skip
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        decay_limit = (1 + self.global_step) / (10 + self.global_step)
        self.average.multi_avg_fn = get_ema_multi_avg_fn(min(self.recipe.ema_decay, decay_limit))
        self.average.update_parameters(self.model)

    def on_validation_epoch_start(self) -> None:
        self.confusion[:] = 0

    def validation_step(self, batch: tuple[Tensor, Tensor], _index: int) -> None:
        pictures, labels = batch
        predicted = self.average(network_input(pictures)).argmax(1).to(torch.uint8)
        self.confusion += confusion_matrix(labels.cpu().numpy(), predicted.cpu().numpy(), len(CITYSCAPES_CLASSES))

    def on_validation_epoch_end(self) -> None:
        scores = Scores.from_confusion(self.confusion)
        self.log("dev/mean_iou", scores.mean_iou, prog_bar=True)
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
