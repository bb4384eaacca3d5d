"""What is changed in an ONNX graph before and after Q/DQ pairs are put into it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import ModelError

if TYPE_CHECKING:
    import onnx

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, where every node has a name of its own: layers are told apart by it."""
    taken = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
    return model


def settle_casts(model: onnx.ModelProto) -> None:
    """Compute casts of constants, and make those that change no type identities: NNCF fails at the first, and at the
    second where one is an output of the graph."""
    import onnx
    from onnx import numpy_helper

    constants = {weight.name: weight for weight in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    outputs = {value.name for value in model.graph.output}
    for node in list(model.graph.node):
        if node.op_type != "Cast":
            continue
        (kind,) = (attribute.i for attribute in node.attribute if attribute.name == "to")
        (source,), (target,) = node.input, node.output
        if source in constants and target not in outputs:
            values = numpy_helper.to_array(constants[source]).astype(onnx.helper.tensor_dtype_to_np_dtype(kind))
            constants[target] = numpy_helper.from_array(values, target)
            model.graph.initializer.append(constants[target])
            model.graph.node.remove(node)
        elif kind == (constants[source].data_type if source in constants else types.get(source)):
            node.op_type = "Identity"
            del node.attribute[:]


def take_concatenations_apart(model: onnx.ModelProto) -> set[str]:
    """Replace convolutions over a concatenation by the sum of convolutions over its parts: the same numbers.

    A tensor has one scale, and a part of small numbers beside one of large ones would be left with few levels.

    Returns:
        Names of the additions.
    """
    import onnx
    from onnx import helper, numpy_helper, shape_inference

    inferred = shape_inference.infer_shapes(model).graph
    channels = {
        value.name: value.type.tensor_type.shape.dim[1].dim_value
        for value in (*inferred.value_info, *inferred.input)
        if len(value.type.tensor_type.shape.dim) == 4
    }
    constants = {weight.name: weight for weight in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    nodes, sums = list[onnx.NodeProto](), set[str]()
    for node in model.graph.node:
        joined = producers.get(node.input[0]) if node.op_type == "Conv" else None
        sizes = [channels.get(name, 0) for name in joined.input] if joined is not None else []
        attributes = {attribute.name: attribute for attribute in node.attribute}
        grouped = "group" in attributes and attributes["group"].i != 1
        if joined is None or joined.op_type != "Concat" or grouped or 0 in sizes or node.input[1] not in constants:
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        total = ""
        for place, part in enumerate(np.split(weight, np.cumsum(sizes)[:-1], axis=1)):
            name = f"{node.input[1]}/{place}"
            model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(part), name))
            product = onnx.NodeProto()
            product.CopyFrom(node)
            product.name = f"{node.name}/{place}"
            del product.input[:], product.output[:]
            product.input.extend([joined.input[place], name, *(node.input[2:] if place == 0 else ())])
            product.output.append(f"{node.output[0]}/{place}")
            nodes.append(product)
            if place:
                last = place == len(sizes) - 1
                result = node.output[0] if last else f"{node.output[0]}/sum{place}"
                nodes.append(helper.make_node("Add", [total, product.output[0]], [result], f"{node.name}/sum{place}"))
                sums.add(nodes[-1].name)
                total = result
            else:
                total = product.output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model)
    return sums


def is_layer(node: onnx.NodeProto, constants: Iterable[str]) -> bool:
    """Whether a node is a convolution or a matrix product with weights among the constants."""
    return node.op_type in WEIGHTED and any(name in constants for name in node.input[:2])


def surroundings(model: onnx.ModelProto, layers: set[str]) -> set[str]:
    """Names of the nodes that no layer stands before, or none behind: the way in and the way out.

    The first layers are in it and the last. So are the scaling of the input, whose 256 levels a signed quantiser would
    halve, and what makes boxes of the last layer's numbers.
    """
    ahead: dict[str, bool] = {}  # tensor: comes out of a layer, or of what one feeds
    has_before, has_behind = {}, {}
    for node in model.graph.node:
        has_before[node.name] = any(ahead.get(name, False) for name in node.input)
        for name in node.output:
            ahead[name] = has_before[node.name] or node.name in layers
    behind: dict[str, bool] = {}  # tensor: goes into a layer, or into what feeds one
    for node in reversed(model.graph.node):
        has_behind[node.name] = any(behind.get(name, False) for name in node.output)
        for name in node.input:
            behind[name] = behind.get(name, False) or has_behind[node.name] or node.name in layers
    return {node.name for node in model.graph.node if not (has_before[node.name] and has_behind[node.name])}


