"""Models small enough to write by hand, whose right answers are plain arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.classes import ClassInfo
from engines.spec import ModelSpec, embed_spec

HEIGHT, WIDTH = 16, 32
CLASSES = tuple(ClassInfo(i, f"class {i}", (i, i, i)) for i in range(8))
SEGMENTER = ModelSpec(
    name="bits",
    version="1",
    task="segmentation",
    height=HEIGHT,
    width=WIDTH,
    classes=CLASSES,
    outputs={"class_map": "map", "confidence": "sure"},
)
LOCALIZER = ModelSpec(
    name="corners",
    version="1",
    task="localization",
    height=HEIGHT,
    width=WIDTH,
    classes=CLASSES[:1],
    outputs={"boxes": "boxes", "scores": "scores"},
)


def _tensor(name: str, values: Any, dtype: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    outputs: dict[str, tuple[int, list[Any]]],
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", *size, 3])],
        [helper.make_tensor_value_info(name, kind, ["N", *shape]) for name, (kind, shape) in outputs.items()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def bits_model() -> onnx.ModelProto:
    """class = (red > 127.5) + 2·(green > 127.5) + 4·(blue > 127.5); confidence = red. Exact in every precision."""
    return _model(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Greater", ["x", "half"], ["bright"]),
            helper.make_node("Cast", ["bright"], ["bit"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["bit", "powers"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "last"], ["id"], keepdims=0),
            helper.make_node("Cast", ["id"], ["map"], to=TensorProto.UINT8),
            helper.make_node("Gather", ["x", "first"], ["red"], axis=3),
            helper.make_node("Cast", ["red"], ["sure"], to=TensorProto.UINT8),
        ],
        [
            _tensor("half", 127.5, np.float32),
            _tensor("powers", [1, 2, 4], np.float32),
            _tensor("last", [-1], np.int64),
            _tensor("first", 0, np.int64),
        ],
        {"map": (TensorProto.UINT8, [HEIGHT, WIDTH]), "sure": (TensorProto.UINT8, [HEIGHT, WIDTH])},
    )


def bits_of(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What `bits_model` must answer for (..., 3) pixels, in integers."""
    return ((image[..., 0] >> 7) | (image[..., 1] >> 7 << 1) | (image[..., 2] >> 7 << 2)).astype(np.uint8)


def corners_model() -> onnx.ModelProto:
    """Boxes and scores are the first values of the picture's rows: box k = row k [0:4] / 256, score k = [4] / 256."""
    return _model(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["x", "scale"], ["unit"]),
            helper.make_node("Reshape", ["unit", "rows"], ["flat"]),
            helper.make_node("Slice", ["flat", "from0", "to4", "axes"], ["boxes"]),
            helper.make_node("Slice", ["flat", "from4", "to5", "axes"], ["score"]),
            helper.make_node("Squeeze", ["score", "last"], ["scores"]),
        ],
        [
            _tensor("scale", 1 / 256, np.float32),
            _tensor("rows", [0, HEIGHT, WIDTH * 3], np.int64),
            _tensor("from0", [0, 0], np.int64),
            _tensor("to4", [2, 4], np.int64),
            _tensor("from4", [0, 4], np.int64),
            _tensor("to5", [2, 5], np.int64),
            _tensor("axes", [1, 2], np.int64),
            _tensor("last", [2], np.int64),
        ],
        {"boxes": (TensorProto.FLOAT, [2, 4]), "scores": (TensorProto.FLOAT, [2])},
    )


def fragile_model() -> onnx.ModelProto:
    """A segmenter that fails while it runs unless the first pixel is (HEIGHT, WIDTH, 1): it reshapes by it."""
    return _model(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["x", "flat"], ["all"]),
            helper.make_node("Slice", ["all", "from", "to"], ["sizes"]),
            helper.make_node("Gather", ["x", "first"], ["red"], axis=3),
            helper.make_node("Concat", ["open", "sizes"], ["shape"], axis=0),
            helper.make_node("Reshape", ["red", "shape"], ["shaped"]),
            helper.make_node("Squeeze", ["shaped", "last"], ["id"]),
            helper.make_node("Cast", ["id"], ["map"], to=TensorProto.UINT8),
        ],
        [
            _tensor("flat", [-1], np.int64),
            _tensor("from", [0], np.int64),
            _tensor("to", [3], np.int64),
            _tensor("first", 0, np.int64),
            _tensor("open", [-1], np.int64),
            _tensor("last", [3], np.int64),
        ],
        {"map": (TensorProto.UINT8, [HEIGHT, WIDTH])},
    )


