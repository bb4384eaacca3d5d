"""Plans that run: streams, buffers and captured graphs.

Every request in flight has a *lane* of its own: a stream (never the default one, which TensorRT would synchronise),
page-locked host memory, device buffers, and per batch size an execution context with a CUDA graph of upload, network
and download. So one lane's pictures travel while another's are computed, a request costs one launch, and the results
of one lie still while the next is written (double buffering). Contexts of a lane share one block of scratch memory:
only one of them runs at a time. A context belongs to one batch size, because setting another shape would pull the rug
from under the graph that was captured.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import msgspec
import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from engines.engine import Precision, Prediction
from engines.errors import ModelError, OutputError
from engines.loading import Building, Degraded, Observe
from engines.lowered import lowered
from engines.openvino import squash
from engines.spec import ModelSpec, OutputRole, read_spec
from engines.tensorrt import cuda
from engines.tensorrt.builder import Built, build
from engines.tensorrt.cache import PlanCache
from engines.tensorrt.library import require
from engines.tensorrt.logger import OutOfMemory, TensorRTError, logger
from engines.tensorrt.plan import BuildOptions, Machine, PlanRequest

log = logging.getLogger(__name__)

_BF16_FROM = (8, 0)
"""The compute capability from which on GPUs multiply in bf16 (Ampere)."""


class TensorRTEngine:
    """A model on an NVIDIA GPU; see `engines.engine.Engine` for the contract.

    `submit` copies the pictures into page-locked memory and never allocates once a batch size has occurred; every
    prediction is a copy that the caller owns. Use it as a context manager, or call `close`.
    """

    backend = "tensorrt"

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cuda:0",
        precision: Precision = "auto",
        max_batch: int = 8,
        in_flight: int = 2,
        options: BuildOptions | None = None,
        cache: PlanCache | None = None,
        observe: Observe | None = None,
    ) -> None:
        """Load a model's plan for this machine; build it where there is none, which takes minutes.

        Where the GPU has no room for `max_batch`, half of it is tried, down to 1; the attribute says what it came to.

        Args:
            path: the ONNX file.
            device: `cuda` or `cuda:N`.
            precision: `auto` is int8 for a quantised file, else fp16.
            max_batch: most pictures a request.
            in_flight: requests computed or waiting at once; each has buffers and scratch memory of its own.
            options: how to build; its `max_batch` gives way to the one here.
            cache: where plans are kept; None is the user's cache folder.
            observe: is told how far a build is, and what could not be had.

        Raises:
            DeviceError: no TensorRT, driver or GPU; TensorRT cannot take the model or build it; no room even for
                batches of 1.
            ModelError: the file is not a model of the house, or it or the GPU does not go with the precision.
            ValueError: a number below 1.
        """
        for name, number in (("max_batch", max_batch), ("in_flight", in_flight)):
            if number < 1:
                raise ValueError(f"{name} is {number}; wanted is at least 1")
        self.spec: ModelSpec = read_spec(path)
        self.in_flight: int = in_flight
        loader = PlanLoader(path, self.spec, device, precision, options, cache, observe)
        self.precision: str = loader.precision
        self.device: str = loader.gpu.name
        while True:
            try:
                running = _Running(loader, max_batch, in_flight)
                break
            except (OutOfMemory, cuda.CudaOutOfMemory) as error:
                if max_batch == 1:
                    raise OutOfMemory(
                        f"{self.device} has no room for {self.spec.name} even in batches of 1 ({error}); "
                        "free its memory, or use another device.",
                        "memory",
                    ) from None
                wanted, max_batch = max_batch, max_batch // 2
                loader.degraded(
                    f"batch {wanted}", f"batch {max_batch}", "memory",
                    f"{self.device} has no room for {self.spec.name} in batches of {wanted}; taking {max_batch}.",
                )  # fmt: skip
        self.max_batch: int = max_batch

        self._index = loader.gpu.index
        self._free: SimpleQueue[_Lane] = SimpleQueue()
        for lane in running.lanes:
            self._free.put(lane)
        self._flights: SimpleQueue[_Flight | None] = SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()  # between a submit and a close: no flight may start behind the last one
        # The collector owns what lies on the GPU and knows the queues, not the engine: a forgotten engine is freed.
        self._collector = threading.Thread(
            target=_collect,
            args=(self._flights, self._free, running),
            name=f"tensorrt-{self.spec.name}",
            daemon=True,
        )
        self._collector.start()
        self._end = weakref.finalize(self, self._flights.put, None)

    def submit(self, images: Sequence[NDArray[np.uint8]]) -> Future[list[Prediction]]:
        if not 1 <= len(images) <= self.max_batch:
            raise ValueError(f"a batch of {len(images)} pictures; wanted are 1 to {self.max_batch}")
        wanted = (self.spec.height, self.spec.width, 3)
        for image in images:
            if image.shape != wanted or image.dtype != np.uint8:
                raise ValueError(f"a picture of {image.dtype} {image.shape}; wanted is uint8 {wanted}")
        lane = self._free.get()  # a closed engine has free ones, too
        with self._gate:
            if self._closed:
                self._free.put(lane)
                raise RuntimeError("this engine is closed")
            flight = _Flight(lane, Future(), len(images))
            flight.future.set_running_or_notify_cancel()
            try:
                cuda.use(self._index)
                lane.start(images)
            except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever holds the future
                flight.error = error
            self._flights.put(flight)
        return flight.future

    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"a picture of {image.dtype} {image.shape}; wanted is uint8 (h, w, 3)")
        return self.submit([squash(image, self.spec.height, self.spec.width)]).result()[0]

    def close(self) -> None:
        with self._gate:
            self._closed = True
            self._end()
        self._collector.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PlanLoader:
    """Finds or builds the plan of one model on one GPU.

    Attributes:
        precision: the graph's, never `auto`.
        gpu: where it is to run; the calling thread's from now on.
        graph: the serialised ONNX that TensorRT is given.
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
        self._observe = observe
        self.graph: bytes = lowered(path, self.precision).SerializeToString(deterministic=True)
        self._digest = hashlib.sha256(self.graph).hexdigest()
        self._machine = Machine(
            tensorrt=version,
            gpu=self.gpu.name,
            compute_capability=self.gpu.compute_capability,
            driver=self.gpu.driver[0],
        )

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
        if (found := self.cache.find(request)).plan is not None:
            return found.plan
        waits = f"Another process is building the plan of {self.spec.name}; waiting for it."
        with self.cache.lock(request, lambda: log.info(waits)):
            if (found := self.cache.find(request)).plan is not None:
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
                self.degraded("plan cache", "memory", "cache", str(error))
            return built.plan

    def _build(self, request: PlanRequest) -> Built:
        name, observe = self.spec.name, self._observe

        def report(phase: str, fraction: float) -> None:
            if observe is not None:
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
        raise AssertionError("the loop returns or raises")

    def degraded(self, wanted: str, instead: str, lacking: str, sentence: str) -> None:
        """Say once that something could not be had."""
        log.warning("%s", sentence)
        if self._observe is not None:
            self._observe(Degraded(self.spec.name, wanted, instead, lacking, sentence))


