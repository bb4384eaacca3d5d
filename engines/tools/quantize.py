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

fp8 is for GPUs from Ada and Hopper on; its graph is the int8 one with other numbers, see `engines.graphs.fp8`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from engines.errors import CheckFailed, ModelError, OutputError, SourceError, UsageError
from engines.graphs.fp8 import as_fp8, has_fp8_kernel
from engines.graphs.quantizers import (
    drop_idle_quantizers,
    is_layer,
    make_signed,
    named,
    restored,
    settle_casts,
    surroundings,
    take_concatenations_apart,
)
from engines.spec import Metric, ModelSpec, embed_spec, read_spec
from engines.squash import squash
from engines.telemetry import no_telemetry
from engines.tools.agreement import agreement as agreement_of
from engines.tools.agreement import answers

if TYPE_CHECKING:
    import onnx

UInt8 = NDArray[np.uint8]

Quantized = Literal["int8", "fp8"]

TUNING_FRAMES = 48


class Quantization(msgspec.Struct, frozen=True):
    """What came out.

    `kept` are the layers left in floating point, by node name; `agreement` is the share of pixels on which the class
    maps of both files agree over `TUNING_FRAMES` of the calibration frames, computed in fp32 where not quantised; of a
    localizer the share of boxes (`engines.tools.agreement`), and `agreement_of` says which.
    """

    output: str
    precision: str
    frames: int
    layers: int
    kept: tuple[str, ...]
    agreement: float
    agreement_of: Literal["pixels", "boxes"]
    bytes_before: int
    bytes_after: int


