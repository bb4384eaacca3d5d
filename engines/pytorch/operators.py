"""The operators of ONNX that are known here, each in the words of PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.pytorch.call import Call, tensor_of

Translate = Callable[[Call], Any]


# What nodes do at run time. Arguments are tensors and plain numbers; fx keeps these calls as they are. ---------------


def _conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], pads: list[int], dilation: list[int], groups: int
) -> Tensor:
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    if _adds_up_in_half(x):
        wide = F.conv2d(
            x.float(), weight.float(), None if bias is None else bias.float(), stride, [top, left], dilation, groups
        )
        return wide.to(x.dtype)
    return F.conv2d(x, weight, bias, stride, [top, left], dilation, groups)


def _conv_transpose2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], extra: list[int],
    dilation: list[int], groups: int,
) -> Tensor:  # fmt: skip
    kind = x.dtype
    if _adds_up_in_half(x):
        x, weight, bias = x.float(), weight.float(), None if bias is None else bias.float()
    return F.conv_transpose2d(x, weight, bias, stride, padding, extra, groups, dilation).to(kind)


def _matmul(x: Tensor, y: Tensor) -> Tensor:
    return torch.matmul(x.float(), y.float()).to(x.dtype) if _adds_up_in_half(x) else torch.matmul(x, y)


def _gemm(x: Tensor, y: Tensor, z: Tensor | None, alpha: float, beta: float, turn_x: bool, turn_y: bool) -> Tensor:
    kind = x.dtype
    if _adds_up_in_half(x):
        x, y, z = x.float(), y.float(), None if z is None else z.float()
    product = alpha * ((x.mT if turn_x else x) @ (y.mT if turn_y else y))
    return (product if z is None else product + beta * z).to(kind)


def _adds_up_in_half(x: Tensor) -> bool:
    """Whether the CPU would round between the terms of a sum, or has no kernel at all."""
    return x.device.type == "cpu" and x.dtype in {torch.float16, torch.bfloat16}


def _divide(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode=None if x.is_floating_point() else "trunc")


def _reshape(x: Tensor, shape: list[int], zero_copies: bool) -> Tensor:
    return x.reshape([x.shape[place] if size == 0 and zero_copies else size for place, size in enumerate(shape)])


def _flatten(x: Tensor, axis: int) -> Tensor:
    rows = 1
    for size in x.shape[: axis % (x.ndim + 1) if axis < 0 else axis]:
        rows *= size
    return x.reshape(rows, -1)


def _expand(x: Tensor, shape: list[int]) -> Tensor:
    full = [1] * (x.ndim - len(shape)) + shape
    own = [1] * (len(full) - x.ndim) + list(x.shape)
    return x.expand([max(pair) for pair in zip(own, full, strict=True)])


def _unsqueeze(x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _gather(x: Tensor, index: Tensor, axis: int) -> Tensor:
    axis %= x.ndim
    picked = x.index_select(axis, torch.where(index < 0, index + x.shape[axis], index).flatten())
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _gather_elements(x: Tensor, index: Tensor, axis: int) -> Tensor:
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index).long())


def _slice(x: Tensor, starts: list[int], ends: list[int], axes: list[int], steps: list[int]) -> Tensor:
    places = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        places[axis] = slice(start, end, step)
    return x[tuple(places)]


def _split(x: Tensor, sizes: list[int], count: int, axis: int) -> tuple[Tensor, ...]:
    """Into parts of `sizes`, or `count` equal ones, the last smaller."""
    return torch.split(x, sizes or -(-x.shape[axis] // count), axis)


def _global_average(x: Tensor) -> Tensor:
    return x.mean(list(range(2, x.ndim)), keepdim=True)


def _max_pool2d(
    x: Tensor, kernel: list[int], stride: list[int], pads: list[int], dilation: list[int], ceil: bool
) -> Tensor:
    top, left, bottom, right = pads
    if (top, left) != (bottom, right) or 2 * top > kernel[0] or 2 * left > kernel[1]:
        x, top, left = F.pad(x, (left, right, top, bottom), value=float("-inf")), 0, 0
    return F.max_pool2d(x, kernel, stride, [top, left], dilation, ceil)


def _quantize(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, kind: torch.dtype) -> Tensor:
    levels = x.float() / _along(scale, x, axis).float()
    if kind.is_floating_point:  # fp8: the type itself rounds, and what it cannot hold is its greatest number
        most = torch.finfo(kind).max
        return levels.clamp(-most, most).to(kind)
    levels = torch.round(levels)
    if zero is not None:
        levels = levels + _along(zero, x, axis)
    limits = torch.iinfo(kind)
    return levels.clamp(limits.min, limits.max).to(kind)


def _dequantize(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    levels = x.float() if zero is None else x.float() - _along(zero, x, axis).float()
    return (levels * _along(scale, x, axis).float()).to(scale.dtype)


def _along(scale: Tensor, x: Tensor, axis: int) -> Tensor:
    """One number for a tensor, or one for each place of an axis."""
    if scale.numel() == 1:
        return scale.reshape(())
    return scale.reshape([-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])


def _depth_to_space(x: Tensor, side: int, depth_first: bool) -> Tensor:
    """(N, C·r², H, W) → (N, C, r·H, r·W); `depth_first` where a cell's r² places come before the C channels."""
    if depth_first:
        count, channels, height, width = x.shape
        x = x.reshape(count, side**2, channels // side**2, height, width).transpose(1, 2).reshape(x.shape)
    return F.pixel_shuffle(x, side)


def _batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    # In fp32: the statistics may be of another type than what they normalise.
    wide = F.batch_norm(x.float(), mean.float(), variance.float(), scale.float(), bias.float(), eps=epsilon)
    return wide.to(x.dtype)


# How nodes are translated -------------------------------------------------------------------------------------------


def _elementwise(function: Callable[..., Any]) -> Translate:
    return lambda call: call.call(function, *call.all())


def _folded(function: Callable[[Any, Any], Any]) -> Translate:
    """Operators of any number of inputs: Max, Min, Sum."""

    def translate(call: Call) -> Any:
        result, *others = call.all()
        for other in others:
            result = call.call(function, result, other)
        return result

    return translate


def _cast(call: Call) -> Any:
    return call.call(Tensor.to, call.input(0), _dtype(call, call.attribute("to", 0)))


def _clip(call: Call) -> Any:
    least = call.constant(1).item() if call.has(1) else None
    most = call.constant(2).item() if call.has(2) else None
    return call.call(torch.clamp, call.input(0), least, most)


def _convolution(call: Call) -> Any:
    call.require("auto_pad", "NOTSET", "NOTSET", "VALID")
    if call.constant(1).ndim != 4:
        raise call.unsupported("is known for pictures only")
    return call.call(
        _conv2d, *_weights(call), list(call.attribute("strides", [1, 1])), list(call.attribute("pads", [0] * 4)),
        list(call.attribute("dilations", [1, 1])), call.attribute("group", 1),
    )  # fmt: skip


def _transposed_convolution(call: Call) -> Any:
    call.require("auto_pad", "NOTSET", "NOTSET", "VALID")
    top, left, bottom, right = call.attribute("pads", [0] * 4)
    if (top, left) != (bottom, right) or call.attribute("output_shape", None) or call.constant(1).ndim != 4:
        raise call.unsupported("is known for pictures padded alike on both sides only")
    return call.call(
        _conv_transpose2d, *_weights(call), list(call.attribute("strides", [1, 1])), [top, left],
        list(call.attribute("output_padding", [0, 0])), list(call.attribute("dilations", [1, 1])),
        call.attribute("group", 1),
    )  # fmt: skip


def _weights(call: Call) -> list[Any]:
    """Input, weight, and bias or None."""
    return [call.input(0), call.input(1), call.input(2) if call.has(2) else None]


def _product(call: Call) -> Any:
    turns = [bool(call.attribute(name, 0)) for name in ("transA", "transB")]
    return call.call(_gemm, *_weights(call), call.attribute("alpha", 1.0), call.attribute("beta", 1.0), *turns)


def _max_pooling(call: Call) -> Any:
    call.require("auto_pad", "NOTSET", "NOTSET", "VALID")
    kernel = list(call.attribute("kernel_shape", []))
    if len(kernel) != 2 or call.outputs != 1:
        raise call.unsupported("is known for pictures without places only")
    return call.call(
        _max_pool2d, call.input(0), kernel, list(call.attribute("strides", [1, 1])),
        list(call.attribute("pads", [0] * 4)), list(call.attribute("dilations", [1, 1])),
        bool(call.attribute("ceil_mode", 0)),
    )  # fmt: skip


def _resize(call: Call) -> Any:
    mode = call.require("mode", "nearest", "nearest", "linear")
    place = call.attribute("coordinate_transformation_mode", "half_pixel")
    known = {
        "nearest": place == "asymmetric" and call.attribute("nearest_mode", "round_prefer_floor") == "floor",
        "linear": place in {"half_pixel", "pytorch_half_pixel", "align_corners"},
    }
    if not known[mode] or call.attribute("antialias", 0) or call.attribute("exclude_outside", 0):
        raise call.unsupported(f"is not known with {mode} by {place}")
    if not call.has(2):
        raise call.unsupported("is known with constant scales only")
    scales = [float(scale) for scale in call.constant(2).tolist()]
    axes = call.attribute("axes", None)
    if axes is None and (len(scales) != 4 or scales[:2] != [1, 1]):
        raise call.unsupported("is known for height and width of pictures only")
    if axes is not None and list(axes) not in ([2, 3], [0, 1, 2, 3]):
        raise call.unsupported(f"is not known with axes {list(axes)}")
    if mode == "nearest":
        return call.call(F.interpolate, call.input(0), None, scales[-2:], "nearest")
    return call.call(F.interpolate, call.input(0), None, scales[-2:], "bilinear", place == "align_corners")


def _reshaping(call: Call) -> Any:
    return call.call(_reshape, call.input(0), call.numbers(1), not call.attribute("allowzero", 0))


def _transposition(call: Call) -> Any:
    order = call.attribute("perm", None)
    if order is None:
        raise call.unsupported("is known with `perm` only")
    return call.call(torch.permute, call.input(0), list(order))


def _slicing(call: Call) -> Any:
    starts, ends = call.numbers(1), call.numbers(2)
    axes = call.numbers(3) if call.has(3) else list(range(len(starts)))
    steps = call.numbers(4) if call.has(4) else [1] * len(starts)
    if min(steps, default=1) < 1:
        raise call.unsupported("is known with steps from 1 only")
    return call.call(_slice, call.input(0), starts, ends, axes, steps)


def _splitting(call: Call) -> Any:
    sizes = call.numbers(1) if call.has(1) else []
    parts = call.call(_split, call.input(0), sizes, call.outputs, call.attribute("axis", 0))
    return tuple(call.call(operator.getitem, parts, place) for place in range(call.outputs))


def _squeezing(call: Call) -> Any:
    if not call.has(1):
        raise call.unsupported("is known with axes only")
    return call.call(torch.squeeze, call.input(0), tuple(call.numbers(1)))


def _arg_max(call: Call) -> Any:
    call.require("select_last_index", 0, 0)
    return call.call(torch.argmax, call.input(0), call.attribute("axis", 0), bool(call.attribute("keepdims", 1)))


def _reduction(function: Callable[..., Tensor]) -> Translate:
    def translate(call: Call) -> Any:
        axes = call.numbers(1) if call.has(1) else []
        if not axes and call.attribute("noop_with_empty_axes", 0):
            return call.call(torch.clone, call.input(0))
        return call.call(function, call.input(0), axes, bool(call.attribute("keepdims", 1)))

    return translate


def _normalization(call: Call) -> Any:
    call.require("training_mode", 0, 0)
    return call.call(_batch_norm, *(call.input(place) for place in range(5)), call.attribute("epsilon", 1e-5))


def _running_sum(call: Call) -> Any:
    call.require("exclusive", 0, 0)
    call.require("reverse", 0, 0)
    return call.call(torch.cumsum, call.input(0), int(call.constant(1).item()))


def _softmax(call: Call) -> Any:
    return call.call(torch.softmax, call.input(0), call.attribute("axis", -1))


def _top_k(call: Call) -> Any:
    (count,) = call.numbers(1)
    found = call.call(
        torch.topk, call.input(0), count, call.attribute("axis", -1), bool(call.attribute("largest", 1)),
        bool(call.attribute("sorted", 1)),
    )  # fmt: skip
    return call.call(operator.getitem, found, 0), call.call(operator.getitem, found, 1)


def _quantization(call: Call) -> Any:
    call.require("block_size", 0, 0)
    zero = call.input(2) if call.has(2) else None
    kind = call.constant(2).dtype if call.has(2) else torch.uint8
    if kind not in {torch.int8, torch.uint8, torch.float8_e4m3fn}:
        raise call.unsupported(f"is not known for {kind}")
    return call.call(_quantize, call.input(0), call.input(1), zero, call.attribute("axis", 1), kind)


def _dequantization(call: Call) -> Any:
    call.require("block_size", 0, 0)
    zero = call.input(2) if call.has(2) else None
    return call.call(_dequantize, call.input(0), call.input(1), zero, call.attribute("axis", 1))


def _constant(call: Call) -> Any:
    value = call.attribute("value", None)
    if value is None:
        raise call.unsupported("is known with a tensor only")
    return tensor_of(value)


def _dtype(call: Call, kind: int) -> torch.dtype:
    from onnx import TensorProto

    kinds: dict[int, torch.dtype] = {
        TensorProto.FLOAT: torch.float32,
        TensorProto.FLOAT16: torch.float16,
        TensorProto.BFLOAT16: torch.bfloat16,
        TensorProto.DOUBLE: torch.float64,
        TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
        TensorProto.UINT8: torch.uint8,
        TensorProto.INT8: torch.int8,
        TensorProto.INT32: torch.int32,
        TensorProto.INT64: torch.int64,
        TensorProto.BOOL: torch.bool,
    }
    if kind not in kinds:
        raise call.unsupported(f"is not known to {kind}")
    return kinds[kind]


OPERATORS: dict[str, Translate] = {
    "Abs": _elementwise(torch.abs),
    "Add": _elementwise(torch.add),
    "And": _elementwise(torch.logical_and),
    "ArgMax": _arg_max,
    "BatchNormalization": _normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda call: call.call(torch.cat, call.all(), call.attribute("axis", 0)),
    "Constant": _constant,
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "CumSum": _running_sum,
    "DepthToSpace": lambda call: call.call(
        _depth_to_space,
        call.input(0),
        call.attribute("blocksize", 1),
        call.require("mode", "DCR", "DCR", "CRD") == "DCR",
    ),
    "DequantizeLinear": _dequantization,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(torch.eq),
    "Erf": _elementwise(torch.erf),
    "Exp": _elementwise(torch.exp),
    "Expand": lambda call: call.call(_expand, call.input(0), call.numbers(1)),
    "Flatten": lambda call: call.call(_flatten, call.input(0), call.attribute("axis", 1)),
    "Floor": _elementwise(torch.floor),
    "Gather": lambda call: call.call(_gather, *call.all(), call.attribute("axis", 0)),
    "GatherElements": lambda call: call.call(_gather_elements, *call.all(), call.attribute("axis", 0)),
    "Gemm": _product,
    "GlobalAveragePool": _elementwise(_global_average),
    "Greater": _elementwise(torch.gt),
    "GreaterOrEqual": _elementwise(torch.ge),
    "HardSwish": _elementwise(F.hardswish),
    "Identity": _elementwise(torch.clone),
    "LeakyRelu": lambda call: call.call(F.leaky_relu, call.input(0), call.attribute("alpha", 0.01)),
    "Less": _elementwise(torch.lt),
    "LessOrEqual": _elementwise(torch.le),
    "Log": _elementwise(torch.log),
    "MatMul": _elementwise(_matmul),
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pooling,
    "Min": _folded(torch.minimum),
    "Mul": _elementwise(torch.mul),
    "Neg": _elementwise(torch.neg),
    "Not": _elementwise(torch.logical_not),
    "Or": _elementwise(torch.logical_or),
    "Pow": _elementwise(torch.pow),
    "QuantizeLinear": _quantization,
    "Reciprocal": _elementwise(torch.reciprocal),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "Relu": _elementwise(torch.relu),
    "Reshape": _reshaping,
    "Resize": _resize,
    "Round": _elementwise(torch.round),
    "Sigmoid": _elementwise(torch.sigmoid),
    "Slice": _slicing,
    "Softmax": _softmax,
    "Softplus": _elementwise(F.softplus),
    "Split": _splitting,
    "Sqrt": _elementwise(torch.sqrt),
    "Squeeze": _squeezing,
    "Sub": _elementwise(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _elementwise(torch.tanh),
    "TopK": _top_k,
    "Transpose": _transposition,
    "Unsqueeze": lambda call: call.call(_unsqueeze, call.input(0), call.numbers(1)),
    "Where": _elementwise(torch.where),
}
"""How each operator is translated."""
