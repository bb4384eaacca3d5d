"""Model files → engines: describe, compile, run, verify, quantise and benchmark.

```python
engine = engines.load("cityscapes-unet")
class_map = engine(image).class_map  # image: (h, w, 3) uint8 RGB
```
"""

from __future__ import annotations

import logging
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from engines.engine import Backend, Engine, Hint, Precision, Prediction
from engines.errors import DeviceError, ModelError
from engines.loading import Degraded, Observe
from engines.spec import ModelSpec

__all__ = ["Backend", "Device", "Engine", "Hint", "ModelSpec", "Precision", "Prediction", "load"]

log = logging.getLogger(__name__)

Device = str
"""`auto`, `cpu`, `cuda` (the first GPU) or `cuda:N`."""

NAMES = {
    "openvino": "OpenVINO on the CPU",
    "tensorrt": "TensorRT",
    "tensorrt-rtx": "TensorRT for RTX",
    "torch": "PyTorch",
    "cpu": "the CPU",
}


def load(
    model: str | Path,
    device: Device = "auto",
    precision: Precision = "auto",
    max_batch: int = 8,
    in_flight: int = 2,
    threads: int | None = None,
    *,
    backend: Backend | Literal["auto"] = "auto",
    hint: Hint = "latency",
    gpu_batch: int | None = None,
    observe: Observe | None = None,
) -> Engine:
    """Compile a model for this machine.

    On a GPU TensorRT is tried first, then PyTorch; with device `auto` the CPU last (OpenVINO). What could not be had is
    found out by trying, logged once, told to `observe`, and the next best is taken. A GPU that is asked for by name
    never becomes the CPU, and a backend that is asked for by name never another.

    Args:
        model: the name of a bundled model (`roadlens models list`) or the path of an ONNX file.
        device: `auto` (a GPU where there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.
        precision: `auto` (fp16 on a GPU; bf16 on a CPU that computes in it, else int8 for a bundled model and fp32 for
            others; int8 for a file that is quantised), `fp32`, `fp16` (GPU), `bf16`, or `int8` and `fp8` (GPU), which
            run the quantised twin: `drive.int8.onnx` beside `drive.onnx`.
        max_batch: most pictures that one `submit` may take; 1 is a little faster for single pictures. The engine's own
            `max_batch` is smaller where the GPU has no room.
        in_flight: requests computed or waiting at once.
        threads: threads to compute with on a CPU; None leaves the number to the backend.
        backend: `auto`, or one of them. `tensorrt-rtx`, for GeForce and RTX GPUs, is taken only by name.
        hint: `latency` for the soonest answer, `throughput` for the most pictures a second of a machine that has other
            things to do, too; only a CPU makes a difference.
        gpu_batch: `max_batch` on a GPU, which gains more by large batches than a CPU; None is the same.
        observe: is told how far a build is (`Building`) and what could not be had (`Degraded`).

    Raises:
        ModelError: no such model, a file that is not a model of the house, or a precision that it or this machine does
            not have.
        DeviceError: a device or a backend that is not there.
    """
    if precision not in get_args(Precision):
        raise ModelError(f"There is no precision `{precision}`; use one of {', '.join(get_args(Precision))}.")
    from engines.bundled import file_for, resolve

    path = file_for(resolve(model), precision)
    wanted = path.name.split(".")[0]
    ways = _ways_here(device, backend, wanted, observe)
    for (tried, where), following in zip(ways, [*ways[1:], None], strict=True):
        try:
            most = max_batch if gpu_batch is None or where == "cpu" else gpu_batch
            return _load(tried, where, path, precision, most, in_flight, threads, hint, observe)
        except DeviceError as error:
            if following is None:
                raise
            _degraded(wanted, tried, following[0], error, observe)
    raise AssertionError("the last way returns or raises")


def _ways_here(
    device: Device, backend: Backend | Literal["auto"], model: str, observe: Observe | None
) -> list[tuple[Backend, Device]]:
    """As `_ways`, without the GPU where it was left to us and there is none.

    Raises:
        DeviceError: the backend does not run on the device, or there is no such device.
    """
    ways = _ways(device, backend)
    if device != "auto" or ways[0][1] != "cuda":
        return ways
    try:
        _find_gpu("cuda")
    except DeviceError as error:
        if backend in {"tensorrt", "tensorrt-rtx"}:
            raise
        if _has_nvidia():  # else it is a machine without a GPU, and nothing is amiss
            _degraded(model, "cuda", "cpu", error, observe)
        return [("openvino" if backend == "auto" else backend, "cpu")]
    return ways


