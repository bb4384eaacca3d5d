"""Each operator means in PyTorch what ONNX Runtime makes of it; what is not known is refused by name and node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from engines.bundled import FOLDER, names
from engines.errors import DeviceError, ModelError
from engines.pytorch.call import UnsupportedError
from engines.pytorch.graph import to_torch
from engines.pytorch.operators import OPERATORS

RNG = np.random.default_rng(5)
SHAPE = (2, 4, 6, 5)
X = RNG.normal(0, 2, SHAPE).astype(np.float32)


def graph(
    op: str, constants: list[Any], outputs: int = 1, inputs: int = 1, opset: int = 20, **attributes: Any
) -> onnx.ModelProto:
    """One operator over `inputs` float tensors and constants; None leaves an optional input out."""
    names = [f"x{place}" for place in range(inputs)]
    weights = [numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants) if c is not None]
    feeds = names + ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    results = [f"y{place}" for place in range(outputs)]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node(op, feeds, results, name="node", **attributes)],
            "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, *SHAPE[1:]]) for name in names],
            [helper.make_value_info(name, onnx.TypeProto()) for name in results],
            weights,
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return model


def both(model: onnx.ModelProto, *arrays: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, {f"x{place}": array for place, array in enumerate(arrays)})
    with torch.inference_mode():
        found = to_torch(model)(*(torch.from_numpy(array) for array in arrays))
    return [(np.asarray(tensor), array) for tensor, array in zip(found, expected, strict=True)]


def weight(*shape: int) -> NDArray[np.float32]:
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


ONE_INPUT: list[tuple[str, list[Any], dict[str, Any]]] = [
    *((op, [], {}) for op in ("Abs", "Exp", "Erf", "Floor", "HardSwish", "Identity", "LeakyRelu", "Neg", "Reciprocal",
                              "Relu", "Round", "Sigmoid", "Softplus", "Tanh", "GlobalAveragePool", "Softmax",
                              "Flatten")),
    *((op, [weight(5)], {}) for op in ("Add", "Sub", "Mul", "Div", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
                                       "Equal", "Max", "Min", "Sum")),
    ("Pow", [np.float32(2)], {}),
    ("MatMul", [weight(5, 3)], {}),
    ("Cast", [], {"to": TensorProto.INT32}),
    ("Cast", [], {"to": TensorProto.BOOL}),
    ("BatchNormalization", [weight(4), weight(4), weight(4), weight(4) ** 2], {"epsilon": 1e-3}),
    ("CumSum", [ints(2)[0]], {}),
    ("CumSum", [ints(-1)[0]], {}),
    ("Clip", [np.float32(-1), np.float32(0.5)], {}),
    ("Clip", [None, np.float32(0.5)], {}),
    ("Concat", [weight(2, 1, 6, 5)], {"axis": 1}),
    ("Conv", [weight(8, 4, 3, 3), weight(8)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Conv", [weight(4, 1, 3, 3)], {"group": 4, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ("Conv", [weight(2, 4, 2, 3)], {"pads": [0, 1, 1, 2]}),
    ("ConvTranspose", [weight(4, 3, 2, 2), weight(3)], {"strides": [2, 2]}),
    ("ConvTranspose", [weight(4, 3, 3, 3)], {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    *(("DepthToSpace", [], {"blocksize": 2, "mode": mode}) for mode in ("DCR", "CRD")),
    ("Expand", [ints(3, 1, 1, 1, 5)], {}),
    ("Flatten", [], {"axis": 2}),
    ("Gather", [ints(-1)[0]], {"axis": 2}),
    ("Gather", [np.array([[0, 2], [1, -2]], np.int64)], {"axis": 3}),
    ("GatherElements", [np.zeros(SHAPE, np.int64) - 1], {"axis": 3}),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("MaxPool", [], {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0]}),
    *((op, [ints(1)], {"keepdims": keep}) for op in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum")
      for keep in (0, 1)),
    *((op, [], {}) for op in ("ReduceMax", "ReduceMean", "ReduceSum")),
    ("ReduceSum", [ints(1, -1)], {}),
    ("ReduceMax", [], {"noop_with_empty_axes": 1}),
    ("Reshape", [ints(0, 2, -1)], {}),
    ("Reshape", [ints(-1, 2, 2, 30)], {"allowzero": 1}),
    ("Resize", [None, np.array([1, 1, 2, 3], np.float32)],
     {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}),
    ("Resize", [None, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
    ("Resize", [None, np.array([1, 1, 2, 2], np.float32)],
     {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    ("Slice", [ints(1, -2), ints(1000, 2**62), ints(1, 3)], {}),
    ("Slice", [ints(0), ints(5), ints(2), ints(2)], {}),
    ("Softmax", [], {"axis": 1}),
    ("Split", [ints(1, 3)], {"axis": 1}),
    ("Squeeze", [ints(1)], {}),
    ("TopK", [ints(3)], {"axis": 3}),
    ("Transpose", [], {"perm": [0, 3, 1, 2]}),
    ("Unsqueeze", [ints(0, -1)], {}),
    ("ArgMax", [], {"axis": 1, "keepdims": 0}),
    ("QuantizeLinear", [np.float32(0.05), np.int8(0)], {}),
    ("QuantizeLinear", [np.array([0.05, 0.1, 0.02, 1], np.float32), np.array([3, 0, 9, 200], np.uint8)], {"axis": 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "constants", "attributes"), ONE_INPUT, ids=[f"{i}-{case[0]}" for i, case in enumerate(ONE_INPUT)]
)
def test_an_operator_means_what_onnx_runtime_makes_of_it(op: str, constants: Any, attributes: Any) -> None:
    array = X[:, :1] if op == "Squeeze" else X
    outputs = 2 if op in {"Split", "TopK"} else 1
    model = graph(op, constants, outputs, **attributes)
    if op == "Squeeze":
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    for found, expected in both(model, array):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-4, atol=1e-5)


def test_dividing_whole_numbers_truncates() -> None:
    model = graph("Cast", [], to=TensorProto.INT32)
    model.graph.node.append(helper.make_node("Div", ["y0", "by"], ["z"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int32), "by"))
    model.graph.output[0].name = "z"
    ((found, expected),) = both(model, 4 * X)
    np.testing.assert_array_equal(found, expected)


def test_equal_scores_give_the_first_class() -> None:
    ((found, expected),) = both(graph("ArgMax", [], axis=1, keepdims=0), np.zeros(SHAPE, np.float32))
    np.testing.assert_array_equal(found, expected)


def test_a_dequantised_weight_is_computed_once() -> None:
    """Scales and levels are constants, so the graph holds the product."""
    model = graph("Conv", [weight(8, 4, 3, 3)])
    levels = numpy_helper.from_array(RNG.integers(-127, 128, (8, 4, 3, 3)).astype(np.int8), "levels")
    scale = numpy_helper.from_array(np.linspace(0.01, 0.02, 8).astype(np.float32), "scale")
    zero = numpy_helper.from_array(np.zeros(8, np.int8), "zero")
    del model.graph.initializer[:]
    model.graph.initializer.extend([levels, scale, zero])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["c0"], axis=0))
    ((found, expected),) = both(model, X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert len(list(to_torch(model).buffers())) == 1


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "sentence"),
    [
        ("Hardmax", [], {}, "cannot run node `node`: operator Hardmax is not known here"),
        (
            "Resize",
            [None, np.array([1, 1, 2, 2], np.float32)],
            {"mode": "cubic"},
            "Resize is not known with mode c",
        ),
        (
            "Resize",
            [None, np.array([1, 1, 2, 2], np.float32)],
            {"mode": "nearest"},
            "is not known with nearest by half",
        ),
        ("Slice", [ints(3), ints(0), ints(2), ints(-1)], {}, "Slice is known with steps from 1 only"),
        ("Transpose", [], {}, "Transpose is known with `perm` only"),
    ],
)
def test_uses_that_are_refused_by_name_and_node(op: str, constants: Any, attributes: Any, sentence: str) -> None:
    with pytest.raises(UnsupportedError, match=sentence) as raised:
        to_torch(graph(op, constants, **attributes))
    assert isinstance(raised.value, DeviceError)
    assert "\n" not in str(raised.value)


def test_an_opset_that_is_not_known() -> None:
    with pytest.raises(ModelError, match="is of ONNX opset 11, and PyTorch runs 18 to 24 here; export it again"):
        to_torch(graph("Relu", [], opset=11))


@pytest.mark.parametrize("path", [FOLDER / f"{name}.onnx" for name in names()], ids=names())
def test_every_operator_of_the_bundled_models_is_known(path: Path) -> None:
    assert {node.op_type for node in onnx.load(path).graph.node} <= set(OPERATORS)
