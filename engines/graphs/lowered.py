"""A model's graph in the precision that it is to be computed in, every tensor's type written into it.

TensorRT 11 knows no other way, and PyTorch on a GPU runs the same graph, so what is checked with the one holds for the
other. What is half precision in it:

- From the first layer (convolution or matrix product with constant weights) to the last, everything.
- What stands before the first layer stays fp32: the uint8's cast, normalisation, then one cast to half. bf16 holds the
  256 grey levels, but not what is left of them once they are centred on 0.
- bf16 also keeps the first twentieth of the layers: on `cityscapes-unet` (2 pairs of `dev`, computed operator by
  operator) that is 3 of 60, and 99.7 % of pixels agree with fp32 in place of 99.0; 6 make it 99.8, the last layers or
  the whole decoder in fp32 nothing. fp16 has 99.8 % with every layer.
- What stands behind the last layer is computed in fp32: 255.5, the most that `confidence · 255 + 0.5` comes to, is 256
  in bf16 and 0 as uint8; fp16 places a box only to half a pixel in 1000. What only moves or compares values (reshape,
  transpose, arg-max) takes them as they come: a copy of 19 float planes for nothing would be the dearest node.

bf16 graphs are of opset 22, the first whose convolution has the type; TensorRT's parser reads opsets 9 to 24 (10.15,
11.2). fp16 graphs keep the opset of their file, int8 and fp8 ones (`engines.graphs.fp8`) need 19 for scales in half.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from engines.bundled import QUANTIZED
from engines.errors import ModelError
from engines.spec import embed_spec, read_spec

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

Half = Literal["fp16", "bf16"]

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

_MOVING = frozenset({
    "ArgMax", "ArgMin", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "Identity",
    "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip
_OPSETS: dict[Half, int] = {"fp16": 0, "bf16": 22}
_KEPT: dict[Half, float] = {"fp16": 0.0, "bf16": 1 / 20}
_QUANTIZED_OPSET = 19
_MOST = 65504.0  # of fp16


def lowered(path: Path, precision: str) -> onnx.ModelProto:
    """A model file's graph in a precision, with a spec that says so.

    An int8 or fp8 file keeps its quantisers, and what it leaves unquantised becomes fp16; every other file is taken as
    it is or, where it is fp32, lowered.

    Args:
        path: the ONNX file.
        precision: `fp32`, `fp16`, `bf16`, `int8` or `fp8`.

    Raises:
        ModelError: the file is no model of the house, or cannot be had in that precision.
    """
    import onnx

    spec = read_spec(path)
    model = onnx.load(path)
    if precision in QUANTIZED and precision == spec.precision:
        model = lower(model, "fp16")
    elif precision == spec.precision:
        return model
    elif spec.precision == "fp32" and precision in get_args(Half):
        model = lower(model, "bf16" if precision == "bf16" else "fp16")
    elif precision in QUANTIZED:
        command = "quantize" if precision == "int8" else f"quantize --precision {precision}"
        raise ModelError(
            f"{path} is not quantised to {precision} ({spec.precision}); make such a file of the fp32 one with "
            f"`roadlens models {command}`."
        )
    else:
        raise ModelError(
            f"{path} is {spec.precision} and cannot run in {precision}; give the fp32 file that it was made from."
        )
    # Figures that were measured in fp32 are not this graph's.
    kept = spec.metrics if spec.precision == precision else ()
    embed_spec(model, msgspec.structs.replace(spec, precision=precision, metrics=kept))
    return model


def lower(model: onnx.ModelProto, half: Half) -> onnx.ModelProto:
    """A copy of a graph in which the layers, and all between them, are in half precision.

    Args:
        model: fp32, or with Q/DQ, opset 18 or newer. Its inputs and outputs keep their types.
        half: the type.

    Raises:
        ModelError: there is no layer, or a weight is too large for fp16.
    """
    import onnx

    opset = max(_OPSETS[half], _QUANTIZED_OPSET if _is_quantized(model) else 0)
    if opset > _opset_of(model):
        # Of the operators between 18 and 22 only types were added; the converter checks that it knows each.
        model = onnx.version_converter.convert_version(_without_notes(model), opset)
    graph = onnx.shape_inference.infer_shapes(_without_notes(model)).graph
    result = onnx.ModelProto()
    result.CopyFrom(model)
    writer = _Writer(graph, half, _opset_of(model))
    writer.write()
    del result.graph.value_info[:]
    del result.graph.node[:]
    result.graph.node.extend(writer.nodes)
    used = {name for node in writer.nodes for name in node.input}
    del result.graph.initializer[:]
    result.graph.initializer.extend(w for w in (*graph.initializer, *writer.weights.values()) if w.name in used)
    onnx.checker.check_model(result, full_check=True)
    return result


class _Writer:
    """Copies nodes in order, with casts where types change."""

    def __init__(self, graph: onnx.GraphProto, half: Half, opset: int) -> None:
        from onnx import TensorProto

        self.graph = graph
        self.opset = opset
        self.half = half
        self.kind = TensorProto.FLOAT16 if half == "fp16" else TensorProto.BFLOAT16
        self.constants = {weight.name: weight for weight in graph.initializer}
        self.floats = {
            value.name
            for value in (*graph.value_info, *graph.input, *graph.output)
            if value.type.tensor_type.elem_type == TensorProto.FLOAT
        } | {weight.name for weight in graph.initializer if weight.data_type == TensorProto.FLOAT}
        self.lowered: set[str] = set()  # tensors of the graph that are half by now
        self.weights: dict[str, onnx.TensorProto] = {}
        self.nodes: list[onnx.NodeProto] = []
        self._casts: dict[tuple[str, bool], str] = {}

    def write(self) -> None:
        inner = _inner(self.graph, _KEPT[self.half])
        if not inner:
            raise ModelError("The graph has no layer (no convolution or matrix product with constant weights).")
        outputs = {value.name for value in self.graph.output}
        for place, original in enumerate(self.graph.node):
            node = type(original)()
            node.CopyFrom(original)
            floats = [name for name in node.output if name in self.floats]
            to_half = place in inner and self._can_be_half(node)
            if not to_half and node.op_type in _MOVING:
                to_half = any(name in self.lowered for name in node.input)
            if to_half and node.op_type == "Cast" and floats:
                _set_cast(node, self.kind)
            elif node.op_type != "Cast" or to_half:  # a cast takes either
                self._feed(node, to_half)
            self.nodes.append(node)
            if not to_half:
                continue
            for index, name in enumerate(node.output):
                if name in self.floats and name in outputs:  # an output keeps its type
                    node.output[index] = f"{name}/{self.half}"
                    self._cast(f"{name}/{self.half}", name, to_half=False)
                    self._casts[name, True] = f"{name}/{self.half}"
                elif name in self.floats:
                    self.lowered.add(name)

    def _feed(self, node: onnx.NodeProto, to_half: bool) -> None:
        """Give a node its float inputs in its own type."""
        wanted = set(self._half_inputs(node)) if to_half else set()
        for index, name in enumerate(node.input):
            if name in self.floats:
                node.input[index] = self._as(name, index in wanted, node)

    def _as(self, name: str, to_half: bool, node: onnx.NodeProto) -> str:
        """The tensor in a type: itself, a weight's copy, or a cast of it."""
        if name in self.constants:
            if not to_half:
                return name
            copy = f"{name}/{self.half}"
            if copy not in self.weights:
                self.weights[copy] = _half_weight(self.constants[name], copy, self.half, node)
            return copy
        if (name in self.lowered) == to_half:
            return name
        if (name, to_half) not in self._casts:
            self._casts[name, to_half] = self._cast(name, f"{name}/{self.half if to_half else 'fp32'}", to_half)
        return self._casts[name, to_half]

    def _cast(self, name: str, target: str, to_half: bool) -> str:
        from onnx import TensorProto, helper

        kind = self.kind if to_half else TensorProto.FLOAT
        self.nodes.append(helper.make_node("Cast", [name], [target], name=f"cast/{target}", to=kind))
        return target

    def _can_be_half(self, node: onnx.NodeProto) -> bool:
        """Whether the operator has the type in this opset, and does anything with floats."""
        floats = any(name in self.floats for name in (*node.input, *node.output))
        return floats and (node.op_type == "Cast" or next(self._half_inputs(node), None) is not None)

    def _half_inputs(self, node: onnx.NodeProto) -> Iterator[int]:
        """Which inputs take the type; not among them: the scales of a Resize, fp32 in every opset."""
        import onnx

        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        kind = "tensor(float16)" if self.half == "fp16" else "tensor(bfloat16)"
        takes = {c.type_param_str for c in schema.type_constraints if kind in c.allowed_type_strs}
        for index in range(len(node.input)):
            if schema.inputs[min(index, len(schema.inputs) - 1)].type_str in takes:
                yield index


