"""A double of `cuda.bindings.runtime`: a GPU whose memory is this process's, and which is as lazy as a GPU may be.

What is queued on a stream is done only when somebody waits for it, so whoever reads a result too early reads rubbish.
Addresses, streams and threads are checked as a driver would; what a driver would let pass and corrupt (a copy past the
end, memory freed under way, a changed context under a captured graph) is kept in `state.violations`.
"""

from __future__ import annotations

import ctypes
import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

cudaHostAllocPortable = 1
cudaEventDisableTiming = 2
cudaEventBlockingSync = 1
cudaStreamNonBlocking = 1


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


OK = cudaError_t.cudaSuccess
_OF_NO_GPU = frozenset({
    "cudaDriverGetVersion", "cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaGetErrorString",
    "cudaRuntimeGetVersion", "cudaSetDevice",
})  # fmt: skip
Work = Callable[[], None]


@dataclass
class Memory:
    buffer: Any
    size: int
    pinned: bool
    live: bool = True


@dataclass
class Queue:
    pending: list[Work] = field(default_factory=list)
    captured: list[Work] | None = None
    broken: bool = False


@dataclass
class State:
    """What the machine is, and what happened on it."""

    driver: int = 13000
    runtime: int = 13000
    count: int = 1
    name: str = "NVIDIA Double 80GB"
    capability: tuple[int, int] = (9, 0)
    memory: int = 1 << 30
    used: int = 0
    faults: dict[str, list[cudaError_t]] = field(default_factory=dict)
    """Errors that a call gives, one after the other, before it works."""
    violations: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    launches: int = 0
    memories: dict[int, Memory] = field(default_factory=dict)
    streams: dict[int, Queue] = field(default_factory=lambda: {0: Queue()})
    events: dict[int, Queue | None] = field(default_factory=dict)
    graphs: dict[int, list[Work]] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    devices: Any = field(default_factory=threading.local)
    next: int = 1

    def number(self) -> int:
        self.next += 1
        return self.next

    def begin(self, call: str) -> cudaError_t:
        """Note a call; the error it is to give."""
        self.calls.append(call)
        if call not in _OF_NO_GPU and not hasattr(self.devices, "index"):
            self.violations.append(f"{call} by a thread that chose no GPU")
        faults = self.faults.get(call)
        return faults.pop(0) if faults else OK

    def find(self, address: int, size: int, what: str) -> Memory | None:
        for start, memory in self.memories.items():
            if start <= address and address + size <= start + max(memory.size, 1):
                if not memory.live:
                    self.violations.append(f"{what}: {size} bytes of freed memory")
                return memory
        self.violations.append(f"{what}: {size} bytes at an address of nobody")
        return None

    def queue(self, stream: Any, work: Work) -> cudaError_t:
        """Put work on a stream, or into what is being captured there."""
        queue = self.streams.get(int(stream))
        if queue is None:
            self.violations.append(f"work on stream {int(stream)}, which there is not")
            return cudaError_t.cudaErrorInvalidValue
        (queue.pending if queue.captured is None else queue.captured).append(work)
        return OK

    def left(self) -> list[str]:
        """What has not been freed."""
        return [
            *(f"{memory.size} bytes" for memory in self.memories.values() if memory.live),
            *(f"stream {number}" for number in self.streams if number),
            *(f"event {number}" for number in self.events),
            *(f"graph {number}" for number in self.graphs),
        ]


state = State()


def reset() -> State:
    global state  # the one GPU of the process
    state = State()
    return state


def cudaGetDeviceCount() -> tuple[Any, ...]:
    error = state.begin("cudaGetDeviceCount")
    if error == OK and state.driver < state.runtime:
        error = cudaError_t.cudaErrorInsufficientDriver
    elif error == OK and not state.count:
        error = cudaError_t.cudaErrorNoDevice
    return (error, state.count if error == OK else None)


def cudaDriverGetVersion() -> tuple[Any, ...]:
    return state.begin("cudaDriverGetVersion"), state.driver


def cudaRuntimeGetVersion() -> tuple[Any, ...]:
    return state.begin("cudaRuntimeGetVersion"), state.runtime


def cudaGetErrorString(error: cudaError_t) -> tuple[Any, ...]:
    state.begin("cudaGetErrorString")
    return OK, error.name.removeprefix("cudaError").encode()


def cudaSetDevice(device: int) -> tuple[Any, ...]:
    error = state.begin("cudaSetDevice")
    if device >= state.count:
        return (cudaError_t.cudaErrorInvalidDevice,)
    state.devices.index = device
    return (error,)


def cudaGetDeviceProperties(device: int) -> tuple[Any, ...]:
    error = state.begin("cudaGetDeviceProperties")
    major, minor = state.capability
    name = f"{state.name}\0\0".encode()
    return error, SimpleNamespace(name=name, major=major, minor=minor, totalGlobalMem=state.memory)


def _allocate(size: int, pinned: bool) -> int:
    buffer = (ctypes.c_uint8 * size)(*b"\xdd" * min(size, 4096))
    address = ctypes.addressof(buffer)
    state.memories[address] = Memory(buffer, size, pinned)
    return address


