"""Answers to one picture with a small square of it changed, computed from the changed parts of its feature maps.

A square of 25 pixels changes 1.2 % of a 224×224 picture, and until the receptive fields have grown, little more of the
feature maps. So the maps of the whole picture are kept, and of each stage only the changed part is computed, from a
crop that is just wide enough for it to be exact; it is pasted over the kept map before the next stage (Nakandala et al.
2019, "Incremental and approximate inference for faster occlusion-based deep CNN explanations", SIGMOD). A stage is as
short as the network allows, a convolution or a residual block, for a crop is as wide as all of it reaches. From where
most of a map changes, the rest of the network runs as it is. Batch normalisation is folded into the convolutions.

What a stage's output at a place hangs on is found by trying: a NaN in its input spreads exactly as far as that. A stage
that spreads it over the whole picture (squeeze and excitation, global pooling), or whose size is no whole fraction of
the picture's, ends the part that is cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.explain.networks.network import Network

_WORTH = 0.6
"""A stage is cropped while the crop is at most this share of its input."""


@dataclass(frozen=True)
class Stage:
    """A part of the network in which places keep to their neighbourhood.

    Attributes:
        layers: (N, C, H, W) → (N, C', H/stride, W/stride).
        stride: of its output.
        before: a change at input row y changes output rows from y // stride − before on, and columns likewise.
        after: … to y // stride + after.
        kept: (1, C, H, W), its input for the whole picture.
    """

    layers: nn.Module
    stride: int
    before: int
    after: int
    kept: Tensor

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        height, width = self.kept.shape[-2:]
        return height // self.stride, width // self.stride


class Incremental:
    """The network's output for one picture with squares of it covered.

    Args:
        network: whose normalisation comes first.
        stages: in order, each taking what the one before gives.
        rest: what follows the last stage.
        kept: what the last stage gives for the whole picture.
    """

    def __init__(self, network: Network, stages: Sequence[Stage], rest: nn.Module, kept: Tensor) -> None:
        self.network, self.stages, self.rest, self.kept = network, stages, rest, kept

    def __call__(self, corners: Sequence[tuple[int, int]], window: int, fill: float) -> object:
        """What the network's body returns for each place of the square.

        Args:
            corners: (y, x) of the squares' first pixels; they may reach over the right and bottom edge.
            window: side of the squares in pixels.
            fill: grey level, 0 to 255.
        """
        height, width = self.stages[0].kept.shape[-2:] if self.stages else self.kept.shape[-2:]
        tops = [min(y, height - window) for y, _ in corners]
        lefts = [min(x, width - window) for _, x in corners]
        first = self.stages[0].kept if self.stages else self.kept
        patches = first.new_empty((len(corners), first.shape[1], window, window))
        grey = self.network.normalise(torch.full((1, 3, 1, 1), fill))
        for patch, (y, x), top, left in zip(patches, corners, tops, lefts, strict=True):
            # A square that reaches over the edge is moved back, and what it then holds besides is as it was.
            patch.copy_(first[0, :, top : top + window, left : left + window])
            patch[:, y - top :, x - left :] = grey[0]
        for number, stage in enumerate(self.stages):
            crop, cells = _crop_size(patches.shape[-2:], stage), stage.cells
            if crop[0] * crop[1] > _WORTH * cells[0] * cells[1]:
                return self._finish(patches, tops, lefts, number)
            patches, tops, lefts = _advance(stage, patches, tops, lefts)
        return self._finish(patches, tops, lefts, len(self.stages))

    def _finish(self, patches: Tensor, tops: list[int], lefts: list[int], number: int) -> object:
        """Paste into the whole map, and run the rest on all of it."""
        kept = self.stages[number].kept if number < len(self.stages) else self.kept
        maps = kept.expand(len(patches), -1, -1, -1).clone(memory_format=torch.channels_last)
        height, width = patches.shape[-2:]
        for whole, patch, top, left in zip(maps, patches, tops, lefts, strict=True):
            whole[:, top : top + height, left : left + width] = patch
        for stage in self.stages[number:]:
            maps = stage.layers(maps)
        return self.rest(maps)


def _changed(size: int, stage: Stage, limit: int) -> int:
    """How many of `limit` rows of the output `size` rows of the input can change, wherever they start."""
    return min(-(-(size - 1) // stage.stride) + 1 + stage.before + stage.after, limit)


def _crop_size(size: Sequence[int], stage: Stage) -> tuple[int, int]:
    """Rows and columns of output cells of the crop from which the changed part of the output can be computed."""
    high, wide = (
        min(_changed(n, stage, limit) + stage.before + stage.after, limit)
        for n, limit in zip(size, stage.cells, strict=True)
    )
    return high, wide


def _advance(stage: Stage, patches: Tensor, tops: list[int], lefts: list[int]) -> tuple[Tensor, list[int], list[int]]:
    """The changed part of a stage's output, and where it starts, from that of its input.

    The crop has as many cells more on each side than what is wanted of it as feel the crop's edge. Where the crop ends
    at the picture's own edge there is nothing to be kept from: the padding is the real one.
    """
    s = stage.stride
    rows, columns = stage.cells
    height, width = patches.shape[-2:]
    high, wide = _changed(height, stage, rows), _changed(width, stage, columns)
    crop_high, crop_wide = _crop_size((height, width), stage)
    new_tops = [min(max(top // s - stage.before, 0), rows - high) for top in tops]
    new_lefts = [min(max(left // s - stage.before, 0), columns - wide) for left in lefts]
    crop_tops = [min(max(top - stage.after, 0), rows - crop_high) for top in new_tops]
    crop_lefts = [min(max(left - stage.after, 0), columns - crop_wide) for left in new_lefts]
    crops = torch.empty(
        (len(patches), patches.shape[1], crop_high * s, crop_wide * s), memory_format=torch.channels_last
    )
    for i, crop in enumerate(crops):
        y, x = crop_tops[i] * s, crop_lefts[i] * s
        crop.copy_(stage.kept[0, :, y : y + crop_high * s, x : x + crop_wide * s])
        y, x = tops[i] - y, lefts[i] - x
        crop[:, y : y + height, x : x + width] = patches[i]
    outputs = stage.layers(crops)
    found = torch.empty((len(patches), outputs.shape[1], high, wide), memory_format=torch.channels_last)
    for i, one in enumerate(found):
        y, x = new_tops[i] - crop_tops[i], new_lefts[i] - crop_lefts[i]
        one.copy_(outputs[i, :, y : y + high, x : x + wide])
    return found, new_tops, new_lefts


def incremental(network: Network, picture: Tensor) -> Incremental | None:
    """The network prepared for one picture, or None where nothing of it can be cropped.

    Args:
        network: best one whose body is a chain of stages, as torchvision's convolutional classifiers are.
        picture: (1, 3, H, W) float32, 0 to 255.
    """
    x = network.normalise(picture)
    parts = _chain(network.body)
    # Each begins with a part that spreads a change, or shrinks the map; those behind it that do neither go with it.
    groups: list[tuple[list[nn.Module], tuple[int, int, int], Tensor]] = []
    taken = 0
    for part in parts:
        y = part(x)
        found = _locality(part, x, y)
        if found is None:
            break
        if groups and found == (1, 0, 0):
            groups[-1][0].append(part)
        else:
            groups.append(([part], found, x))
        taken, x = taken + 1, y
    stages = [Stage(nn.Sequential(*layers), *found, kept) for layers, found, kept in groups]
    prepared = Incremental(network, stages, nn.Sequential(*parts[taken:]), x)
    return prepared if stages and _agrees(prepared, picture) else None


def _locality(layers: nn.Module, x: Tensor, y: object) -> tuple[int, int, int] | None:
    """Stride of a part, and how many cells before and after a change it changes; None where it has no such place."""
    if not isinstance(y, Tensor) or y.ndim != 4:
        return None
    size, cells = x.shape[-2:], y.shape[-2:]
    stride = size[0] // cells[0]
    if not stride or (cells[0] * stride, cells[1] * stride) != tuple(size):
        return None
    cell = cells[0] // 2, cells[1] // 2
    probes = x.repeat(stride, 1, 1, 1)
    for offset, probe in enumerate(probes):
        probe[:, cell[0] * stride + offset, cell[1] * stride + offset] = torch.nan
    spread = layers(probes).isnan().any(1)
    before = after = 0
    for axis, limit, middle in ((2, cells[0], cell[0]), (1, cells[1], cell[1])):
        changed = spread.any(axis).any(0).nonzero()
        if not len(changed) or len(changed) == limit:
            return None
        before, after = max(before, middle - int(changed.min())), max(after, int(changed.max()) - middle)
    return stride, before, after


def _agrees(prepared: Incremental, picture: Tensor) -> bool:
    """Whether two squares are answered as the whole network answers them: operators that swallow a NaN do not show how
    far they reach."""
    window, fill = max(min(picture.shape[-2:]) // 8, 1), 127.5
    corners = [(0, 0), (picture.shape[-2] // 2, picture.shape[-1] // 2)]
    pictures = picture.repeat(len(corners), 1, 1, 1)
    for one, (y, x) in zip(pictures, corners, strict=True):
        one[:, y : y + window, x : x + window] = fill
    network = prepared.network
    wanted, given = network(pictures), network.named(prepared(corners, window, fill))
    return all(torch.allclose(given[name], wanted[name], rtol=1e-3, atol=1e-3) for name in wanted)


class _Tracer(fx.Tracer):
    """Takes a network apart down to its layers and no further."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(m, module_qualified_name)


def _chain(body: nn.Module) -> list[nn.Module]:
    """The body cut wherever one value alone goes on; one part where it cannot be traced."""
    try:
        graph = _Tracer().trace(body)
    except (TypeError, ValueError, RuntimeError, AttributeError, fx.proxy.TraceError):
        return [body]
    folded = _folded(fx.GraphModule(body, graph))
    return _split(folded, folded.graph, _cuts(folded.graph))


def _folded(traced: fx.GraphModule) -> fx.GraphModule:
    """Batch normalisation multiplied into the convolution before it."""
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        norm, conv = traced.get_submodule(str(node.target)), traced.get_submodule(str(source.target))
        alone = len(source.users) == 1 and sum(n.target == source.target for n in traced.graph.nodes) == 1
        if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d) and alone:
            traced.add_submodule(f"{source.target}_folded", fuse_conv_bn_eval(conv, norm))
            source.target = f"{source.target}_folded"
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.recompile()
    return traced


