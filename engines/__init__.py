"""Model files → engines: describe, compile, run, verify, quantise and benchmark.

```python
engine = engines.load("cityscapes-unet")
class_map = engine(image).class_map  # image: (h, w, 3) uint8 RGB
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from engines.engine import Engine, Precision, Prediction
from engines.errors import ModelError
from engines.spec import ModelSpec

__all__ = ["Device", "Engine", "ModelSpec", "Precision", "Prediction", "load"]

Device = Literal["auto", "cpu"]


def load(
    model: str | Path,
    device: Device = "auto",
    precision: Precision = "auto",
    max_batch: int = 8,
    in_flight: int = 2,
    threads: int | None = None,
) -> Engine:
    """Compile a model for this machine.

    Args:
        model: the name of a bundled model (`roadlens models list`) or the path of an ONNX file.
        device: `auto` or `cpu`.
        precision: `auto` (bf16 where the CPU computes in it, else fp32; int8 for a file that is quantised), `fp32`,
            `bf16`, or `int8`, which runs the quantised twin: `drive.int8.onnx` beside `drive.onnx`.
        max_batch: most pictures that one `submit` may take; 1 is a little faster for single pictures.
        in_flight: requests computed or waiting at once.
        threads: threads to compute with; None leaves the number to the backend.

    Raises:
        ModelError: no such model, a file that is not a model of the house, a device or a precision that it or this
            machine does not have.
    """
    if device not in get_args(Device):
        raise ModelError(
            f"There is no device `{device}` in this version, which has no TensorRT or PyTorch backend; use auto or cpu."
        )
    if precision not in get_args(Precision):
        raise ModelError(
            f"There is no precision `{precision}` on the CPU; use one of {', '.join(get_args(Precision))}."
        )
    from engines.bundled import int8_file, resolve

    path = resolve(model)
    if precision == "int8" and int8_file(path).is_file():
        path = int8_file(path)
    from engines.openvino import OpenVINOEngine  # OpenVINO and OpenCV take 0.3 s to import

    return OpenVINOEngine(path, precision=precision, max_batch=max_batch, in_flight=in_flight, threads=threads)
