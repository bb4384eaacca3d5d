"""PyTorch: the engine of NVIDIA GPUs without TensorRT, and on the CPU the reference that others are compared with.

It runs the graph of the ONNX file itself (`engines.pytorch.graph`), in the same half-precision form that TensorRT is
given (`engines.graphs.lowered`): one source of truth, nothing beside the file that could differ from it. On a GPU

- each batch size of a short ladder (1, 2, 3, 4, 6, 8, 12, 16 …, so that at most a third of a batch is padding) is
  captured as a CUDA graph when the engine is made: a request then costs one launch in place of about 150, and no
  memory is asked for while running. The graphs never run at once, so they share one pool of memory;
- pictures arrive N×H×W×3, which is what channels-last convolutions want: nothing is turned over;
- each request in flight has page-locked memory, device buffers and a stream for its copies; one stream computes. So
  the next pictures go up and the last results come down while a batch is computed;
- cuDNN chooses its kernels by trying them, the largest batches first, for `MEASURING_SECONDS` of a load; then it goes
  by its heuristics;
- fp32 is fp32: cuDNN's TF32, on by default, is off while a graph is captured.

Inductor (`compiled=True`) fuses what stands between the convolutions, at the price of a compiler on the machine and of
a minute for each batch size; `deploy/gpu-check.sh` measures both.
"""

from __future__ import annotations

import logging
import platform
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from engines.cuda.batches import Place, pieces
from engines.engine import Precision, Prediction
from engines.errors import DeviceError, ModelError
from engines.flights import FlightEngine, Flights, batch_ladder, check_batch, check_numbers
from engines.graphs.lowered import lowered
from engines.loading import Degraded, Observe
from engines.pytorch.graph import to_torch
from engines.spec import ModelSpec, OutputRole, read_spec

log = logging.getLogger(__name__)

MEASURING_SECONDS = 10.0
"""Seconds of a load after which cuDNN begins to measure no further batch size."""

_WARM_UPS = 3
_OUT_OF_MEMORY = re.compile(r"out of memory|STATUS_ALLOC_FAILED", re.IGNORECASE)
"""What CUDA, cuDNN and cuBLAS call it, where it is not PyTorch's allocator that found out."""
_BF16_FROM = (8, 0)
"""The compute capability from which on GPUs multiply in bf16 (Ampere)."""


class TorchEngine(FlightEngine):
    """A model on one GPU, or on the CPU for comparison; see `engines.engine.Engine` for the contract.

    `submit` also takes uint8 tensors that lie on the engine's device; predictions are always arrays in host memory.
    Use it as a context manager, or call `close`.
    """

    backend = "torch"

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cuda:0",
        precision: Precision = "auto",
        max_batch: int = 8,
        in_flight: int = 2,
        compiled: bool = False,
        observe: Observe | None = None,
    ) -> None:
        """Load a model file.

        Where the GPU has no room for `max_batch`, half of it is tried, down to 1; the attribute says what it came to.

        Args:
            path: the ONNX file.
            device: `cpu`, `cuda` or `cuda:N`.
            precision: `auto` is that of a quantised file, else the file's own if it is in half precision, else fp16 on
                a GPU and fp32 on the CPU. int8 and fp8 are computed in floating point, rounded as the quantisers say:
                for comparison, not for speed.
            max_batch: most pictures a request.
            in_flight: requests computed or waiting at once.
            compiled: whether Inductor fuses the graph; without a compiler on the machine the engine does without, and
                says so. Only batches of 1 and of `max_batch` are captured then, smaller ones are a part of those.
            observe: is told what could not be had.

        Raises:
            DeviceError: no such device, a driver that is too old, an operator that is not known here, or no room even
                for batches of 1.
            ModelError: the file is not a model of the house, or it or the device does not go with the precision.
            ValueError: a number below 1.
        """
        check_numbers(max_batch=max_batch, in_flight=in_flight)
        self.spec: ModelSpec = read_spec(path)
        where = find_device(device)
        self.device: str = _name(where)
        self.precision: str = _choose_precision(precision, self.spec, where)
        self.in_flight: int = in_flight
        model = lowered(path, self.precision)
        module = to_torch(model).to(where)
        roles = _places(self.spec, [value.name for value in model.graph.output])
        model_name = self.spec.name  # what the thread holds must not know the engine

        def degraded(wanted: str, instead: str, lacking: str, sentence: str) -> None:
            log.warning("%s", sentence)
            if observe is not None:
                observe(Degraded(model_name, wanted, instead, lacking, sentence))

        network = _Network(module, roles, self.spec, where, compiled, degraded)
        self.max_batch: int = _fit(network, max_batch, self.device, degraded)
        lanes = [_make_lane(network, self.max_batch) for _ in range(in_flight)]
        self._kinds = (np.uint8, torch.uint8)

        def end() -> None:
            for lane in lanes:
                lane.release()
            network.close()

        self._flights = Flights(lanes, f"torch-{self.spec.name}", end)

    def submit(self, images: Sequence[NDArray[np.uint8] | Tensor]) -> Future[list[Prediction]]:
        check_batch(images, self.spec, self.max_batch, self._kinds)
        return self._flights.submit(images)


