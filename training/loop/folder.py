"""The folder of a run: who may write in it, and which of its checkpoints a run goes on from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from engines.errors import ModelError, OutputError, UsageError
from training.checkpoint import check_same_recipe, read_checkpoint
from training.loop.keeping import BEST, LAST, Checkpoints
from training.recipe import Recipe

JOURNAL = "metrics.jsonl"

DATA_KEY = "roadlens.data"
"""Where a checkpoint holds the fingerprints of the data it was trained and scored on, by split."""

_NEEDED = ("global_step", "loops", "optimizer_states", "lr_schedulers")


@dataclass(frozen=True)
class Start:
    """A checkpoint to go on from.

    Attributes:
        path: of the file.
        step: steps that it has done.
        waited: evaluations since the best one.
        recipe: it was made with; None in a file that does not say.
        data: fingerprints by split; none in a file from before there were any.
    """

    path: Path
    step: int
    waited: int
    recipe: Recipe | None
    data: Mapping[str, str]


@contextlib.contextmanager
def held(output: Path) -> Iterator[None]:
    """Make the folder, and keep every other run out of it until this one is over, however it ends.

    Raises:
        OutputError: the folder cannot be made or read.
        UsageError: another run is writing in it.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be written to ({error.strerror}); give another --output") from None
    if rank_zero_only.rank:  # type: ignore[attr-defined]  # of several processes the first one holds it for all
        yield
        return
    handle = _locked(output)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(output: Path) -> int | None:
    """A lock on the folder itself, which leaves no file behind; None where the system or the disk has none."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        handle = os.open(output, os.O_RDONLY)
    except OSError:
        return None  # what cannot be written there is said where it is written
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UsageError(
            f"another run is writing into {output} at this moment; give another --output, or wait for its end"
        ) from None
    except OSError:
        os.close(handle)
        return None
    return handle


def find_start(output: Path, recipe: Recipe, resume: bool, say: Callable[[str], None]) -> Start | None:
    """The checkpoint that a run in this folder begins with; None for the first step.

    That is `last.ckpt`, or `best.ckpt` where it is newer: a kill may have come between the two.

    Args:
        output: the folder.
        recipe: of the run.
        resume: whether it was asked for.
        say: gets what is not as one may expect.

    Raises:
        UsageError: the folder holds a run and `resume` is not asked for, or its recipe is another.
        ModelError: `last.ckpt` cannot be read.
    """
    last, best = output / LAST, output / BEST
    if not resume:
        if last.exists() or best.exists() or _has_lines(output / JOURNAL):
            raise UsageError(f"{output} holds a run already; go on with it with --resume, or give another --output")
        return None
    found = [start for path in (last, best) if (start := _read(path, best if path == last else None)) is not None]
    if not found:
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            say(f"{output} holds no checkpoint to go on from; the run begins at step 0")
        return None
    start = max(found, key=lambda one: one.step)  # the first of equals: last.ckpt
    if start.recipe is not None:
        check_same_recipe(start.path, start.recipe, recipe)
    if start.step > recipe.steps:
        raise UsageError(
            f"{start.path} has done {start.step} steps, this run has steps = {recipe.steps}; give more, or another "
            "--output"
        )
    return start


def check_same_data(start: Start, found: Mapping[str, str]) -> None:
    """Refuse to go on with other data.

    Raises:
        UsageError: a split is not what it was; it is named.
    """
    if other := [split for split, digest in found.items() if start.data.get(split, digest) != digest]:
        raise UsageError(
            f"{start.path} was made with other data than these (the pictures or labels of {' and '.join(other)} "
            "differ); give the same --data with the same options, or another --output"
        )


def _read(path: Path, beside: Path | None) -> Start | None:
    if not path.exists():
        return None
    try:
        content = read_checkpoint(path)
        if missing := [key for key in _NEEDED if key not in content.plain]:
            raise ModelError(f"{path} holds weights and nothing to go on from (no {missing[0]}); give another --output")
    except ModelError:
        if beside is None:
            return None  # a best checkpoint that cannot be read is no reason to refuse a last one that can
        raise
    callbacks: dict[str, dict[str, Any]] = content.plain.get("callbacks", {})
    waited = callbacks.get(Checkpoints.__qualname__, {}).get("waited", 0)
    return Start(path, int(content.plain["global_step"]), waited, content.recipe, content.plain.get(DATA_KEY, {}))


def _has_lines(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
