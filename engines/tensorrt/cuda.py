"""The CUDA runtime as far as an engine needs it: the GPU's name, memory, streams, events and captured graphs.

By NVIDIA's own `cuda.bindings` (the wheel `cuda-bindings`, 30 MB), not by PyTorch: a box that runs TensorRT plans needs
no PyTorch (several GB), and pointers, streams and graphs are what TensorRT takes and what is wanted here, no tensors.
Nothing is asked of CUDA when this module is imported; without a driver every call says so by its error code.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from cuda.bindings import runtime
from cuda.bindings.utils import get_cuda_native_handle
from numpy.typing import NDArray

from engines.errors import DeviceError


class CudaError(DeviceError):
    """A CUDA call that failed; `name` is CUDA's own, `cudaErrorIllegalAddress`."""

    def __init__(self, name: str, text: str, lacking: str = "cuda") -> None:
        super().__init__(f"CUDA failed: {text} ({name}); look at nvidia-smi, and start again.", lacking)
        self.name = name


class CudaOutOfMemory(CudaError):  # noqa: N818  # what it is called everywhere
    """The GPU, or page-locked host memory, has no room for what was asked."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine.

    Attributes:
        index: CUDA's number of it, from 0.
        name: NVIDIA's name: `NVIDIA H100 80GB HBM3`.
        compute_capability: `9.0`.
        driver: CUDA version that the driver offers, major and minor: (13, 0).
    """

    index: int
    name: str
    compute_capability: str
    driver: tuple[int, int]

    @property
    def device(self) -> str:
        """As it is asked for: `cuda:0`."""
        return f"cuda:{self.index}"


