"""A network with classes of its own that starts from a model's file: all layers, the last where classes agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.models.box_net import BoxNet
from training.models.exported import load_exported, read_exported
from training.models.unet import UNet


def start_segmenter(model: UNet, path: Path, alike: Sequence[int | None]) -> None:
    """Give a U-Net the weights of an exported one of the same encoder and decoder, and what its head knows.

    Args:
        model: with a head for its own classes.
        path: ONNX.
        alike: for each of them the place, in the file's head, of the class that it is or looks like.

    Raises:
        ModelError: the file holds no such network.
    """
    load_exported(model, path, ("encoder", "decoder"))
    state = read_exported(path)
    if "head.weight" in state and "head.bias" in state:
        _copy_rows(model.head, state["head.weight"], state["head.bias"], alike, model.cell**2)


def start_boxes(model: BoxNet, path: Path, alike: Sequence[int | None]) -> None:
    """The same of a network for boxes, from a model with boxes or, without their heads, from a segmenter.

    Args:
        model: with a heat map for its own classes.
        path: ONNX.
        alike: for each of them the place, in the file's heat map, of the class that it is or looks like.
    """
    state = read_exported(path)
    if "sides.0.weight" not in state:
        load_exported(model, path, ("encoder", "decoder"))
        return
    load_exported(model, path, ("encoder", "decoder", "laterals", "sides", "heat.0", "heat.1"))
    last = model.heat[-1]
    assert isinstance(last, nn.Conv2d)
    _copy_rows(last, state["heat.3.weight"], state["heat.3.bias"], alike, 1)


def _copy_rows(layer: nn.Conv2d, weight: Tensor, bias: Tensor, alike: Sequence[int | None], rows: int) -> None:
    assert layer.bias is not None
    if weight.shape[1:] != layer.weight.shape[1:]:
        return
    with torch.no_grad():
        for place, found in enumerate(alike):
            if found is not None and (found + 1) * rows <= len(weight):
                mine, theirs = slice(place * rows, (place + 1) * rows), slice(found * rows, (found + 1) * rows)
                layer.weight[mine], layer.bias[mine] = weight[theirs], bias[theirs]