def _ways(device: Device, backend: Backend | Literal["auto"]) -> list[tuple[Backend, Device]]:
    """Backends and devices to try, best first.

    Raises:
        DeviceError: the backend does not run on the device, or there is no such device.
    """
    if backend not in {"auto", *get_args(Backend)}:
        raise DeviceError(f"There is no backend `{backend}`; use auto, {', '.join(get_args(Backend))}.", "backend")
    if device == "auto":
        if backend == "auto":
            return [("tensorrt", "cuda"), ("torch", "cuda"), ("openvino", "cpu")]
        return [(backend, "cpu" if backend == "openvino" else "cuda")]
    if device == "cpu":
        if backend in {"tensorrt", "tensorrt-rtx"}:
            raise DeviceError(
                f"{NAMES[backend]} runs on NVIDIA GPUs and not on the CPU; give another backend or device.", "gpu"
            )
        return [("openvino" if backend == "auto" else backend, "cpu")]
    if re.fullmatch(r"cuda(:\d+)?", device) is None:
        raise DeviceError(f"There is no device `{device}`; use auto, cpu, cuda or cuda:N.", "device")
    if backend == "openvino":
        raise DeviceError(f"OpenVINO runs on the CPU and not on `{device}`; give another backend or device.", "gpu")
    _find_gpu(device)
    return [("tensorrt", device), ("torch", device)] if backend == "auto" else [(backend, device)]


def _load(
    backend: Backend,
    device: Device,
    path: Path,
    precision: Precision,
    max_batch: int,
    in_flight: int,
    threads: int | None,
    hint: Hint,
    observe: Observe | None,
) -> Engine:
    """Load on one backend; importing it is part of trying."""
    if backend == "openvino":
        from engines.openvino import OpenVINOEngine  # OpenVINO and OpenCV take 0.3 s to import

        return OpenVINOEngine(
            path, precision=precision, max_batch=max_batch, in_flight=in_flight, threads=threads, hint=hint
        )
    if backend in {"tensorrt", "tensorrt-rtx"}:
        from engines.tensorrt.library import require

        require(backend)
        from engines.tensorrt.engine import TensorRTEngine

        return TensorRTEngine(
            path, device=device, precision=precision, max_batch=max_batch, in_flight=in_flight, observe=observe
        )
    if find_spec("torch") is None:
        raise DeviceError("PyTorch is not installed here; install it with pip install '.[gpu]'.", "library")
    try:
        from engines.pytorch.engine import TorchEngine
    except (ImportError, OSError) as error:  # its wheel is there, and a library that it loads is not
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"PyTorch cannot be used here ({reason}); install it with pip install '.[gpu]'.", "library"
        ) from None

    return TorchEngine(
        path, device=device, precision=precision, max_batch=max_batch, in_flight=in_flight, observe=observe
    )


def _find_gpu(device: Device) -> None:
    """Find a GPU by trying.

    Raises:
        DeviceError: there is none, none of that number, or no library to ask.
    """
    try:
        from engines.tensorrt.cuda import open_gpu
    except ImportError:
        if find_spec("torch") is not None:
            return  # an older PyTorch comes without CUDA's bindings: it finds out by itself
        raise DeviceError(
            "Neither CUDA's bindings nor PyTorch are installed here; install them with pip install '.[gpu]'.",
            "library",
        ) from None
    open_gpu(device)


def _has_nvidia() -> bool:
    """Whether the machine looks as if it had an NVIDIA GPU, so that running without it is worth a word."""
    return any(Path(place).exists() for place in ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/nvmap"))


def _degraded(model: str, wanted: str, instead: str, error: DeviceError, observe: Observe | None) -> None:
    sentence = f"{error} Going on with {NAMES.get(instead, instead)}."
    _say_once(sentence)
    if observe is not None:
        observe(Degraded(model, wanted, instead, error.lacking, sentence))


@cache
def _say_once(sentence: str) -> None:
    """Warn, the first time."""
    log.warning("%s", sentence)