def _cuts(graph: fx.Graph) -> list[fx.Node]:
    """The nodes through each of which everything goes that comes before them."""
    nodes = list(graph.nodes)
    order = {node: number for number, node in enumerate(nodes)}
    last_use = {node: max((order[user] for user in node.users), default=order[node]) for node in nodes}
    cuts, reach = [], 0
    for number, node in enumerate(nodes[:-1]):
        if node.op == "get_attr":
            continue
        if node.op != "placeholder" and reach <= number and node.users:
            cuts.append(node)
        reach = max(reach, last_use[node])
    return cuts


def _split(body: nn.Module, graph: fx.Graph, cuts: list[fx.Node]) -> list[nn.Module]:
    ends, parts, nodes = set(cuts), [], list(graph.nodes)
    first: fx.Node = next(node for node in nodes if node.op == "placeholder")
    pending: list[fx.Node] = []
    for node in nodes:
        if node.op not in ("placeholder", "get_attr"):
            pending.append(node)
        if node in ends or node is nodes[-1]:
            parts.append(_piece(body, first, pending))
            first, pending = node, []
    return parts


def _piece(body: nn.Module, first: fx.Node, nodes: list[fx.Node]) -> nn.Module:
    """The part that computes `nodes` from `first`, and gives back the last of them."""
    piece = fx.Graph()
    known = {first: piece.placeholder("x")}

    def copied(argument: fx.Node) -> fx.Node:
        if argument not in known:  # a parameter that the function uses by itself
            known[argument] = piece.node_copy(argument)
        return known[argument]

    for node in nodes:
        known[node] = piece.node_copy(node, copied)
    if nodes[-1].op != "output":
        piece.output(known[nodes[-1]])
    return fx.GraphModule(body, piece)
