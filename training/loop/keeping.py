"""When a run writes its checkpoints, and when it ends: `last.ckpt`, `best.ckpt`, patience.

A checkpoint never lies between a step and the evaluation that belongs to it: where a step is evaluated, `best.ckpt`
and then `last.ckpt` are written behind the evaluation. So whichever of them a kill leaves behind, the run that goes on
from it neither evaluates a step twice nor leaves one out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from engines.errors import UsageError
from training.figures import in_words

LAST = "last.ckpt"
"""The newest checkpoint of a run."""

BEST = "best.ckpt"
"""The checkpoint with the highest of the task's scores on `dev` that is meant to pick one."""


class Checkpoints(L.Callback):
    """Writes `last.ckpt` every `every` steps, at each evaluation and at the end, and `best.ckpt` when `dev/<score>`
    has risen; ends the run when it has not for `patience` evaluations.

    Args:
        folder: of the run.
        every: steps between two writings of `last.ckpt`.
        evaluated_every: steps between two evaluations.
        score: of the task, by name.
        patience: evaluations without a better score after which the run ends; None never ends it.
        say: gets the sentence where it ends early.
    """

    def __init__(
        self, folder: Path, every: int, evaluated_every: int, score: str, patience: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:  # fmt: skip
        self.folder, self.every, self.evaluated_every, self.score = folder, every, evaluated_every, score
        self.patience, self.say = patience, say
        self.best = float("-inf")
        self.waited = 0
        self._seen = self._saved = 0

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.waited = state_dict.get("waited", 0)

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self._seen = self._saved = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        if step == self._seen:
            return  # a part of a batch whose step is still to come
        self._seen = step
        if step == trainer.max_steps:
            # Lightning evaluates where a run is stopped, and else only every so many steps: the last step, where the
            # learning rate has come down, is to have its chance of being the best.
            trainer.should_stop = True
        elif step % self.every == 0 and step % self.evaluated_every:
            self._write_last(trainer, module)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        score = float(trainer.callback_metrics[f"dev/{self.score}"])
        self.waited += 1
        if score > self.best:
            self.best, self.waited = score, 0
            self._write(trainer, module, self.folder / BEST)
        self._write_last(trainer, module)
        if self.patience is not None and self.waited >= self.patience and trainer.global_step < trainer.max_steps:
            trainer.should_stop = True
            if trainer.is_global_zero:
                self.say(
                    f"step {trainer.global_step}/{trainer.max_steps}  ends here: {in_words(self.score)} on dev was not "
                    f"above {_figure(self.best)} for {self.waited} evaluations (patience={self.patience})"
                )

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self._saved != trainer.global_step:
            self._write_last(trainer, module)

    def _write_last(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._write(trainer, module, self.folder / LAST)
        self._saved = trainer.global_step

    def _write(self, trainer: L.Trainer, module: L.LightningModule, path: Path) -> None:
        """Every process calls this, and the first one writes."""
        require_finite(module, trainer.global_step)
        trainer.save_checkpoint(path)


def require_finite(module: torch.nn.Module, step: int) -> None:
    """Refuse to keep weights that are no numbers: what stands on the disk is better.

    A buffer may be infinite, as the mask of an attention is.

    Raises:
        UsageError: a weight is NaN or infinite, or a statistic NaN.
    """
    unsound = [name for name, value in module.named_parameters() if not bool(value.isfinite().all())]
    unsound += [name for name, value in module.named_buffers() if bool(value.isnan().any())]
    if unsound:
        raise diverged(step, f"the weights {unsound[0].partition('.')[2]} are no numbers")


def diverged(step: int, what: str) -> UsageError:
    """The sentence that ends a run whose numbers are none."""
    return UsageError(
        f"training has diverged: behind step {step} {what}; the checkpoints in the folder are from before, and another "
        "run with a smaller optimizer.learning_rate, more optimizer.warmup_steps or precision=32-true may hold"
    )


def _figure(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"