class _Running:
    """An engine on the GPU with its lanes. Made and closed as one; nothing is left behind where making it fails."""

    def __init__(self, loader: PlanLoader, max_batch: int, in_flight: int) -> None:
        self.gpu = loader.gpu
        self.lanes: list[_Lane] = []
        self._runtime, self._engine = loader.engine(max_batch)
        tensors = _tensors(self._engine, loader.spec, max_batch)
        try:
            for _ in range(in_flight):
                self.lanes.append(_Lane(self._engine, loader, tensors, max_batch))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free everything; by the thread that owns it, with nothing in flight."""
        cuda.use(self.gpu.index)
        for lane in self.lanes:
            lane.close()
        self.lanes.clear()
        # In this order: TensorRT wants an engine freed before its runtime.
        del self._engine, self._runtime


@dataclass(frozen=True, slots=True)
class _Tensor:
    """An input or output: its name, type, and the shape of one picture's part."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def size(self, batch: int) -> int:
        """Bytes of a batch."""
        return batch * math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Tensors:
    image: _Tensor
    outputs: dict[OutputRole, _Tensor]


def _tensors(engine: trt.ICudaEngine, spec: ModelSpec, max_batch: int) -> _Tensors:
    """The engine's inputs and outputs, which must be those of the spec.

    Raises:
        TensorRTError: they are not, or an output's size hangs on what is in the picture.
    """
    dtypes: dict[trt.DataType, np.dtype[Any]] = {
        trt.DataType.UINT8: np.dtype(np.uint8),
        trt.DataType.FLOAT: np.dtype(np.float32),
        trt.DataType.INT32: np.dtype(np.int32),
        trt.DataType.INT64: np.dtype(np.int64),
    }
    names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    strange = [name for name in spec.outputs.values() if name not in names]
    if len(inputs) != 1 or strange:
        raise TensorRTError(
            f"The plan of {spec.name} has the tensors {', '.join(names)} and not those of its spec; build it again.",
            "tensorrt",
        )
    image = inputs[0]
    most = engine.get_tensor_profile_shape(image, 0)[2]
    if tuple(most) != (max_batch, spec.height, spec.width, 3):
        raise TensorRTError(
            f"The plan of {spec.name} is for {tuple(most)} and not for {max_batch}×{spec.height}×{spec.width}×3; "
            "build it again.",
            "tensorrt",
        )

    def described(name: str) -> _Tensor:
        shape, dtype = tuple(engine.get_tensor_shape(name))[1:], dtypes.get(engine.get_tensor_dtype(name))
        if dtype is None or any(size < 0 for size in shape):
            raise TensorRTError(
                f"The output `{name}` of {spec.name} is {engine.get_tensor_dtype(name)} {shape}, which TensorRT cannot "
                "give here; export it with a fixed size.",
                "operator",
            )
        return _Tensor(name, dtype, shape)

    return _Tensors(described(image), {role: described(name) for role, name in spec.outputs.items()})


