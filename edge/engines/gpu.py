"""What the NVIDIA driver says of the GPU in this machine, asked of the driver itself: no package is needed for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR} of cuda.h."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name, its compute capability as one number (8.7 is 87), its memory."""

    name: str
    sm: int
    total_bytes: int


def present_gpu(library: str = "libcuda.so.1") -> Gpu | None:
    """The first GPU, or None where there is no driver or no device."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return None
    device, name, total = ctypes.c_int(), ctypes.create_string_buffer(128), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    calls: tuple[Callable[[], Any], ...] = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetName(name, len(name), device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device),
        lambda: cuda.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device),
        lambda: cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device),
    )
    if any(call() != 0 for call in calls):
        return None
    return Gpu(name.value.decode(), 10 * major.value + minor.value, total.value)
