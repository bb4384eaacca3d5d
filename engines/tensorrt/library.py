"""Is TensorRT here? Found by importing it."""

from __future__ import annotations

from engines.errors import DeviceError

OLDEST = (10, 16)
"""The oldest TensorRT whose API this backend was checked against."""


def require() -> str:
    """Import TensorRT and give its version, `11.4.0.106`.

    Raises:
        DeviceError: it is not installed, is broken, or is older than 10.16; or `cuda-bindings` is not installed.
    """
    try:
        import tensorrt as trt

        version = str(trt.__version__)
    # Its wheel raises whatever the dynamic loader and its own look-up of libraries come to.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DeviceError(
            f"TensorRT cannot be used here ({reason}); install it with pip install 'roadlens[gpu]'.", "library"
        ) from None
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        oldest = ".".join(str(number) for number in OLDEST)
        raise DeviceError(
            f"TensorRT {version} is older than {oldest}, the oldest this roadlens knows; upgrade it.", "library"
        )
    try:
        from cuda.bindings import runtime  # noqa: F401  # is it there?
    except ImportError as error:
        raise DeviceError(
            f"CUDA's Python bindings are missing ({error}); install them with pip install 'roadlens[gpu]'.", "library"
        ) from None
    return version
