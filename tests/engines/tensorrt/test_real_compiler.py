"""Every bundled model in every precision through our builder by a real compiler of NVIDIA's, TensorRT for RTX.

It works with neither GPU nor driver, so a graph that does not parse, or whose types do not fit, is found here. It is
another compiler than TensorRT's: nothing here says anything of numbers or speed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from engines.bundled import resolve
from engines.commands.engines import app
from engines.errors import CheckFailed, RoadlensError
from engines.graphs.fp8 import as_fp8
from engines.graphs.lowered import lower
from engines.graphs.quantizers import named, take_concatenations_apart
from engines.spec import ModelSpec, output_forms, read_spec
from engines.tensorrt import rtx
from engines.tensorrt.operators import cast_bytes_through_float, tensorrt_graph
from engines.tensorrt.plan import BuildOptions
from tests.engines.tensorrt.conftest import _remove
from tests.engines.tiny_models import CONV, conv_model, save

pytestmark = [
    # It deprecates timing caches, which TensorRT has and the builder uses; here they do nothing.
    pytest.mark.filterwarnings("ignore:.*Timing cache operations:DeprecationWarning"),
    pytest.mark.slow,
    pytest.mark.skipif(rtx.installed() is None, reason="TensorRT for RTX is not installed (the extra gpu-build)"),
]

MODELS = ("cityscapes-unet", "cityscapes-pspnet", "cityscapes-road-users", "lead-vehicle")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


@pytest.fixture
def trt() -> Iterator[Any]:
    """TensorRT for RTX where TensorRT is imported from, for the backend's modules imported anew, for one test."""
    import engines.tensorrt as package

    kept = {name: value for name, value in vars(package).items() if isinstance(value, ModuleType)}
    before = _remove()
    for name in kept:
        delattr(package, name)
    rtx.stand_in()
    yield sys.modules["tensorrt"]
    _remove()
    sys.modules.update(before)
    for name, value in kept.items():
        setattr(package, name, value)


def graph_of(model: str, precision: str) -> tuple[onnx.ModelProto, ModelSpec]:
    """A bundled model's graph as TensorRT is given it. There is no fp8 file of any: it is made of the int8 one."""
    path = resolve(model)
    if precision == "fp8":
        original = named(onnx.load(path))  # with the names and layers that the int8 file was made of
        take_concatenations_apart(original)
        graph = lower(as_fp8(onnx.load(path.with_suffix(".int8.onnx")), original), "fp16")
        cast_bytes_through_float(graph)
        return graph, read_spec(path)
    file = path.with_suffix(".int8.onnx") if precision == "int8" else path
    return tensorrt_graph(file, precision), read_spec(file)


@pytest.fixture(scope="module")
def drive() -> tuple[onnx.ModelProto, ModelSpec]:
    return graph_of("cityscapes-unet", "fp16")


def changed(model: onnx.ModelProto, change: Callable[[onnx.GraphProto], None]) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    change(copy.graph)
    return copy.SerializeToString()


def test_every_bundled_model_is_tried() -> None:
    assert sorted(MODELS) == sorted(
        path.stem for path in resolve(MODELS[0]).parent.glob("*.onnx") if "." not in path.stem
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", MODELS)
def test_a_bundled_model_builds(trt: Any, monkeypatch: pytest.MonkeyPatch, model: str, precision: str) -> None:
    from engines.tensorrt import builder, network

    graph, spec = graph_of(model, precision)
    profiles, networks = list[Any](), list[Any]()
    real_parsed, real_profile = network.parsed, trt.Builder.create_optimization_profile

    def parsed(*arguments: Any) -> Any:
        networks.append(real_parsed(*arguments))
        return networks[-1]

    def profile(self: Any) -> Any:
        profiles.append(real_profile(self))
        return profiles[-1]

    monkeypatch.setattr(builder, "parsed", parsed)
    monkeypatch.setattr(trt.Builder, "create_optimization_profile", profile)
    seen: list[float] = []
    built = builder.build(
        graph.SerializeToString(), spec, BuildOptions(max_batch=8, opt_batch=4),
        report=lambda _phase, fraction: seen.append(fraction),
    )  # fmt: skip
    assert len(built.plan) > 100_000, "the weights are in it"
    assert seen == sorted(seen)
    assert seen[-1] == 1.0

    made = networks[0].network
    assert made.num_inputs == 1
    image = made.get_input(0)
    assert (image.dtype, tuple(image.shape)) == (trt.DataType.UINT8, (-1, spec.height, spec.width, 3))
    (limits,) = profiles
    picture = (spec.height, spec.width, 3)
    assert [tuple(shape) for shape in limits.get_shape(image.name)] == [(1, *picture), (4, *picture), (8, *picture)]
    outputs = {made.get_output(place).name: made.get_output(place) for place in range(made.num_outputs)}
    assert set(spec.outputs.values()) <= set(outputs)
    kinds = {"uint8": trt.DataType.UINT8, "float": trt.DataType.FLOAT, "int32": trt.DataType.INT32}
    for role, name in spec.outputs.items():
        kind, sizes = output_forms(spec)[role]
        assert outputs[name].dtype == kinds[kind], role
        assert len(outputs[name].shape) == len(sizes) + 1


def test_layers_are_computed_in_the_precision_that_was_asked_for(trt: Any) -> None:
    """The types of the network's own tensors, where fp32 alone would do for a graph that was not lowered."""
    from engines.tensorrt.logger import logger
    from engines.tensorrt.network import parsed

    expected = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16"}
    for precision, kind in expected.items():
        graph, spec = graph_of("lead-vehicle", precision)
        read = parsed(trt.Builder(logger()), graph.SerializeToString(), spec)
        layers = [read.network.get_layer(place) for place in range(read.network.num_layers)]
        convolutions = {layer.get_output(0).dtype.name for layer in layers if layer.type == trt.LayerType.CONVOLUTION}
        assert kind in convolutions, precision


def wrong_cast(graph: onnx.GraphProto) -> None:
    """The picture's cast to half precision is one to fp32: the first division has two types."""
    cast = next(node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == 10)
    cast.attribute[0].i = 1


def wrong_output(graph: onnx.GraphProto) -> None:
    """The class map's cast to uint8 is one to fp32; the builder takes that."""
    cast = next(node for node in graph.node if "class_map" in node.output)
    cast.attribute[0].i = 1


def unknown(graph: onnx.GraphProto) -> None:
    next(node for node in graph.node if node.op_type in {"Relu", "Clip"}).op_type = "Conjure"


def unnamed_output(graph: onnx.GraphProto) -> None:
    node = next(node for node in graph.node if "confidence" in node.output)
    node.output[0] = graph.output[1].name = "sureness"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (wrong_cast, r"cannot take cityscapes-unet: node `\w+` \(\w+\): .*must (have the same|be of|have same).* typ"),
        (wrong_output, r"its output `class_map` is FLOAT N×256×256 where UINT8 is wanted for `class_map`; export it"),
        (unknown, r"cannot take cityscapes-unet: node `\w+` \(Conjure\): .*[Pp]lugin"),
        (unnamed_output, r"it has no output `confidence`; export it again"),
    ],
)
def test_a_graph_that_is_wrong_is_one_sentence(
    trt: Any, drive: tuple[onnx.ModelProto, ModelSpec], change: Callable[[onnx.GraphProto], None], sentence: str
) -> None:
    from engines.tensorrt.builder import build

    graph, spec = drive
    with pytest.raises(RoadlensError, match=sentence) as raised:
        build(changed(graph, change), spec, BuildOptions(max_batch=2))
    said = str(raised.value)
    assert "\n" not in said
    assert ".cpp" not in said
    assert "driver" not in said, "what the machine lacks is not what is wrong with the graph"