@dataclass(slots=True)
class _Buffer:
    """One tensor's memory on both sides."""

    tensor: _Tensor
    host: cuda.PinnedMemory
    device: cuda.DeviceMemory

    def array(self, batch: int) -> NDArray[Any]:
        """The host's side as (batch, …)."""
        used = self.host.bytes[: self.tensor.size(batch)]
        return used.view(self.tensor.dtype).reshape(batch, *self.tensor.shape)


@dataclass(slots=True)
class _Ready:
    """What runs one batch size; without a graph it is queued call by call."""

    batch: int
    context: trt.IExecutionContext
    graph: cuda.Graph | None


class _Lane:
    """What one request in flight needs."""

    def __init__(self, engine: trt.ICudaEngine, loader: PlanLoader, tensors: _Tensors, max_batch: int) -> None:
        self._engine = engine
        self._loader = loader
        self._name = loader.spec.name
        self._ready: dict[int, _Ready] = {}
        self._closing = ExitStack()
        try:
            self._stream = self._own(cuda.Stream())
            self._done = self._own(cuda.Event())
            self._scratch = self._own(cuda.DeviceMemory(engine.device_memory_size_v2))
            self._image = self._buffer(tensors.image, max_batch)
            self._outputs = {role: self._buffer(tensor, max_batch) for role, tensor in tensors.outputs.items()}
            # The largest first: whatever batch size finds no room later runs as a part of it.
            for batch in dict.fromkeys((max_batch, 1)):
                self._ready[batch] = self._prepare(batch)
        except BaseException:
            self.close()
            raise

    def start(self, images: Sequence[NDArray[np.uint8]]) -> None:
        """Queue a batch; `results` waits for it."""
        place = self._image.array(len(images))
        for position, image in enumerate(images):
            np.copyto(place[position], image)
        ready = self._runnable(len(images))
        if ready.graph is not None:
            ready.graph.launch(self._stream)
        else:
            self._queue(ready.context, ready.batch)
        self._done.record(self._stream)

    def results(self, count: int) -> dict[OutputRole, NDArray[Any]]:
        """Wait for the batch that was started, and copy its outputs, (count, …) each."""
        self._done.wait()
        return {role: buffer.array(count).copy() for role, buffer in self._outputs.items()}

    def close(self) -> None:
        ready, self._ready = self._ready, {}
        for each in ready.values():
            if each.graph is not None:
                with suppress(cuda.CudaError):  # a GPU that failed frees nothing any more, and the process may go on
                    each.graph.close()
        del ready
        with suppress(cuda.CudaError):
            self._closing.close()

    def _own(self, resource: Any) -> Any:
        self._closing.callback(resource.close)
        return resource

    def _buffer(self, tensor: _Tensor, max_batch: int) -> _Buffer:
        size = tensor.size(max_batch)
        return _Buffer(tensor, self._own(cuda.PinnedMemory(size)), self._own(cuda.DeviceMemory(size)))

    def _runnable(self, count: int) -> _Ready:
        """What runs `count` pictures: made when the size first occurs, a larger one where that finds no room."""
        if count not in self._ready:
            try:
                self._ready[count] = self._prepare(count)
            except (OutOfMemory, cuda.CudaOutOfMemory):
                larger = min(ready.batch for ready in self._ready.values() if ready.batch > count)
                self._ready[count] = self._ready[larger]
                self._loader.degraded(
                    f"batch {count}", f"batch {larger}", "memory",
                    f"{self._loader.gpu.name} has no room to run {self._name} in batches of {count}; "
                    f"they run as a part of {larger}.",
                )  # fmt: skip
        return self._ready[count]

    def _prepare(self, batch: int) -> _Ready:
        """A context for one batch size, run once (kernels are loaded then), and its graph."""
        voice = logger()
        voice.clear()

        def failed() -> TensorRTError:
            return voice.failure(f"TensorRT cannot run {self._name} in batches of {batch}", "build its plan again")

        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:  # the stubs know no null, pybind gives None for it
            raise failed()  # type: ignore[unreachable,unused-ignore]  # any with the library missing
        context.set_device_memory(self._scratch.pointer, self._scratch.size)
        image = self._image.tensor
        placed = context.set_input_shape(image.name, (batch, *image.shape))
        for buffer in (self._image, *self._outputs.values()):
            placed = placed and context.set_tensor_address(buffer.tensor.name, buffer.device.pointer)
        if not placed or context.infer_shapes():
            raise failed()
        self._queue(context, batch)
        self._stream.wait()
        try:
            graph = self._stream.capture(lambda: self._queue(context, batch))
        except (cuda.CudaError, TensorRTError) as error:
            if isinstance(error, (cuda.CudaOutOfMemory, OutOfMemory)):
                raise
            self._loader.degraded(
                "cuda graph", "calls", "capture",
                f"{self._name} cannot be captured as a CUDA graph ({error}); it is queued call by call.",
            )  # fmt: skip
            return _Ready(batch, context, None)
        return _Ready(batch, context, graph)

    def _queue(self, context: trt.IExecutionContext, batch: int) -> None:
        """Upload, run, download."""
        self._stream.upload(self._image.device.pointer, self._image.host.pointer, self._image.tensor.size(batch))
        voice = logger()
        voice.clear()
        if not context.execute_async_v3(self._stream.handle):
            raise voice.failure(f"TensorRT cannot run {self._name}", "build its plan again")
        for buffer in self._outputs.values():
            self._stream.download(buffer.host.pointer, buffer.device.pointer, buffer.tensor.size(batch))


