"""Any task as Lightning runs it: batches by step, optimizer and schedule, moving average, scores on `dev`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from training.checkpoint import pack_recipe
from training.loop.fingerprint import fingerprint
from training.loop.folder import DATA_KEY
from training.loop.keeping import diverged
from training.loop.schedule import warmup_poly
from training.loop.stepwise import StepwiseBatches
from training.metrics.soundness import require_sound
from training.recipe import RECIPE_KEY, Recipe
from training.task import Samples, Task, as_arrays, at_size

EVALUATION_BATCH = 16


def _averaging(decay: float) -> Callable[..., None]:
    update: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no types here
    return update


class Learner(L.LightningModule):
    """Trains `model` on `fit` as `task` says, and scores its moving average on `dev`.

    Args:
        task: of the recipe.
        model: the network of `task.build_model`.
        fit: training data.
        dev: data set aside; epochs and settings are chosen on them, never on what is reported.
        say: gets the lines of progress.
    """

    def __init__(
        self, task: Task[Any, Any, Any], model: nn.Module, fit: Samples, dev: Samples, say: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.task, self.fit, self.dev, self.say = task, fit, dev, say
        self.recipe: Recipe = task.recipe
        self.model = model.to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.model, multi_avg_fn=_averaging(self.recipe.ema_decay), use_buffers=True)
        for p in self.average.parameters():
            p.requires_grad_(False)
        self.groups = task.parameter_groups(self.model)
        trained = {id(p) for group in self.groups for p in group["params"]}
        for p in self.model.parameters():
            p.requires_grad_(id(p) in trained)
        self.view, self.size = task.views(fit), len(fit)
        self.data = {self.recipe.split: fingerprint(fit), "dev": fingerprint(dev)}
        self.classes = task.spec(self.recipe.height, self.recipe.width, "", ()).classes
        self.parts: list[Tensor] = []
        self.rows: list[tuple[NDArray[np.int64], NDArray[Any]]] = []

    # Data -----------------------------------------------------------------------------------------------------------
    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches from the trainer's current step on, so that a resumed run goes on where it stopped."""
        batches = StepwiseBatches(
            self.view, self.size, self.recipe.batch, self.recipe.seed, self.trainer.global_step, self.recipe.steps,
            self.trainer.global_rank, self.trainer.world_size, self.recipe.workers, self.recipe.accumulate,
        )  # fmt: skip
        return DataLoader(batches, batch_size=None, pin_memory=self.device.type == "cuda")

    def val_dataloader(self) -> DataLoader[Tensor]:
        """Numbers of the pictures set aside; with several processes each takes its share."""
        share = range(self.trainer.global_rank, len(self.dev), self.trainer.world_size)
        return DataLoader(share, batch_size=EVALUATION_BATCH)  # type: ignore[arg-type]  # a range is a data set enough

    # Steps ----------------------------------------------------------------------------------------------------------
    def training_step(self, batch: tuple[Tensor, ...], _index: int) -> Tensor:
        # Lightning puts everything back into training mode after each evaluation.
        self.task.training_mode(self.model)
        # Dropout, too, is a function of the step: a checkpoint holds no generator's state.
        place = (self.recipe.seed, self.global_step, self.trainer.global_rank, *([len(self.parts)] * bool(self.parts)))
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0]))
        loss = self.task.loss(self.model, batch, self.global_step)
        self.parts.append(loss.detach())
        if len(self.parts) == self.recipe.accumulate:
            whole = torch.stack(self.parts).mean()
            self.parts.clear()
            self._require_sound(whole)
            self.log("loss", whole)
        return loss

    def _require_sound(self, loss: Tensor) -> None:
        """Stop where the loss is no number: every weight is none from the next step on.

        On a GPU every tenth step is looked at, since to look is to wait for it; and in 16-bit floats, whose scaler
        leaves out the step of an overflow, weights alone are looked at (`training.loop.keeping`).
        """
        looked_at = self.device.type == "cpu" or self.global_step % 10 == 0
        if looked_at and self.recipe.precision != "16-mixed" and not bool(loss.isfinite()):
            raise diverged(self.global_step, f"the loss is {float(loss):g}")

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
        checkpoint[DATA_KEY] = self.data

    def on_validation_epoch_start(self) -> None:
        self.rows.clear()
        if self.trainer.world_size > 1:
            # Batch norm's statistics differ by process; all are to evaluate the model that the first one saves.
            for buffer in self.average.buffers():
                torch.distributed.broadcast(buffer, 0)
        if self.global_step == self.recipe.steps:
            done = self.task.conclude(self.average.module, self.fit)
            if done and self.trainer.is_global_zero:
                self.say(done)

    def validation_step(self, batch: Tensor, _index: int) -> None:
        indices = batch.cpu().numpy()
        photos = at_size(self.dev.photos[indices], self.recipe.height, self.recipe.width)
        pictures = torch.from_numpy(photos).to(self.device)
        outputs = as_arrays(self.task.predict(self.average.module, pictures))
        require_sound(outputs, self.classes, self.recipe.name, [self.dev.names[i] for i in indices])
        self.rows.append((indices, self.task.measure(outputs, self.dev, indices.tolist())))

    def on_validation_epoch_end(self) -> None:
        # The scores are of all rows of the split, whoever measured them: never a mean over processes.
        gathered: list[list[tuple[NDArray[np.int64], NDArray[Any]]] | None] = [self.rows]
        if self.trainer.world_size > 1:
            gathered = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, self.rows)
        parts = [part for rows in gathered if rows is not None for part in rows]
        order = np.argsort(np.concatenate([indices for indices, _ in parts]))
        scores = self.task.scores(np.concatenate([rows for _, rows in parts])[order])
        for name, value in scores.items():
            self.log(f"dev/{name}", value)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        options = self.recipe.optimizer
        optimizer = torch.optim.AdamW(self.groups, weight_decay=options.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_poly(step, self.recipe.steps, options.warmup_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
