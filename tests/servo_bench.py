"""The simulated servos of an SO-101 in this process, on a clock that stands still until somebody waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.arms.feetech import joint_spans
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import Calibration, ServoCalibration, scales
from firmware_bridge.adapters.feetech.drive import FeetechDrive
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo
from firmware_bridge.errors import LinkLost
from tests.bus_bench import BusBench, BusRig, SteppedClock

SO101 = load_arm("so101")
SOUND = LineFaults()
OFFSETS = (0, -120, 300, 17, -1, 800)
DIRECTIONS = (1, -1, 1, 1, -1, 1)
RANGES = ((840, 3300), (700, 3380), (930, 3170), (900, 3200), (10, 4090), (1900, 3360))


def calibration() -> Calibration:
    rows = zip(SO101.joints, range(1, 7), DIRECTIONS, OFFSETS, RANGES)
    return Calibration("so101", tuple(ServoCalibration(n, i, d, o, low, high) for n, i, d, o, (low, high) in rows))


SCALES = scales(calibration(), joint_spans(SO101))


LOADS = (0.0, -0.15, 0.12, 0.06, 0.01, 0.0)
"""Of the stall torque, towards higher angles: what weighs on a folded arm (ours). Without torque it sinks."""
MISSED_COUNTS = 4
"""By which a sweep by hand misses each stop."""


def servos_at(pose_rad: Sequence[float], made: Calibration | None = None) -> dict[int, SimulatedServo]:
    """Calibrated servos, their shafts where the joints' angles say."""
    servos = {}
    made = made or calibration()
    for scale, one, q in zip(scales(made, joint_spans(SO101)), made.servos, pose_rad):
        servos[scale.servo] = SimulatedServo(scale.servo, scale.count(q) + one.homing_offset)
        servos[scale.servo][reg.HOMING_OFFSET] = one.homing_offset
    return servos


def loaded(servos: dict[int, SimulatedServo], made: Calibration) -> None:
    """Gives the servos an arm to carry: weights, stops a little beyond the sweep, and noise in what they tell."""
    for one, load in zip(made.servos, LOADS):
        servo = servos[one.servo]
        servo.load, servo.noise = one.direction * load, 1
        low, high = one.range_min - MISSED_COUNTS, one.range_max + MISSED_COUNTS
        servo.stops = low + one.homing_offset, high + one.homing_offset


def resting(servos: dict[int, SimulatedServo]) -> None:
    """The arm that the servos carry lies on something where it stands, and tells it with noise."""
    loaded(servos, calibration())
    for servo in servos.values():
        low, high = servo.stops
        servo.stops = (servo.encoder - 1, high) if servo.load < 0 else (low, servo.encoder + 1)


class SimulatedPort:
    """A `Transport` to the simulated bus. `broken` is a port that was pulled out."""

    def __init__(self, bus: SimulatedBus, clock: SteppedClock) -> None:
        self.bus, self.clock = bus, clock
        self.broken = False
        self.written: list[bytes] = []
        self._coming: deque[tuple[int, bytes]] = deque()

    def read(self) -> bytes:
        self._check()
        data = b""
        while self._coming and self._coming[0][0] <= self.clock.ns:
            data += self._coming.popleft()[1]
        return data

    def write(self, data: bytes) -> None:
        self._check()
        self.written.append(data)
        self._coming += self.bus.receive(data, self.clock.ns)

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.broken:
            self._coming.clear()
            raise LinkLost("the port was pulled out")


class ServoBench(BusBench):
    """Servos, bus and drive. `core` adds the firmware's core and the adapter: then the rig of `tests.support` fits."""

    def __init__(
        self,
        faults: LineFaults = SOUND,
        core: bool = False,
        trace: Path | None = None,
        change: Callable[[dict[int, SimulatedServo]], None] = lambda servos: None,
        made: Calibration | None = None,
        pose_rad: Sequence[float] = SO101.home_rad,
    ) -> None:
        super().__init__()
        self.made = made or calibration()
        self.scales = scales(self.made, joint_spans(SO101))
        self.servos = servos_at(pose_rad, self.made)
        change(self.servos)
        self.bus = SimulatedBus(self.servos, faults, self.clock.ns)
        self.port = SimulatedPort(self.bus, self.clock)
        self.said: list[str] = []
        self.drive = self.open_drive()
        if core:
            self._begin_core("so101", self.drive, trace)

    def open_drive(self) -> FeetechDrive:
        """Connects to the servos, as the last one left them."""
        return FeetechDrive(
            lambda: ServoBus(self.port, self.clock.now_ns, self.clock.wait),
            self.made,
            joint_spans(SO101),
            self.said.append,
            self.clock.now_ns,
            self.clock.sleep,
        )

    @property
    def joints_rad(self) -> np.ndarray:
        return self.shafts_rad

    @property
    def shafts_rad(self) -> np.ndarray:
        """Where the shafts are, not what the servos tell."""
        self.bus.advance(self.clock.ns)
        rows = zip(self.scales, self.servos.values())
        return np.array([scale.rad(servo.position) for scale, servo in rows])


class ServoRig(BusRig):
    """The rig on a bench with a core."""

    def __init__(self, bench: ServoBench) -> None:
        super().__init__(arm=SO101, device=bench)
