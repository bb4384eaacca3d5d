"""One training loop for every task: seeds, trainer, checkpoints, TensorBoard and a plain `metrics.jsonl`."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import lightning as L
import torch
import yaml
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from engines.errors import OutputError, RoadlensError, UsageError
from training.catalogue import open_task, recipe_as_dict
from training.checkpoint import AtomicCheckpointIO
from training.files import write_file
from training.loop.companions import Companions, left_alone
from training.loop.folder import JOURNAL, Start, check_same_data, find_start, held
from training.loop.journal import Journal
from training.loop.keeping import BEST, LAST, Checkpoints
from training.loop.learner import Learner
from training.recipe import Precision, Recipe

__all__ = ["BEST", "LAST", "train"]


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
        resume: go on from the newest checkpoint in `output`; the result is the one an uninterrupted run gives (on a
            CPU bit by bit). The keys of `training.recipe.CHANGEABLE` may be others than before.
        skip_broken: leave out pairs that cannot be used, and name them.
        devices: GPUs of a node to use, or processes on a CPU; None takes every GPU there is.
        nodes: machines that run this same command.
        say: gets the lines of progress.

    Returns:
        The path of the last checkpoint.

    Raises:
        UsageError: `output` holds a run and `resume` is not asked for, another run is writing there, or the checkpoint
            there is of another recipe or of other data; the batch does not fit on the GPU, or cannot be cut into
            `accumulate` parts; there are more devices than pictures in a batch or on `dev`; or training diverges.
        SourceError: the data cannot be read.
        ModelError: the encoder weights cannot be read.
        OutputError: `output` cannot be written to, or the disk is full; the last checkpoint is still good.
        RoadlensError: another process of the run has ended.
    """
    with held(output):
        return _train(recipe, data, output, cache, resume, skip_broken, devices, nodes, say)


def _train(
    recipe: Recipe, data: Path, output: Path, cache: Path | None, resume: bool, skip_broken: bool,
    devices: int | None, nodes: int, say: Callable[[str], None],
) -> Path:  # fmt: skip
    """The same in a folder that no other run writes in."""
    recipe = open_task(recipe).settled(data, say)
    task = open_task(recipe)
    start = find_start(output, recipe, resume, say)
    if start is not None and _is_over(start, recipe, say):
        return _as_last(start, output)
    if start is None:
        _write_recipe(output, recipe)  # a folder that cannot be written to is said before data are read
    L.seed_everything(recipe.seed, verbose=False)
    model = task.build_model()
    if start is None:
        task.initialise(model)
    fit = task.load(data, recipe.split, cache=cache, skip_broken=skip_broken, say=say)
    dev = task.load(data, "dev", cache=cache, skip_broken=skip_broken, say=say)
    learner = Learner(task, model, fit, dev, say)
    if start is not None:
        check_same_data(start, learner.data)
        _write_recipe(output, recipe)
    evaluated_every = min(recipe.evaluate_every, recipe.steps)
    journal = Journal(output / JOURNAL, recipe.steps, recipe.batch, say, recipe.report_every)
    checkpoints = Checkpoints(output, recipe.checkpoint_every, evaluated_every, task.score, recipe.patience, say)
    trainer = _make_trainer(recipe, output, [journal, checkpoints], devices, nodes, _precision(recipe, say))
    least = task.least_batch() * trainer.world_size
    _require_shares(learner, trainer.world_size, least)
    with (
        Companions(trainer.strategy.launcher, output) as companions,
        _in_sentences(trainer, recipe.batch, least * recipe.accumulate, output, companions),
    ):
        trainer.fit(learner, ckpt_path=None if start is None else str(start.path), weights_only=True)
    return output / LAST


def _is_over(start: Start, recipe: Recipe, say: Callable[[str], None]) -> bool:
    """Whether nothing is left to be done; how it can go on is said."""
    if start.step == recipe.steps:
        say(f"{start.path} has done all {recipe.steps} steps; with steps={2 * recipe.steps} it goes on")
        return True
    if recipe.patience is not None and start.waited >= recipe.patience:
        say(
            f"{start.path} ended at step {start.step} for want of better scores (patience={recipe.patience}); with "
            "more patience it goes on"
        )
        return True
    if start.recipe is not None and start.recipe.steps != recipe.steps:
        say(
            f"steps: {recipe.steps} in place of {start.recipe.steps}; from step {start.step} on the learning rate is "
            "that of the new length"
        )
    return False