def find_device(device: str) -> torch.device:
    """The device of a name, found by trying.

    Raises:
        DeviceError: there is no such device, or PyTorch cannot use it.
    """
    if device == "cpu":
        return torch.device("cpu")
    found = re.fullmatch(r"cuda(?::(\d+))?", device)
    if found is None:
        raise DeviceError(f"There is no device `{device}`; use auto, cpu, cuda or cuda:N.", "device")
    if torch.version.cuda is None:
        raise DeviceError("This PyTorch was built without CUDA; install one with it, or use the CPU.", "library")
    count = torch.cuda.device_count()
    if count == 0:
        raise DeviceError(
            f"PyTorch {torch.__version__} finds no NVIDIA GPU (no GPU, no driver, or one too old for CUDA "
            f"{torch.version.cuda}); look at nvidia-smi, or use device cpu.",
            "gpu",
        )
    index = int(found[1] or 0)
    if index >= count:
        last = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"There is no GPU `{device}`; this machine has {last}.", "gpu")
    where = torch.device("cuda", index)
    try:
        torch.zeros(1, device=where).cpu()
    except RuntimeError as error:
        raise DeviceError(f"`{device}` cannot be used ({_first_line(error)}); look at nvidia-smi.", "driver") from None
    return where


class _Network:
    """The module, and on a GPU its graph for each batch size, with the memory that it reads and writes."""

    def __init__(
        self, module: fx.GraphModule, roles: dict[OutputRole, int], spec: ModelSpec, device: torch.device,
        compiled: bool, degraded: Any, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.spec, self.device, self.roles = spec, device, roles
        self._compiled = compiled
        self._eager: Any = module
        self._run: Any = torch.compile(module, dynamic=False, fullgraph=True) if compiled else module
        self._degraded, self._monotonic = degraded, monotonic
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph | None, Tensor, dict[OutputRole, Tensor]]] = {}
        self._pool: Any = None
        self.stream: Any = _stream(device) if device.type == "cuda" else None

    def compute(self, images: Tensor) -> dict[OutputRole, Tensor]:
        """(N, H, W, 3) uint8 on the device → the spec's outputs, run operator by operator."""
        with torch.inference_mode():
            try:
                outputs = self._run(images)
            except Exception as error:
                if self._run is self._eager or isinstance(error, torch.OutOfMemoryError):
                    raise
                self._degraded(
                    "inductor", "eager", "compiler",
                    f"Inductor cannot compile {self.spec.name} here ({_first_line(error)}); it runs without.",
                )  # fmt: skip
                self._run = self._eager
                outputs = self._run(images)
        return {role: outputs[place] for role, place in self.roles.items()}

    def capture(self, max_batch: int) -> None:
        """Make the graphs, the largest first: the smaller ones then find their memory in the pool."""
        self._captured.clear()
        torch.cuda.empty_cache()
        self._pool = torch.cuda.graph_pool_handle()
        until = self._monotonic() + MEASURING_SECONDS
        # Inductor takes a minute for each size.
        for batch in sorted({1, max_batch}, reverse=True) if self._compiled else batch_ladder(max_batch):
            self._captured[batch] = self._capture(batch, measure=self._monotonic() < until)

    def _capture(
        self, batch: int, measure: bool
    ) -> tuple[torch.cuda.CUDAGraph | None, Tensor, dict[OutputRole, Tensor]]:
        images = torch.zeros((batch, self.spec.height, self.spec.width, 3), dtype=torch.uint8, device=self.device)
        # What cuDNN chose while it was warming up, by measuring or without, is what the graph keeps.
        with torch.cuda.device(self.device), torch.backends.cudnn.flags(
            enabled=True, benchmark=measure, deterministic=False, allow_tf32=False
        ):  # fmt: skip
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                for _ in range(_WARM_UPS):
                    outputs = self.compute(images)
            self.stream.synchronize()
            del outputs
            torch.cuda.empty_cache()  # while a graph is captured nothing can be given back to make room
            graph = torch.cuda.CUDAGraph()
            try:
                # Other threads, decoders among them, go on using CUDA meanwhile.
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"
                ):  # fmt: skip
                    outputs = self.compute(images)
            except RuntimeError as error:
                if (lack := _lack_of_memory(error)) is not None:
                    raise torch.OutOfMemoryError(str(lack)) from None
                self._degraded(
                    "cuda graph", "calls", "capture",
                    f"{self.spec.name} cannot be captured as a CUDA graph ({_first_line(error)}); it is run call by "
                    "call.",
                )  # fmt: skip
                return None, images, {}
        return graph, images, outputs

    def replay(self, images: Tensor, results: dict[OutputRole, Tensor]) -> None:
        """Queue a batch on the current stream: from `images`, (count, H, W, 3), to the first rows of `results`."""
        count = len(images)
        batch = min(size for size in self._captured if size >= count)
        graph, place, outputs = self._captured[batch]
        if graph is None:
            outputs = self.compute(images)
        else:
            place[:count].copy_(images, non_blocking=True)
            graph.replay()
        for role, output in outputs.items():
            results[role][:count].copy_(output[:count], non_blocking=True)

    def outputs(self, max_batch: int) -> dict[OutputRole, Tensor]:
        """Empty tensors on the device, as the outputs of a batch are."""
        graph, _, outputs = self._captured[max_batch]
        if graph is None:
            blank = torch.zeros((1, self.spec.height, self.spec.width, 3), dtype=torch.uint8, device=self.device)
            outputs = self.compute(blank)
        return {
            role: torch.empty((max_batch, *output.shape[1:]), dtype=output.dtype, device=self.device)
            for role, output in outputs.items()
        }

    def close(self) -> None:
        """Free what lies on the device."""
        self._captured.clear()
        self._pool = self._run = self._eager = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _lack_of_memory(error: BaseException) -> BaseException | None:
    """The lack of memory that an error came of: itself, or one that it was raised while handling. Where memory runs out
    during a capture, ending the capture fails as well, and that is the error that comes out."""
    seen = set[int]()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        if isinstance(each, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(each)):
            return each
        seen.add(id(each))
        each = each.__cause__ or each.__context__
    return None


