"""How fast a model runs here: latency of one request and throughput of several, per precision, side by side.

All sides run in turn, slice by slice, so that what else the machine does meets them all alike. CPU time a picture is
given besides, which another job on the machine disturbs least.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

import engines
from engines.bundled import resolve
from engines.engine import Backend, Engine, Precision, Prediction
from engines.errors import DeviceError, UsageError
from engines.spec import ModelSpec, read_spec
from engines.squash import squash

UInt8 = NDArray[np.uint8]
Rival = Literal["onnxruntime"]

ROUNDS = 6
WARM_UP = 3
DISTINCT_BATCHES = 4


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One side at one batch size.

    Attributes:
        latency_ms, latency_p95_ms: median and 95th percentile of one request alone, from submitting to the answer.
        throughput: pictures a second with `in_flight` requests under way.
        cpu_ms: CPU time of the process a picture, in the throughput runs.
        speedup: throughput against the first side's at this batch size.
    """

    side: str
    batch: int
    latency_ms: float
    latency_p95_ms: float
    throughput: float
    cpu_ms: float
    speedup: float


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """Rows and what they were measured on. `load` is the machine's load average just before; 0 is a quiet machine."""

    model: str
    height: int
    width: int
    device: str
    cores: int
    threads: int | None
    in_flight: int
    load: float
    measured_at: str
    versions: dict[str, str]
    rows: tuple[Row, ...]


def benchmark(
    model: str | Path,
    precisions: Sequence[Precision] = (),
    batches: Sequence[int] = (1,),
    *,
    frames: Sequence[UInt8] = (),
    against: Rival | None = None,
    seconds: float = 4.0,
    in_flight: int = 2,
    threads: int | None = None,
    device: engines.Device = "cpu",
    backends: Sequence[Backend | Literal["auto"]] = ("auto",),
) -> Benchmark:
    """Measure a model.

    Args:
        model: name or path.
        precisions: the sides; none for all there are: fp32, bf16 where the CPU has it, int8 where a quantised file
            lies beside; on a GPU fp32 and fp16.
        batches: batch sizes, each measured by itself.
        frames: (h, w, 3) uint8 RGB of any size to run on; random ones if there are none.
        against: another runtime in fp32, which becomes the first side.
        seconds: time spent on each side at each batch size.
        in_flight: requests under way in the throughput runs.
        threads: of each side; None leaves the number to the runtime.
        device: where.
        backends: with which; every one in every precision. OpenVINO runs on the CPU whatever the device.

    Raises:
        ModelError: no such model or precision.
        DeviceError: the device or a backend is not there, or has no room for a batch.
        UsageError: the rival is not installed, or there is none for a quantised file.
    """
    path = resolve(model)
    spec = read_spec(path)
    every = tuple(precisions) or (_precisions_on_cpu(path) if device == "cpu" else _precisions_on_gpu(spec))
    sides = [(backend, precision) for backend in backends for precision in every]
    _require_rival(against, path, spec)
    load = os.getloadavg()[0]
    rows: list[Row] = []
    devices: dict[str, None] = {}
    for batch in batches:
        work = _work(spec, frames, batch)
        with ExitStack() as stack:
            running: dict[str, _Side] = {}
            if against is not None:
                rival = OnnxRuntime(path, spec, in_flight, threads)
                running[f"{against} fp32"] = _Side(stack.enter_context(closing(rival)), work)
            for backend, precision in sides:
                engine = stack.enter_context(_opened(path, device, precision, batch, in_flight, threads, backend))
                running[f"{engine.backend} {engine.precision}"] = _Side(engine, work)
                devices[engine.device] = None
            _run(list(running.values()), seconds)
            first = next(iter(running.values())).throughput
            rows.extend(side.row(name, batch, first) for name, side in running.items())
    return Benchmark(
        model=spec.name, height=spec.height, width=spec.width, device=" and ".join(devices),
        cores=len(os.sched_getaffinity(0)), threads=threads, in_flight=in_flight, load=load,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"), versions=_versions(against), rows=tuple(rows),
    )  # fmt: skip


def _require_rival(against: Rival | None, path: Path, spec: ModelSpec) -> None:
    if against is None:
        return
    if find_spec(against) is None:
        raise UsageError(
            f"{against} is not installed here, so there is nothing to compare with; pip install {against}."
        )
    if spec.precision != "fp32":
        raise UsageError(f"{path} is {spec.precision}; {against} is measured on the fp32 file: give that one.")


