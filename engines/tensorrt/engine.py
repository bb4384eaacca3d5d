"""Plans that run: `TensorRTEngine`, whose requests travel in lanes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines.engine import Precision, Prediction
from engines.flights import FlightEngine, Flights, check_batch, check_numbers
from engines.loading import Observe
from engines.spec import ModelSpec, read_spec
from engines.tensorrt import cuda, rtx
from engines.tensorrt.cache import PlanCache
from engines.tensorrt.lane import Lane, is_on_gpu, tensors_of
from engines.tensorrt.loader import PlanLoader
from engines.tensorrt.logger import OutOfMemory
from engines.tensorrt.plan import BuildOptions


class TensorRTEngine(FlightEngine):
    """A model on an NVIDIA GPU; see `engines.engine.Engine` for the contract.

    `submit` copies the pictures into page-locked memory, and asks for no memory of the GPU's: all batch sizes are
    prepared when it is made. Every prediction is a copy that the caller owns. It also takes pictures that lie on the
    engine's GPU (whatever has CUDA's array interface, as PyTorch's tensors) and never brings those to the host. Use it
    as a context manager, or call `close`.
    """

    backend = "tensorrt-rtx" if rtx.stands_in() else "tensorrt"

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
            precision: `auto` is that of a quantised file, else fp16.
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
        check_numbers(max_batch=max_batch, in_flight=in_flight)
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
        loader.loaded()
        loader.graph = b""  # up to 100 MB that nothing needs any more

        self._flights = Flights(running.lanes, f"tensorrt-{self.spec.name}", running.close)

    def submit(self, images: Sequence[Any]) -> Future[list[Prediction]]:
        check_batch([_shown(image) for image in images], self.spec, self.max_batch)
        return self._flights.submit(images)


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


@dataclass(frozen=True, slots=True)
class _Shown:
    """What a picture on the GPU says of itself."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def _shown(image: Any) -> Any:
    """The shape and type of a picture, as numpy has them, wherever it lies.

    Raises:
        ValueError: it lies on the GPU in another order than row by row.
    """
    if not is_on_gpu(image):
        return image
    said = image.__cuda_array_interface__
    if said.get("strides") is not None:
        raise ValueError("a picture on the GPU that is not contiguous; wanted is one that lies row by row")
    return _Shown(tuple(said["shape"]), np.dtype(said["typestr"]))
