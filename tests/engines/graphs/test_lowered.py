"""Graphs in half precision: typed as they say, and saying what fp32 says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.bundled import int8_file, resolve
from engines.engine import Engine
from engines.errors import ModelError
from engines.graphs.lowered import LAYERS, lower, lowered
from engines.openvino import OpenVINOEngine
from tests.engines.tiny_models import CONV, bits_model, conv_model, save

UInt8 = NDArray[np.uint8]
PAIRS = Path(__file__).resolve().parents[4] / "shared" / "data" / "cityscapes_pairs"
LOST_AT_MOST = {"fp16": 0.3, "bf16": 0.3, "int8": 1.0}
TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor name → element type, inferred anew."""
    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    return found | {weight.name: weight.data_type for weight in graph.initializer}


def smooth_pictures(count: int, size: tuple[int, int] = (64, 32), seed: int = 0) -> Iterator[UInt8]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        patches = rng.integers(0, 256, (4, 8, 3), dtype=np.uint8)
        yield np.asarray(cv2.resize(patches, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def class_maps(model: onnx.ModelProto, pictures: UInt8) -> UInt8:
    """By ONNX Runtime, each operator in the type that is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    output, images = model.graph.output[0].name, model.graph.input[0].name
    return np.concatenate([session.run([output], {images: picture[None]})[0] for picture in pictures])


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_every_layer_is_half_and_the_ways_in_and_out_are_not(half: Any) -> None:
    model = lower(conv_model(), half)
    kinds = types_of(model)
    layers = [node for node in model.graph.node if node.op_type in LAYERS]
    assert len(layers) == 3
    for node in layers:
        assert {kinds[name] for name in (*node.input, *node.output)} == {TYPES[half]}
    # One cast in; arg-max reads what the last layer gives, so there is none out.
    assert [node.input[0] for node in model.graph.node if node.op_type == "Cast"] == ["images", "centred", "id"]
    assert kinds["centred"] == TensorProto.FLOAT
    assert [kinds[value.name] for value in (*model.graph.input, *model.graph.output)] == [TensorProto.UINT8] * 2
    assert model.opset_import[0].version == {"fp16": 20, "bf16": 22}[half]


def test_what_is_computed_behind_the_last_layer_is_fp32_and_outputs_keep_their_type() -> None:
    """255.5 is 256 in bf16, and 0 as uint8."""
    model = conv_model()
    model.graph.node.append(helper.make_node("Softmax", ["scores"], ["likely"], axis=1))
    model.graph.node.append(helper.make_node("Identity", ["scores"], ["raw"]))
    model.graph.output.append(helper.make_tensor_value_info("likely", TensorProto.FLOAT, ["N", 8, 32, 64]))
    model.graph.output.append(helper.make_tensor_value_info("raw", TensorProto.FLOAT, ["N", 8, 32, 64]))
    result = lower(model, "bf16")
    kinds = types_of(result)
    softmax = next(node for node in result.graph.node if node.op_type == "Softmax")
    assert kinds[softmax.input[0]] == kinds["likely"] == kinds["raw"] == TensorProto.FLOAT
    assert kinds["scores"] == TensorProto.BFLOAT16


def test_scales_of_a_resize_stay_fp32() -> None:
    model = conv_model()
    at = next(place for place, node in enumerate(model.graph.node) if node.name == "head")
    resize = helper.make_node("Resize", ["sum", "", "scales"], ["large"], mode="nearest", nearest_mode="floor",
                              coordinate_transformation_mode="asymmetric")  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 1, 1], np.float32), "scales"))
    model.graph.node.insert(at, resize)
    model.graph.node[at + 1].input[0] = "large"
    kinds = types_of(lower(model, "fp16"))
    assert (kinds["large"], kinds["scales"]) == (TensorProto.FLOAT16, TensorProto.FLOAT)


def test_the_source_is_left_as_it_was() -> None:
    model = conv_model()
    before = model.SerializeToString(deterministic=True)
    lower(model, "bf16")
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_half_precision_says_what_fp32_says(half: Any, tmp_path: Path) -> None:
    """fp16 by ONNX Runtime; its CPU has no kernels for bf16, so that is computed by OpenVINO."""
    path = save(conv_model(), CONV, tmp_path / "conv.onnx")
    pictures = np.stack(list(smooth_pictures(3)))
    expected = class_maps(onnx.load(path), pictures)
    model = lowered(path, half)
    if half == "fp16":
        found = class_maps(model, pictures)
    else:
        onnx.save(model, tmp_path / "half.onnx")
        with OpenVINOEngine(tmp_path / "half.onnx") as engine:
            predictions = engine.submit(list(pictures)).result()
        found = np.stack([p.class_map for p in predictions if p.class_map is not None])
    assert (found == expected).mean() >= {"fp16": 0.995, "bf16": 0.98}[half]


def test_the_spec_says_so_and_claims_no_figures_of_fp32(tmp_path: Path) -> None:
    from engines.spec import SPEC_KEY, Metric, ModelSpec

    before = msgspec.structs.replace(CONV, metrics=(Metric("mean_iou", 0.5, "val", "by hand"),))
    model = lowered(save(conv_model(), before, tmp_path / "m.onnx"), "fp16")
    text = next(prop.value for prop in model.metadata_props if prop.key == SPEC_KEY)
    after = msgspec.json.decode(text, type=ModelSpec)
    assert after == msgspec.structs.replace(before, precision="fp16", metrics=())


def test_a_file_that_has_the_precision_is_taken_as_it_is(conv: Path) -> None:
    assert lowered(conv, "fp32") == onnx.load(conv)


@pytest.mark.parametrize(
    ("stored", "asked", "sentence"),
    [
        ("fp32", "int8", "is not quantised .* `roadlens models quantize`"),
        ("fp16", "bf16", "is fp16 and cannot run in bf16; give the fp32 file"),
        ("int8", "fp32", "is int8 and cannot run in fp32"),
    ],
)
def test_files_that_cannot_be_had_in_a_precision(tmp_path: Path, stored: Any, asked: str, sentence: str) -> None:
    path = save(conv_model(), msgspec.structs.replace(CONV, precision=stored), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=sentence):
        lowered(path, asked)


def test_graphs_that_cannot_be_lowered() -> None:
    with pytest.raises(ModelError, match="has no layer"):
        lower(bits_model(), "fp16")
    model = conv_model()
    weight = next(w for w in model.graph.initializer if w.name == "w2")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), "w2"))
    with pytest.raises(ModelError, match=r"weights w2 of node `body` reach .*, and fp16 ends at 65504; take bf16"):
        lower(model, "fp16")
    lower(model, "bf16")


def test_what_int8_leaves_unquantised_becomes_fp16() -> None:
    """Scales and biases too; weights stay int8, and so do zero points, all 0."""
    model = lowered(int8_file(resolve("cityscapes-unet")), "int8")
    assert model.opset_import[0].version == 19
    kinds = types_of(model)
    pairs = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert pairs
    for node in pairs:
        assert kinds[node.input[1]] == TensorProto.FLOAT16
        assert kinds[node.input[2]] == TensorProto.INT8
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert {kinds[name] for name in (*node.input, *node.output)} == {TensorProto.FLOAT16}


def dev_pairs(count: int) -> tuple[UInt8, UInt8]:
    """Photos and labels of the split that settings are chosen on; what follows reports, and chooses nothing."""
    pairs = pytest.importorskip("training.data.cityscapes_pairs")
    paths = pairs.list_pairs(PAIRS, "dev")
    loaded = [pairs.read_pair(path) for path in paths[:: max(1, len(paths) // count)][:count]]
    return np.stack([photo for photo, _ in loaded]), np.stack([pairs.decode_label(colours) for _, colours in loaded])


def run_engine(engine: Engine, photos: UInt8) -> UInt8:
    found = [engine.submit([photo]).result()[0].class_map for photo in photos]
    return np.stack([class_map for class_map in found if class_map is not None])


def mean_iou(maps: UInt8, labels: UInt8) -> float:
    known = labels != 255
    counts = np.bincount(labels[known].astype(int) * 19 + maps[known], minlength=361).reshape(19, 19)
    union = counts.sum(0) + counts.sum(1) - np.diag(counts)
    present = counts.sum(1) > 0
    return float((np.diag(counts)[present] / union[present]).mean())


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_bundled_model_keeps_its_classes_and_its_mean_iou(tmp_path: Path) -> None:
    """On `dev`: mean IoU of fp16 by ONNX Runtime, of bf16 and int8 by OpenVINO. OpenVINO computes all of a bf16 file in
    bf16, so whether the graph's own types keep the classes is left to PyTorch, on fewer pictures."""
    torch_engine = pytest.importorskip("engines.pytorch.engine")
    if not PAIRS.is_dir():
        pytest.skip("the Cityscapes pairs are not beside the checkout")
    path = resolve("cityscapes-unet")
    photos, labels = dev_pairs(148)
    expected = class_maps(onnx.load(path), photos)
    maps = {"fp16": class_maps(lowered(path, "fp16"), photos)}
    onnx.save(lowered(path, "bf16"), tmp_path / "bf16.onnx")
    for precision, file in (("bf16", tmp_path / "bf16.onnx"), ("int8", int8_file(path))):
        with OpenVINOEngine(file, max_batch=1) as engine:
            maps[precision] = run_engine(engine, photos)
    before = mean_iou(expected, labels)
    drops = {precision: 100 * (before - mean_iou(found, labels)) for precision, found in maps.items()}
    agreements = {precision: float((found == expected).mean()) for precision, found in maps.items()}
    with torch_engine.TorchEngine(tmp_path / "bf16.onnx", device="cpu", max_batch=1) as engine:
        agreements["bf16"] = float((run_engine(engine, photos[::12]) == expected[::12]).mean())
    print(f"\nagreement {agreements}, points of mean IoU {before:.4f} lost {drops}")
    assert {precision: drop for precision, drop in drops.items() if drop > LOST_AT_MOST[precision]} == {}
    assert agreements["fp16"] >= 0.995
    assert agreements["bf16"] >= 0.995
