"""fp32 model files → int8 or fp8 ones: explicit Q/DQ, symmetric, weights stored as such, through NNCF.

What led to the settings, on `cityscapes-unet` (U-Net over MobileNetV2, 256×256): mIoU on the 148 pairs of `dev`, where
fp32 has 49.80 and bf16 49.61, and the share of pixels that agree with fp32; 150 calibration pictures from `fit`.

- As NNCF has it (fast bias correction, concatenations share one scale): 46.13, 0.946. Without bias correction: 47.48,
  0.951.
- And convolutions over a concatenation taken apart, so that each part has a scale: 48.71, 0.973. Encoder features reach
  ±40 here, decoder features 6: in a common scale the decoder had 20 levels left. (With bias correction: 46.82, 0.960.)
- And layers back in floating point until 0.98 of the pixels of the calibration pictures agree, two here: 49.52, 0.980.
  Until 0.99, five: 49.44, 0.981.

CPU time a picture: int8 8.9 ms, bf16 12.3 (OpenVINO, AMD EPYC with AVX512-VNNI and AVX512-BF16). Activations are
signed, the only ones that TensorRT takes.

fp8 is for GPUs from Ada and Hopper on; its graph is the int8 one with other numbers, see `engines.fp8`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import CheckFailed, ModelError, OutputError, SourceError, UsageError
from engines.fp8 import as_fp8, has_fp8_kernel
from engines.spec import Metric, ModelSpec, embed_spec, read_spec
from engines.squash import squash

if TYPE_CHECKING:
    import onnx

UInt8 = NDArray[np.uint8]

Quantized = Literal["int8", "fp8"]

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
TUNING_FRAMES = 48


class Quantization(msgspec.Struct, frozen=True):
    """What came out.

    `kept` are the layers left in floating point, by node name; `agreement` is the share of pixels on which the class
    maps of both files agree over `TUNING_FRAMES` of the calibration frames, computed in fp32 where not quantised (None
    for a localizer).
    """

    output: str
    precision: str
    frames: int
    layers: int
    kept: tuple[str, ...]
    agreement: float | None
    bytes_before: int
    bytes_after: int


def quantize(
    path: Path,
    frames: Iterable[UInt8],
    output: Path,
    subset_size: int = 300,
    *,
    precision: Quantized = "int8",
    keep: Sequence[str] = (),
    min_agreement: float = 0.0,
    metrics: tuple[Metric, ...] = (),
) -> Quantization:
    """Quantise a model after training and write it with its spec.

    Left in floating point are the first layer and what stands before it, the last layers, those that `keep` names, for
    fp8 those that TensorRT has no kernel for, and with `min_agreement` as many more from either end as it takes.

    Args:
        path: the fp32 ONNX file.
        frames: pictures to calibrate with, (h, w, 3) uint8 RGB of any size: 100 to 500 from where the model will run.
            As many as `subset_size` are read.
        output: the file to write.
        subset_size: most frames to calibrate with.
        precision: what the layers are to be computed in; fp8 runs on GPUs from Ada and Hopper on.
        keep: regular expressions; a layer whose node name one of them matches from its start is not quantised.
        min_agreement: share of pixels, 0 to 1, that must agree with fp32.
        metrics: measured figures of the quantised file for its spec; those of the fp32 file are not taken over.

    Raises:
        UsageError: NNCF is not installed, or a pattern matches no layer.
        ModelError: the file is no model of the house, is quantised already, or has no layer to quantise.
        SourceError: there are no frames.
        CheckFailed: all layers are back in floating point and `min_agreement` is still not reached.
        OutputError: the file cannot be written.
    """
    missing = [name for name in ("nncf", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"Quantising needs {' and '.join(missing)}, not installed here; `pip install 'roadlens[quantize]'`."
        )
    import onnx

    spec = read_spec(path)
    if spec.precision != "fp32":
        raise ModelError(f"{path} is {spec.precision} already; quantise the fp32 file it was made from.")
    model = _named(onnx.load(path))
    sums = _take_concatenations_apart(model)
    shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
    weighted = [node for node in model.graph.node if _is_layer(node, shapes)]
    layers = [node.name for node in weighted]
    if not layers:
        raise ModelError(f"{path} has no layer to quantise (no convolution or matrix product with constant weights).")
    patterns = [_compiled(pattern) for pattern in keep]
    for pattern in patterns:
        if not any(pattern.match(name) for name in layers):
            raise UsageError(f"No layer's name matches `{pattern.pattern}`; the layers are {', '.join(layers)}.")
    pictures = [squash(frame, spec.height, spec.width)[None] for frame in islice(frames, subset_size)]
    if not pictures:
        raise SourceError("There are no frames to calibrate with; give footage or a folder of images.")

    surroundings = _surroundings(model, set(layers))
    kept = {name for name in layers if name in surroundings or any(pattern.match(name) for pattern in patterns)}
    if precision == "fp8":
        kept |= {node.name for node in weighted if not has_fp8_kernel(node, shapes)}
    if len(kept) == len(layers):
        raise ModelError(f"All {len(layers)} layers of {path} would stay in floating point; keep fewer, or take int8.")
    quantized = _run_nncf(model, pictures, sorted(surroundings | kept | sums))
    if precision == "fp8":
        quantized = as_fp8(quantized, model)
    embed_spec(quantized, msgspec.structs.replace(spec, precision=precision, metrics=metrics))

    restored: list[str] = []
    agreement = None
    if spec.task == "segmentation":
        sample = pictures[:: max(1, len(pictures) // TUNING_FRAMES)][:TUNING_FRAMES]
        candidates = [name for name in layers if name not in kept]
        quantized, restored, agreement = _reach(min_agreement, model, quantized, candidates, sample, spec)
    write_model(quantized, output)
    return Quantization(
        output=str(output),
        precision=precision,
        frames=len(pictures),
        layers=len(layers),
        kept=tuple(name for name in layers if name in kept or name in restored),
        agreement=agreement,
        bytes_before=path.stat().st_size,
        bytes_after=output.stat().st_size,
    )


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model, where every node has a name of its own: layers are told apart by it."""
    taken = set()
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
    return model


