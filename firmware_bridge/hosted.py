"""The firmware's core in this process, for adapters: who drives the arm steps it, once for each period of the drive."""

from __future__ import annotations

import ctypes
from pathlib import Path

from firmware_bridge.codes import MAX_JOINTS, TICK_US, DeviceState
from firmware_bridge.errors import BridgeError
from firmware_bridge.native import build, load

TRANSMIT_SIZE = 2048
_AT, _TEXT, _U8, _U32, _U64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64
SIGNATURES = {
    "ve_hosted_open": (_AT, _TEXT, _AT, _TEXT),
    "ve_hosted_receive": (None, _AT, _U8, _TEXT, _U32, _U64),
    "ve_hosted_exchange": (ctypes.c_bool, _AT, _U64, _AT, ctypes.c_bool, ctypes.c_bool, _AT, _AT),
    "ve_hosted_transmit": (_U32, _AT, _AT, _U32),
    "ve_hosted_latch": (None, _AT, _U8, _U8),
    "ve_hosted_reason": (_U8, _AT),
    "ve_hosted_state": (_U8, _AT),
    "ve_hosted_joints": (_U8, _AT),
    "ve_hosted_flush": (None, _AT),
    "ve_hosted_close": (None, _AT),
}
"""Of `hosted.h`: result, arguments."""


class HostedDevice:
    """One device of the arm `arm`, started at the measured pose `start_rad`. Raises `BuildError`, `BridgeError`.

    `set_point_rad` and `velocity_rad_s` hold what the last tick put out; they are written in place.
    """

    def __init__(self, arm: str, start_rad: tuple[float, ...], trace: Path | None = None) -> None:
        self._library = load(build().library, SIGNATURES)
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

    @property
    def reason(self) -> int:
        """Why it last stopped, as a `StopReason`."""
        return int(self._library.ve_hosted_reason(self._handle))

    def latch(self, state: DeviceState, reason: int) -> None:
        """It is found in FAULT or ESTOP, and stays there until a host has cleared it."""
        self._library.ve_hosted_latch(self._handle, state, reason)

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