def _fit(network: _Network, max_batch: int, device: str, degraded: Any) -> int:
    """Capture what there is room for; returns the largest batch."""
    while network.device.type == "cuda":
        try:
            network.capture(max_batch)
            break
        except torch.OutOfMemoryError as error:
            name = network.spec.name
            if max_batch == 1:
                raise DeviceError(
                    f"{device} has no room for {name} even in batches of 1 ({_first_line(error)}); free its memory, or "
                    "use another device.",
                    "memory",
                ) from None
            wanted, max_batch = max_batch, max_batch // 2
            degraded(
                f"batch {wanted}", f"batch {max_batch}", "memory",
                f"{device} has no room for {name} in batches of {wanted}; taking {max_batch}.",
            )  # fmt: skip
    return max_batch


class _HostLane:
    """A batch on the CPU; it is computed by the thread that collects it, which keeps the order."""

    def __init__(self, network: _Network, max_batch: int) -> None:
        self._network = network
        self._images = torch.empty((max_batch, network.spec.height, network.spec.width, 3), dtype=torch.uint8)

    def start(self, images: Sequence[NDArray[np.uint8] | Tensor]) -> None:
        _place(images, self._images)

    def results(self, count: int) -> dict[OutputRole, NDArray[Any]]:
        outputs = self._network.compute(self._images[:count])
        return {role: np.array(output.numpy()) for role, output in outputs.items()}

    def release(self) -> None:
        """Free the memory; nothing may be in flight."""
        del self._images, self._network


