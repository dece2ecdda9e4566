"""One period of an adapter: what the arm reports goes into the core, what the core decides goes to the arm.

The arm's periods are the device's clock. Where some were lost, the core is run for each of them, so that the set-point
that follows stands where it belongs; a gap that no arm bridges is passed to the core as it is, which faults by its own
watchdog.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from firmware_bridge.adapters.base import ArmDrive, Measurement, fault_of
from firmware_bridge.adapters.latch import LatchFile
from firmware_bridge.adapters.terminal import HostLine
from firmware_bridge.codes import LATCHED, TICK_US, DeviceState, StopReason
from firmware_bridge.hosted import HostedDevice

IN_MOTION = (DeviceState.ARMED, DeviceState.STREAMING, DeviceState.DECEL)
RECOVERING_STEPS = 200
"""After a CLEAR: an arm that stops by itself again within them has not come free."""
LEAVE_TICKS = 3000
"""Longest wait for rest: the core's watchdog and the longest stop of any arm together take a fraction of it."""


@runtime_checkable
class LongCycle(Protocol):
    """A drive whose cycle is several periods: while it waits for the next one, the host is to be heard."""

    def while_waiting(self, serve: Callable[[], None]) -> None:
        """`serve` is to be called about every half millisecond in which there is nothing else to do."""


class Adapter:
    """Core, arm and line. `step` runs one period and is called again and again; it waits in `drive.measure`.

    `bridged_periods` is how long a gap may be for the arm to go on by itself, 20 for a Franka. `cycle_periods` is how
    many periods the arm takes from one measurement to the next; more count as lost. `idle_us` is how far device time
    goes on by itself between two: up to the next period of an arm whose clock may stand still, and through several
    where the periods are timed by this computer's own clock.
    `latch` keeps a fault beyond this process. What an earlier one has left there, the core begins with; likewise with a
    fault that the arm is found in.
    `measured_rad` is what the arm reported last, `answer_ns` how long after that the set-point was with its protocol.
    """

    def __init__(
        self,
        device: HostedDevice,
        drive: ArmDrive,
        line: HostLine,
        clock_ns: Callable[[], int],
        bridged_periods: int,
        cycle_periods: int = 1,
        idle_us: int = TICK_US - 1,
        latch: LatchFile | None = None,
    ) -> None:
        self.device = device
        self.drive = drive
        self.line = line
        self.ticks = 0
        self.measured_rad: tuple[float, ...] = tuple(device.set_point_rad)
        self.lost_periods = 0
        self.answer_ns = 0
        self._clock_ns = clock_ns
        self._bridged = bridged_periods
        self._cycle = cycle_periods
        self._idle_us = idle_us
        self._measured_ns = clock_ns()
        self._enable = False
        self._latch = latch
        self._recovering = 0
        if latch is not None and latch.found is not None:
            device.latch(DeviceState(latch.found.state), latch.found.reason)
        elif fault_of(drive):
            device.latch(DeviceState.FAULT, StopReason.FEEDBACK_LOST)
        self._latched = device.state in LATCHED
        self._leaving_since: int | None = None
        if isinstance(drive, LongCycle):
            drive.while_waiting(self.serve)

    def leave(self) -> None:
        """From now on the host is not heard, so that the core's watchdog brings the arm to rest."""
        if self._leaving_since is None:
            self._leaving_since = self.ticks

    @property
    def may_leave(self) -> bool:
        """Whether `leave` was called, and the arm is at rest, or ought to have come to rest long ago."""
        if self._leaving_since is None:
            return False
        return self.device.state not in IN_MOTION or self.ticks - self._leaving_since > LEAVE_TICKS

    def step(self) -> None:
        """Waits for the arm's next period, and serves it."""
        measured = self.drive.measure()
        self.measured_rad = measured.position_rad
        reported_ns = self._clock_ns()
        self._receive()
        self._measured_ns = self._clock_ns() - 1000 * measured.age_us
        if self._recovering and not measured.ok:
            self.device.latch(DeviceState.FAULT, StopReason.FEEDBACK_LOST)  # cleared, and the arm is not free
        self._recovering = max(0, self._recovering - 1)
        self._tick(measured)
        self._keep_latch()
        self.drive.command(self.device.set_point_rad[:], self.device.velocity_rad_s[:], self._enable)
        self.answer_ns = self._clock_ns() - reported_ns
        self.serve()

    def serve(self) -> None:
        """Hears the host and answers it, between two periods: late replies inflate the clock's uncertainty."""
        self._receive()
        self.line.write(self.device.transmit() if self.line.is_clear else b"")

    def _keep_latch(self) -> None:
        """A fault is kept as soon as it is there, and let go with the host's CLEAR."""
        was, self._latched = self._latched, self.device.state in LATCHED
        if self._latched and not was and self._latch is not None:
            self._latch.put(self.device.state, self.device.reason, fault_of(self.drive))
        elif was and not self._latched:
            if self._latch is not None:
                self._latch.clear()
            self.serve()  # the answer first: an arm may take seconds to recover
            self.drive.clear()
            self._recovering = RECOVERING_STEPS

    def _tick(self, measured: Measurement) -> None:
        self.lost_periods += max(0, measured.periods - measured.idle - self._cycle)
        if measured.periods > self._bridged:
            self._tick_once(measured, (measured.periods - 1) * TICK_US)
            return
        for _ in range(measured.periods):
            self._tick_once(measured, 0)

    def _tick_once(self, measured: Measurement, late_us: int) -> None:
        self._enable = self.device.tick(measured.position_rad, measured.ok, measured.drive_is_on, late_us)
        self.ticks += 1

    def _receive(self) -> None:
        data = self.line.read()
        if data and self._leaving_since is None:
            since_us = (self._clock_ns() - self._measured_ns) // 1000
            self.device.receive(data, self.device.now_us + min(since_us, self._idle_us))
