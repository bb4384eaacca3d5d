"""fp8 files: typed as TensorRT wants them, the same from every runtime, and saying what fp32 says."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines import bundled
from engines.engine import Precision
from engines.errors import ModelError
from engines.graphs.fp8 import as_fp8, has_fp8_kernel, lacks_fp8, scales
from engines.graphs.lowered import LAYERS, lowered
from engines.openvino import OpenVINOEngine
from engines.spec import read_spec
from engines.tensorrt.operators import faults, tensorrt_graph
from engines.tools.quantize import Quantization, quantize
from tests.engines.graphs.test_lowered import (
    PAIRS,
    class_maps,
    dev_pairs,
    mean_iou,
    run_engine,
    smooth_pictures,
    types_of,
)
from tests.engines.tiny_models import CONV, conv_model, int8_conv_model, save

UInt8 = NDArray[np.uint8]

LOST_AT_MOST = 1.0
"""Points of mean IoU on `dev`, as for int8."""

AGREE_AT_LEAST = 0.985
"""Share of pixels whose class is fp32's."""


@pytest.fixture
def fp8_file(tmp_path: Path) -> Path:
    return save(as_fp8(*int8_conv_model()), msgspec.structs.replace(CONV, precision="fp8"), tmp_path / "conv.fp8.onnx")


@given(st.floats(1e-4, 1e6))
def test_scales_are_powers_of_two_that_bring_numbers_into_range(largest: float) -> None:
    (scale,) = scales(np.array([largest], np.float32))
    assert float(np.log2(scale)).is_integer()
    assert np.float32(np.float16(scale)) == scale or largest > 448 * 65504 / 2
    assert np.float32(largest) / scale <= 448
    assert np.float32(largest) / scale > 224 or scale == np.float32(2.0**-14)


