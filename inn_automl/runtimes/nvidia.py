"""NVIDIA GPUs of this machine, by the driver itself: no CUDA toolkit is needed to find them."""

from __future__ import annotations

import ctypes
from typing import Any

_DRIVER = "libcuda.so.1"
_OK = 0


def cuda_devices() -> list[str]:
    """Names of the GPUs that this process may use; empty where there is no driver. (CUDA driver
    API, `cuDevice*`.)
    """
    try:
        driver: Any = ctypes.CDLL(_DRIVER)
    except OSError:
        return []
    count = ctypes.c_int()
    if driver.cuInit(0) != _OK or driver.cuDeviceGetCount(ctypes.byref(count)) != _OK:
        return []
    names = []
    for index in range(count.value):
        handle, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        if driver.cuDeviceGet(ctypes.byref(handle), index) == _OK:
            driver.cuDeviceGetName(name, len(name), handle)
            names.append(name.value.decode("utf-8", "replace"))
    return names