@dataclass(slots=True)
class _Flight:
    """A request on its way."""

    lane: _Lane
    future: Future[list[Prediction]]
    count: int
    error: Exception | None = None


def _collect(flights: SimpleQueue[_Flight | None], free: SimpleQueue[_Lane], running: _Running) -> None:
    """Resolve flights in the order they were submitted, until None comes; then free the GPU."""
    cuda.use(running.gpu.index)
    while (flight := flights.get()) is not None:
        predictions, error = None, flight.error
        if error is None:
            try:
                predictions = _split(flight.lane.results(flight.count), flight.count)
            except Exception as raised:  # noqa: BLE001 - whatever it is, it belongs to whoever holds the future
                error = raised
        free.put(flight.lane)  # before the future: whoever waits for it may submit at once
        if error is not None:
            flight.future.set_exception(error)
        elif predictions is not None:
            flight.future.set_result(predictions)
        # Nothing of this flight may stay alive while the thread waits for the next.
        del flight, predictions, error
    running.close()


def _split(arrays: dict[OutputRole, NDArray[Any]], count: int) -> list[Prediction]:
    """A batch's outputs, picture by picture."""
    fields: dict[str, NDArray[Any]] = {
        role: array.astype(np.int32, copy=False) if role == "labels" else array for role, array in arrays.items()
    }
    if "boxes" in fields and "labels" not in fields:
        fields["labels"] = np.zeros(fields["scores"].shape, np.int32)
    return [Prediction(**{role: array[i] for role, array in fields.items()}) for i in range(count)]


def _choose_precision(asked: Precision, spec: ModelSpec, gpu: cuda.Gpu) -> str:
    if asked == "auto":
        return spec.precision if spec.precision != "fp32" else "fp16"
    if asked == "bf16" and tuple(int(part) for part in gpu.compute_capability.split(".")) < _BF16_FROM:
        raise ModelError(
            f"{gpu.name} does not compute in bf16 (compute capability {gpu.compute_capability}, wanted is 8.0); "
            "use precision fp16, fp32 or auto."
        )
    return asked
