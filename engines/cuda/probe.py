"""What stands between this process and pictures in GPU memory, found by trying."""

from __future__ import annotations

import ctypes
import importlib.util


def has_driver() -> bool:
    """Whether NVIDIA's driver is installed: without one a machine has no GPU to speak of, and nothing is amiss."""
    return has_library("libcuda.so.1")


def has_library(name: str) -> bool:
    """Whether the dynamic linker finds a library, `libnvcuvid.so.1`, and loads it."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def without_kernels(gpu: int) -> tuple[str, str] | None:
    """Where PyTorch's own operations must do the kernels' work on a GPU: a word for a metric's label, and a clause."""
    import torch  # seconds, and only where there is a GPU

    from engines.cuda.nv12 import OutOfMemory, kernel_fault

    try:
        fault = kernel_fault(torch.device("cuda", gpu))
    except OutOfMemory:  # that is said where it is met again
        return None
    return None if fault is None else ("compiler", fault)


def lacking(library: str = "libcuda.so.1") -> tuple[str, str] | None:
    """A word for a metric's label (`driver`, `gpu`, `library`) and a clause for people; None where nothing is lacking.

    Args:
        library: NVIDIA's driver, as the dynamic linker knows it.
    """
    try:
        driver = ctypes.CDLL(library)
        error = int(driver.cuInit(0))
    except (OSError, AttributeError):
        return "driver", "there is no NVIDIA driver here"
    if error:
        return "gpu", f"the NVIDIA driver finds no GPU (CUDA error {error})"
    if importlib.util.find_spec("torch") is None:
        return "library", "PyTorch, which works on pictures in GPU memory, is not installed (pip install '.[gpu]')"
    import torch  # seconds, and only where there is a GPU

    if not torch.cuda.is_available():
        return "library", "this PyTorch cannot use the GPU: it is built without CUDA, or for a newer driver"
    return None