def conv_model(size: tuple[int, int] = (32, 64), width: int = 16, classes: int = 8, seed: int = 0) -> onnx.ModelProto:
    """A small convolutional segmenter with random weights, for what needs real arithmetic: quantising, comparing."""
    rng = np.random.default_rng(seed)

    def weight(name: str, outputs: int, inputs: int, kernel: int) -> onnx.TensorProto:
        scale = np.sqrt(2 / (inputs * kernel * kernel))
        return _tensor(name, rng.normal(0, scale, (outputs, inputs, kernel, kernel)), np.float32)

    return _model(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2]),
            helper.make_node("Mul", ["nchw", "scale"], ["unit"]),
            helper.make_node("Sub", ["unit", "one"], ["centred"]),
            helper.make_node("Conv", ["centred", "w1", "b1"], ["c1"], name="stem", kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", ["c1"], ["r1"]),
            helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="body", kernel_shape=[3, 3], pads=[1] * 4),
            helper.make_node("Relu", ["c2"], ["r2"]),
            helper.make_node("Add", ["r2", "r1"], ["sum"]),
            helper.make_node("Conv", ["sum", "w3"], ["scores"], name="head", kernel_shape=[1, 1]),
            helper.make_node("ArgMax", ["scores"], ["id"], axis=1, keepdims=0),
            helper.make_node("Cast", ["id"], ["map"], to=TensorProto.UINT8),
        ],
        [
            _tensor("scale", 1 / 127.5, np.float32),
            _tensor("one", 1.0, np.float32),
            weight("w1", width, 3, 3),
            _tensor("b1", rng.normal(0, 0.1, width), np.float32),
            weight("w2", width, width, 3),
            _tensor("b2", rng.normal(0, 0.1, width), np.float32),
            weight("w3", classes, width, 1),
        ],
        {"map": (TensorProto.UINT8, [*size])},
        size,
    )


def int8_conv_model(width: int = 32) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """`conv_model` with the layer `body` in int8, as `engines.tools.quantize` writes it, and in fp32."""
    original = conv_model(width=width)
    model = onnx.ModelProto()
    model.CopyFrom(original)
    weight = next(numpy_helper.to_array(w) for w in original.graph.initializer if w.name == "w2")
    scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
    stored = np.round(weight / scale[:, None, None, None]).astype(np.int8)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name)
        for name, values in {
            "q": stored, "q/scale": scale.astype(np.float32), "q/zero": np.zeros(width, np.int8),
            "x/scale": np.float32(6 / 127), "x/zero": np.int8(0),
        }.items()
    )  # fmt: skip
    body = next(node for node in model.graph.node if node.name == "body")
    body.input[0], body.input[1] = "r1/dq", "w2/dq"
    at = list(model.graph.node).index(body)
    for node in (
        helper.make_node("DequantizeLinear", ["q", "q/scale", "q/zero"], ["w2/dq"], axis=0),
        helper.make_node("DequantizeLinear", ["r1/q", "x/scale", "x/zero"], ["r1/dq"]),
        helper.make_node("QuantizeLinear", ["r1", "x/scale", "x/zero"], ["r1/q"]),
    ):
        model.graph.node.insert(at, node)
    onnx.checker.check_model(model, full_check=True)
    return model, original


CONV = msgspec.structs.replace(SEGMENTER, name="conv", height=32, width=64, outputs={"class_map": "map"})


def save(model: onnx.ModelProto, spec: ModelSpec, path: Path) -> Path:
    embed_spec(model, spec)
    onnx.save(model, path)
    return path