@pytest.mark.parametrize("content", [b"", b"no ONNX at all", bytes(range(256)) * 8])
def test_a_file_that_is_no_graph_is_one_sentence(
    trt: Any, drive: tuple[onnx.ModelProto, ModelSpec], content: bytes
) -> None:
    from engines.tensorrt.builder import build

    with pytest.raises(RoadlensError, match="cityscapes-unet") as raised:
        build(content, drive[1], BuildOptions())
    assert "number -1" not in str(raised.value)
    assert str(raised.value).endswith("export it again.")


def test_a_build_ends_when_its_observer_says_so(trt: Any, drive: tuple[onnx.ModelProto, ModelSpec]) -> None:
    from engines.tensorrt.builder import build

    graph, spec = drive
    after: list[float] = []

    def interrupt(_phase: str, fraction: float) -> None:
        after.append(fraction)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(graph.SerializeToString(), spec, BuildOptions(max_batch=2), report=interrupt)
    assert len(after) == 1, "nobody is told of a build that was given up"
    assert build(graph.SerializeToString(), spec, BuildOptions(max_batch=2)).plan, "and the next one builds"


@pytest.mark.parametrize("timing", [b"garbage" * 100, b"\0" * 4096, b"x"])
def test_a_damaged_timing_cache_costs_nothing_but_time(
    trt: Any, drive: tuple[onnx.ModelProto, ModelSpec], timing: bytes
) -> None:
    from engines.tensorrt.builder import build

    graph, spec = drive
    assert build(graph.SerializeToString(), spec, BuildOptions(max_batch=1), timing=timing).plan


def test_a_plan_without_a_driver_is_a_sentence(trt: Any, drive: tuple[onnx.ModelProto, ModelSpec]) -> None:
    from engines.cuda.probe import has_driver

    if has_driver():
        pytest.skip("there is an NVIDIA driver here; the machine must have none for it to be lacking")
    from engines.tensorrt.builder import build
    from engines.tensorrt.logger import logger

    graph, spec = drive
    plan = build(graph.SerializeToString(), spec, BuildOptions(max_batch=1)).plan
    voice = logger()
    voice.clear()
    assert trt.Runtime(voice).deserialize_cuda_engine(plan) is None
    assert "driver" in str(voice.failure("TensorRT cannot load the plan", "update the NVIDIA driver"))


# The command --------------------------------------------------------------------------------------------------------
def test_a_check_builds_where_tensorrt_is_not_installed_and_says_with_what(tmp_path: Path) -> None:
    path = save(conv_model(), CONV, tmp_path / "conv.onnx")
    result = CliRunner().invoke(app, ["build", str(path), "--check", "--batch", "2"])
    assert result.exit_code == 0, result.output
    assert f"TensorRT for RTX {rtx.installed()} builds it in fp16 for batches up to 2" in result.stdout
    assert "not numbers or speed" in result.stdout


def test_a_check_that_the_compiler_refuses_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engines.tensorrt import operators

    model = conv_model()
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Conjure"
    path = save(model, CONV, tmp_path / "odd.onnx")
    monkeypatch.setattr(operators, "faults", lambda _graph: [])  # the list is of one release, and may not know
    result = CliRunner().invoke(app, ["build", str(path), "--check", "--precision", "fp32"])
    assert isinstance(result.exception, CheckFailed)
    assert "TensorRT for RTX" in str(result.exception)
    assert "(Conjure)" in str(result.exception)
