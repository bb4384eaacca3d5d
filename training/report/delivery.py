"""The end of a run on somebody's own pictures: the model file, its figures on what was held out, and a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from training.checkpoint import open_checkpoint
from training.evaluation.checkpoints import checkpoint_predictor
from training.evaluation.predictor import evaluate
from training.export import export, with_familiar
from training.report import measure, write_page
from training.results import write_evaluation
from training.task import AnyTask


def deliver(
    folder: Path, data: Path, task: AnyTask, *, skip_broken: bool = False, say: Callable[[str], None] = print
) -> None:  # fmt: skip
    """Write `<name>.onnx`, `evaluation.json` and `report.html` beside the checkpoints of a run.

    Args:
        folder: of the run.
        data: folder that it was trained on.
        task: of its recipe.
        skip_broken: leave out pictures that cannot be used, and name them.
        say: gets the figures, and what to do next.

    Of several processes of a run the first does it.

    Raises:
        CheckFailed: the exported graph does not answer as the network does.
        OutputError: a file cannot be written.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]  # Lightning's own way to say it
        return
    checkpoint = folder / f"{task.deliverable(data)}.ckpt"
    if not checkpoint.exists():  # no score was ever defined on what chooses
        checkpoint = folder / "last.ckpt"
    predictor = checkpoint_predictor(checkpoint, "auto")
    settled = predictor.task
    part, size = settled.part(None), (predictor.height, predictor.width)
    samples = settled.load(data, part, size=size, skip_broken=skip_broken, say=say)
    found = evaluate(predictor, samples, part)
    write_evaluation(found, folder)
    _, model = open_checkpoint(checkpoint)
    path = folder / f"{settled.recipe.name}.onnx"
    spec = settled.spec(*size, "1", found.metrics())
    if "class_map" in spec.outputs:
        split = settled.recipe.split
        fit = settled.load(data, split, size=size, skip_broken=skip_broken, say=lambda _told: None)
        spec = with_familiar(settled, model, spec, fit, split)
        if spec.familiar is None:
            say(f"{len(fit)} pictures are too few to tell how new others are to the model: its novelty is not known")
    export(settled, model, spec, path)
    say(found.markdown())
    page = folder / "report.html"
    write_page(measure([str(path)], data, seconds=1.0, skip_broken=skip_broken, say=say), page)
    say(f"done: {path} (report: {page}); next: roadlens run drive.mp4 --model {path} -o drive.overlay.mp4")
