"""A checkpoint's predictions through torch: the reference that engines are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import ModelError
from training.checkpoint import open_checkpoint
from training.evaluation.predictor import Predictor
from training.recipe import Recipe
from training.task import as_arrays, at_size


def checkpoint_predictor(path: Path, precision: str, recipe: Recipe | None = None) -> Predictor:
    """The moving average of a checkpoint, on the GPU where there is one.

    Raises:
        ModelError: not a checkpoint, or a precision other than auto, fp32 and bf16.
        UsageError: the checkpoint does not say its recipe, and none is given.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ModelError(f"a checkpoint computes in fp32 or bf16, not in {precision}; export it for other precisions")
    task, opened = open_checkpoint(path, recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = opened.to(device).to(memory_format=torch.channels_last)
    half, settings = precision == "bf16", task.recipe

    def predict(photos: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        # As its export is given them: what a network says of another size is not what it was trained to say.
        pictures = torch.from_numpy(at_size(photos, settings.height, settings.width)).to(device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            return as_arrays(task.predict(model, pictures))

    return Predictor(
        task, predict, settings.name, "torch", "bf16" if half else "fp32", settings.height, settings.width
    )  # fmt: skip
