"""An engine whose answer is known: for tests of what happens around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from engines.classes import CITYSCAPES_CLASSES
from engines.engine import Prediction
from engines.spec import ModelSpec


class ScriptedEngine:
    """Segments by brightness: class 13 (car) where the red channel is above 127, else class 0 (road).

    `before` is called with the batch before it is computed, in the engine's own thread: it may wait or raise.
    """

    backend, precision, device = "scripted", "fp32", "test"

    def __init__(
        self,
        size: tuple[int, int] = (64, 64),
        max_batch: int = 8,
        in_flight: int = 2,
        before: Callable[[Sequence[NDArray[np.uint8]]], None] = lambda _images: None,
    ) -> None:
        self.spec = ModelSpec(
            name="scripted",
            version="1",
            task="segmentation",
            height=size[0],
            width=size[1],
            classes=CITYSCAPES_CLASSES,
            outputs={"class_map": "class_map"},
        )
        self.max_batch, self.in_flight, self._before = max_batch, in_flight, before
        self.batches: list[int] = []
        self._pool = ThreadPoolExecutor(1)
        self._free = threading.Semaphore(in_flight)

    def submit(self, images: Sequence[NDArray[np.uint8]]) -> Future[list[Prediction]]:
        if len(images) > self.max_batch:
            raise ValueError("too large a batch")
        self._free.acquire()
        self.batches.append(len(images))
        copies = [image.copy() for image in images]
        future = self._pool.submit(self._run, copies)
        future.add_done_callback(lambda _: self._free.release())
        return future

    def _run(self, images: list[NDArray[np.uint8]]) -> list[Prediction]:
        self._before(images)
        return [Prediction(class_map=np.where(i[..., 0] > 127, 13, 0).astype(np.uint8)) for i in images]

    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        return self._run([image])[0]

    def close(self) -> None:
        self._pool.shutdown()