def test_quantisers_are_e4m3_and_weights_are_stored_as_such() -> None:
    quantized, original = int8_conv_model()
    before = quantized.SerializeToString(deterministic=True)
    model = as_fp8(quantized, original)
    assert quantized.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(model, full_check=True)
    constants = {weight.name: weight for weight in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert len(pairs) == 3
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.data_type == TensorProto.FLOAT8E4M3FN
        assert not numpy_helper.to_array(zero).astype(np.float32).any()
    (of_weights,) = [node for node in pairs if node.input[0] in constants]
    stored = constants[of_weights.input[0]]
    assert stored.data_type == TensorProto.FLOAT8E4M3FN
    # Each weight within half a step of four bits of the fp32 one, which int8's rounding has not touched.
    weight = next(numpy_helper.to_array(w) for w in original.graph.initializer if w.name == "w2")
    scale = numpy_helper.to_array(constants[of_weights.input[1]])[:, None, None, None]
    found = numpy_helper.to_array(stored).astype(np.float32) * scale
    assert (np.abs(found - weight) <= np.maximum(np.abs(weight) / 16, scale * 2.0**-10)).all()
    assert not [name for name in constants if name.startswith("q") and "fp8" not in name]  # nothing of int8 is left


def test_what_is_not_quantised_becomes_fp16_and_tensorrt_takes_it(fp8_file: Path) -> None:
    model = tensorrt_graph(fp8_file, "fp8")
    assert faults(model) == []
    kinds = types_of(model)
    for node in model.graph.node:
        if node.op_type in LAYERS:
            assert {kinds[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}, node.name
        if node.op_type == "QuantizeLinear":
            assert kinds[node.output[0]] == TensorProto.FLOAT8E4M3FN


def test_onnx_runtime_pytorch_and_fp32_agree(fp8_file: Path) -> None:
    torch_engine = pytest.importorskip("engines.pytorch.engine")
    pictures = np.stack(list(smooth_pictures(4)))
    expected = class_maps(int8_conv_model()[1], pictures)
    found = class_maps(lowered(fp8_file, "fp8"), pictures)
    with torch_engine.TorchEngine(fp8_file, device="cpu") as engine:
        assert engine.precision == "fp8"
        reference = run_engine(engine, pictures)
    assert (found == expected).mean() > 0.9  # random weights: classes lie close together
    assert (found == reference).mean() > 0.995


@pytest.mark.parametrize(
    ("operator", "shape", "taken"),
    [
        ("Conv", (32, 16, 3, 3), True),
        ("Conv", (96, 16, 1, 1), True),
        ("Conv", (96, 1, 3, 3), False),  # depthwise
        ("Conv", (32, 8, 1, 1), False),
        ("Conv", (24, 16, 1, 1), False),  # cannot be padded alike
        ("Conv", (16, 16, 7, 7), False),
        ("ConvTranspose", (32, 32, 2, 2), False),
        ("MatMul", (64, 16), True),
        ("Gemm", (8, 64), False),
        ("MatMul", (64,), False),
    ],
)
def test_layers_that_tensorrt_computes_in_fp8(operator: str, shape: tuple[int, ...], taken: bool) -> None:
    node = helper.make_node(operator, ["x", "w"], ["y"])
    assert has_fp8_kernel(node, {"w": shape}) is taken


@pytest.mark.parametrize(("capability", "lacks"), [((8, 0), True), ((8, 6), True), ((8, 9), False), ((9, 0), False)])
def test_gpus_that_compute_in_fp8(capability: tuple[int, int], lacks: bool) -> None:
    assert lacks_fp8(capability) is lacks


def test_the_cpu_has_no_fp8(fp8_file: Path, tmp_path: Path) -> None:
    asked: Precision
    for asked in ("auto", "fp8", "fp32"):
        with pytest.raises(ModelError, match="fp8 is for NVIDIA GPUs"):
            OpenVINOEngine(fp8_file, precision=asked)
    fp32 = save(conv_model(), CONV, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"is not quantised to fp8 .* `roadlens models quantize --precision fp8`"):
        lowered(fp32, "fp8")


def test_the_twin_lies_beside(tmp_path: Path) -> None:
    file, twin = tmp_path / "drive.onnx", tmp_path / "drive.fp8.onnx"
    file.touch()
    assert bundled.file_for(file, "fp8") == file
    twin.touch()
    assert bundled.file_for(file, "fp8") == bundled.file_for(twin, "fp8") == twin
    assert bundled.file_for(file, "int8") == bundled.file_for(file, "fp16") == file
    assert bundled.fp32_file(twin) == file
    assert bundled.names(tmp_path) == ["drive"]


@pytest.mark.slow
def test_quantising_writes_an_fp8_file(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    path = save(conv_model(width=64), CONV, tmp_path / "conv.onnx")
    target = bundled.quantized_file(path, "fp8")
    result: Quantization = quantize(path, smooth_pictures(8), target, precision="fp8")
    assert (result.precision, result.kept) == ("fp8", ("stem", "head"))
    assert result.agreement is not None
    assert result.agreement > 0.9
    assert read_spec(target).precision == "fp8"
    assert faults(tensorrt_graph(target, "fp8")) == []
    with pytest.raises(ModelError, match="would stay in floating point"):
        quantize(save(conv_model(width=8), CONV, tmp_path / "s.onnx"), smooth_pictures(2), target, precision="fp8")


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_bundled_model_keeps_its_classes_and_its_mean_iou(tmp_path: Path) -> None:
    """Calibrated on `fit`; mean IoU on `dev`, by ONNX Runtime, every operator in the type that is written. Pointwise
    layers stay in fp16, see `engines.graphs.fp8`."""
    pytest.importorskip("nncf")
    pairs = pytest.importorskip("training.data.cityscapes_pairs")
    if not PAIRS.is_dir():
        pytest.skip("the Cityscapes pairs are not beside the checkout")
    path = bundled.resolve("cityscapes-unet")
    paths = pairs.list_pairs(PAIRS, "fit")
    photos, labels = dev_pairs(74)
    target = tmp_path / "unet.fp8.onnx"
    model = onnx.load(path)
    pointwise = {w.name for w in model.graph.initializer if tuple(w.dims[2:]) == (1, 1)}
    keep = [f"{re.escape(node.name)}$" for node in model.graph.node if pointwise.intersection(node.input)]
    calibration = (pairs.read_pair(p)[0] for p in paths[:: len(paths) // 60])
    result = quantize(path, calibration, target, 60, precision="fp8", keep=keep)
    assert result.layers - len(result.kept) >= 11
    assert faults(tensorrt_graph(target, "fp8")) == []
    expected, found = class_maps(model, photos), class_maps(lowered(target, "fp8"), photos)
    agreement = float((found == expected).mean())
    lost = 100 * (mean_iou(expected, labels) - mean_iou(found, labels))
    print(f"\n{result.layers - len(result.kept)} of {result.layers} layers, agreement {agreement:.4f}, {lost:.2f} lost")
    assert agreement >= AGREE_AT_LEAST
    assert lost <= LOST_AT_MOST
