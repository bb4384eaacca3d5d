"""What one request in flight needs on the GPU, and the running of it.

A *lane* has a stream of its own (never the default one, which TensorRT would synchronise), page-locked host memory,
device buffers, and for each batch size of a ladder an execution context with two CUDA graphs: of upload, network and
download, and of the last two for pictures that lie on the GPU. So one lane's pictures travel while another's are
computed, a request costs one launch, and the results of one lie still while the next is written (double buffering).
All of it is prepared when the lane is made: nothing is loaded, captured or allocated on the way of a frame. Contexts of
a lane share one block of scratch memory: only one of them runs at a time. A context belongs to one batch size, because
setting another shape would pull the rug from under the graph that was captured.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from engines.cuda.batches import pieces, place_of
from engines.flights import batch_ladder
from engines.spec import ModelSpec, OutputRole
from engines.tensorrt import cuda
from engines.tensorrt.loader import PlanLoader
from engines.tensorrt.logger import OutOfMemory, TensorRTError, logger

Owned = TypeVar("Owned", cuda.Stream, cuda.Event, cuda.DeviceMemory, cuda.PinnedMemory)


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
class Tensors:
    """An engine's input, and its outputs by what they mean."""

    image: _Tensor
    outputs: dict[OutputRole, _Tensor]


def tensors_of(engine: trt.ICudaEngine, spec: ModelSpec, max_batch: int) -> Tensors:
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
    most = engine.get_tensor_profile_shape(image, 0)[2][:]
    if most[0] < max_batch or most[1:] != (spec.height, spec.width, 3):
        raise TensorRTError(
            f"The plan of {spec.name} is for {most} and not for {max_batch}×{spec.height}×{spec.width}×3; "
            "build it again.",
            "tensorrt",
        )

    def described(name: str) -> _Tensor:
        shape, dtype = engine.get_tensor_shape(name)[1:], dtypes.get(engine.get_tensor_dtype(name))
        if dtype is None or any(size < 0 for size in shape):
            raise TensorRTError(
                f"The output `{name}` of {spec.name} is {engine.get_tensor_dtype(name)} {shape}, which TensorRT cannot "
                "give here; export it with a fixed size.",
                "operator",
            )
        return _Tensor(name, dtype, shape)

    return Tensors(described(image), {role: described(name) for role, name in spec.outputs.items()})


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
    """What runs one batch size: graphs by whether they upload; None is queued call by call."""

    batch: int
    context: trt.IExecutionContext
    graphs: dict[bool, cuda.Graph | None]

    def close(self) -> None:
        """Free the graphs."""
        for captured in self.graphs.values():
            if captured is not None:
                with suppress(cuda.CudaError):  # a GPU that failed frees nothing any more, the process may go on
                    captured.close()


