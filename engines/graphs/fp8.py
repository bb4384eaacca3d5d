"""int8 Q/DQ graphs → fp8 ones: E4M3 in the same places, which tensor cores of Ada, Hopper and later multiply.

Each number of E4M3 has four bits of precision whatever its size, from 448 down to 1/64, and loses them from there to
1/512. So a scale need not be tight, as it must for int8, and each is a power of two: exact in fp16 too, in which the
rest of the graph is computed, and the same picture from every runtime.

Weights are made anew of the fp32 ones, since int8 has rounded theirs already. Layers that TensorRT has no fp8 kernel
for are left as they are, see `has_fp8_kernel`; depthwise convolutions, where 8 bits cost most accuracy, are among them.

Three bits behind the point are less than int8 has for numbers that are all of one size, and the narrow layers of a
MobileNetV2 encoder suffer by it. On `cityscapes-unet`, computed on the CPU operator by operator: with all 40 of its 64
layers that TensorRT could take in fp8, 91.4 % of pixels agree with fp32 and 4.3 points of mean IoU are lost (148 pairs
of `dev`); with the 29 pointwise ones of the encoder kept in fp16, the 11 wide ones of the decoder in fp8, 99.5 % agree
and none is lost (74 of those pairs, 48.2 against 48.1). `quantize` keeps what its `keep` names or `min_agreement` asks
for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

OPSET = 19
"""The first whose quantisers have the type."""

LEAST_CAPABILITY = (8, 9)
"""The compute capability from which on GPUs multiply in fp8 (Ada); TensorRT's parser takes it from 10.0 on."""

_MOST = 448.0  # of E4M3
_LEAST_SCALE = 2.0**-14  # the smallest number that fp16 has in full precision
_LEAST_CHANNELS = 16
_LARGEST_KERNEL = 32


def lacks_fp8(capability: Sequence[int]) -> bool:
    """Whether a GPU of a compute capability, (9, 0), does not compute in fp8."""
    return tuple(capability) < LEAST_CAPABILITY


def has_fp8_kernel(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
    """Whether TensorRT computes a layer in fp8.

    Of convolutions those with 16 channels or more on either side (for each group), whose numbers leave the same
    remainder by 16, and kernels of at most 32 places; of matrix products those of 16 or more. Those are the bounds of
    NVIDIA's own quantiser (Model Optimizer, `find_nodes_from_convs_to_exclude`). No transposed convolutions.

    Args:
        node: a layer with constant weights.
        shapes: of the weights, by name.
    """
    shape = next((tuple(shapes[name]) for name in reversed(node.input[:2]) if name in shapes), ())
    if node.op_type in {"Gemm", "MatMul"}:
        return len(shape) >= 2 and min(shape[-2:]) >= _LEAST_CHANNELS
    if node.op_type != "Conv" or len(shape) < 3:
        return False
    outputs, inputs, *kernel = shape
    return (
        min(outputs, inputs) >= _LEAST_CHANNELS
        and outputs % _LEAST_CHANNELS == inputs % _LEAST_CHANNELS
        and math.prod(kernel) <= _LARGEST_KERNEL
    )


def scales(largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least powers of two that bring numbers of these magnitudes into E4M3's range; 1 for those that are 0.

    >>> scales(np.float32([448, 449, 3.5, 0])).tolist()
    [1.0, 2.0, 0.0078125, 1.0]
    """
    safe = np.where(largest > 0, largest, _MOST).astype(np.float64)
    return np.maximum(np.exp2(np.ceil(np.log2(safe / _MOST))), _LEAST_SCALE).astype(np.float32)


def as_fp8(quantized: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that quantises to E4M3 (`FLOAT8E4M3FN`) where another does to int8.

    Args:
        quantized: symmetric int8 Q/DQ, weights stored as int8, as `engines.tools.quantize` writes it. Its activations'
            scales say how large those were while calibrating.
        original: the fp32 graph that it was made from, with the same names of layers.

    Returns:
        A new graph: a scale for each tensor, and for each channel of a weight; zero points 0.
    """
    import ml_dtypes
    import onnx
    from onnx import helper, numpy_helper

    opset = max(entry.version for entry in quantized.opset_import if entry.domain in {"", "ai.onnx"})
    model = onnx.ModelProto()
    model.CopyFrom(quantized if opset >= OPSET else onnx.version_converter.convert_version(quantized, OPSET))
    before = {weight.name: weight for weight in original.graph.initializer}
    inputs = {node.name: list(node.input) for node in original.graph.node}
    readers = {name: (node.name, place) for node in model.graph.node for place, name in enumerate(node.input)}
    constants = {weight.name: weight for weight in model.graph.initializer}
    made: dict[str, onnx.TensorProto] = {}

    def keep(values: NDArray[np.float32], name: str, as_levels: bool = False) -> str:
        array = values.astype(ml_dtypes.float8_e4m3fn) if as_levels else values
        made[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    zero = keep(np.zeros((), np.float32), "fp8/zero", as_levels=True)
    for node in model.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            continue
        if node.input[0] in constants:
            layer, place = readers[node.output[0]]
            weight: NDArray[np.float32] = numpy_helper.to_array(before[inputs[layer][place]])
            axis = next((int(entry.i) for entry in node.attribute if entry.name == "axis"), 1) % weight.ndim
            others = tuple(k for k in range(weight.ndim) if k != axis)
            scale = scales(np.abs(weight).max(axis=others))
            along = scale.reshape([-1 if k == axis else 1 for k in range(weight.ndim)])
            stem = node.input[0]
            node.input[0] = keep(weight / along, f"{stem}/fp8", as_levels=True)
            node.input[1] = keep(scale, f"{stem}/fp8/scale")
            node.input[2] = keep(np.zeros(scale.shape, np.float32), f"{stem}/fp8/zero", as_levels=True)
        else:
            reached = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32) * 127
            node.input[1] = keep(scales(reached), f"{node.input[1]}/fp8")
            node.input[2] = zero
    kept = [weight for weight in model.graph.initializer if any(weight.name in node.input for node in model.graph.node)]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend([*kept, *made.values()])
    model.ir_version = max(model.ir_version, helper.find_min_ir_version_for(model.opset_import))
    return model
