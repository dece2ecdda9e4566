"""The firmware's core in this process, for adapters: who drives the arm steps it, once for each period of the drive."""

from __future__ import annotations

import ctypes
from pathlib import Path

from firmware_bridge.codes import MAX_JOINTS, TICK_US, DeviceState
from firmware_bridge.errors import BridgeError
from firmware_bridge.native import build

TRANSMIT_SIZE = 2048


class HostedDevice:
    """One device of the arm `arm`, started at the measured pose `start_rad`. Raises `BuildError`, `BridgeError`.

    `set_point_rad` and `velocity_rad_s` hold what the last tick put out; they are written in place.
    """

    def __init__(self, arm: str, start_rad: tuple[float, ...], trace: Path | None = None) -> None:
        self._library = _load(build(mujoco=False).library)
        start = (ctypes.c_double * MAX_JOINTS)(*start_rad)
        self._handle = self._library.ve_hosted_open(arm.encode(), start, str(trace).encode() if trace else None)
        if not self._handle:
            raise BridgeError("the device did not start (its message stands above)")
        self.joints = int(self._library.ve_hosted_joints(self._handle))
        self.set_point_rad = (ctypes.c_double * self.joints)(*start_rad)
        self.velocity_rad_s = (ctypes.c_double * self.joints)()
        self._measured = (ctypes.c_double * self.joints)()
        self._buffer = ctypes.create_string_buffer(TRANSMIT_SIZE)
        self.now_us = 0

    @property
    def state(self) -> DeviceState:
        return DeviceState(self._library.ve_hosted_state(self._handle))

    def receive(self, data: bytes, now_us: int) -> None:
        """Bytes of the line, at device time."""
        self._library.ve_hosted_receive(self._handle, 0, data, len(data), now_us)

    def tick(self, measured_rad: tuple[float, ...], feedback_ok: bool, drive_is_on: bool, late_us: int = 0) -> bool:
        """One period later, or `late_us` more than that; returns whether the drive is to be on."""
        self.now_us += TICK_US + late_us
        self._measured[:] = list(measured_rad)
        enable = self._library.ve_hosted_exchange(
            self._handle,
            self.now_us,
            self._measured,
            feedback_ok,
            drive_is_on,
            self.set_point_rad,
            self.velocity_rad_s,
        )
        return bool(enable)

    def transmit(self) -> bytes:
        """Bytes for the host."""
        count = self._library.ve_hosted_transmit(self._handle, self._buffer, TRANSMIT_SIZE)
        return self._buffer.raw[:count]

    def flush(self) -> None:
        """Makes the trace on disk complete up to the last tick."""
        self._library.ve_hosted_flush(self._handle)

    def close(self) -> None:
        if self._handle:
            self._library.ve_hosted_close(self._handle)
            self._handle = None


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    device, number = ctypes.c_void_p, ctypes.c_uint64
    library.ve_hosted_open.restype = device
    library.ve_hosted_open.argtypes = [ctypes.c_char_p, device, ctypes.c_char_p]
    library.ve_hosted_receive.argtypes = [device, ctypes.c_uint8, ctypes.c_char_p, ctypes.c_uint32, number]
    library.ve_hosted_exchange.argtypes = [device, number, device, ctypes.c_bool, ctypes.c_bool, device, device]
    library.ve_hosted_exchange.restype = ctypes.c_bool
    library.ve_hosted_transmit.argtypes = [device, device, ctypes.c_uint32]
    library.ve_hosted_transmit.restype = ctypes.c_uint32
    for name in ("ve_hosted_state", "ve_hosted_joints"):
        getattr(library, name).argtypes = [device]
        getattr(library, name).restype = ctypes.c_uint8
    library.ve_hosted_flush.argtypes = [device]
    library.ve_hosted_close.argtypes = [device]
    return library