def quantize(
    path: Path, frames: Iterable[UInt8], output: Path, subset_size: int = 300, *, precision: Quantized = "int8",
    keep: Sequence[str] = (), min_agreement: float = 0.0, metrics: tuple[Metric, ...] = (),
) -> Quantization:  # fmt: skip
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
        min_agreement: share of pixels, or of a localizer's boxes, 0 to 1, that must agree with fp32.
        metrics: measured figures of the quantised file for its spec; those of the fp32 file are not taken over.

    Raises:
        UsageError: NNCF is not installed, or a pattern matches no layer.
        ModelError: the file is no model of the house, is quantised already, or has no layer to quantise.
        SourceError: there are no frames.
        CheckFailed: all layers are back in floating point and `min_agreement` is still not reached.
        OutputError: the file cannot be written.
    """
    _require_nncf()
    import onnx

    spec = read_spec(path)
    if spec.precision != "fp32":
        raise ModelError(f"{path} is {spec.precision} already; quantise the fp32 file it was made from.")
    model = named(onnx.load(path))
    settle_casts(model)
    sums = take_concatenations_apart(model)
    layers = _layers(model, path)
    apart = _left_in_float(model, layers, [_compiled(pattern, list(layers)) for pattern in keep], precision)
    kept = apart & layers.keys()
    if len(kept) == len(layers):
        raise ModelError(f"All {len(layers)} layers of {path} would stay in floating point; keep fewer, or take int8.")
    require_place(output)  # before minutes of calibration
    pictures = _pictures(islice(frames, subset_size), spec)
    quantized = _run_nncf(model, pictures, sorted(apart | sums))
    if precision == "fp8":
        quantized = as_fp8(quantized, model)
    embed_spec(quantized, msgspec.structs.replace(spec, precision=precision, metrics=metrics))

    candidates = [name for name in layers if name not in kept]
    quantized, put_back, agreement = _reach(min_agreement, model, quantized, candidates, _sample(pictures), spec)
    kept |= set(put_back)
    write_model(quantized, output)
    return Quantization(
        output=str(output), precision=precision, frames=len(pictures), layers=len(layers),
        kept=tuple(name for name in layers if name in kept), agreement=agreement,
        agreement_of="pixels" if "class_map" in spec.outputs else "boxes",
        bytes_before=path.stat().st_size, bytes_after=output.stat().st_size,
    )  # fmt: skip


def _layers(model: onnx.ModelProto, path: Path) -> dict[str, onnx.NodeProto]:
    """Convolutions and matrix products with constant weights, by name, in the order of the graph."""
    constants = {weight.name for weight in model.graph.initializer}
    layers = {node.name: node for node in model.graph.node if is_layer(node, constants)}
    if not layers:
        raise ModelError(f"{path} has no layer to quantise (no convolution or matrix product with constant weights).")
    return layers


def _left_in_float(
    model: onnx.ModelProto, layers: dict[str, onnx.NodeProto], keep: Sequence[re.Pattern[str]], precision: Quantized
) -> set[str]:
    """Names of the nodes, layers and others, that are not quantised from the start."""
    left = surroundings(model, set(layers)) | {name for name in layers if any(p.match(name) for p in keep)}
    if precision == "fp8":
        shapes = {weight.name: tuple(weight.dims) for weight in model.graph.initializer}
        left |= {name for name, node in layers.items() if not has_fp8_kernel(node, shapes)}
    return left


def _pictures(frames: Iterable[UInt8], spec: ModelSpec) -> list[UInt8]:
    """Frames as the model takes them, one by one: (1, H, W, 3)."""
    pictures = [squash(frame, spec.height, spec.width)[None] for frame in frames]
    if not pictures:
        raise SourceError("There are no frames to calibrate with; give footage or a folder of images.")
    return pictures


def _sample(pictures: list[UInt8]) -> list[UInt8]:
    """At most `TUNING_FRAMES` of them, spread evenly."""
    return pictures[:: max(1, len(pictures) // TUNING_FRAMES)][:TUNING_FRAMES]


def _require_nncf() -> None:
    missing = [name for name in ("nncf", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise UsageError(f"Quantising needs {' and '.join(missing)}, not installed here; `pip install '.[quantize]'`.")


def _run_nncf(model: onnx.ModelProto, pictures: list[UInt8], ignored: list[str]) -> onnx.ModelProto:
    """Q/DQ pairs around every node but the ignored: int8, zero points 0, a scale for a tensor or a weight channel."""
    with no_telemetry():
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
            # Some that stand before the first layer, such as a cast of the picture, NNCF's own graph does not have.
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
            advanced_parameters=AdvancedQuantizationParameters(
                # One scale a tensor: TensorRT has scales by channel for weights only.
                activations_quantization_params=QuantizationParameters(
                    mode=QuantizationScheme.SYMMETRIC, per_channel=False
                ),
                weights_quantization_params=QuantizationParameters(mode=QuantizationScheme.SYMMETRIC),
                disable_bias_correction=True,
            ),
        )
    make_signed(quantized)
    drop_idle_quantizers(quantized)
    return quantized


def _reach(
    wanted: float,
    original: onnx.ModelProto,
    quantized: onnx.ModelProto,
    candidates: list[str],
    pictures: list[UInt8],
    spec: ModelSpec,
) -> tuple[onnx.ModelProto, list[str], float]:
    """Put layers back into floating point until the share `wanted` of pixels, or of boxes, agrees with fp32.

    From both ends inwards, each time the layer that brings more: what the first layers lose all others build on, what
    the last ones lose shows at once. (Layers put back alone tell little: the first depthwise layer of a MobileNetV2 by
    itself made things worse, the first three together halved the error.)

    Returns:
        The model, the layers that were put back, and the agreement.
    """
    truth = answers(original, spec, pictures)

    def score(names: list[str]) -> float:
        found = answers(restored(quantized, original, set(names)), spec, pictures)
        return agreement_of(truth, found, spec.min_score)

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
    return restored(quantized, original, set(chosen)), chosen, agreement


def require_place(output: Path) -> None:
    """Make the folder of a file that will be written, and see that it can be.

    Raises:
        OutputError: it cannot.
    """
    probe = output.with_name(output.name + ".partial")
    try:
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        output.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error.strerror}); choose another place with -o.") from None


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


def _compiled(pattern: str, layers: Sequence[str]) -> re.Pattern[str]:
    """A regular expression that matches at least one layer's name."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"`{pattern}` is not a regular expression ({error}); write one that matches layer names."
        ) from None
    if not any(compiled.match(name) for name in layers):
        raise UsageError(f"No layer's name matches `{pattern}`; the layers are {', '.join(layers)}.")
    return compiled
