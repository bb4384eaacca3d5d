"""ONNX → `torch.fx.GraphModule`: the file that every other backend runs stays the one source of truth.

Why our own: onnx2torch, the one library for it that is still to be had (1.5.15 of August 2024), has a `Resize` up to
opset 13 only (ours are 18 to 22), no Q/DQ and no bf16; `torch.export` programs or AOTInductor packages beside the
ONNX would be a second file that can differ from the first. The operators that exported models of the house use fit on
one page (`engines.pytorch.operators`), each with ONNX's meaning in the words of PyTorch; any other, or another use of
one, is refused by its name and its node's.

A graph, and not a list of calls, so that `torch.compile` can take it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from engines.errors import ModelError
from engines.pytorch.call import Call, tensor_of
from engines.pytorch.operators import OPERATORS

if TYPE_CHECKING:
    import onnx

OPSETS = range(18, 25)
"""ONNX operator sets whose meaning is known here."""


def to_torch(model: onnx.ModelProto) -> fx.GraphModule:
    """A module that computes what the graph does: (N, H, W, 3) uint8 → a tuple of the graph's outputs, in its order.

    It computes in the types that are written in the graph. On the CPU layers in half precision add up in fp32 and round
    once, as tensor cores do. Convolution weights are channels-last, as the pictures are.

    Raises:
        UnsupportedError: an operator, or a use of one, that is not known here; the sentence names it and its node.
        ModelError: an opset that is not known here.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    if opset not in OPSETS:
        raise ModelError(
            f"The graph is of ONNX opset {opset}, and PyTorch runs {OPSETS[0]} to {OPSETS[-1]} here; export it again."
        )
    return _Translation(model.graph).module()


class _Translation:
    """A graph being written. A tensor is a constant or a node of the new graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.source = graph
        self.constants: dict[str, Tensor] = {w.name: tensor_of(w) for w in graph.initializer}
        self.values: dict[str, fx.Node] = {}
        self.root = nn.Module()
        self.graph = fx.Graph()

    def module(self) -> fx.GraphModule:
        for value in self.source.input:
            if value.name not in self.constants:
                self.values[value.name] = self.graph.placeholder("images")
        for number, node in enumerate(self.source.node):
            call = Call(self, node, number)
            translate = OPERATORS.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
            if translate is None:
                raise call.unsupported("is not known")
            results = translate(call)
            for name, result in zip(node.output, results if isinstance(results, tuple) else (results,), strict=False):
                self._name(name, result)
        self.graph.output(tuple(self.value(value.name) for value in self.source.output))
        self.graph.lint()
        module = fx.GraphModule(self.root, self.graph)
        module.eval()
        return module

    def value(self, name: str) -> fx.Node:
        """The tensor as a node; a constant becomes a buffer when it is first read."""
        if name not in self.values:
            target = f"constant_{len(self.values)}"
            tensor = self.constants[name]
            if tensor.ndim == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            self.root.register_buffer(target, tensor)
            self.values[name] = self.graph.get_attr(target)
        return self.values[name]

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A call in the new graph, or its result where nothing in it is left to know."""
        if not any(isinstance(argument, fx.Node) for argument in _flat(arguments)):
            return function(*arguments)
        return self.graph.call_function(function, arguments)

    def _name(self, name: str, result: Any) -> None:
        if isinstance(result, fx.Node):
            self.values[name] = result
        else:
            self.constants[name] = result


def _flat(arguments: Sequence[Any]) -> list[Any]:
    return [each for a in arguments for each in (_flat(a) if isinstance(a, (list, tuple)) else [a])]
