"""A model's plan for a machine: from the cache, or built. Needs TensorRT and no GPU; `loader` loads it on one."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from engines.errors import OutputError
from engines.loading import Building, Degraded, Observe, in_tenths
from engines.spec import ModelSpec
from engines.tensorrt import rtx
from engines.tensorrt.builder import Built, build
from engines.tensorrt.cache import Entry, PlanCache
from engines.tensorrt.operators import tensorrt_graph
from engines.tensorrt.plan import BuildOptions, Machine, PlanRequest

log = logging.getLogger(__name__)


class Planner:
    """Finds or builds the plan of one model for one machine.

    Args:
        path: the model.
        spec: of it.
        precision: the graph's, never `auto`.
        machine: what plans are bound to.
        options: how to build.
        cache: where plans lie.
        observe: is told how far a build is, and what could not be had.

    Attributes:
        graph: the serialised ONNX that TensorRT is given.
        exact: whether a plan for larger batches, which takes more memory, does not do.
        unkept: why the plan could not be kept; None where it could.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        precision: str,
        machine: Machine,
        options: BuildOptions | None = None,
        cache: PlanCache | None = None,
        observe: Observe | None = None,
    ) -> None:
        self.spec, self.precision, self.machine = spec, precision, machine
        self.options, self.cache = options or BuildOptions(), cache or PlanCache()
        self.exact = False
        self.unkept: OutputError | None = None
        self.graph: bytes = tensorrt_graph(path, precision).SerializeToString(deterministic=True)
        self._digest = hashlib.sha256(self.graph).hexdigest()
        self._observe = observe

    def request(self, max_batch: int) -> PlanRequest:
        """What the cache is asked for."""
        return PlanRequest(
            model=self.spec.name,
            version=self.spec.version,
            precision=self.precision,
            graph=self._digest,
            height=self.spec.height,
            width=self.spec.width,
            machine=self.machine,
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
                self.spec.name, self.precision, found.reason, self.machine.gpu,
            )  # fmt: skip
            built = self._build(request)
            try:
                self.cache.store(request, built.plan, built.seconds)
                self.cache.store_timing(request.machine, built.timing)
            except OutputError as error:
                self.unkept = error
                self.degraded("plan cache", "memory", "cache", str(error))
            return built.plan

    def keep(self, max_batch: int) -> Entry:
        """See to it that the plan is in the cache: building ahead.

        Raises:
            OutputError: it cannot be kept.
            TensorRTError: it cannot be built.
        """
        self.exact = True
        self.plan(max_batch)
        if self.unkept is not None:
            raise self.unkept
        return self.cache.entry(self.request(max_batch))

    def degraded(self, wanted: str, instead: str, lacking: str, sentence: str) -> None:
        """Say once that something could not be had."""
        log.warning("%s", sentence)
        if self._observe is not None:
            self._observe(Degraded(self.spec.name, wanted, instead, lacking, sentence))

    def _build(self, request: PlanRequest) -> Built:
        name = self.spec.name
        observe = self._observe or in_tenths(log.info)

        def report(phase: str, fraction: float) -> None:
            observe(Building(name, "tensorrt", phase, fraction))

        built = build(
            self.graph, self.spec, request.options, timing=self.cache.timing(request.machine), report=report,
            capabilities=rtx.capabilities(self.precision) if rtx.stands_in() else (),
        )  # fmt: skip
        log.info("%s %s: built in %.0f s, %.1f MB", name, self.precision, built.seconds, len(built.plan) / 1e6)
        return built
