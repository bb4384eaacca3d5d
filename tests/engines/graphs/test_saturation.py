"""int8 on CPUs without dot products of bytes: the same sums as on others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13

from engines.graphs import saturation
from engines.graphs.saturation import adds_bytes_exactly, fit_weights

Int8 = NDArray[np.int8]


def quantized_layer(weights: Int8, groups: int = 1, kind: str = "Conv", zero: int = 0) -> bytes:
    """A layer in int8 as ONNX has it: pictures of 8×8, or rows of a matrix, in steps of 0.1."""
    filters = weights.shape[1] * groups if kind == "ConvTranspose" else weights.shape[-1 if kind == "MatMul" else 0]
    channels = weights.shape[1] * groups if kind == "Conv" else weights.shape[0]
    place = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1}[kind]
    rest = [3] if kind == "MatMul" else [8, 8]
    constants = {
        "w": weights, "w/zero": np.full(weights.shape[place], zero, np.int8),
        "w/scale": np.linspace(0.01, 0.02, weights.shape[place], dtype=np.float32),
        "x/zero": np.int8(0), "x/scale": np.float32(0.1),
    }  # fmt: skip
    options = {} if kind == "MatMul" else {"group": groups, "pads": [weights.shape[2] // 2] * 4}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x/scale", "x/zero"], ["x/q"]),
        helper.make_node("DequantizeLinear", ["x/q", "x/scale", "x/zero"], ["x/dq"]),
        helper.make_node("DequantizeLinear", ["w", "w/scale", "w/zero"], ["w/dq"], axis=place),
        helper.make_node(kind, ["x/dq", "w/dq"], ["y"], **options),
    ]
    pictures = [1, *rest, channels] if kind == "MatMul" else [1, channels, *rest]
    results = [1, *rest, filters] if kind == "MatMul" else [1, filters, *rest]
    graph = helper.make_graph(
        nodes, "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, pictures)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, results)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def read(layer: bytes) -> ov.Model:
    return ov.Core().read_model(layer)


def stored(model: ov.Model) -> Int8:
    """The weights of a layer."""
    (found,) = (
        np.array(node.data)
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.i8 and np.ndim(node.data) > 1
    )
    return found


def computed(model: ov.Model, pictures: NDArray[np.float32], *, in_float: bool = False) -> NDArray[np.float32]:
    """What a layer comes to, its weights in bytes, or, of the same numbers, in floating point, which rounds no sum."""
    if in_float:
        for node in model.get_ops():
            if node.get_type_name() == "Convert" and node.get_input_element_type(0) == ov.Type.i8:
                constant = node.input_value(0).get_node()
                if constant.get_type_name() == "Constant" and np.ndim(constant.data) > 1:
                    node.output(0).replace(opset13.constant(constant.data.astype(np.float32)).output(0))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([pictures])[0])


def random_bytes(shape: tuple[int, ...]) -> Int8:
    return np.random.default_rng(0).integers(-127, 128, shape).astype(np.int8)


LAYERS = [
    pytest.param(random_bytes((32, 32, 3, 3)), 1, "Conv", id="3×3"),
    pytest.param(random_bytes((32, 33, 1, 1)), 1, "Conv", id="1×1, odd channels"),
    pytest.param(random_bytes((32, 16, 3, 3)), 2, "Conv", id="groups"),
    pytest.param(random_bytes((16, 8, 3, 3)), 1, "ConvTranspose", id="transposed"),
    pytest.param(random_bytes((64, 32)), 1, "MatMul", id="matrix"),
]


@pytest.mark.parametrize(("weights", "groups", "kind"), LAYERS)
def test_no_two_neighbours_saturate_and_answers_stay(weights: Int8, groups: int, kind: str) -> None:
    layer = quantized_layer(weights, groups, kind)
    model = read(layer)
    assert fit_weights(model) == 0
    fitted = stored(model).astype(int)
    if kind == "Conv":
        even = np.concatenate([fitted, np.zeros_like(fitted[:, : fitted.shape[1] % 2])], 1)
        pairs = even.reshape(len(even), -1, 2, *even.shape[2:])
        assert max(np.maximum(sign * pairs, 0).sum(2).max() for sign in (1, -1)) == 128
    else:
        assert np.abs(fitted).max() == 64
    shape = [int(side) for side in model.input(0).shape]
    pictures = (np.random.default_rng(1).integers(-127, 128, shape) * 0.1).astype(np.float32)
    before, after = computed(read(layer), pictures, in_float=True), computed(model, pictures, in_float=True)
    assert np.abs(after - before).max() < 0.02 * np.abs(before).max()
    assert (after != before).any()


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(np.tile(np.array([127, 1], np.int8)[None, :, None, None], (4, 8, 3, 3)), id="128 a pair"),
        pytest.param(np.tile(np.array([127, -127], np.int8)[None, :, None, None], (4, 8, 3, 3)), id="two signs"),
    ],
)
def test_filters_that_cannot_saturate_stay(weights: Int8) -> None:
    model = read(quantized_layer(weights))
    assert fit_weights(model) == 0
    np.testing.assert_array_equal(stored(model), weights)


def test_only_the_filters_that_saturate_change() -> None:
    weights = np.full((3, 4, 1, 1), 20, np.int8)
    weights[1] = 100
    model = read(quantized_layer(weights))
    fit_weights(model)
    np.testing.assert_array_equal(stored(model)[:, 0, 0, 0], [20, 64, 20])


def test_depthwise_layers_add_nothing_in_pairs() -> None:
    weights = random_bytes((32, 1, 3, 3))
    model = read(quantized_layer(weights, 32))
    assert fit_weights(model) == 0
    np.testing.assert_array_equal(stored(model), weights)


def test_weights_with_a_zero_point_are_counted_and_stay() -> None:
    weights = random_bytes((8, 8, 3, 3))
    model = read(quantized_layer(weights, zero=3))
    assert fit_weights(model) == 1
    np.testing.assert_array_equal(stored(model), weights)


def exact(fitted: bool) -> bool:
    """Whether this process sums what may saturate as in floating point."""
    (weights, groups, kind), pictures = LAYERS[0].values, np.full((1, 32, 8, 8), 12.7, np.float32)
    models = [read(quantized_layer(np.abs(weights), groups, kind)) for _ in range(2)]  # type: ignore[arg-type]
    if fitted:
        for model in models:
            fit_weights(model)
    found, wanted = computed(models[0], pictures), computed(models[1], pictures, in_float=True)
    return bool(np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("fitted", [True, False])
def test_a_cpu_without_dot_products_of_bytes_sums_exactly(fitted: bool) -> None:
    """Real sums of a CPU that is held to AVX2, in a process of its own: oneDNN looks at that once."""
    code = f"from tests.engines.graphs.test_saturation import exact; print(exact({fitted}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}, capture_output=True, text=True,
        timeout=300, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == (str(fitted), 0), done.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags\t\t: fpu avx2 fma\n", False),
        ("flags\t\t: fpu avx2 avx_vnni\n", True),
        ("flags\t\t: fpu avx512f avx512_vnni amx_int8\n", True),
        ("Features\t: fp asimd\n", True),  # not of x86
        (None, True),
    ],
)
def test_what_a_cpu_says_of_itself(tmp_path: Path, monkeypatch: Any, flags: str | None, expected: bool) -> None:
    cpu = tmp_path / "cpuinfo"
    if flags is not None:
        cpu.write_text(f"processor\t: 0\n{flags}")
    monkeypatch.setattr(saturation, "_CPU_FLAGS", cpu)
    assert adds_bytes_exactly() == expected
