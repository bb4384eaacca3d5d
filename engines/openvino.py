"""OpenVINO: the engine of machines without an NVIDIA GPU.

Settings that were measured (2 cores of an AMD EPYC with AVX512-BF16, OpenVINO 2026.4, U-Net over MobileNetV2 at
512×256 in bf16 unless said, beside a training job that wanted both cores too):

- The latency hint (one stream over all cores), two requests in flight: 27.8 ms a picture; OpenVINO's own throughput
  hint 27.7, but its single request takes 29 to 46 ms.
- No pinning of threads to cores: 27.8 ms where OpenVINO's default takes 30.7, and 12 % less CPU time. A pinned
  thread waits for its core while a decoder or encoder has it; ours may move.
- The throughput hint for files: one thread a stream of OpenVINO (no barriers between threads: 13.3 in place of 14.5 ms
  of CPU time a frame beside a decoder and an encoder), one request more than streams, and threads that give way
  (nice 10). What comes behind the engine then never waits for it: with equal priorities x264 starves beside busy
  engine threads, and two cores are 88 % busy in place of 97 (720p, veryfast: 43 against 49 frames a second).
- A batch is taken apart: a request a picture, of a static model. A dynamic batch costs more CPU time a picture (1 to 8
  pictures at 256×256, latency hint: U-Net 14.9 to 16.4 against 14.3 to 15.8 ms, PSPNet 10 to 11 against 9), and of each
  size that comes for the first time OpenVINO makes kernels of its own: 25 MB, and a stop of 0.1 to 0.4 s in the
  midst of a live run. With the latency hint too, many cores share a batch picture by picture (a stream of
  OpenVINO for every four of them; not measured, for want of such a machine).

int8 on a CPU without dot products of bytes is made exact by `engines.graphs.saturation`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.bundled import bundled_twin, int8_file
from engines.engine import Hint, Precision, Prediction
from engines.errors import NO_MEMORY, ModelError, lacks_memory
from engines.flights import FlightEngine, Flights, check_batch, check_numbers
from engines.graphs.saturation import adds_bytes_exactly, fit_weights
from engines.spec import ModelSpec, OutputRole, read_spec
from engines.telemetry import no_telemetry

with no_telemetry():
    import openvino as ov

log = logging.getLogger(__name__)


class OpenVINOEngine(FlightEngine):
    """A model on the CPU; see `engines.engine.Engine` for the contract.

    Every request has its own input memory, so `submit` copies the pictures (0.2 MB each) and never allocates; every
    prediction is a copy that the caller owns. Use it as a context manager, or call `close`.
    """

    backend = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        precision: Precision = "auto",
        max_batch: int = 8,
        in_flight: int = 2,
        threads: int | None = None,
        hint: Hint = "latency",
    ) -> None:
        """Compile a model file.

        Args:
            path: the ONNX file.
            precision: `auto` is int8 for a quantised file, else bf16 where the CPU computes in it, else int8 for a
                bundled model, whose twin runs, else fp32.
            max_batch: most pictures a batch; 1 is a little faster for single pictures.
            in_flight: batches computed or waiting at once. With two the next starts while Python collects the last.
            threads: threads to compute with; None leaves the number to OpenVINO (all cores).
            hint: `latency`, or `throughput`, which computes several pictures side by side at low priority; it raises
                `in_flight` to one more than those.

        Raises:
            ModelError: the file is not a model of the house, OpenVINO cannot compile it, or the file or this CPU does
                not go with the precision.
            ValueError: a number below 1.
        """
        check_numbers(max_batch=max_batch, in_flight=in_flight, threads=threads)
        core = ov.Core()
        self.device: str = _device(core)
        has_bf16 = _has_bf16(core)
        if precision == "auto" and not has_bf16:
            path = bundled_twin(path)
        self.spec: ModelSpec = read_spec(path)
        self.precision: str = _choose_precision(precision, self.spec, path, has_bf16)
        self.max_batch: int = max_batch
        self.threads: int | None = threads

        # What an int8 file leaves unquantised is computed in bf16 where there is bf16.
        in_bf16 = self.precision != "fp32" and has_bf16
        properties = _properties(in_bf16, threads, hint, max_batch)
        if hint == "throughput":
            in_flight = max(in_flight, properties["NUM_STREAMS"] + 1)
        self.in_flight: int = in_flight
        start = partial(_start, core, path, self.spec, properties, in_flight, max_batch)
        try:
            compiled, requests = _giving_way(start) if hint == "throughput" else start()
        except (RuntimeError, UnicodeDecodeError) as error:  # the latter about a name in the file that is no UTF-8
            raise _refused(path, error) from None

        outputs = {role: compiled.output(name) for role, name in self.spec.outputs.items()}
        lanes = [_Lane(requests[place::in_flight], outputs) for place in range(in_flight)]
        del compiled, requests

        # It knows the lanes and not the engine, so a forgotten engine is freed and ends its thread.
        def end() -> None:
            for lane in lanes:
                lane.release()

        self._flights = Flights(lanes, f"openvino-{self.spec.name}", end)

    def submit(self, images: Sequence[NDArray[np.uint8]]) -> Future[list[Prediction]]:
        check_batch(images, self.spec, self.max_batch)
        return self._flights.submit(images)


_MOST_STREAMS = 4
"""Requests that are computed side by side at most, each by its share of the cores: a single file has no more frames
between its decoder and its encoder."""

_STREAM_CORES = 4
"""Cores that compute one picture together with the latency hint, where a batch has more than one."""

_NICENESS = 10


_Started = tuple[ov.CompiledModel, list["_Request"]]


def _giving_way(start: Callable[[], _Started]) -> _Started:
    """Start an engine whose threads give way to all others of the process, where the system lets threads do so.

    On Linux niceness belongs to a thread and is inherited by those that it starts. OpenVINO starts some of its threads
    when a model is compiled and others when it first computes as many requests as it has threads; so does a thread of
    its own that is nice.
    """

    def begin() -> _Started:
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        return start()

    with ThreadPoolExecutor(1, "openvino-start") as starter:
        return starter.submit(begin).result()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def precisions_of(path: Path) -> tuple[Precision, ...]:
    """The precisions that a model file and its quantised twin run in on this CPU.

    Raises:
        ModelError: the file is not a model of the house.
    """
    if read_spec(path).precision == "int8":
        return ("int8",)
    found: list[Precision] = ["fp32"]
    if _has_bf16(ov.Core()):
        found.append("bf16")
    if int8_file(path).is_file():
        found.append("int8")
    return tuple(found)


class _Request:
    """One infer request of one picture, and its input memory, which lives as long as the request."""

    def __init__(self, compiled: ov.CompiledModel, shape: tuple[int, ...]) -> None:
        self._request = compiled.create_infer_request()
        self._memory = np.zeros(shape, np.uint8)
        self._request.set_input_tensor(ov.Tensor(self._memory, shared_memory=True))

    def warm_up(self) -> None:
        """Compute on nothing in particular; `wait` ends it."""
        self._request.start_async()

    def start(self, image: NDArray[np.uint8]) -> None:
        np.copyto(self._memory[0], image)
        self._request.start_async()

    def wait(self) -> None:
        self._request.wait()

    def output(self, port: ov.ConstOutput) -> NDArray[Any]:
        """What it computed, in its own memory: the next `start` overwrites it."""
        array: NDArray[Any] = self._request.get_tensor(port).data
        return array


class _Lane:
    """The requests of one batch in flight, one a picture."""

    def __init__(self, requests: list[_Request], outputs: dict[OutputRole, ov.ConstOutput]) -> None:
        self._requests, self._outputs = requests, outputs
        self._started: list[_Request] = []

    def start(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self._started = []
        try:
            for request, image in zip(self._requests, images, strict=False):
                request.start(image)
                self._started.append(request)
        except RuntimeError:
            self._wait()
            raise

    def _wait(self) -> None:
        """Wait for all that was started, also behind one that failed: nothing of a batch runs on behind its future."""
        failed: RuntimeError | None = None
        for request in self._started:
            try:
                request.wait()
            except RuntimeError as error:
                failed = error
        if failed is not None:
            raise failed

    def results(self, count: int) -> dict[OutputRole, NDArray[Any]]:  # noqa: ARG002  # the requests know
        self._wait()
        return {
            role: np.concatenate([request.output(port) for request in self._started])
            for role, port in self._outputs.items()
        }

    def release(self) -> None:
        """Free the requests, and with the last one the compiled model; nothing may be in flight."""
        self._requests, self._started, self._outputs = [], [], {}


def _device(core: ov.Core) -> str:
    return str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()


def _has_bf16(core: ov.Core) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


_SATURATES = (
    "This CPU (%s) has no dot products of bytes (VNNI or AMX): sums of %d layers of %s in int8 may saturate, and its "
    "answers be worse than its card says. Precision fp32 does better."
)


def _start(
    core: ov.Core, path: Path, spec: ModelSpec, properties: dict[str, Any], in_flight: int, max_batch: int
) -> _Started:
    """The compiled model and its requests, one for each picture that may be in flight, the first ones warm."""
    shape = (1, spec.height, spec.width, 3)
    model = core.read_model(path)
    if not adds_bytes_exactly() and (layers := fit_weights(model)):
        log.warning(_SATURATES, _device(core), layers, spec.name)
    model.reshape(shape)
    compiled = core.compile_model(model, "CPU", properties)
    requests = [_Request(compiled, shape) for _ in range(in_flight * max_batch)]
    for request in requests[:in_flight]:
        request.warm_up()
    for request in requests[:in_flight]:
        with contextlib.suppress(RuntimeError):  # a model may take pictures and refuse to compute on none
            request.wait()
    return compiled, requests


def _properties(in_bf16: bool, threads: int | None, hint: Hint, max_batch: int) -> dict[str, Any]:
    """OpenVINO's settings; why they are these stands in this module's head."""
    cores = threads or _cores()
    streams = min(cores, _MOST_STREAMS) if hint == "throughput" else min(max(cores // _STREAM_CORES, 1), max_batch)
    properties = {
        "PERFORMANCE_HINT": hint.upper(),
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "bf16" if in_bf16 else "f32",
        "NUM_STREAMS": streams,
    }
    return properties if threads is None else properties | {"INFERENCE_NUM_THREADS": threads}


def _choose_precision(asked: Precision, spec: ModelSpec, path: Path, has_bf16: bool) -> str:
    if spec.precision == "fp8" or asked == "fp8":
        raise ModelError(
            f"fp8 is for NVIDIA GPUs (Ada, Hopper and later) and not for the CPU, which was to run {path}; use another "
            "precision, of a file that is not quantised to fp8."
        )
    if spec.precision == "int8":
        if asked in {"auto", "int8"}:
            return "int8"
        raise ModelError(f"{path} is quantised to int8 and cannot run in {asked}; give the file it was made from.")
    if asked == "int8":
        raise ModelError(
            f"{path} is not quantised ({spec.precision}); make an int8 file of it with `roadlens models quantize`."
        )
    if asked == "fp16":
        raise ModelError("There is no precision `fp16` on the CPU; use fp32, bf16, int8 or auto.")
    if asked == "bf16" and not has_bf16:
        raise ModelError("This CPU does not compute in bf16 (no AVX512-BF16 or AMX); use precision fp32, int8 or auto.")
    if asked == "auto":
        return "bf16" if has_bf16 else "fp32"
    return asked


def _refused(path: Path, error: Exception) -> ModelError:
    """What is said of a file that OpenVINO does not compile."""
    if lacks_memory(error):
        return ModelError(f"OpenVINO cannot compile {path}: {NO_MEMORY}")
    return ModelError(f"OpenVINO cannot compile {path} ({_last_line(error)}); export the model again.")


def _last_line(error: Exception) -> str:
    """OpenVINO's reason; it stands last, after the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
