"""A model's plan for this machine: from the cache, or built."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec
import tensorrt as trt

from engines.engine import Precision
from engines.errors import ModelError, OutputError
from engines.fp8 import lacks_fp8
from engines.loading import Building, Degraded, Observe, in_tenths
from engines.spec import ModelSpec
from engines.tensorrt import cuda
from engines.tensorrt.builder import Built, build
from engines.tensorrt.cache import Entry, PlanCache
from engines.tensorrt.library import require
from engines.tensorrt.logger import OutOfMemory, logger
from engines.tensorrt.operators import tensorrt_graph
from engines.tensorrt.plan import BuildOptions, Machine, PlanRequest

log = logging.getLogger(__name__)

_BF16_FROM = (8, 0)
"""The compute capability from which on GPUs multiply in bf16 (Ampere)."""


class PlanLoader:
    """Finds or builds the plan of one model on one GPU.

    Attributes:
        precision: the graph's, never `auto`.
        gpu: where it is to run; the calling thread's from now on.
        graph: the serialised ONNX that TensorRT is given.
        exact: whether a plan for larger batches, which takes more memory, does not do.
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
        version = require()
        self.gpu = cuda.open_gpu(device)
        self.spec = spec
        self.precision = _choose_precision(precision, spec, self.gpu)
        self.options = options or BuildOptions()
        self.cache = cache or PlanCache()
        self.exact = False
        self._observe = observe
        self._unkept: OutputError | None = None
        self.graph: bytes = tensorrt_graph(path, self.precision).SerializeToString(deterministic=True)
        self._digest = hashlib.sha256(self.graph).hexdigest()
        self._machine = machine_of(version, self.gpu)

    def request(self, max_batch: int) -> PlanRequest:
        """What the cache is asked for."""
        return PlanRequest(
            model=self.spec.name,
            version=self.spec.version,
            precision=self.precision,
            graph=self._digest,
            height=self.spec.height,
            width=self.spec.width,
            machine=self._machine,
            options=msgspec.structs.replace(self.options, max_batch=max_batch),
        )

    def plan(self, max_batch: int) -> bytes:
        """The plan from the cache, or a new one; one process builds, the others wait for it."""
        request = self.request(max_batch)
        if (found := self.cache.find(request, self.exact)).plan is not None:
            return found.plan
        waits = f"Another process is building the plan of {self.spec.name}; waiting for it."
        with self.cache.lock(request, lambda: log.info(waits)):
            if (found := self.cache.find(request, self.exact)).plan is not None:
                return found.plan
            log.warning(
                "%s %s: %s; building it for %s, which takes minutes.",
                self.spec.name, self.precision, found.reason, self.gpu.name,
            )  # fmt: skip
            built = self._build(request)
            try:
                self.cache.store(request, built.plan, built.seconds)
                self.cache.store_timing(request.machine, built.timing)
            except OutputError as error:
                self._unkept = error
                self.degraded("plan cache", "memory", "cache", str(error))
            return built.plan

    def keep(self, max_batch: int) -> Entry:
        """See to it that the plan is in the cache and loads: building ahead.

        Raises:
            OutputError: it cannot be kept.
            TensorRTError: it cannot be built or loaded.
        """
        self.exact = True
        self.engine(max_batch)  # there is no other check of a plan than loading it
        if self._unkept is not None:
            raise self._unkept
        return self.cache.entry(self.request(max_batch))

    def _build(self, request: PlanRequest) -> Built:
        name = self.spec.name
        observe = self._observe or in_tenths(log.info)

        def report(phase: str, fraction: float) -> None:
            observe(Building(name, "tensorrt", phase, fraction))

        built = build(self.graph, name, request.options, timing=self.cache.timing(request.machine), report=report)
        log.info("%s %s: built in %.0f s, %.1f MB", name, self.precision, built.seconds, len(built.plan) / 1e6)
        return built

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

    def degraded(self, wanted: str, instead: str, lacking: str, sentence: str) -> None:
        """Say once that something could not be had."""
        log.warning("%s", sentence)
        if self._observe is not None:
            self._observe(Degraded(self.spec.name, wanted, instead, lacking, sentence))


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
