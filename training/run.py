"""One training loop for every task: seeds, trainer, checkpoints, TensorBoard and a plain `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from engines.errors import OutputError, UsageError
from training.checkpoint import AtomicCheckpointIO, check_same_recipe
from training.figures import in_words
from training.learner import Learner
from training.recipe import Recipe, recipe_as_dict
from training.task import open_task

LAST = "last.ckpt"
"""The newest checkpoint of a run, the one `--resume` goes on from."""

BEST = "best.ckpt"
"""The checkpoint with the highest of the task's scores on `dev` that is meant to pick one."""


class Journal(L.Callback):
    """Appends a JSON line to `metrics.jsonl` every `every` steps and at each evaluation, and says it in words.

    A run that goes on from step k first drops the lines behind k: those steps will be done again.
    """

    def __init__(
        self, path: Path, total: int, batch: int, say: Callable[[str], None] = print, every: int = 50,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.path, self.total, self.batch, self.say, self.every, self.clock = path, total, batch, say, every, clock
        self._last: tuple[int, float] | None = None

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        kept = [line for line in lines if _step_of(line) <= trainer.global_step]
        self.path.write_text("".join(line + "\n" for line in kept))
        self._last = (trainer.global_step, self.clock())

    def _write(self, record: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every and step != self.total:
            return
        now = self.clock()
        record: dict[str, Any] = {"step": step, "loss": round(float(trainer.callback_metrics["loss"]), 4)}
        words = f"step {step}/{self.total}  loss {record['loss']:.3f}"
        if self._last is not None and step > self._last[0]:
            rate = (step - self._last[0]) / max(now - self._last[1], 1e-9)
            record["images_per_second"] = round(rate * self.batch, 2)
            record["minutes_left"] = round((self.total - step) / rate / 60, 1)
            words += f"  {record['images_per_second']:.1f} images/s  {record['minutes_left']:.1f} min left"
        self._last = (step, now)
        self._write(record)
        self.say(words)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        scores = {k: round(float(v), 4) for k, v in trainer.callback_metrics.items() if k.startswith("dev/")}
        step = trainer.global_step
        self._write({"step": step, **scores})
        main = [(key.removeprefix("dev/"), value) for key, value in scores.items() if key.count("/") == 1]
        words = ", ".join(f"{in_words(name)} {value}" for name, value in main)
        self.say(f"step {step}/{self.total}  dev: {words}")
        self._last = (step, self.clock())


def _step_of(line: str) -> float:
    """The step of a journal line; a line cut off by a kill counts as later than all."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class Checkpoints(L.Callback):
    """Writes `last.ckpt` every `every` steps and at the end, and `best.ckpt` when `dev/<score>` has risen."""

    def __init__(self, folder: Path, every: int, score: str) -> None:
        self.folder, self.every, self.score = folder, every, score
        self.best = float("-inf")

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.folder / LAST)
        if trainer.global_step == trainer.max_steps:
            # Lightning evaluates where a run is stopped, and else only every so many steps: the last step, where the
            # learning rate has come down, is to have its chance of being the best.
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        score = float(trainer.callback_metrics[f"dev/{self.score}"])
        if score > self.best:
            self.best = score
            trainer.save_checkpoint(self.folder / BEST)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / LAST)


@contextlib.contextmanager
def _own_settings() -> Iterator[None]:
    """What a run sets for the whole process is as it was when the run is over."""
    threads, deterministic = cv2.getNumThreads(), torch.are_deterministic_algorithms_enabled()
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    lightning.setLevel(logging.WARNING)
    # OpenCV's own threads would fight torch's; views are made in threads of ours.
    cv2.setNumThreads(1)
    try:
        with warnings.catch_warnings():
            yield
    finally:
        lightning.setLevel(level)
        cv2.setNumThreads(threads)
        torch.use_deterministic_algorithms(deterministic)


@_own_settings()
def train(
    recipe: Recipe, data: Path, output: Path, cache: Path | None = None, *, resume: bool = False,
    skip_broken: bool = False, devices: int | None = None, nodes: int = 1, say: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    """Train a recipe and write `last.ckpt`, `best.ckpt` (by the task's score on `dev`), its YAML and `metrics.jsonl`.

    With several devices or nodes every process runs this same function (DDP); torchrun and SLURM are recognised.

    Args:
        recipe: the run; its task is the one that it names.
        data: folder of the data set.
        output: folder for checkpoints and metrics; made if it is missing.
        cache: folder for decoded data, or None.
        resume: go on from `output/last.ckpt`; the result is the one an uninterrupted run gives (on a CPU bit by bit).
        skip_broken: leave out pairs that cannot be used, and name them.
        devices: GPUs of a node to use, or processes on a CPU; None takes every GPU there is.
        nodes: machines that run this same command.
        say: gets the lines of progress.

    Returns:
        The path of the last checkpoint.

    Raises:
        UsageError: `output` holds a run and `resume` is not asked for, or the checkpoint there is of another recipe;
            the batch does not fit on the GPU; or there are more devices than pictures in a batch or on `dev`.
        SourceError: the data cannot be read.
        ModelError: the encoder weights cannot be read.
        OutputError: `output` cannot be written to, or the disk is full; the last checkpoint is still good.
    """
    task = open_task(recipe)
    last = output / LAST
    if last.exists():
        if not resume:
            raise UsageError(f"{output} holds a run already; go on with it with --resume, or give another --output")
        check_same_recipe(last, recipe)
    _start_output(output, recipe)
    L.seed_everything(recipe.seed, verbose=False)
    model = task.build_model()
    if not last.exists():
        task.initialise(model)
    fit = task.load(data, recipe.split, cache=cache, skip_broken=skip_broken, say=say)
    dev = task.load(data, "dev", cache=cache, skip_broken=skip_broken, say=say)
    learner = Learner(task, model, fit, dev)
    journal = Journal(output / "metrics.jsonl", recipe.steps, recipe.batch, say, recipe.report_every)
    checkpoints = Checkpoints(output, recipe.checkpoint_every, task.score)
    trainer = _make_trainer(recipe, output, [journal, checkpoints], devices, nodes)
    least = task.least_batch() * trainer.world_size
    if recipe.batch < least:
        raise UsageError(
            f"batch = {recipe.batch} is too small for {type(model).__name__} on {trainer.world_size} devices; "
            f"give batch={least} or more"
        )
    if len(dev) < trainer.world_size:  # who has nothing to score would be waited for without end
        raise UsageError(
            f"dev has {len(dev)} pictures and each of {trainer.world_size} devices scores a part; take fewer devices"
        )
    try:
        trainer.fit(learner, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    except torch.cuda.OutOfMemoryError:
        smaller = recipe.batch // 2
        advice = f"try batch={smaller}" if smaller >= least else "take a smaller network, or a GPU with more memory"
        raise UsageError(f"batch = {recipe.batch} does not fit into the GPU's memory; {advice}") from None
    except ConnectionError:
        raise  # from another process of a distributed run: no disk's fault
    except OSError as error:
        # The data lies in memory: what a run still reads and writes are its own journals.
        raise OutputError(
            f"{output} can no longer be written to ({error.strerror or error}); make room there and go on with --resume"
        ) from None
    except SystemExit:
        # Lightning ends the program on Ctrl-C; what that means is for the command line to say.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    return last


def _start_output(output: Path, recipe: Recipe) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / "recipe.yaml").write_text(yaml.safe_dump(recipe_as_dict(recipe), sort_keys=False))
    except OSError as error:
        raise OutputError(f"{output} cannot be written to ({error.strerror}); give another --output") from None


def _make_trainer(
    recipe: Recipe, output: Path, callbacks: list[L.Callback], devices: int | None, nodes: int
) -> L.Trainer:
    for known in (
        "does not have many workers",  # meant: the data lies in memory
        "It is recommended to use `self.log",  # the dev scores are those of all processes already
        "isinstance.treespec, LeafSpec",  # Lightning's own business with torch
    ):
        warnings.filterwarnings("ignore", message=f".*{known}.*")
    several_gpus = torch.cuda.is_available() and (devices or torch.cuda.device_count()) * nodes > 1
    return L.Trainer(
        max_steps=recipe.steps,
        max_epochs=-1,
        precision=recipe.precision,
        gradient_clip_val=recipe.optimizer.gradient_clip,
        val_check_interval=min(recipe.evaluate_every, recipe.steps),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[LearningRateMonitor("step"), *callbacks],
        logger=TensorBoardLogger(output, name="", version="tensorboard"),
        log_every_n_steps=10,
        plugins=[AtomicCheckpointIO()],
        sync_batchnorm=several_gpus,
        devices="auto" if devices is None else devices,
        num_nodes=nodes,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
        use_distributed_sampler=False,
    )
