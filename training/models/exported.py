"""Weights out of an exported file, whose batch norm lies in its convolutions, for networks that go on from it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from engines.errors import ModelError

_PREFIX = "model."
_SHIFT = " (shift)"


def read_exported(path: Path) -> dict[str, Tensor]:
    """The weights of an ONNX file that `training.export` wrote, by their names in the network; the shift of
    a convolution under the name of its weight with `_SHIFT` behind it.

    Raises:
        ModelError: there is no such file, or it is not ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs
    from onnx.numpy_helper import to_array

    try:
        graph = onnx.load(path).graph
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); give an exported ONNX file") from None
    except DecodeError:
        raise ModelError(f"{path} is not an ONNX file; give one that roadlens exported") from None
    values = {weight.name: torch.from_numpy(to_array(weight).copy()) for weight in graph.initializer}
    state = {name.removeprefix(_PREFIX): value for name, value in values.items() if name.startswith(_PREFIX)}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in values:
            weight = values[node.input[1]]
            # A shift that is zero throughout is left out of the file.
            shift = values[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
            state[node.input[1].removeprefix(_PREFIX) + _SHIFT] = shift
    return state


def load_exported(model: nn.Module, path: Path, parts: Sequence[str]) -> None:
    """Give parts of a network the weights of an exported file.

    A convolution in front of a batch norm takes the weight that the two had together; the batch norm keeps the shift,
    and its statistics become those that change nothing. It has to stay in evaluation mode from then on. A stage's
    second convolution that the file's network does without starts as one that changes nothing.

    Args:
        model: with the module names that the file was exported from.
        path: ONNX.
        parts: children of the network that are to be loaded.

    Raises:
        ModelError: the file holds no such network.
    """
    state, last = read_exported(path), ""
    with torch.no_grad():
        for part in parts:
            for name, module in model.get_submodule(part).named_modules(prefix=part):
                if isinstance(module, nn.Conv2d):
                    if name.endswith(".refine.0") and f"{name}.weight" not in state:
                        state[f"{name}.weight"] = nn.init.dirac_(torch.empty_like(module.weight))
                        state[f"{name}.weight{_SHIFT}"] = torch.zeros(module.out_channels)
                    _copy(module.weight, state, f"{name}.weight", path)
                    if module.bias is not None:
                        _copy(module.bias, state, f"{name}.bias", path)
                    last = name
                elif isinstance(module, nn.BatchNorm2d):
                    _copy(module.bias, state, f"{last}.weight{_SHIFT}", path)
                    module.weight.fill_(1)
                    module.running_mean.zero_()  # type: ignore[union-attr]  # every batch norm here has statistics
                    module.running_var.fill_(1 - module.eps)  # type: ignore[union-attr]


def blend_exported(model: nn.Module, path: Path) -> None:
    """Make a network the mean, weight by weight, of itself and of the exported one that it was trained on from.

    Between the two ends of a short run the mean is often better than either (Wortsman et al. 2022, "WiSE-FT").

    Args:
        model: one that went on from `load_exported` in all its parts.
        path: ONNX.

    Raises:
        ModelError: the file holds no such network, or the statistics of this one's batch norm are its own.
    """
    start = copy.deepcopy(model)
    load_exported(start, path, [name for name, _ in model.named_children()])
    with torch.no_grad():
        for name, theirs in start.state_dict().items():
            mine = model.state_dict()[name]
            if name.endswith(("running_mean", "running_var")) and not torch.equal(mine, theirs):
                raise ModelError(
                    f"{name} is the network's own, so it did not go on from {path} in all its parts and cannot be "
                    "blended with it"
                )
            if mine.is_floating_point():
                mine.lerp_(theirs, 0.5)


def _copy(target: Tensor, state: dict[str, Tensor], name: str, path: Path) -> None:
    if name not in state or state[name].shape != target.shape:
        found = f"has the shape {tuple(state[name].shape)}" if name in state else "is missing"
        raise ModelError(
            f"{path} is not an export of this network: {name} {found} where {tuple(target.shape)} is wanted; give the "
            "export of a network with the encoder, the decoder and the width of heads that the recipe names"
        )
    target.copy_(state[name])