def _inner(graph: onnx.GraphProto, kept: float) -> set[int]:
    """Places of the layers and of what has a layer before and behind it, without the share `kept` of first layers."""
    constants = {weight.name for weight in graph.initializer}
    ahead: set[str] = set()  # tensors that come of a layer
    after: set[int] = set()
    for place, node in enumerate(graph.node):
        if node.input and all(name in constants for name in node.input if name):
            constants.update(node.output)  # a weight's dequantiser
        is_layer = node.op_type in LAYERS and any(name in constants for name in node.input[:2])
        if is_layer or any(name in ahead for name in node.input):
            after.add(place)
            ahead.update(node.output)
    behind: set[str] = set()  # tensors that go into a layer
    before: set[int] = set()
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        is_layer = node.op_type in LAYERS and any(name in constants for name in node.input[:2])
        if is_layer or any(name in behind for name in node.output):
            before.add(place)
            behind.update(node.input)
    of_weights = {place for place, node in enumerate(graph.node) if all(name in constants for name in node.output)}
    inner = before & (after | of_weights)
    layers = [place for place in sorted(inner) if graph.node[place].op_type in LAYERS]
    first = layers[int(kept * len(layers))] if layers else 0
    return {place for place in inner if place >= first or place in of_weights}


def _half_weight(weight: onnx.TensorProto, name: str, half: Half, node: onnx.NodeProto) -> onnx.TensorProto:
    import ml_dtypes
    import numpy as np
    from onnx import numpy_helper

    values: NDArray[np.float32] = numpy_helper.to_array(weight)
    if half == "bf16":
        return numpy_helper.from_array(values.astype(ml_dtypes.bfloat16), name)
    most = float(np.abs(values).max(initial=0))
    if most > _MOST and node.op_type in LAYERS:
        raise ModelError(
            f"The weights {weight.name} of node `{node.name}` reach {most:.3g}, and fp16 ends at {_MOST:g}; take bf16."
        )
    # A bound of float's own greatest number, as exporters write it for none.
    return numpy_helper.from_array(values.clip(-_MOST, _MOST).astype(np.float16), name)


def _set_cast(node: onnx.NodeProto, kind: int) -> None:
    for attribute in node.attribute:
        if attribute.name == "to":
            attribute.i = kind


def _is_quantized(model: onnx.ModelProto) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def _opset_of(model: onnx.ModelProto) -> int:
    return max(int(entry.version) for entry in model.opset_import if entry.domain in {"", "ai.onnx"})


def _without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without notes of the tensors between, which an older opset's exporter may have left wrong."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    return copy