def make_signed(model: onnx.ModelProto) -> None:
    """Turn uint8 quantisers of what is never negative into int8 ones of the same range, the only kind of TensorRT."""
    from onnx import TensorProto, numpy_helper

    constants = {weight.name: weight for weight in model.graph.initializer}
    scales, zeros = set(), set()
    for node in model.graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            zero = constants[node.input[2]]
            if numpy_helper.to_array(zero).any():
                raise ModelError(f"NNCF gave {node.name} a zero point, which TensorRT cannot run; keep its layer.")
            if zero.data_type == TensorProto.UINT8:
                scales.add(node.input[1])
                zeros.add(node.input[2])
    for name in zeros:
        signed = numpy_helper.to_array(constants[name]).astype(np.int8)
        constants[name].CopyFrom(numpy_helper.from_array(signed, name))
    for name in scales:
        wider = numpy_helper.to_array(constants[name]) * (255 / 127)
        constants[name].CopyFrom(numpy_helper.from_array(wider.astype(np.float32), name))
    # What the exporter noted of the tensors between, their types among it, is of use to nobody and now partly wrong.
    del model.graph.value_info[:]


def restored(quantized: onnx.ModelProto, original: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """A copy in which these layers have the weights that they had before, and inputs that were not quantised."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(quantized)
    constants = {weight.name: weight for weight in original.graph.initializer}
    before = {node.name: node for node in original.graph.node if node.name in names}
    present = {weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.name not in before:
            continue
        inputs = list(before[node.name].input)
        for place, name in enumerate(inputs):
            if name not in constants:
                inputs[place] = node.input[place]
                continue
            inputs[place] = f"{name}/fp32"
            if inputs[place] not in present:
                weight = model.graph.initializer.add()
                weight.CopyFrom(constants[name])
                weight.name = inputs[place]
                present.add(weight.name)
        del node.input[:]
        node.input.extend(inputs)
    drop_idle_quantizers(model)
    return model


def drop_idle_quantizers(model: onnx.ModelProto) -> None:
    """Take out Q/DQ pairs that no int8 layer is behind: they cost accuracy and time, and gain nothing.

    NNCF puts such pairs in front of additions and concatenations that feed only layers left in floating point.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    constants = {weight.name for weight in model.graph.initializer}
    feeds_int8: dict[str, bool] = {}  # tensor: an int8 layer, or another quantiser, reads it or what comes of it
    for node in reversed(model.graph.node):
        if node.op_type in WEIGHTED:
            useful = _is_int8(node, producers, constants)
        else:
            useful = node.op_type == "QuantizeLinear" or any(feeds_int8.get(name, False) for name in node.output)
        for place, name in enumerate(node.input):
            if useful:
                feeds_int8[name] = True
            else:
                node.input[place] = _before_quantizer(name, producers)
    _drop_unused(model)


def _is_int8(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto], constants: set[str]) -> bool:
    """Whether a layer's weights are quantised, or, of a product of two activations, both of them."""
    sources = [producers[name] for name in node.input[:2] if name in producers]
    dequantizers = [source for source in sources if source.op_type == "DequantizeLinear"]
    return len(dequantizers) == 2 or any(source.input[0] in constants for source in dequantizers)


def _before_quantizer(name: str, producers: dict[str, onnx.NodeProto]) -> str:
    """The tensor that went into the Q/DQ pair which `name` comes out of; `name` where there is none."""
    dequantizer = producers.get(name)
    if dequantizer is None or dequantizer.op_type != "DequantizeLinear" or dequantizer.input[0] not in producers:
        return name
    return str(producers[dequantizer.input[0]].input[0])


def _drop_unused(model: onnx.ModelProto) -> None:
    """Take out the nodes and weights that nothing reads any more."""
    used = {value.name for value in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            nodes.append(node)
    weights = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
