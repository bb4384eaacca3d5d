"""fp32 model files → int8 ones: explicit Q/DQ, symmetric, weights stored as int8, through NNCF.

What led to the settings, on a half-trained `cityscapes-unet` (U-Net over MobileNetV2, 256×256, fp32 mIoU 43.2 on 500
validation pictures or, marked ⅕, 40.9 on every fifth; 150 calibration pictures; AMD EPYC with AVX512-VNNI). That
was `val`, which is for choosing nothing: these figures are not blind, and are to be chosen again on `dev`.

- Ranges of activations by histogram (least squared error): 39.4 (⅕), by mean minimum and maximum 37.7.
- First and last layer left in floating point, and all else int8: 41.9, for 0.2 of 10 ms.
- Three more layers put back by the search for an agreement of 0.96: 42.7, for another 5 % of the time.
- Signed activations, which TensorRT needs, in place of unsigned ones after ReLU: −0.15 points, +4 % time; one scale
  for a tensor in place of one for each channel: no difference.
- NNCF's slow bias correction does worse than its fast one (−3 points, ⅕), its channel alignment changes nothing.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.engine import Precision
from engines.errors import CheckFailed, ModelError, OutputError, SourceError, UsageError
from engines.openvino import OpenVINOEngine, squash
from engines.spec import Metric, embed_spec, read_spec

if TYPE_CHECKING:
    import onnx

UInt8 = NDArray[np.uint8]

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
TUNING_FRAMES = 48


class Quantization(msgspec.Struct, frozen=True):
    """What came out.

    `kept` are the layers left in floating point, by node name; `agreement` is the share of pixels on which fp32 and
    int8 class maps agree over `TUNING_FRAMES` of the calibration frames (None for a localizer).
    """

    output: str
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
    keep: Sequence[str] = (),
    min_agreement: float = 0.0,
    metrics: tuple[Metric, ...] = (),
) -> Quantization:
    """Quantise a model after training and write it with its spec, `precision` int8.

    Left in floating point are the first layer and what stands before it, the last layers, those that `keep` names, and
    with `min_agreement` as many more as it takes, the most harmful first: each quantised layer is put back alone and
    the class maps are compared with those of fp32.

    Args:
        path: the fp32 ONNX file.
        frames: pictures to calibrate with, (h, w, 3) uint8 RGB of any size: 100 to 500 from where the model will run.
            As many as `subset_size` are read.
        output: the file to write.
        subset_size: most frames to calibrate with.
        keep: regular expressions; a layer whose node name one of them matches from its start is not quantised.
        min_agreement: share of pixels, 0 to 1, that must agree with fp32.
        metrics: measured figures of the int8 file for its spec; those of the fp32 file are not taken over.

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
    constants = {weight.name for weight in model.graph.initializer}
    layers = [node.name for node in model.graph.node if _is_layer(node, constants)]
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
    if len(kept) == len(layers):
        raise ModelError(f"All {len(layers)} layers of {path} would stay in floating point; keep fewer.")
    quantized = _run_nncf(model, pictures, sorted(surroundings | kept))
    int8_spec = msgspec.structs.replace(spec, precision="int8", metrics=metrics)
    embed_spec(quantized, int8_spec)

    restored: list[str] = []
    agreement = None
    if spec.task == "segmentation":
        sample = pictures[:: max(1, len(pictures) // TUNING_FRAMES)][:TUNING_FRAMES]
        candidates = [name for name in layers if name not in kept]
        quantized, restored, agreement = _reach(min_agreement, model, quantized, candidates, sample, path)
    _write(quantized, output)
    return Quantization(
        output=str(output),
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
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.ERROR)
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
                activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
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
    path: Path,
) -> tuple[onnx.ModelProto, list[str], float]:
    """Put layers back into floating point until the share `wanted` of pixels agrees with fp32.

    Returns:
        The model, the layers that were put back, and the agreement.
    """
    truth = _class_maps(original, pictures, "fp32")

    def score(names: Iterable[str]) -> float:
        return float((_class_maps(_restored(quantized, original, set(names)), pictures, "int8") == truth).mean())

    agreement, chosen = score(()), list[str]()
    if agreement < wanted:
        alone = {name: score([name]) for name in candidates}
        for name in sorted(candidates, key=lambda name: -alone[name]):
            chosen.append(name)
            agreement = score(chosen)
            if agreement >= wanted:
                break
        else:
            raise CheckFailed(
                f"{path} cannot be quantised to an agreement of {wanted:.1%}: with every layer back in floating point "
                f"it is {agreement:.1%}; ask for less."
            )
    return _restored(quantized, original, set(chosen)), chosen, agreement


def _class_maps(model: onnx.ModelProto, pictures: list[UInt8], precision: Precision) -> UInt8:
    """(N, H, W) class maps of (1, H, W, 3) pictures, computed as the engine will."""
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        with OpenVINOEngine(path, precision=precision, max_batch=1) as engine:
            futures = [engine.submit(list(picture)) for picture in pictures]
            return np.stack([np.asarray(future.result()[0].class_map) for future in futures])


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


def _write(model: onnx.ModelProto, output: Path) -> None:
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
