"""A checkpoint's predictions through torch: the reference that engines are compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engines.errors import ModelError
from training.checkpoint import load_model
from training.evaluation import Predictor
from training.models.encoder import network_input
from training.recipe import Recipe


def checkpoint_predictor(path: Path, precision: str, recipe: Recipe | None = None) -> Predictor:
    """The moving average of a checkpoint, on the GPU where there is one.

    Raises:
        ModelError: not a checkpoint of a segmenter, or a precision other than auto, fp32 and bf16.
        UsageError: the checkpoint does not say its recipe, and none is given.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ModelError(f"a checkpoint computes in fp32 or bf16, not in {precision}; export it for other precisions")
    model, recipe = load_model(path, recipe)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).to(memory_format=torch.channels_last)
    half = precision == "bf16"

    def predict(photos: NDArray[np.uint8]) -> NDArray[np.uint8]:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = model(network_input(torch.from_numpy(photos).to(device))).argmax(1)
        class_map: NDArray[np.uint8] = found.to(torch.uint8).cpu().numpy()
        return class_map

    return Predictor(predict, recipe.name, "torch", "bf16" if half else "fp32", recipe.height, recipe.width)