def _take_concatenations_apart(model: onnx.ModelProto) -> set[str]:
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


def _is_layer(node: onnx.NodeProto, constants: Iterable[str]) -> bool:
    return node.op_type in WEIGHTED and any(name in constants for name in node.input[:2])


def _surroundings(model: onnx.ModelProto, layers: set[str]) -> set[str]:
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


def _run_nncf(model: onnx.ModelProto, pictures: list[UInt8], ignored: list[str]) -> onnx.ModelProto:
    """Q/DQ pairs around every node but the ignored: int8, zero points 0, a scale for a tensor or a weight channel."""
    with _without_telemetry():
        import nncf
    from nncf.common.quantization.structs import QuantizationPreset, QuantizationScheme
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters

    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function sets the level of others' handlers, too
    constants = {weight.name for weight in model.graph.initializer}
    (name,) = (value.name for value in model.graph.input if value.name not in constants)
    # NNCF prints its progress to standard output, which belongs to `--json`.
    with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        quantized: onnx.ModelProto = nncf.quantize(
            model,
            nncf.Dataset(pictures, lambda picture: {name: picture}),
            preset=QuantizationPreset.PERFORMANCE,
            subset_size=len(pictures),
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=AdvancedQuantizationParameters(
                # One scale a tensor: TensorRT has scales by channel for weights only.
                activations_quantization_params=QuantizationParameters(
                    mode=QuantizationScheme.SYMMETRIC, per_channel=False
                ),
                weights_quantization_params=QuantizationParameters(mode=QuantizationScheme.SYMMETRIC),
                disable_bias_correction=True,
            ),
        )
    _make_signed(quantized)
    _drop_idle_quantizers(quantized)
    return quantized


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """NNCF reports its use to a web service, unasked, unless it believes to be in continuous integration."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before


def _make_signed(model: onnx.ModelProto) -> None:
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


def _reach(
    wanted: float,
    original: onnx.ModelProto,
    quantized: onnx.ModelProto,
    candidates: list[str],
    pictures: list[UInt8],
    spec: ModelSpec,
) -> tuple[onnx.ModelProto, list[str], float]:
    """Put layers back into floating point until the share `wanted` of pixels agrees with fp32.

    From both ends inwards, each time the layer that brings more: what the first layers lose all others build on, what
    the last ones lose shows at once. (Layers put back alone tell little: the first depthwise layer of a MobileNetV2 by
    itself made things worse, the first three together halved the error.)

    Returns:
        The model, the layers that were put back, and the agreement.
    """
    output = spec.outputs["class_map"]
    truth = _class_maps(original, output, pictures)

    def score(names: list[str]) -> float:
        return float((_class_maps(_restored(quantized, original, set(names)), output, pictures) == truth).mean())

    chosen, left = list[str](), list(candidates)
    agreement = score(chosen)
    while agreement < wanted:
        if not left:
            raise CheckFailed(
                f"{spec.name} cannot be quantised to an agreement of {wanted:.1%}: with every layer back in floating "
                f"point it is {agreement:.1%}; ask for less."
            )
        ends = {name: score([*chosen, name]) for name in (left[-1], left[0])}
        best = left[0] if ends[left[0]] >= ends[left[-1]] else left[-1]
        chosen.append(best)
        left.remove(best)
        agreement = ends[best]
    return _restored(quantized, original, set(chosen)), chosen, agreement


def _class_maps(model: onnx.ModelProto, name: str, pictures: list[UInt8]) -> UInt8:
    """(N, H, W) class maps of (1, H, W, 3) pictures; what is not int8 is computed in fp32, on every CPU alike."""
    if any(weight.data_type == _E4M3 for weight in model.graph.initializer):
        return _fp8_class_maps(model, name, pictures)
    import openvino as ov

    core = ov.Core()
    graph = core.read_model(model.SerializeToString())
    graph.reshape(ov.PartialShape(list(pictures[0].shape)))
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    compiled = core.compile_model(graph, "CPU", hints)
    output = compiled.output(name)
    return np.concatenate([compiled([picture])[output] for picture in pictures])


_E4M3 = 17
"""ONNX's number of FLOAT8E4M3FN."""


def _fp8_class_maps(model: onnx.ModelProto, name: str, pictures: list[UInt8]) -> UInt8:
    """The same by ONNX Runtime, which rounds to fp8 on every CPU; its optimisations, which fuse quantisers into
    layers that it has for int8 only, stay off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return np.concatenate([session.run([name], {images.name: picture})[0] for picture in pictures])


def _restored(quantized: onnx.ModelProto, original: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
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
    _drop_idle_quantizers(model)
    return model


def _drop_idle_quantizers(model: onnx.ModelProto) -> None:
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


def write_model(model: onnx.ModelProto, output: Path) -> None:
    """Write under a temporary name and rename, so that a half-written file never stands under `output`."""
    partial = output.with_name(output.name + ".partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(model.SerializeToString())
        partial.replace(output)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"{output} cannot be written ({error.strerror}); choose another place with -o.") from None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"`{pattern}` is not a regular expression ({error}); write one that matches layer names."
        ) from None
