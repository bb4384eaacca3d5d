"""Exported models: the graph of an ONNX file as a differentiable network."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch.nn.functional as F
from torch import Tensor, nn

from engines.bundled import fp32_file
from engines.errors import ModelError
from engines.pytorch.graph import to_torch
from engines.spec import ModelSpec, read_spec
from training.explain.networks.network import Answers, Head, Network


def open_graph(path: Path) -> Network:
    """The network of an exported model. Where the graph decides (arg-max, sigmoid), what it decides by is explained.

    Raises:
        ModelError: not a model of the house, or it is quantised or holds no arg-max over scores.
        DeviceError: an operator that is not known to `engines.pytorch.graph`.
    """
    spec = read_spec(path)
    if spec.precision != "fp32":
        made_from = fp32_file(path)
        instead = str(made_from) if made_from != path and made_from.is_file() else "the fp32 file it was made from"
        raise ModelError(f"{path} is in {spec.precision}, and rounding has no gradient; take {instead}")
    model = onnx.load(path)
    if "class_map" in spec.outputs:
        return _segmenter(path, spec, model)
    return _localizer(spec, model)


def _segmenter(path: Path, spec: ModelSpec, model: onnx.ModelProto) -> Network:
    decision = _producer(model.graph, spec.outputs["class_map"], "ArgMax")
    if decision is None:
        raise ModelError(f"{path} has no arg-max before its class map, so there are no scores to explain")
    scores, squashed = _before_softmax(model.graph, decision.input[0])
    _answer_with(model, [scores])
    graph = _Pictures(to_torch(model))

    def answers(outputs: tuple[Tensor, ...]) -> Answers:
        (scores,) = outputs
        if scores.ndim == 5:  # the pixels of a cell beside the classes, see `training.models.graphs.SegmenterGraph`
            count, classes, cell, height, width = scores.shape
            scores = F.pixel_shuffle(scores.reshape(count, classes * cell, height, width), round(cell**0.5))
        return {"pixels": scores}

    names = tuple(entry.name for entry in spec.classes)
    return _network(spec, graph, {"pixels": Head("pixels", names, squashed)}, answers)


def _localizer(spec: ModelSpec, model: onnx.ModelProto) -> Network:
    squashing = _producer(model.graph, spec.outputs["scores"], "Sigmoid")
    outputs = [spec.outputs["boxes"], spec.outputs["scores"] if squashing is None else squashing.input[0]]
    heads = {"box": Head("coordinates", ("x0", "y0", "x1", "y1"))}
    decision = _producer(model.graph, spec.outputs["labels"], "ArgMax") if "labels" in spec.outputs else None
    if squashing is not None or decision is None:  # else the score is the probability of the class
        heads["presence"] = Head("presence", ("presence",))
    if decision is not None:
        softmax = _producer(model.graph, decision.input[0], "Softmax")
        outputs.append(decision.input[0] if softmax is None else softmax.input[0])
        heads["class"] = Head("class", tuple(entry.name for entry in spec.classes))
    _answer_with(model, outputs)
    graph = _Pictures(to_torch(model))

    def answers(found: tuple[Tensor, ...]) -> Answers:
        boxes, presence, *classes = found
        count = boxes.shape[0]
        presence = presence.reshape(count, -1)
        # The first of several boxes: localizers of the house give one.
        named = {"box": boxes.reshape(count, -1, 4)[:, 0]}
        if "presence" in heads:
            named["presence"] = (presence if squashing is not None else presence.logit(1e-6))[:, :1]
        if classes:
            named["class"] = classes[0].reshape(count, -1, len(spec.classes))[:, 0]
        return named

    return _network(spec, graph, heads, answers)


def _network(spec: ModelSpec, graph: nn.Module, heads: dict[str, Head], answers: object) -> Network:
    assert callable(answers)
    unit = (1.0, 1.0, 1.0)
    return Network(spec.name, graph, heads, spec.height, spec.width, answers, (0.0, 0.0, 0.0), unit)


class _Pictures(nn.Module):
    """(N, 3, H, W) float32, 0 to 255, for a graph that takes (N, H, W, 3): its cast of uint8 lets these pass."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.graph(x.permute(0, 2, 3, 1))
        return outputs


_MOVING = frozenset({"Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Slice", "Concat"})
_MIXING = frozenset({"Resize", "Upsample", "AveragePool", "Pad", "Clip", "Gather"})
"""What makes other probabilities of some, so that logits cannot be had by leaving the softmax out."""


def _before_softmax(graph: onnx.GraphProto, scores: str) -> tuple[str, bool]:
    """What the scores are made from where that is one softmax, else the scores; and whether those are probabilities."""
    makers = {name: node for node in graph.node for name in node.output}
    direct = makers.get(scores)
    if direct is not None and direct.op_type in ("Softmax", "LogSoftmax"):
        return direct.input[0], False
    for operator in ("Softmax", "Sigmoid", "HardSigmoid"):
        if _producer(graph, scores, operator, _MOVING | _MIXING) is not None:
            return scores, True
    return scores, False


def _producer(
    graph: onnx.GraphProto, output: str, operator: str, moving: frozenset[str] = _MOVING
) -> onnx.NodeProto | None:
    """The node of this operator that an output is made from by moving and casting alone."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in moving and node.op_type != operator:
        node = makers.get(node.input[0])
    return node if node is not None and node.op_type == operator else None


def _answer_with(model: onnx.ModelProto, values: list[str]) -> None:
    """Let the graph give these values in place of its outputs, and compute nothing else."""
    makers = {name: node for node in model.graph.node for name in node.output}
    needed: set[int] = set()
    open_values = list(values)
    while open_values:
        node = makers.get(open_values.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            open_values.extend(node.input)
    kept = [node for node in model.graph.node if id(node) in needed]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in values)
    del model.graph.node[:]
    model.graph.node.extend(kept)
