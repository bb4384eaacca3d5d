"""ONNX → strongly typed network (`network`) → plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import SupportsInt

import tensorrt as trt

from engines.spec import ModelSpec
from engines.tensorrt import rtx
from engines.tensorrt.logger import logger
from engines.tensorrt.network import parsed
from engines.tensorrt.plan import BuildOptions
from engines.tensorrt.progress import Phases

Report = Callable[[str, float], None]
"""Is told the phase, in TensorRT's words, and the fraction done, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Built:
    """A plan, and what was learnt on the way: timings for the next build (empty where TensorRT gave none)."""

    plan: bytes
    seconds: float
    timing: bytes


def build(
    graph: bytes,
    spec: ModelSpec,
    options: BuildOptions,
    *,
    timing: bytes = b"",
    report: Report | None = None,
    capabilities: Sequence[str] = (),
) -> Built:
    """Build a plan for the calling thread's GPU.

    Args:
        graph: serialised ONNX with one input, N×H×W×3 with N dynamic.
        spec: whose inputs and outputs the graph must have.
        options: batch sizes, workspace, TF32, effort.
        timing: of an earlier build here; what does not fit this machine is left unused.
        capabilities: with TensorRT for RTX, of the GPUs that the plan is for, wherever it is built.
        report: is told how far it is, by several threads, one at a time; what it raises ends the build and is raised.

    Raises:
        OutOfMemory: the GPU has no room to build.
        TensorRTError: TensorRT cannot take the graph (the sentence names operator and node), makes other outputs of it
            than the spec's, or cannot build it.
        KeyboardInterrupt: the build was interrupted; TensorRT has stopped cleanly.
    """
    start = time.perf_counter()
    voice = logger()
    voice.clear()
    try:
        builder = trt.Builder(voice)
    except TypeError:  # pybind's word for a factory that gave null: no driver, or one too old for this TensorRT
        raise voice.failure("TensorRT does not start", "update the NVIDIA driver") from None
    read = parsed(builder, graph, spec)
    config = _configured(builder, read.network, options, timing, spec.name)
    if capabilities:
        rtx.target(config, capabilities)
    monitor = _Monitor(report)
    config.progress_monitor = monitor
    voice.clear()
    plan = builder.build_serialized_network(read.network, config)
    if monitor.raised is not None:
        raise monitor.raised
    # The stubs know no null, pybind gives None for it.
    if plan is None:
        raise voice.failure(  # type: ignore[unreachable,unused-ignore]  # see above; any with the library missing
            f"TensorRT cannot build {spec.name} for batches up to {options.max_batch}",
            "give a smaller batch or workspace, or use another backend",
        )
    learnt = config.get_timing_cache()
    measured = learnt.serialize() if learnt is not None else None
    return Built(
        bytes(memoryview(plan)), time.perf_counter() - start, b"" if measured is None else bytes(memoryview(measured))
    )


def _configured(
    builder: trt.Builder, network: trt.INetworkDefinition, options: BuildOptions, timing: bytes, model: str
) -> trt.IBuilderConfig:
    voice = logger()
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization_level
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # TensorRT sets it unasked
    cache = config.create_timing_cache(timing)
    if cache is None or not config.set_timing_cache(cache, False):
        # Of another machine, or damaged: it is only worth time.
        config.set_timing_cache(config.create_timing_cache(b""), False)
    image = network.get_input(0)
    _, height, width, channels = image.shape[:]
    profile = builder.create_optimization_profile()
    least, best, most = (trt.Dims([batch, height, width, channels]) for batch in options.batches)
    profile.set_shape(image.name, least, best, most)
    if config.add_optimization_profile(profile) < 0:
        raise voice.failure(f"TensorRT does not take batches up to {options.max_batch} of {model}", "export it again")
    return config


class _Monitor(trt.IProgressMonitor):
    """Passes progress on. An exception must not cross TensorRT's C++: it is kept, and the build is told to stop."""

    def __init__(self, report: Report | None) -> None:
        trt.IProgressMonitor.__init__(self)
        self._report = report
        self._phases = Phases()
        self._lock = threading.Lock()
        self.raised: BaseException | None = None

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: SupportsInt) -> None:
        self._tell(phase_name, lambda: self._phases.start(phase_name, parent_phase or None, int(num_steps)))

    def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
        self._tell(phase_name, lambda: self._phases.step(phase_name, int(step)))
        return self.raised is None

    def phase_finish(self, phase_name: str) -> None:
        self._tell(phase_name, lambda: self._phases.finish(phase_name))

    def _tell(self, phase: str, change: Callable[[], None]) -> None:
        try:
            with self._lock:
                change()
                if self._report is not None and self.raised is None:
                    self._report(phase, self._phases.fraction)
        except BaseException as error:  # noqa: BLE001 - Ctrl-C comes out here, too
            self.raised = self.raised or error