def cudaMalloc(size: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaMalloc")
        if error == OK and state.used + size > state.memory:
            error = cudaError_t.cudaErrorMemoryAllocation
        if error != OK:
            return error, None
        state.used += size
        return OK, _allocate(size, pinned=False)


def cudaHostAlloc(size: int, flags: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaHostAlloc")
        return (error, _allocate(size, pinned=True)) if error == OK else (error, None)


def _release(address: int, call: str) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin(call)
        memory = state.memories.get(int(address))
        if memory is None or not memory.live:
            state.violations.append(f"{call} of what is not there")
            return (cudaError_t.cudaErrorInvalidValue,)
        memory.live = False
        if not memory.pinned:
            state.used -= memory.size
        return (error,)


def cudaFree(devPtr: int) -> tuple[Any, ...]:
    return _release(devPtr, "cudaFree")


def cudaFreeHost(ptr: int) -> tuple[Any, ...]:
    return _release(ptr, "cudaFreeHost")


def cudaStreamCreateWithFlags(flags: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaStreamCreateWithFlags")
        if flags != cudaStreamNonBlocking:
            state.violations.append("a stream that waits for the default one")
        number = state.number()
        state.streams[number] = Queue()
        return error, number


def cudaStreamDestroy(stream: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaStreamDestroy")
        if state.streams.pop(int(stream)).pending:
            state.violations.append("a stream destroyed with work on it")
        return (error,)


def cudaMemcpyAsync(dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaMemcpyAsync")
        target, source = state.find(dst, count, "copy to"), state.find(src, count, "copy from")
        if target is None or source is None:
            return (cudaError_t.cudaErrorInvalidValue,)
        wanted = {
            cudaMemcpyKind.cudaMemcpyHostToDevice: (True, False),
            cudaMemcpyKind.cudaMemcpyDeviceToHost: (False, True),
            cudaMemcpyKind.cudaMemcpyDeviceToDevice: (False, False),
        }
        if (source.pinned, target.pinned) != wanted[kind]:
            state.violations.append("a copy in the other direction, or of memory that is not page-locked")

        def copy() -> None:
            if target.live and source.live:
                ctypes.memmove(dst, src, count)
            else:
                state.violations.append("memory was freed under a copy")

        return (state.queue(stream, copy) if error == OK else error,)


def _drain(queue: Queue) -> None:
    while queue.pending:
        queue.pending.pop(0)()


def cudaStreamSynchronize(stream: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaStreamSynchronize")
        queue = state.streams[int(stream)]
        if queue.captured is not None:
            queue.broken = True
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        _drain(queue)
        return (error,)


def cudaEventCreateWithFlags(flags: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaEventCreateWithFlags")
        number = state.number()
        state.events[number] = None
        return error, number


def cudaEventRecord(event: int, stream: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaEventRecord")
        state.events[int(event)] = state.streams[int(stream)]
        return (error,)


def cudaEventSynchronize(event: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaEventSynchronize")
        queue = state.events[int(event)]
        if queue is None:
            state.violations.append("waiting for an event that was never recorded")
        elif error == OK:
            _drain(queue)
        return (error,)


def cudaStreamWaitEvent(stream: int, event: int, flags: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaStreamWaitEvent")
        awaited = state.events[int(event)]
        assert awaited is not None
        state.queue(stream, lambda: _drain(awaited))
        return (error,)


def cudaEventDestroy(event: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaEventDestroy")
        del state.events[int(event)]
        return (error,)


def cudaStreamBeginCapture(stream: int, mode: cudaStreamCaptureMode) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaStreamBeginCapture")
        queue = state.streams[int(stream)]
        if queue.pending:
            state.violations.append("a capture on a stream with work on it")
        queue.captured, queue.broken = [], False
        return (error,)


def cudaStreamEndCapture(stream: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaStreamEndCapture")
        queue = state.streams[int(stream)]
        captured, queue.captured = queue.captured, None
        if queue.broken or error != OK:
            return (error if error != OK else cudaError_t.cudaErrorStreamCaptureInvalidated), None
        number = state.number()
        state.graphs[number] = captured or []
        return OK, number


def cudaGraphInstantiate(graph: int, flags: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaGraphInstantiate")
        if error != OK:
            return error, None
        number = state.number()
        state.graphs[number] = list(state.graphs[int(graph)])
        return OK, number


def cudaGraphDestroy(graph: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaGraphDestroy")
        del state.graphs[int(graph)]
        return (error,)


def cudaGraphExecDestroy(graphExec: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaGraphExecDestroy")
        del state.graphs[int(graphExec)]
        return (error,)


def cudaGraphLaunch(graphExec: int, stream: int) -> tuple[Any, ...]:
    with state.lock:
        error = state.begin("cudaGraphLaunch")
        if error == OK:
            state.launches += 1
            for work in state.graphs[int(graphExec)]:
                state.queue(stream, work)
        return (error,)