def _as_last(start: Start, output: Path) -> Path:
    """`last.ckpt` of a run that is over; a kill may have come after the best one and before the last."""
    last = output / LAST
    if start.path != last:
        write_file(last, start.path.read_bytes())
    return last


def _require_shares(learner: Learner, devices: int, least: int) -> None:
    """Refuse more devices than a batch or `dev` has pictures for."""
    batch, parts = learner.recipe.batch, learner.recipe.accumulate
    if batch % parts:
        raise UsageError(
            f"batch = {batch} cannot be cut into {parts} parts of one size (accumulate = {parts}); give "
            f"batch={-(-batch // parts) * parts}, or another number of parts"
        )
    if batch < least * parts:
        cut = f" in {parts} parts" if parts > 1 else ""
        raise UsageError(
            f"batch = {batch}{cut} is too small for {type(learner.model).__name__} on {devices} devices; "
            f"give batch={least * parts} or more"
        )
    if len(learner.dev) < devices:  # who has nothing to score would be waited for without end
        raise UsageError(
            f"dev has {len(learner.dev)} pictures and each of {devices} devices scores a part; take fewer devices"
        )


@contextlib.contextmanager
def _in_sentences(
    trainer: L.Trainer, batch: int, least: int, output: Path, companions: Companions
) -> Iterator[None]:  # fmt: skip
    """What ends a run early, as a user can mend it."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        smaller = batch // 2
        advice = f"try batch={smaller}" if smaller >= least else "take a smaller network, or a GPU with more memory"
        raise UsageError(f"batch = {batch} does not fit into the GPU's memory; {advice}") from None
    except ConnectionError as error:
        raise _left_alone(output, error, companions) from None
    except OSError as error:
        # The data lies in memory: what a run still reads and writes are its own journals.
        raise OutputError(
            f"{output} can no longer be written to ({error.strerror or error}); make room there and go on with --resume"
        ) from None
    except RuntimeError as error:
        if trainer.world_size == 1 or not _LOST.search(str(error)):
            raise
        raise _left_alone(output, error, companions) from None
    except SystemExit:
        # Lightning ends the program on Ctrl-C; what that means is for the command line to say.
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


_LOST = re.compile(r"connection (closed|reset|refused)|gloo|nccl|broken pipe|socket|timed? ?out", re.IGNORECASE)
"""What torch's processes say of one that is gone, whichever of them speaks."""


def _left_alone(output: Path, error: Exception, companions: Companions) -> RoadlensError:
    heard = re.sub(r"^\[[^\]]*\]\s*", "", str(error).partition("\n")[0]).partition(". ")[0]
    return RoadlensError(left_alone(output, companions.lost() or heard or type(error).__name__))


def _write_recipe(output: Path, recipe: Recipe) -> None:
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # of several processes one writes
        text = yaml.safe_dump(recipe_as_dict(recipe), sort_keys=False)
        try:
            write_file(output / "recipe.yaml", text.encode())
        except OutputError:
            raise OutputError(f"{output} cannot be written to; give another --output") from None


def _precision(recipe: Recipe, say: Callable[[str], None]) -> Precision:
    """What is computed in: on a CPU that has no instructions for bfloat16, a step in it takes ten times as long."""
    if recipe.precision != "bf16-mixed" or torch.cuda.is_available() or _has_bfloat16():
        return recipe.precision
    say("this CPU does not compute in bfloat16: training is in float32")
    return "32-true"


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001  # torch asks it so itself


def _make_trainer(
    recipe: Recipe, output: Path, callbacks: list[L.Callback], devices: int | None, nodes: int, precision: Precision
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
        precision=precision,
        gradient_clip_val=recipe.optimizer.gradient_clip,
        # Lightning counts batches, of which a step has several where it adds up gradients.
        val_check_interval=min(recipe.evaluate_every, recipe.steps) * recipe.accumulate,
        accumulate_grad_batches=recipe.accumulate,
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