class Lane:
    """What one request in flight needs."""

    def __init__(self, engine: trt.ICudaEngine, loader: PlanLoader, tensors: Tensors, max_batch: int) -> None:
        self._engine = engine
        self._loader = loader
        self._gpu = loader.gpu.index
        self._name = loader.spec.name
        self._ready: dict[int, _Ready] = {}
        self._captures = True
        self._closing = ExitStack()
        try:
            self._stream = self._own(cuda.Stream())
            self._done, self._drawn = self._own(cuda.Event()), self._own(cuda.Event())
            self._scratch = self._own(cuda.DeviceMemory(engine.device_memory_size_v2))
            self._image = self._buffer(tensors.image, max_batch)
            self._outputs = {role: self._buffer(tensor, max_batch) for role, tensor in tensors.outputs.items()}
            self._closing.callback(self._stream.wait)  # the first to be called when it closes
            self._prepare_all(max_batch)
        except BaseException:
            self.close()
            raise

    def start(self, images: Sequence[Any]) -> None:
        """Queue a batch; `results` waits for it."""
        cuda.use(self._gpu)
        ready = self._ready[min(batch for batch in self._ready if batch >= len(images))]
        upload = not any(is_on_gpu(image) for image in images)
        graph = ready.graphs[upload]
        if upload:
            place = self._image.array(len(images))
            for position, image in enumerate(images):
                np.copyto(place[position], image)
        else:
            self._gather(images)
        if graph is not None:
            graph.launch(self._stream)
        else:
            self._queue(ready.context, ready.batch, upload)
        self._done.record(self._stream.handle)

    def results(self, count: int) -> dict[OutputRole, NDArray[Any]]:
        """Wait for the batch that was started, and copy its outputs, (count, …) each."""
        cuda.use(self._gpu)
        self._done.wait()
        return {role: buffer.array(count).copy() for role, buffer in self._outputs.items()}

    def _gather(self, images: Sequence[Any]) -> None:
        """Bring a batch together on the GPU: pictures that are there are copied there, behind what draws them; those
        that lie one behind the other, as a launch makes them for a whole batch, in one copy."""
        size = self._image.tensor.size(1)
        place = self._image.array(len(images))
        for stream in {_producer(image) for image in images if is_on_gpu(image)}:
            self._drawn.record(stream)
            self._stream.follow(self._drawn)
        places = [place_of(image) for image in images]
        for position, count in pieces(places, size):
            if (source := places[position]) is not None:
                self._stream.move(self._image.device.pointer + position * size, source.address, count * size)
        for position, image in enumerate(images):
            target = self._image.device.pointer + position * size
            if not is_on_gpu(image):
                np.copyto(place[position], image)
                self._stream.upload(target, self._image.host.pointer + position * size, size)

    def close(self) -> None:
        """Free everything, after what a request that failed half-way may have left on the stream."""
        ready, self._ready = self._ready, {}
        for each in ready.values():
            each.close()
        del ready
        with suppress(cuda.CudaError):
            self._closing.close()

    def _own(self, resource: Owned) -> Owned:
        self._closing.callback(resource.close)
        return resource

    def _buffer(self, tensor: _Tensor, max_batch: int) -> _Buffer:
        size = tensor.size(max_batch)
        return _Buffer(tensor, self._own(cuda.PinnedMemory(size)), self._own(cuda.DeviceMemory(size)))

    def _prepare_all(self, max_batch: int) -> None:
        """Make ready each batch size of the ladder, the largest first: one that finds no room runs as a part of it."""
        larger = 0
        for batch in batch_ladder(max_batch):
            try:
                self._ready[batch] = self._prepare(batch)
            except (OutOfMemory, cuda.CudaOutOfMemory):
                if not larger:
                    raise
                self._loader.degraded(
                    f"batch {batch}", f"batch {larger}", "memory",
                    f"{self._loader.gpu.name} has no room to run {self._name} in batches of {batch}; "
                    f"they run as a part of {larger}.",
                )  # fmt: skip
            else:
                larger = batch

    def _prepare(self, batch: int) -> _Ready:
        """A context for one batch size, run once (kernels are loaded then), and its graphs."""
        voice = logger()
        voice.clear()

        def failed() -> TensorRTError:
            return voice.failure(f"TensorRT cannot run {self._name} in batches of {batch}", "build its plan again")

        context = self._loader.context(self._engine)
        if context is None:
            raise failed()
        context.set_device_memory(self._scratch.pointer, self._scratch.size)
        image = self._image.tensor
        placed = context.set_input_shape(image.name, (batch, *image.shape))
        for buffer in (self._image, *self._outputs.values()):
            placed = placed and context.set_tensor_address(buffer.tensor.name, buffer.device.pointer)
        if not placed or context.infer_shapes():
            raise failed()
        self._queue(context, batch, upload=True)
        self._stream.wait()
        ready = _Ready(batch, context, {})
        try:
            for upload in (True, False):
                ready.graphs[upload] = self._capture(context, batch, upload)
        except BaseException:
            ready.close()
            raise
        return ready

    def _capture(self, context: trt.IExecutionContext, batch: int, upload: bool) -> cuda.Graph | None:
        """The graph of a batch, or None where it cannot be captured."""
        try:
            return self._stream.capture(lambda: self._queue(context, batch, upload))
        except (cuda.CudaOutOfMemory, OutOfMemory):
            raise
        except (cuda.CudaError, TensorRTError) as error:
            if self._captures:  # of a ladder of batch sizes it is said once
                self._loader.degraded(
                    "cuda graph", "calls", "capture",
                    f"{self._name} cannot be captured as a CUDA graph ({error}) It is queued call by call.",
                )  # fmt: skip
            self._captures = False
            return None

    def _queue(self, context: trt.IExecutionContext, batch: int, upload: bool) -> None:
        """Upload where the pictures are not on the GPU, run, download."""
        if upload:
            self._stream.upload(self._image.device.pointer, self._image.host.pointer, self._image.tensor.size(batch))
        voice = logger()
        voice.clear()
        if not context.execute_async_v3(self._stream.handle):
            raise voice.failure(f"TensorRT cannot run {self._name}", "build its plan again")
        for buffer in self._outputs.values():
            self._stream.download(buffer.host.pointer, buffer.device.pointer, buffer.tensor.size(batch))


def is_on_gpu(image: Any) -> bool:
    """Whether a picture lies in a GPU's memory: a tensor or array that says so by CUDA's array interface."""
    return hasattr(image, "__cuda_array_interface__")


def _producer(image: Any) -> int:
    """The stream that a picture is drawn on, as a handle.

    It stands in the interface from version 3 on; of an older one, PyTorch's, it is PyTorch's current stream.
    """
    if (stream := image.__cuda_array_interface__.get("stream")) is not None:
        return int(stream)
    torch = sys.modules.get("torch")
    return 0 if torch is None else int(torch.cuda.current_stream(image.device).cuda_stream)
