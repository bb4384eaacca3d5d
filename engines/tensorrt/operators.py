"""Will TensorRT take a graph? Its parser's own list of operators and types, so that no GPU is needed to ask.

The list (`operators.json`, with its source and version) is of the parser of one release; a newer one may take more. So
what it says of a graph is for exports, tests and `roadlens engines build --check`; the parser itself has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import onnx


class Group(msgspec.Struct, frozen=True):
    """Operators that take the same types."""

    types: tuple[str, ...]
    operators: tuple[str, ...]


class OperatorList(msgspec.Struct, frozen=True):
    """What the parser of one release takes.

    Attributes:
        source: where it was read.
        version: of TensorRT.
        opsets: least and greatest.
        groups: by types.
    """

    source: str
    version: str
    opsets: tuple[int, int]
    groups: tuple[Group, ...]

    def types(self, operator: str) -> tuple[str, ...]:
        """The types of data an operator takes; none for one that is not taken at all."""
        return next((group.types for group in self.groups if operator in group.operators), ())


_TYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "FP16", 16: "BF16", 17: "FP8", 22: "INT4",
    23: "FP4",
}  # fmt: skip
_DATA_INPUT = {"Where": 1, "OneHot": 2}
_MADE = frozenset({"Constant", "ConstantOfShape", "Range"})
_RESIZE = {
    "mode": {"nearest", "linear"},
    "coordinate_transformation_mode": {
        "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners",
    },
    "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"},
    "keep_aspect_ratio_policy": {"stretch"},
}  # fmt: skip


@cache
def operator_list() -> OperatorList:
    """The list that comes with the package."""
    return msgspec.json.decode((files(__package__) / "operators.json").read_bytes(), type=OperatorList)


def faults(model: onnx.ModelProto) -> list[str]:
    """What the parser would not take, a clause each that names the node; none where it takes the graph."""
    import onnx

    known = operator_list()
    opset = max(entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    found = [] if known.opsets[0] <= opset <= known.opsets[1] else [f"its opset {opset} is outside {known.opsets}"]
    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    kinds |= {weight.name: weight.data_type for weight in graph.initializer}
    constants = {weight.name: weight for weight in graph.initializer}
    made = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    for node in graph.node:
        clauses = [*_type_faults(node, kinds, known), *_restrictions(node, constants, made)]
        found.extend(f"node `{node.name or node.output[0]}` ({node.op_type}) {clause}" for clause in clauses)
    return [*found, *_uint8_faults(graph, kinds)]


def tensorrt_graph(path: Path, precision: str) -> onnx.ModelProto:
    """A model file's graph in a precision, as TensorRT is given it.

    Raises:
        ModelError: the file is no model of the house, or cannot be had in that precision.
    """
    from engines.graphs.lowered import lowered

    model = lowered(path, precision)
    cast_bytes_through_float(model)
    return model


def cast_bytes_through_float(model: onnx.ModelProto) -> None:
    """Let every cast of integers, booleans or bf16 to uint8 go by way of fp32, in place.

    TensorRT's reference of its types says that uint8 converts only from and to fp32 and fp16, and its page on the cast
    that everything converts to everything. Class ids and levels of confidence are exact in fp32, and it costs nothing:
    both casts are one kernel with what stands before them.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        to = next((entry.i for entry in node.attribute if entry.name == "to"), None)
        if node.op_type == "Cast" and to == 2 and kinds.get(node.input[0]) not in {1, 10, None}:
            between = f"{node.output[0]}/fp32"
            nodes.append(onnx.helper.make_node("Cast", list(node.input), [between], name=f"cast/{between}", to=1))
            node.input[0] = between
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _type_faults(node: onnx.NodeProto, kinds: dict[str, int], known: OperatorList) -> Iterator[str]:
    if node.domain not in {"", "ai.onnx"}:
        yield f"is of the domain {node.domain}"
        return
    types = known.types(node.op_type)
    if not types:
        yield "is not taken"
        return
    names = [node.output[0]] if node.op_type in _MADE else [node.input[_DATA_INPUT.get(node.op_type, 0)]]
    if node.op_type == "Cast":
        names.append(node.output[0])
        pair = [_TYPES.get(kinds.get(name, 0), "") for name in names]
        if "UINT8" in pair and not {"FP32", "FP16"} & set(pair):
            yield f"converts {pair[0]} to {pair[1]}, and uint8 converts only from and to fp32 and fp16"
    for name in names:
        kind = kinds.get(name)
        if kind is None:
            yield f"has data of unknown type (`{name}`)"
        elif _TYPES.get(kind) not in types:
            yield f"takes {', '.join(types)} and not {_TYPES.get(kind, f'type {kind}')}"


def _restrictions(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], made: set[str]) -> Iterator[str]:
    from onnx import helper, numpy_helper

    attributes: dict[str, Any] = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and len(node.input) > 2 and node.input[2]:
        zero = constants.get(node.input[2])
        if zero is None or numpy_helper.to_array(zero).any():
            yield "has a zero point other than 0"
        elif zero.data_type == 2:
            yield "quantises to uint8"
    if node.op_type.startswith("Reduce") and len(node.input) > 1 and node.input[1] not in {*constants, *made}:
        yield "has axes that are computed"
    if node.op_type in {"MaxPool", "AveragePool", "LpPool"} and any(
        size != 1 for size in attributes.get("dilations", ())
    ):
        yield "has dilations"
    if node.op_type == "MaxPool" and len(node.output) > 1:
        yield "gives indices"
    if node.op_type == "Resize":
        for name, allowed in _RESIZE.items():
            value = attributes.get(name)
            if value is not None and value.decode() not in allowed:
                yield f"has {name} {value.decode()}"
        if attributes.get("antialias"):
            yield "is antialiased"


def _uint8_faults(graph: onnx.GraphProto, kinds: dict[str, int]) -> Iterator[str]:
    """uint8 is an input with a cast behind it, or an output with a cast before it, and nothing else."""
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    for node in graph.node:
        for name in node.input:
            if kinds.get(name) == 2 and node.op_type != "Cast" and name in inputs:
                yield f"the input `{name}` goes into {node.op_type} before it is cast from uint8"
        for name in node.output:
            if kinds.get(name) == 2 and (name not in outputs or node.op_type != "Cast"):
                yield f"`{name}` is uint8 and neither an input nor an output behind a cast"
