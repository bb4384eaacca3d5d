"""Is every exported graph, in every precision, within what TensorRT's parser takes?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from engines import bundled
from engines.spec import read_spec
from engines.tensorrt.operators import cast_bytes_through_float, faults, operator_list, tensorrt_graph
from tests.engines.tiny_models import SEGMENTER, bits_model, conv_model, save

GRAPHS = [
    (path, precision)
    for path in sorted(bundled.FOLDER.glob("*.onnx"))
    for precision in (("int8",) if bundled.is_quantized_file(path) else ("fp32", "fp16", "bf16"))
]


@pytest.mark.seconds
@pytest.mark.parametrize(("path", "precision"), GRAPHS, ids=[f"{path.stem}-{precision}" for path, precision in GRAPHS])
def test_tensorrt_takes_every_bundled_model_in_every_precision(path: Path, precision: str) -> None:
    graph = tensorrt_graph(path, precision)
    onnx.checker.check_model(graph, full_check=True)
    assert faults(graph) == []
    outputs = {value.name: value.type.tensor_type.elem_type for value in graph.graph.output}
    spec = read_spec(path)
    kinds = {"class_map": TensorProto.UINT8, "boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT}
    wanted = {role: kind for role, kind in kinds.items() if role in spec.outputs}
    assert wanted
    assert {role: outputs[spec.outputs[role]] for role in wanted} == wanted


def test_the_list_says_where_it_is_from() -> None:
    known = operator_list()
    assert (known.source, known.version) == ("onnx/onnx-tensorrt, docs/operators.md", "TensorRT 10.15")
    operators = [operator for group in known.groups for operator in group.operators]
    assert len(operators) == len(set(operators)) > 150
    assert all(onnx.defs.has(name) or name in {"ImageScaler", "ParametricSoftplus", "ScaledTanh"} for name in operators)
    assert known.types("QLinearConv") == ()
    assert "UINT8" in known.types("Cast")
    assert "UINT8" not in known.types("Transpose")


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    next(node for node in model.graph.node if node.op_type == old).op_type = new


def _uint8_transpose(model: onnx.ModelProto) -> None:
    cast, transpose = model.graph.node[0], model.graph.node[1]
    transpose.input[0], transpose.output[0] = "images", "turned"
    cast.input[0], cast.output[0] = "turned", "nchw"
    nodes = [transpose, cast, *list(model.graph.node)[2:]]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


def _foreign(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    model.graph.node[4].domain = "com.example"


def _quantised(zero: int) -> Callable[[onnx.ModelProto], None]:
    def quantise(model: onnx.ModelProto) -> None:
        place = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Relu")
        name = model.graph.node[place].output[0]
        model.graph.node[place].output[0] = "raw"
        model.graph.initializer.extend([
            helper.make_tensor("q.scale", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("q.zero", TensorProto.INT8, [], [zero]),
        ])  # fmt: skip
        rest = list(model.graph.node)
        pair = [
            helper.make_node("QuantizeLinear", ["raw", "q.scale", "q.zero"], ["q"], name="quantise"),
            helper.make_node("DequantizeLinear", ["q", "q.scale", "q.zero"], [name], name="dequantise"),
        ]
        copies = [
            onnx.NodeProto.FromString(n.SerializeToString()) for n in [*rest[: place + 1], *pair, *rest[place + 1 :]]
        ]
        del model.graph.node[:]
        model.graph.node.extend(copies)

    return quantise


@pytest.mark.parametrize(
    ("damage", "clause"),
    [
        (lambda model: _rename(model, "Relu", "Conjure"), "(Conjure) is not taken"),
        (lambda model: _rename(model, "Relu", "Hardmax"), None),
        (_uint8_transpose, "(Transpose) takes FP32"),
        (_quantised(0), None),
        (_quantised(3), "node `quantise` (QuantizeLinear) has a zero point other than 0"),
        (lambda model: setattr(model.opset_import[0], "version", 25), "its opset 25 is outside (9, 24)"),
        (_foreign, "is of the domain com.example"),
    ],
)
def test_what_is_not_taken_is_named_with_its_node(
    damage: Callable[[onnx.ModelProto], None], clause: str | None
) -> None:
    model = conv_model()
    cast_bytes_through_float(model)
    damage(model)
    found = faults(model)
    assert any(clause in fault for fault in found) if clause else found == []


def test_casts_to_bytes_go_through_float_and_change_nothing() -> None:
    model = conv_model()
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})
    assert any("converts INT64 to UINT8" in fault for fault in faults(model))
    cast_bytes_through_float(model)
    assert faults(model) == []
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": images})
    np.testing.assert_array_equal(before[0], after[0])
    count = len(model.graph.node)
    cast_bytes_through_float(model)
    assert len(model.graph.node) == count


def test_a_graph_that_has_only_floats_before_its_bytes_is_left_alone(tmp_path: Path) -> None:
    path = save(bits_model(), SEGMENTER, tmp_path / "bits.onnx")
    assert len(tensorrt_graph(path, "fp32").graph.node) == len(bits_model().graph.node)