class _DeviceLane:
    """A batch on a GPU: up, computed, down, on two streams that wait for each other."""

    def __init__(self, network: _Network, max_batch: int) -> None:
        self._network = network
        self._device = network.device
        shape = (max_batch, network.spec.height, network.spec.width, 3)
        self._copies = _stream(network.device)
        # Threads that wait sleep, and do not spin on a core that a decoder wants.
        self._done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch has no types there
        self._up = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        self._images = torch.empty(shape, dtype=torch.uint8, device=network.device)
        self._outputs = network.outputs(max_batch)
        self._down = {
            role: torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
            for role, output in self._outputs.items()
        }

    def start(self, images: Sequence[NDArray[np.uint8] | Tensor]) -> None:
        count = len(images)
        # The streams are named one by one: the current device and stream are the caller's own affair.
        with torch.cuda.device(self._device), torch.inference_mode():
            on_device = [image for image in images if isinstance(image, Tensor) and image.device == self._device]
            if len(on_device) == count:
                self._copies.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._copies):
                    _gather(on_device, self._images)
                    for image in on_device:
                        image.record_stream(self._copies)
            else:
                _place(images, self._up)
                with torch.cuda.stream(self._copies):
                    self._images[:count].copy_(self._up[:count], non_blocking=True)
            stream = self._network.stream
            stream.wait_stream(self._copies)
            with torch.cuda.stream(stream):
                self._network.replay(self._images[:count], self._outputs)
            self._copies.wait_stream(stream)
            with torch.cuda.stream(self._copies):
                for role, output in self._outputs.items():
                    self._down[role][:count].copy_(output[:count], non_blocking=True)
                self._done.record(self._copies)

    def results(self, count: int) -> dict[OutputRole, NDArray[Any]]:
        self._done.synchronize()
        return {role: np.array(output[:count].numpy()) for role, output in self._down.items()}

    def release(self) -> None:
        """Free the memory on both sides; nothing may be in flight."""
        del self._up, self._images, self._outputs, self._down, self._network


def _make_lane(network: _Network, max_batch: int) -> _HostLane | _DeviceLane:
    return (_DeviceLane if network.device.type == "cuda" else _HostLane)(network, max_batch)


def _place(images: Sequence[NDArray[np.uint8] | Tensor], memory: Tensor) -> None:
    """Copy pictures into the first rows of host memory."""
    rows = memory.numpy()
    for row, image in zip(rows, images, strict=False):
        np.copyto(row, image.cpu().numpy() if isinstance(image, Tensor) else image)


def _gather(images: Sequence[Tensor], memory: Tensor) -> None:
    """Queue the copies of pictures into the first rows of memory on their device: of those that lie one behind the
    other, one."""
    together = all(image.is_contiguous() for image in images)
    whole = pieces([Place(image.untyped_storage().data_ptr(), image.data_ptr()) for image in images], memory[0].nbytes)
    for first, count in whole if together else ((number, 1) for number in range(len(images))):
        shape = (count, *memory.shape[1:])
        source = images[first].as_strided(shape, (memory.stride(0), *images[first].stride()))
        memory[first : first + count].copy_(source, non_blocking=True)


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types there


def _places(spec: ModelSpec, names: list[str]) -> dict[OutputRole, int]:
    return {role: names.index(name) for role, name in spec.outputs.items()}


def _choose_precision(asked: Precision, spec: ModelSpec, device: torch.device) -> str:
    if asked == "auto":
        return spec.precision if spec.precision != "fp32" or device.type == "cpu" else "fp16"
    if asked == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < _BF16_FROM:
        major, minor = torch.cuda.get_device_capability(device)
        raise ModelError(
            f"{torch.cuda.get_device_name(device)} does not compute in bf16 (compute capability {major}.{minor}, "
            "wanted is 8.0); use precision fp16, fp32 or auto."
        )
    return asked


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