@contextmanager
def _opened(
    path: Path, device: engines.Device, precision: Precision, batch: int, in_flight: int, threads: int | None,
    backend: Backend | Literal["auto"],
) -> Iterator[Engine]:  # fmt: skip
    """An engine that has room for the batch."""
    where = "cpu" if backend == "openvino" else device
    with closing(engines.load(path, where, precision, batch, in_flight, threads, backend=backend)) as engine:
        if engine.max_batch < batch:
            raise DeviceError(f"{engine.device} has no room for batches of {batch}; give smaller ones.", "memory")
        yield engine


class Runner(Protocol):
    """What is measured: the part of an `Engine` that a benchmark needs."""

    in_flight: int

    def submit(self, images: Sequence[UInt8]) -> Future[list[Prediction]]: ...

    def close(self) -> None: ...


class OnnxRuntime:
    """ONNX Runtime in fp32 on the CPU, as most people run it: to compare with, no backend of the house."""

    def __init__(self, path: Path, spec: ModelSpec, in_flight: int, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._roles = list(spec.outputs)
        self._names = list(spec.outputs.values())
        self._pool = ThreadPoolExecutor(in_flight)
        self.in_flight = in_flight

    def submit(self, images: Sequence[UInt8]) -> Future[list[Prediction]]:
        return self._pool.submit(self._infer, images)

    def _infer(self, images: Sequence[UInt8]) -> list[Prediction]:
        arrays = self._session.run(self._names, {self._input: np.stack(images)})
        fields = dict(zip(self._roles, arrays, strict=True))
        return [Prediction(**{role: array[i] for role, array in fields.items()}) for i in range(len(images))]

    def close(self) -> None:
        self._pool.shutdown()


@dataclass
class _Side:
    """One runner and what has been measured of it."""

    runner: Runner
    work: list[list[UInt8]]
    latencies: list[float] = field(default_factory=list)
    pictures: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    @property
    def throughput(self) -> float:
        return self.pictures / self.wall

    def warm_up(self) -> None:
        for images in islice(cycle(self.work), WARM_UP):
            self.runner.submit(images).result()

    def measure_latency(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        for images in cycle(self.work):
            start = time.perf_counter()
            self.runner.submit(images).result()
            stop = time.perf_counter()
            self.latencies.append(stop - start)
            if stop >= end:
                return

    def measure_throughput(self, seconds: float) -> None:
        start, cpu, futures = time.perf_counter(), time.process_time(), list[Future[list[Prediction]]]()
        for images in cycle(self.work):
            if len(futures) == self.runner.in_flight:
                futures.pop(0).result()
            futures.append(self.runner.submit(images))
            self.pictures += len(images)
            if time.perf_counter() - start >= seconds:
                break
        for future in futures:
            future.result()
        self.wall += time.perf_counter() - start
        self.cpu += time.process_time() - cpu

    def row(self, name: str, batch: int, first: float) -> Row:
        return Row(
            side=name,
            batch=batch,
            latency_ms=float(np.median(self.latencies)) * 1e3,
            latency_p95_ms=float(np.percentile(self.latencies, 95)) * 1e3,
            throughput=self.throughput,
            cpu_ms=self.cpu / self.pictures * 1e3,
            speedup=self.throughput / first,
        )


def _run(sides: list[_Side], seconds: float) -> None:
    for side in sides:
        side.warm_up()
    for _ in range(ROUNDS):
        for side in sides:
            side.measure_latency(seconds / 2 / ROUNDS)
            side.measure_throughput(seconds / 2 / ROUNDS)


def _work(spec: ModelSpec, frames: Sequence[UInt8], batch: int) -> list[list[UInt8]]:
    """A few different batches, so that no cache holds the one input."""
    count = batch * DISTINCT_BATCHES
    if frames:
        pictures = list(islice(cycle(squash(frame, spec.height, spec.width) for frame in frames), count))
    else:
        shape = (count, spec.height, spec.width, 3)
        pictures = list(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    return [pictures[start : start + batch] for start in range(0, count, batch)]


def _precisions_on_cpu(path: Path) -> tuple[Precision, ...]:
    from engines.openvino import precisions_of  # a machine with a GPU may be without OpenVINO

    return precisions_of(path)


def _precisions_on_gpu(spec: ModelSpec) -> tuple[Precision, ...]:
    return ("fp32", "fp16") if spec.precision == "fp32" else (spec.precision,)


def _versions(against: Rival | None) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("roadlens", "openvino", "tensorrt", "torch", *([against] if against else [])):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that is not installed
            continue
    return found
