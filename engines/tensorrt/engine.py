"""Plans that run: `TensorRTEngine`, whose requests travel in lanes."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engines.engine import Precision, Prediction
from engines.loading import Observe
from engines.openvino import squash
from engines.spec import ModelSpec, OutputRole, read_spec
from engines.tensorrt import cuda
from engines.tensorrt.cache import PlanCache
from engines.tensorrt.lane import Lane, tensors_of
from engines.tensorrt.loader import PlanLoader
from engines.tensorrt.logger import OutOfMemory
from engines.tensorrt.plan import BuildOptions


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
                loader.exact = True
                loader.degraded(
                    f"batch {wanted}", f"batch {max_batch}", "memory",
                    f"{self.device} has no room for {self.spec.name} in batches of {wanted}; taking {max_batch}.",
                )  # fmt: skip
        self.max_batch: int = max_batch
        loader.graph = b""  # up to 100 MB that nothing needs any more

        self._index = loader.gpu.index
        self._free: SimpleQueue[Lane] = SimpleQueue()
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


class _Running:
    """An engine on the GPU with its lanes. Made and closed as one; nothing is left behind where making it fails."""

    def __init__(self, loader: PlanLoader, max_batch: int, in_flight: int) -> None:
        self.gpu = loader.gpu
        self.lanes: list[Lane] = []
        self._runtime, self._engine = loader.engine(max_batch)
        tensors = tensors_of(self._engine, loader.spec, max_batch)
        try:
            for _ in range(in_flight):
                self.lanes.append(Lane(self._engine, loader, tensors, max_batch))
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


@dataclass(slots=True)
class _Flight:
    """A request on its way."""

    lane: Lane
    future: Future[list[Prediction]]
    count: int
    error: Exception | None = None


def _collect(flights: SimpleQueue[_Flight | None], free: SimpleQueue[Lane], running: _Running) -> None:
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
