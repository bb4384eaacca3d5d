"""TensorRT for RTX as a backend: run on doubles, built ahead by the real library, its names held to the real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import engines
from engines.commands.engines import app
from engines.errors import DeviceError
from engines.tensorrt import rtx
from tests.engines.tensorrt import double_cuda, double_tensorrt
from tests.engines.tensorrt.conftest import Doubles
from tests.engines.tiny_models import CONV, bits_of, conv_model, save

Pictures = Callable[[int], list[NDArray[np.uint8]]]
CONTEXTS = double_tensorrt.ExecutionContextAllocationStrategy
real = pytest.mark.skipif(rtx.installed() is None, reason="TensorRT for RTX is not installed (the extra gpu-build)")


class RuntimeCache:
    def __init__(self) -> None:
        self.content = b"made here"

    def deserialize(self, blob: bytes) -> bool:
        self.content = blob + b", and again"
        return True

    def serialize(self) -> bytes:
        return self.content


class RuntimeConfig:
    """How a context is to run."""

    dynamic_shapes_kernel_specialization_strategy = cuda_graph_strategy = strategy = "not said"

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self._cache = cache
        return True

    def get_runtime_cache(self) -> RuntimeCache:
        return self._cache


class Config(double_tensorrt.IBuilderConfig):
    """Builds for the GPUs that it is told."""

    num_compute_capabilities = 0
    targets: dict[int, str]

    def set_compute_capability(self, compute_capability: str, index: int) -> bool:
        assert index < self.num_compute_capabilities
        self.targets = {**getattr(self, "targets", {}), index: compute_capability}
        targets.append(self.targets)
        return True


targets: list[dict[int, str]] = []


class _Strategies:
    EAGER, DISABLED = "eager", "disabled"


class _Capabilities:
    def __getattr__(self, name: str) -> str:
        return name


@pytest.fixture
def library(doubles: Doubles, monkeypatch: pytest.MonkeyPatch) -> Doubles:
    """A machine with an Ada GPU where `tensorrt` is TensorRT for RTX."""
    double_cuda.state.capability = (8, 9)
    module = ModuleType("tensorrt_rtx_bindings")
    vars(module).update({name: value for name, value in vars(double_tensorrt).items() if not name.startswith("__")})
    vars(module).update(
        __version__=double_tensorrt.__version__, ComputeCapability=_Capabilities(), CudaGraphStrategy=_Strategies,
        DynamicShapesKernelSpecializationStrategy=_Strategies,
    )  # fmt: skip
    plain = double_tensorrt.ICudaEngine.create_execution_context

    def context(self: Any, how: Any) -> Any:
        assert isinstance(how, RuntimeConfig)
        assert (how.dynamic_shapes_kernel_specialization_strategy, how.cuda_graph_strategy) == ("eager", "disabled")
        return plain(self, how.strategy)

    monkeypatch.setattr(double_tensorrt.ICudaEngine, "create_execution_context", context)
    monkeypatch.setattr(double_tensorrt.ICudaEngine, "create_runtime_config", lambda _: RuntimeConfig(), raising=False)
    monkeypatch.setattr(double_tensorrt.Builder, "create_builder_config", lambda _: Config())
    targets.clear()
    sys.modules["tensorrt"] = module  # taken out again by the fixture under this one
    # The same fixture took our modules out, so the module that asks is imported anew.
    from engines.tensorrt import rtx as here

    monkeypatch.setattr(here, "require", lambda: double_tensorrt.__version__)
    return doubles


def test_it_answers_as_tensorrt_does_and_keeps_the_kernels_that_it_made(
    segmenter: Path, pictures: Pictures, library: Doubles, tmp_path: Path
) -> None:
    for start in (1, 2):
        with engines.load(segmenter, "cuda", "fp32", 4, backend="tensorrt-rtx") as engine:
            assert (engine.backend, engine.device) == ("tensorrt-rtx", "NVIDIA Double 80GB")
            for count in (1, 4, 3):
                images = pictures(count)
                for image, prediction in zip(images, engine.submit(images).result(30), strict=True):
                    np.testing.assert_array_equal(prediction.class_map, bits_of(image))
        (kept,) = (tmp_path / "cache" / "plans").glob("timing-rtx-*-NVIDIA-Double-80GB-8.9.cache")
        assert kept.read_bytes() == b"made here" + b", and again" * (start - 1)
    assert library.tensorrt.builds == 1
    assert targets[-1] == dict(enumerate(f"SM{each.replace('.', '')}" for each in rtx.CAPABILITIES))
    assert library.cuda.left() == []


def test_a_gpu_that_it_has_no_kernels_for_is_refused(segmenter: Path, library: Doubles) -> None:
    library.cuda.capability = (9, 0)
    with pytest.raises(DeviceError, match=r"does not run on NVIDIA Double 80GB \(compute capability 9\.0"):
        engines.load(segmenter, "cuda", backend="tensorrt-rtx")
    assert library.tensorrt.builds == 0


def test_a_process_has_one_of_the_two(segmenter: Path, library: Doubles) -> None:
    with pytest.raises(DeviceError, match="has TensorRT for RTX already"):
        engines.load(segmenter, "cuda", backend="tensorrt")


def test_the_other_way_round(doubles: Doubles, segmenter: Path) -> None:
    from engines.tensorrt import rtx as here

    if here.installed() is None:
        pytest.skip("TensorRT for RTX is not installed (the extra gpu-build)")
    with pytest.raises(DeviceError, match="has TensorRT already"):
        engines.load(segmenter, "cuda", backend="tensorrt-rtx")
    assert doubles.tensorrt.builds == 0


def test_the_cpu_is_not_for_it(segmenter: Path) -> None:
    with pytest.raises(DeviceError, match="TensorRT for RTX runs on NVIDIA GPUs and not on the CPU"):
        engines.load(segmenter, "cpu", backend="tensorrt-rtx")


# The real library -----------------------------------------------------------------------------------------------------
@real
def test_every_name_that_runs_only_on_a_gpu_is_the_library_s() -> None:
    import tensorrt_rtx_bindings as trt

    assert "runtime_config" in str(trt.ICudaEngine.create_execution_context.__doc__)
    for kind, names in {
        trt.ICudaEngine: ["create_runtime_config"],
        trt.IRuntimeConfig: [
            "set_execution_context_allocation_strategy", "dynamic_shapes_kernel_specialization_strategy",
            "cuda_graph_strategy", "create_runtime_cache", "set_runtime_cache", "get_runtime_cache",
        ],
        trt.IRuntimeCache: ["deserialize", "serialize"],
        trt.DynamicShapesKernelSpecializationStrategy: ["EAGER"],
        trt.CudaGraphStrategy: ["DISABLED"],
        trt.ComputeCapability: [f"SM{each.replace('.', '')}" for each in rtx.CAPABILITIES],
    }.items():  # fmt: skip
        assert [name for name in names if not hasattr(kind, name)] == []
    assert {str(each) for each in trt.ComputeCapability.__members__} - {"NONE", "CURRENT"} == {
        f"SM{each.replace('.', '')}" for each in rtx.CAPABILITIES
    }


@real
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_plans_are_built_ahead_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    import subprocess

    path = save(conv_model(), CONV, tmp_path / "conv.onnx")
    build = ["build", str(path), "--backend", "tensorrt-rtx", "--precision", precision, "--batch", "2"]
    monkeypatch.setenv("ROADLENS_CACHE", str(tmp_path / "cache"))
    code = f"from engines.commands.engines import app; app({build!r})"  # a process has one TensorRT
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "building it" not in done.stderr, "the second time it is there"
    (plan,) = (tmp_path / "cache" / "plans").glob("*.plan")
    assert str(plan) in done.stdout.replace("\n", "")
    result = CliRunner().invoke(app, ["list", "--json"])
    assert '"state": "ready"' in result.output
    assert '"compute_capability": "' + ", ".join(rtx.capabilities(precision)) in result.output
