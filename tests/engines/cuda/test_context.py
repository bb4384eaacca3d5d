"""The primary context, made the calling thread's by the driver, in whose place a stand-in notes what it is asked."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from engines.cuda.context import make_current
from engines.errors import DeviceError


class Driver:
    """NVIDIA's driver for one GPU. The primary context of GPU n is 0x1000 + n."""

    def __init__(self, **errors: int) -> None:
        self.errors, self.calls, self.current = errors, list[str](), 0

    def _said(self, call: str) -> int:
        self.calls.append(call)
        return self.errors.get(call, 0)

    def cuInit(self, _flags: int) -> int:  # noqa: N802  # NVIDIA's names
        return self._said("cuInit")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        ctypes.cast(device, ctypes.POINTER(ctypes.c_int))[0] = ordinal
        return self._said("cuDeviceGet")

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:  # noqa: N802
        ctypes.cast(context, ctypes.POINTER(ctypes.c_void_p))[0] = 0x1000 + device.value
        return self._said("cuDevicePrimaryCtxRetain")

    def cuCtxSetCurrent(self, context: ctypes.c_void_p) -> int:  # noqa: N802
        self.current = context.value or 0
        return self._said("cuCtxSetCurrent")


def test_the_primary_context_is_retained_once_and_made_current_every_time() -> None:
    driver = Driver()
    make_current(0, driver)
    assert driver.current == 0x1000
    make_current(1, driver)
    assert driver.current == 0x1001
    make_current(0, driver)
    assert driver.current == 0x1000
    assert driver.calls.count("cuDevicePrimaryCtxRetain") == 2
    assert driver.calls.count("cuCtxSetCurrent") == 3


@pytest.mark.parametrize("call", ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"])
def test_a_driver_that_gives_none_is_a_sentence(call: str) -> None:
    with pytest.raises(DeviceError, match=r"gives no context on cuda:3 \(CUDA error 101\)\."):
        make_current(3, Driver(**{call: 101}))
