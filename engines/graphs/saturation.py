"""int8 weights that are exact on CPUs without dot products of bytes (VNNI or AMX).

There OpenVINO multiplies bytes without a sign by bytes with one and adds the products of two neighbouring channels in
16 bits, which saturate: 255 × (127 + 127) is twice what they hold. Two weights that come to 128 at most do not:
255 × 128 = 32,640. So filters with a larger pair get a larger scale and smaller weights, by as much as that pair asks
for (1 to 2, mostly 1.2: a bit is lost by few of them); all others stay as they are, and so does their speed.

Mean IoU on 250 pictures of `val` (AMD EPYC of the third generation, AVX2), as it was, with all weights halved, as it is
here; beside fp32, and int8 of a CPU with VNNI: `cityscapes-unet` 0.468, 0.475, 0.479; 0.483, 0.482.
`cityscapes-pspnet` 0.453, 0.450, 0.464; 0.467, 0.465. `cityscapes-road-users` 0.527, 0.529, 0.532; 0.535, 0.529. Class
maps agree with those of the same graph with weights in floating point on 0.993 of the pixels (before: 0.956, 0.956 and
0.981). What no graph of the house has gets scales that hold for any two weights, in whichever order they are added.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.telemetry import no_telemetry

with no_telemetry():
    import openvino as ov
    from openvino import opset13

_CPU_FLAGS = Path("/proc/cpuinfo")

_MOST = 128
"""What two weights of one sign may come to."""

_CONVOLUTIONS = {"Convolution", "GroupConvolution"}
_LAYERS = {*_CONVOLUTIONS, "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}

_BETWEEN = {"Convert", "Subtract", "Multiply", "Reshape", "Transpose"}
"""What may stand between weights and their layer."""


def adds_bytes_exactly() -> bool:
    """Whether the CPU has dot products of bytes, which do not saturate; taken as given where only Linux on x86 says."""
    try:
        found = re.search(r"^flags\s*:(.*)$", _CPU_FLAGS.read_text(), re.MULTILINE)
    except OSError:
        return True
    return found is None or not {"avx512_vnni", "avx_vnni", "amx_int8"}.isdisjoint(found[1].split())


def fit_weights(model: ov.Model) -> int:
    """Give filters whose sums could saturate a larger scale, in place.

    Returns:
        How many layers have weights in bytes that are not stored as those of the house, Q/DQ without a zero point: they
        stay as they are.
    """
    left = 0
    for node in model.get_ops():
        if node.get_type_name() != "Constant" or node.get_element_type() not in {ov.Type.i8, ov.Type.u8}:
            continue
        chain = _to_layer(node)
        if not chain:
            continue
        scaled = next((each for each in chain if each.get_type_name() == "Multiply"), None)
        if scaled is None or node.get_element_type() == ov.Type.u8 or _has_zero_point(chain):
            left += 1
            continue
        weights = np.asarray(node.data)
        factors = _factors(weights, _channels(weights, chain))
        if factors.max() > 1:
            node.output(0).replace(opset13.constant(np.rint(weights / factors).astype(np.int8)).output(0))
            (scale,) = (each for each in scaled.inputs() if each.get_source_output().get_node() not in chain)
            scale.replace_source_output(
                opset13.multiply(scale.get_source_output(), opset13.constant(factors)).output(0)
            )
    return left


def _channels(weights: NDArray[np.int8], chain: list[ov.Node]) -> int | None:
    """The axis of the input channels, behind those of filters; None where neighbours are not told by it."""
    layer = chain[-1]
    if layer.get_type_name() not in _CONVOLUTIONS or any(each.get_type_name() == "Transpose" for each in chain):
        return None
    used = tuple(layer.get_input_shape(1))
    axis = weights.ndim - len(layer.get_input_partial_shape(0)) + 1  # one for each of the picture's axes behind it
    return axis if used[-(weights.ndim - axis) :] == weights.shape[axis:] else None


def _factors(weights: NDArray[np.int8], channels: int | None) -> NDArray[np.float32]:
    """By how much each filter has to be smaller, 1 and more: (filters, 1, …), or () where all are taken together."""
    wide = weights.astype(np.int32)
    if channels is None:
        return np.asarray(max(2 * np.abs(wide).max() / _MOST, 1), np.float32)
    if wide.shape[channels] % 2:
        wide = np.concatenate([wide, np.zeros_like(wide.take([0], channels))], channels)
    pairs = wide.reshape(*wide.shape[:channels], -1, 2, *wide.shape[channels + 1 :])
    sums = [np.maximum(sign * pairs, 0).sum(channels + 1) for sign in (1, -1)]
    largest = np.maximum(*sums).max(tuple(range(channels, weights.ndim)), keepdims=True)
    return np.asarray(np.maximum(largest / _MOST, 1), np.float32)


def _to_layer(weights: ov.Node) -> list[ov.Node]:
    """The nodes behind a constant up to its layer, or the first of layers that share it; empty where it is no layer's
    weights."""
    chain, node = list[ov.Node](), weights
    while node.get_type_name() not in _LAYERS:
        behind = {(each.get_node().get_type_name(), each.get_index()): each.get_node()
                  for each in node.output(0).get_target_inputs()}  # fmt: skip
        behind.pop(("ShapeOf", 0), None)
        if len(behind) != 1:
            return []
        (((kind, place), node),) = behind.items()
        if kind not in {*_BETWEEN, *_LAYERS} or (kind == "Subtract" and place):  # what is subtracted is a zero point
            return []
        chain.append(node)
    return chain


def _has_zero_point(chain: list[ov.Node]) -> bool:
    """Whether something else than zeros is subtracted on the way."""
    for node in chain:
        if node.get_type_name() == "Subtract":
            source = node.input_value(1).get_node()
            while source.get_type_name() in _BETWEEN:
                source = source.input_value(0).get_node()
            if source.get_type_name() != "Constant" or np.any(source.data):
                return True
    return False