def open_gpu(device: str) -> Gpu:
    """Find a GPU by trying, and make it the calling thread's.

    Args:
        device: `cuda` (the first one) or `cuda:N`.

    Raises:
        DeviceError: no driver, one too old for this CUDA, no GPU, or none of that number.
    """
    found = re.fullmatch(r"cuda(?::(\d+))?", device)
    if found is None:
        raise DeviceError(f"There is no device `{device}`; use auto, cpu, cuda or cuda:N.", "device")
    index = int(found[1] or 0)
    error, count = runtime.cudaGetDeviceCount()
    driver = _checked(runtime.cudaDriverGetVersion())
    if error == runtime.cudaError_t.cudaErrorInsufficientDriver:
        if not driver:
            raise DeviceError("There is no NVIDIA driver here; install one, or use device cpu.", "driver")
        wanted = _checked(runtime.cudaRuntimeGetVersion())
        raise DeviceError(
            f"The NVIDIA driver is for CUDA {_dotted(driver)} and this CUDA is {_dotted(wanted)}; "
            "update the driver, or use device cpu.",
            "driver",
        )
    if error == runtime.cudaError_t.cudaErrorNoDevice or (error == runtime.cudaError_t.cudaSuccess and not count):
        raise DeviceError("There is an NVIDIA driver and no GPU to be seen here; use device cpu.", "gpu")
    _checked((error,))
    if index >= count:
        have = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(f"There is no GPU cuda:{index} here, {have}; give one that is there.", "gpu")
    use(index)
    properties = _checked(runtime.cudaGetDeviceProperties(index))
    return Gpu(
        index,
        properties.name.decode().rstrip("\0"),
        f"{properties.major}.{properties.minor}",
        (driver // 1000, driver % 1000 // 10),
    )


def use(index: int) -> None:
    """Make a GPU the calling thread's; every thread that calls CUDA does so first."""
    _checked(runtime.cudaSetDevice(index))


class DeviceMemory:
    """Memory on the calling thread's GPU, aligned to 256 bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer: int = int(_checked(runtime.cudaMalloc(max(size, 1))))

    def close(self) -> None:
        pointer, self.pointer = self.pointer, 0
        if pointer:
            _checked(runtime.cudaFree(pointer))


class PinnedMemory:
    """Page-locked memory of the host: the only kind that a copy to or from the GPU runs beside other work from.

    Attributes:
        bytes: (size,) uint8, the memory itself; not to be used after `close`.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer: int = int(_checked(runtime.cudaHostAlloc(max(size, 1), runtime.cudaHostAllocPortable)))
        place = memoryview((ctypes.c_uint8 * size).from_address(self.pointer)).cast("B")
        self.bytes: NDArray[np.uint8] = np.frombuffer(place, np.uint8)

    def close(self) -> None:
        pointer, self.pointer = self.pointer, 0
        if pointer:
            self.bytes = np.empty(0, np.uint8)
            _checked(runtime.cudaFreeHost(pointer))


class Event:
    """A point in a stream that a thread can wait for. Waiting sleeps: a spinning thread would take a decoder's core."""

    def __init__(self) -> None:
        flags = runtime.cudaEventDisableTiming | runtime.cudaEventBlockingSync
        self.native: Any = _checked(runtime.cudaEventCreateWithFlags(flags))

    def wait(self) -> None:
        _checked(runtime.cudaEventSynchronize(self.native))

    def record(self, stream: int) -> None:
        """Mark how far a stream is, given by its handle; 0 is the default one."""
        _checked(runtime.cudaEventRecord(self.native, stream))

    def close(self) -> None:
        event, self.native = self.native, None
        if event is not None:
            _checked(runtime.cudaEventDestroy(event))


class Graph:
    """Work that was captured from a stream and is launched with one call."""

    def __init__(self, captured: Any) -> None:
        try:
            self._graph: Any = _checked(runtime.cudaGraphInstantiate(captured, 0))
        finally:
            _checked(runtime.cudaGraphDestroy(captured))

    def launch(self, stream: Stream) -> None:
        _checked(runtime.cudaGraphLaunch(self._graph, stream.native))

    def close(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            _checked(runtime.cudaGraphExecDestroy(graph))


class Stream:
    """A queue of GPU work of its own: it does not wait for the default stream, nor that for it."""

    def __init__(self) -> None:
        self.native: Any = _checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self.handle: int = int(get_cuda_native_handle(self.native))
        """The address that libraries know the stream by."""

    def upload(self, target: int, source: int, size: int) -> None:
        """Copy from (pinned) host memory to the GPU, both as addresses."""
        self._copy(target, source, size, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)

    def download(self, target: int, source: int, size: int) -> None:
        """Copy from the GPU to (pinned) host memory."""
        self._copy(target, source, size, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)

    def move(self, target: int, source: int, size: int) -> None:
        """Copy within the GPU."""
        self._copy(target, source, size, runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice)

    def follow(self, event: Event) -> None:
        """Let what is queued from here on wait for an event; the calling thread does not wait."""
        _checked(runtime.cudaStreamWaitEvent(self.native, event.native, 0))

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        _checked(runtime.cudaMemcpyAsync(target, source, size, kind, self.native))

    def wait(self) -> None:
        _checked(runtime.cudaStreamSynchronize(self.native))

    def capture(self, work: Callable[[], None]) -> Graph:
        """Run `work`, which queues on this stream, as a recording: nothing is computed until the graph is launched.

        Other threads may go on using CUDA meanwhile.
        """
        _checked(
            runtime.cudaStreamBeginCapture(self.native, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        )
        try:
            work()
        except BaseException:
            # The capture must end before the stream can be used again; what it gave is invalid.
            error, captured = runtime.cudaStreamEndCapture(self.native)
            if error == runtime.cudaError_t.cudaSuccess and captured is not None:
                runtime.cudaGraphDestroy(captured)
            raise
        return Graph(_checked(runtime.cudaStreamEndCapture(self.native)))

    def close(self) -> None:
        stream, self.native = self.native, None
        if stream is not None:
            _checked(runtime.cudaStreamDestroy(stream))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(result: tuple[Any, ...]) -> Any:
    """The value of a call's `(error, value)`, or the error as an exception."""
    error, *values = result
    if error == runtime.cudaError_t.cudaSuccess:
        return values[0] if values else None
    text = runtime.cudaGetErrorString(error)[1]
    described = text.decode() if isinstance(text, bytes) else str(text)
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise CudaOutOfMemory(error.name, described, "memory")
    raise CudaError(error.name, described)


def _dotted(version: int) -> str:
    """13020 → `13.2`."""
    return f"{version // 1000}.{version % 1000 // 10}"
