"""A model's plan, loaded on a GPU."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import tensorrt as trt

from engines.engine import Precision
from engines.errors import ModelError
from engines.graphs.fp8 import lacks_fp8
from engines.loading import Observe
from engines.spec import ModelSpec
from engines.tensorrt import cuda, rtx
from engines.tensorrt.cache import Entry, PlanCache
from engines.tensorrt.library import version_here
from engines.tensorrt.logger import OutOfMemory, logger
from engines.tensorrt.plan import BuildOptions, Machine
from engines.tensorrt.planner import Planner

log = logging.getLogger(__name__)

_BF16_FROM = (8, 0)
"""The compute capability from which on GPUs multiply in bf16 (Ampere)."""


class PlanLoader(Planner):
    """Finds or builds the plan of one model for one GPU, and loads it.

    Attributes:
        gpu: where it is to run; the calling thread's from now on.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        device: str = "cuda:0",
        precision: Precision = "auto",
        options: BuildOptions | None = None,
        cache: PlanCache | None = None,
        observe: Observe | None = None,
    ) -> None:
        self.gpu = cuda.open_gpu(device)
        chosen = _choose_precision(precision, spec, self.gpu)
        version = version_here()
        if rtx.stands_in():
            rtx.check_capability(self.gpu.name, self.gpu.compute_capability)
        self._here = machine_of(version, self.gpu)
        bound = rtx.machine(version, chosen) if rtx.stands_in() else self._here
        super().__init__(path, spec, chosen, bound, options, cache, observe)
        self._runtime_config: Any = None

    def keep(self, max_batch: int) -> Entry:
        """As `Planner.keep`; there is no other check of a plan than loading it.

        Raises:
            OutputError: it cannot be kept.
            TensorRTError: it cannot be built or loaded.
        """
        self.exact = True
        self.engine(max_batch)
        return super().keep(max_batch)

    def engine(self, max_batch: int) -> tuple[trt.Runtime, trt.ICudaEngine]:
        """The plan loaded; one that TensorRT will not load is taken out of the cache and built once more.

        Raises:
            TensorRTError: the new one will not load either.
        """
        voice = logger()
        try:
            runtime = trt.Runtime(voice)
        except TypeError:  # pybind's word for a factory that gave null
            raise voice.failure("TensorRT does not start", "update the NVIDIA driver") from None
        for last in (False, True):
            plan = self.plan(max_batch)
            voice.clear()
            engine = runtime.deserialize_cuda_engine(plan)
            # The stubs know no null, pybind gives None for it.
            if engine is not None:
                if rtx.stands_in():
                    self._runtime_config = rtx.runtime_config(engine, self.cache.timing(self._here))
                return runtime, engine
            refused = voice.failure(  # type: ignore[unreachable,unused-ignore]  # see above; any with no library
                f"TensorRT {trt.__version__} cannot load the plan of {self.spec.name}", "build it again"
            )
            if last or isinstance(refused, OutOfMemory):
                raise refused
            log.warning("%s", refused)
            self.cache.discard(self.request(max_batch))
            self.exact = True
        raise AssertionError("the loop returns or raises")

    def context(self, engine: trt.ICudaEngine) -> trt.IExecutionContext | None:
        """A context of a loaded plan, which runs in memory that is given to it; None where TensorRT makes none."""
        how: Any = self._runtime_config
        if how is None:
            how = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        return engine.create_execution_context(how)

    def loaded(self) -> None:
        """The lanes have run once: keep the kernels that TensorRT for RTX made for this GPU meanwhile."""
        if self._runtime_config is not None:
            kernels = self._runtime_config.get_runtime_cache().serialize()
            if kernels is not None:
                self.cache.store_timing(self._here, bytes(memoryview(kernels)))


def machine_of(version: str, gpu: cuda.Gpu) -> Machine:
    """What plans are bound to, of a TensorRT and a GPU."""
    return Machine(tensorrt=version, gpu=gpu.name, compute_capability=gpu.compute_capability, driver=gpu.driver[0])


def _choose_precision(asked: Precision, spec: ModelSpec, gpu: cuda.Gpu) -> str:
    capability = tuple(int(part) for part in gpu.compute_capability.split("."))
    if asked in {"auto", "fp8"} and spec.precision == "fp8" and lacks_fp8(capability):
        raise ModelError(
            f"{gpu.name} does not compute in fp8 (compute capability {gpu.compute_capability}, wanted is 8.9: Ada, "
            "Hopper or later); give the file that this one was made from, or its int8 twin."
        )
    if asked == "auto":
        return spec.precision if spec.precision != "fp32" else "fp16"
    if asked == "bf16" and capability < _BF16_FROM:
        raise ModelError(
            f"{gpu.name} does not compute in bf16 (compute capability {gpu.compute_capability}, wanted is 8.0); "
            "use precision fp16, fp32 or auto."
        )
    return asked
