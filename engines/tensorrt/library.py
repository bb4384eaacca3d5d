"""Is TensorRT here? Found by importing it."""

from __future__ import annotations

from typing import Literal

from engines.errors import DeviceError
from engines.tensorrt import rtx

OLDEST = (10, 16)
"""The oldest TensorRT whose API this backend was checked against."""


def require(backend: Literal["tensorrt", "tensorrt-rtx"] = "tensorrt") -> str:
    """Import TensorRT, or TensorRT for RTX in its place, and CUDA's bindings, and give its version, `11.4.0.106`.

    Raises:
        DeviceError: one is not installed, is broken, or is too old; or the process has the other of the two libraries.
    """
    version = _tensorrt() if backend == "tensorrt" else rtx.require()
    try:
        from cuda.bindings import runtime  # noqa: F401  # is it there?
    except ImportError as error:
        raise DeviceError(
            f"CUDA's Python bindings are missing ({error}); install them with pip install '.[gpu]'.", "library"
        ) from None
    return version


def version_here() -> str:
    """Which library this process has: `11.4.0.106`, or `rtx-1.7.1.116`. It has been imported."""
    import tensorrt as trt

    return f"rtx-{trt.__version__}" if rtx.stands_in() else str(trt.__version__)


def _tensorrt() -> str:
    if rtx.stands_in():
        raise DeviceError(
            "This process has TensorRT for RTX already, and TensorRT cannot be beside it; give all models one backend.",
            "library",
        )
    try:
        import tensorrt as trt

        version = str(trt.__version__)
    # Its wheel raises whatever the dynamic loader and its own look-up of libraries come to.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"TensorRT cannot be used here ({reason}); install it with pip install '.[gpu]'.", "library"
        ) from None
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        oldest = ".".join(str(number) for number in OLDEST)
        raise DeviceError(
            f"TensorRT {version} is older than {oldest}, the oldest this roadlens knows; upgrade it.", "library"
        )
    return version
