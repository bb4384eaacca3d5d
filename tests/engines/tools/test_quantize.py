"""int8 files: small, signed, symmetric, honest, and run by every runtime alike."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.errors import CheckFailed, ModelError, OutputError, SourceError, UsageError
from engines.graphs.quantizers import restored, surroundings, take_concatenations_apart
from engines.openvino import OpenVINOEngine
from engines.spec import Metric, read_spec
from engines.tools.quantize import Quantization, quantize, write_model
from tests.engines.tiny_models import CONV, bits_model, conv_model, save

UInt8 = NDArray[np.uint8]
METRIC = Metric("mean_iou", 0.5, "val", "by hand")


def smooth_pictures(count: int, seed: int = 0) -> Iterator[UInt8]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        patches = rng.integers(0, 256, (4, 8, 3), dtype=np.uint8)
        yield np.asarray(cv2.resize(patches, (128, 64), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def class_maps(model: onnx.ModelProto, images: UInt8) -> UInt8:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["map"], {"images": images})[0], dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantised")
    save(conv_model(width=64), msgspec.structs.replace(CONV, metrics=(METRIC,)), folder / "conv.onnx")
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> Quantization:
    pytest.importorskip("nncf")
    return quantize(folder / "conv.onnx", smooth_pictures(20), folder / "conv.int8.onnx", subset_size=16)


@pytest.fixture(scope="module")
def model(result: Quantization) -> onnx.ModelProto:
    return onnx.load(result.output)


@pytest.mark.slow
def test_the_report(folder: Path, result: Quantization) -> None:
    assert (result.frames, result.layers, result.kept) == (16, 3, ("stem", "head"))
    assert result.bytes_before == (folder / "conv.onnx").stat().st_size
    assert result.bytes_after == (folder / "conv.int8.onnx").stat().st_size
    assert result.bytes_after < 0.35 * result.bytes_before


@pytest.mark.slow
def test_the_spec_says_int8_and_claims_no_figures_of_fp32(folder: Path, result: Quantization) -> None:
    before, after = read_spec(folder / "conv.onnx"), read_spec(result.output)
    assert after == msgspec.structs.replace(before, precision="int8", metrics=())


@pytest.mark.slow
def test_quantisers_are_what_tensorrt_takes(model: onnx.ModelProto) -> None:
    """int8, zero point 0, one scale a tensor for activations; weights are stored as int8 with a scale a channel."""
    onnx.checker.check_model(model, full_check=True)
    constants = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    assert {node.op_type for node in pairs} == {"QuantizeLinear", "DequantizeLinear"}
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    of_weights = [node for node in pairs if node.input[0] in constants]
    assert [constants[node.input[0]].dtype for node in of_weights] == [np.int8]
    assert [constants[node.input[1]].shape for node in of_weights] == [(64,)]
    assert all(constants[node.input[1]].size == 1 for node in pairs if node not in of_weights)


@pytest.mark.slow
def test_onnx_runtime_and_openvino_agree_on_it(result: Quantization) -> None:
    pictures = [np.ascontiguousarray(picture[::2, ::2]) for picture in smooth_pictures(8, seed=1)]
    session = onnxruntime.InferenceSession(result.output, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["map"], {"images": np.stack(pictures)})
    with OpenVINOEngine(Path(result.output)) as engine:
        assert engine.precision == "int8"
        ours = np.stack([np.asarray(p.class_map) for p in engine.submit(pictures).result()])
    assert (ours == theirs).mean() > 0.97  # what is left in floating point is bf16 here and fp32 there


@pytest.mark.slow
def test_the_agreement_is_what_onnx_runtime_finds(folder: Path, result: Quantization) -> None:
    images = np.stack([picture[::2, ::2] for picture in smooth_pictures(16)])
    before, after = (class_maps(onnx.load(path), images) for path in (folder / "conv.onnx", result.output))
    assert result.agreement == pytest.approx((before == after).mean(), abs=0.002)  # sums in another order
    assert result.agreement > 0.95


@pytest.mark.slow
def test_putting_every_layer_back_gives_the_model_before(folder: Path, model: onnx.ModelProto) -> None:
    original = onnx.load(folder / "conv.onnx")
    plain = restored(model, original, {"stem", "body", "head"})
    assert not [node for node in plain.graph.node if "Quantize" in node.op_type]
    images = np.stack([picture[::2, ::2] for picture in smooth_pictures(3)])
    np.testing.assert_array_equal(class_maps(original, images), class_maps(plain, images))


@pytest.mark.slow
def test_the_search_puts_layers_back_until_the_bound_is_met(folder: Path, tmp_path: Path, result: Quantization) -> None:
    assert result.agreement is not None
    bound = result.agreement + 1e-9  # just more than int8 reaches alone
    better = quantize(
        folder / "conv.onnx", smooth_pictures(16), tmp_path / "m.onnx", min_agreement=bound, metrics=(METRIC,)
    )
    assert better.kept == ("stem", "body", "head")
    assert better.agreement is not None
    assert better.agreement >= bound
    with pytest.raises(CheckFailed, match=r"cannot be quantised to an agreement of 101\.0%"):
        quantize(folder / "conv.onnx", smooth_pictures(4), tmp_path / "n.onnx", min_agreement=1.01)
    assert not (tmp_path / "n.onnx").exists()
    assert read_spec(tmp_path / "m.onnx").metrics == (METRIC,)


@pytest.mark.slow
def test_the_command_reports_in_json_and_reports_to_nobody_else(folder: Path, tmp_path: Path) -> None:
    """NNCF's progress stays off standard output, and its telemetry is a stub."""
    images = tmp_path / "images"
    images.mkdir()
    for number, picture in enumerate(smooth_pictures(4)):
        cv2.imwrite(str(images / f"{number}.png"), picture)
    code = (
        "import sys; from engines.commands.models import app; app(sys.argv[1:], standalone_mode=False); "
        "from nncf.telemetry.wrapper import telemetry; print(type(telemetry).__name__, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "quantize", str(folder / "conv.onnx"), "--frames", str(images),
         "-o", str(tmp_path / "out.onnx"), "--min-agreement", "0", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["frames"] == 4
    assert done.stderr.splitlines()[-1] in ("NNCFTelemetryStub", "MagicMock")  # both report nothing
    assert read_spec(tmp_path / "out.onnx").precision == "int8"


def test_convolutions_over_a_concatenation_are_taken_apart() -> None:
    model = conv_model()
    body = next(node for node in model.graph.node if node.name == "body")
    weight = next(weight for weight in model.graph.initializer if weight.name == "w2")
    wide = np.random.default_rng(0).normal(0, 0.1, (16, 16 + 3 + 16, 3, 3)).astype(np.float32)
    weight.CopyFrom(numpy_helper.from_array(wide, "w2"))
    place = list(model.graph.node).index(body)
    model.graph.node.insert(place, helper.make_node("Concat", ["r1", "centred", "c1"], ["joined"], "join", axis=1))
    body.input[0] = "joined"
    onnx.checker.check_model(model, full_check=True)
    before = copy.deepcopy(model)

    assert take_concatenations_apart(model) == {"body/sum1", "body/sum2"}
    assert "Concat" not in {node.op_type for node in model.graph.node}
    assert sum(name == "b2" for node in model.graph.node for name in node.input) == 1
    onnx.checker.check_model(model, full_check=True)
    for each in (before, model):  # the numbers in front of the arg-max
        each.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, None))
    images = np.stack([picture[::2, ::2] for picture in smooth_pictures(2)])
    one, other = (
        onnxruntime.InferenceSession(each.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            ["scores"], {"images": images}
        )[0]
        for each in (before, model)
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_model_without_concatenations_stays_as_it_is() -> None:
    model = conv_model()
    before = model.SerializeToString(deterministic=True)
    assert take_concatenations_apart(model) == set()
    assert model.SerializeToString(deterministic=True) == before


def test_the_way_in_and_the_way_out_stay_as_they_are() -> None:
    model = conv_model()
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    outside = surroundings(model, {"stem", "body", "head"})
    inside = {node.name for node in model.graph.node} - outside
    assert inside == {"Relu_5", "body", "Relu_7", "Add_8"}


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"keep": ["neck"]}, UsageError, "No layer's name matches `neck`; the layers are stem, body, head"),
        ({"keep": ["("]}, UsageError, r"`\(` is not a regular expression"),
        ({"keep": ["bo"]}, ModelError, "All 3 layers .* would stay in floating point"),
        ({"frames": []}, SourceError, "no frames to calibrate with"),
    ],
)
def test_what_is_refused_before_any_work(
    conv: Path, tmp_path: Path, options: dict[str, list[str]], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        quantize(
            conv,
            options.get("frames", smooth_pictures(1)),
            tmp_path / "o.onnx",
            keep=options.get("keep", ()),  # type: ignore[arg-type]  # an empty list
        )
    assert not (tmp_path / "o.onnx").exists()


def test_models_that_cannot_be_quantised(tmp_path: Path) -> None:
    path = save(conv_model(), msgspec.structs.replace(CONV, precision="int8"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is int8 already"):
        quantize(path, smooth_pictures(1), tmp_path / "o.onnx")
    plain = bits_model()
    del plain.graph.output[1]
    spec = msgspec.structs.replace(CONV, height=16, width=32)
    with pytest.raises(ModelError, match="no layer to quantise"):
        quantize(save(plain, spec, tmp_path / "p.onnx"), smooth_pictures(1), tmp_path / "o.onnx")


def test_a_missing_extra_is_one_sentence(conv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.tools.quantize.find_spec", lambda name: None if name == "nncf" else object())
    with pytest.raises(
        UsageError, match=r"^Quantising needs nncf, not installed here; `pip install '\.\[quantize\]'`\.$"
    ):
        quantize(conv, smooth_pictures(1), tmp_path / "o.onnx")


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_model(conv_model(), tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
