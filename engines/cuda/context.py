"""CUDA's primary context of a GPU, the one that PyTorch and TensorRT work in, made the calling thread's for FFmpeg.

FFmpeg would retain the primary context by itself, but with flags of its own, and refuses one that is already there with
others: models load before sources open, so NVDEC would never be used. It takes the calling thread's context as it is.
PyTorch's `set_device` does not see to that: it returns early where the GPU is the thread's already, by default the
first one, and a thread that has not used CUDA has no context then.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from engines.errors import DeviceError


def make_current(gpu: int, driver: Any = None) -> None:
    """Make a GPU's primary context the calling thread's; it stays retained until the process ends.

    Args:
        gpu: CUDA's number of it.
        driver: NVIDIA's driver as `ctypes` loads it; None loads it.

    Raises:
        DeviceError: no driver, no such GPU, or no room for a context on it.
    """
    driver = driver or _driver()
    _check(driver.cuCtxSetCurrent(_retained(driver, gpu)), gpu)


@functools.cache
def _driver() -> Any:
    try:
        return ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise DeviceError("There is no NVIDIA driver here; install one, or use device cpu.", "driver") from None


@functools.cache
def _retained(driver: Any, gpu: int) -> ctypes.c_void_p:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _check(driver.cuInit(0), gpu)
    _check(driver.cuDeviceGet(ctypes.byref(device), gpu), gpu)
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), gpu)
    return context


def _check(error: int, gpu: int) -> None:
    if error:
        raise DeviceError(f"The NVIDIA driver gives no context on cuda:{gpu} (CUDA error {error}).", "gpu")
