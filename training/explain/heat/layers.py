"""At which layer Grad-CAM looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from engines.errors import UsageError
from engines.settings import nearest
from training.explain.networks.network import Network
from training.explain.targets import Target

_POOLING = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class FeatureMap:
    """What a layer gives.

    Attributes:
        name: of the layer.
        layer: that gives it.
        shape: (C, h, w).
    """

    name: str
    layer: nn.Module
    shape: tuple[int, int, int]


def feature_maps(network: Network, target: Target) -> list[FeatureMap]:
    """The layers that give one map of more than one cell on which the target hangs, in the order in which they finish.

    A graph's nodes are no modules: the maps of its convolutions and activations are given names as modules first.
    """
    for module in list(network.body.modules()):
        if isinstance(module, fx.GraphModule):
            _name_nodes(module)
    found: dict[str, tuple[nn.Module, Tensor]] = {}
    repeated: set[str] = set()
    pooled: set[int] = set()

    def note(name: str, layer: nn.Module, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4 or output.shape[-1] * output.shape[-2] == 1:
            return
        if isinstance(layer, _POOLING):
            pooled.add(id(output))
        # A layer that runs several times, such as a shared activation, gives no one map.
        if found.pop(name, None) is not None:
            repeated.add(name)
        if name not in repeated:
            found[name] = layer, output

    handles = [
        layer.register_forward_hook(lambda layer, _, output, name=name: note(name, layer, output))
        for name, layer in network.body.named_modules()
        if name
    ]
    try:
        picture = torch.full((1, 3, network.height, network.width), 127.5, requires_grad=True)
        score = target.score(network(picture))
    finally:
        for handle in handles:
            handle.remove()
    maps = {name: (layer, output) for name, (layer, output) in found.items() if id(output) not in pooled}
    slopes = torch.autograd.grad(score, [output for _, output in maps.values()], allow_unused=True) if maps else ()
    return [
        FeatureMap(name, layer, (output.shape[1], output.shape[2], output.shape[3]))
        for (name, (layer, output)), slope in zip(maps.items(), slopes, strict=True)
        if slope is not None
    ]


def choose_layer(network: Network, target: Target, name: str | None = None) -> FeatureMap:
    """The layer of a name, or the one to look at where none is given: the last map at the network's coarsest grid.

    That is the last convolutional map of the Grad-CAM paper (Selvaraju et al. 2017), before the pooling that gives up
    the places: `features.29` of VGG16, `layer4` of a ResNet, `features` of MobileNetV2. What only summarises (pyramid
    levels, squeeze and excitation) is no grid, and what the target does not hang on (the box's layers, where presence
    is asked for) is not looked at. Of a segmenter it is the last map with cells of 8 pixels or more: at the bottom of a
    U-Net the map knows little of places that the skips bring back, and lit up a motorway's lower edge for its cars.

    Raises:
        UsageError: there is no such layer, or none that gives a map.
    """
    maps = feature_maps(network, target)
    if not maps:
        raise UsageError(f"{network.name} has no convolutional map, which Grad-CAM needs; take another method")
    if name is None and target.kind == "pixels":
        return ([m for m in maps if m.shape[1] * 8 <= network.height] or maps)[-1]
    if name is None:
        grid = _coarsest_grid(network, maps)
        return [candidate for candidate in maps if candidate.shape[1:] == grid][-1]
    for candidate in maps:
        if candidate.name == name:
            return candidate
    names = [candidate.name for candidate in maps]
    close = nearest(name, names)
    raise UsageError(
        f"{network.name} has no layer {name} that gives a map on the way to {target.label}; "
        f"{f'the nearest is {close}, ' if close else ''}there are {len(names)}, from {names[0]} to {names[-1]}"
    )


def _coarsest_grid(network: Network, maps: list[FeatureMap]) -> tuple[int, ...]:
    """The smallest grid of a convolution whose cells are no wider than 40 pixels of the input: networks go down to 32
    (Inception, which does not pad, to 37), and the levels of a pyramid are smaller still."""
    convolved = [m for m in maps if isinstance(m.layer, (nn.Conv2d, Map))] or maps
    fine = [m for m in convolved if m.shape[1] * 40 >= network.height and m.shape[2] * 40 >= network.width]
    return min((m.shape[1:] for m in fine or convolved), key=math.prod)


class Map(nn.Module):
    """Gives back what it is given; stands behind a node of a graph, so that the node has a name to be hooked by."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def _name_nodes(module: fx.GraphModule) -> None:
    """Put a `Map` behind every node that computes with weights or is an activation, once."""
    if any(isinstance(child, Map) for child in module.children()):
        return
    for node in list(module.graph.nodes):
        called = getattr(node.target, "__name__", "")
        if node.op != "call_function" or not any(word in called for word in ("conv2d", "relu", "clamp", "add")):
            continue
        module.add_submodule(node.name, Map())
        with module.graph.inserting_after(node):
            seen = module.graph.call_module(node.name, (node,))
        node.replace_all_uses_with(seen, delete_user_cb=lambda user, seen=seen: user is not seen)
    module.recompile()
