"""The contract that every backend fulfils, and the arrays that travel through it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from engines.spec import ModelSpec

if TYPE_CHECKING:  # 70 ms that a command which loads no model need not wait for
    import numpy as np
    from numpy.typing import NDArray

Hint = Literal["latency", "throughput"]
"""What an engine is tuned for."""

Precision = Literal["auto", "fp32", "fp16", "bf16", "int8", "fp8"]
"""What may be asked of an engine; `auto` is the fastest one that the device has without a quantised file."""

Backend = Literal["openvino", "tensorrt", "tensorrt-rtx", "torch"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one picture; the fields of its task are set, the others None.

    Attributes:
        class_map: (H, W) uint8 class ids at the model's size.
        confidence: (H, W) uint8, 255 = certain.
        boxes: (K, 4) float32 xyxy, fractions of the frame, right and bottom exclusive.
        scores: (K,) float32 in 0 to 1.
        labels: (K,) int32 class ids.
    """

    class_map: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None
    boxes: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None
    labels: NDArray[np.int32] | None = None


class Engine(Protocol):
    """A model ready to run on one device.

    `submit` is asynchronous and keeps order: futures complete in the order of submission. At most `in_flight` batches
    are being computed at once; `submit` blocks while that many are. The images may be reused as soon as the future is
    done, not before. Engines are safe to submit to from one thread at a time and are closed once.
    """

    spec: ModelSpec
    backend: str
    """`openvino`, `tensorrt`, `tensorrt-rtx` or `torch`."""
    precision: str
    """The precision computed in, `fp32`, `fp16`, `bf16`, `int8` or `fp8`; never `auto`."""
    device: str
    """The device's own name, for people: `AMD EPYC …`."""
    max_batch: int
    in_flight: int

    def submit(self, images: Sequence[NDArray[np.uint8]]) -> Future[list[Prediction]]:
        """Queue a batch of 1 to `max_batch` pictures, each (H, W, 3) uint8 RGB of the model's size.

        Raises:
            ValueError: a picture of another shape or type, or too large a batch.
        """
        ...

    def __call__(self, image: NDArray[np.uint8]) -> Prediction:
        """Predict one picture of any size, (h, w, 3) uint8 RGB; it is squashed to the model's size first."""
        ...

    def close(self) -> None:
        """Wait for what is in flight and free the device's memory. Closing twice is allowed."""
        ...
