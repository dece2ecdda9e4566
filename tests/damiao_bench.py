"""The simulated motors of a YAM in this process, on a clock that stands still until somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.arms.damiao import load_motors
from firmware_bridge.adapters.damiao.drive import DamiaoDrive
from firmware_bridge.adapters.damiao.motors import exchange
from firmware_bridge.adapters.damiao.simulated import SimulatedBus, SimulatedMotor, simulated_motors
from firmware_bridge.adapters.gravity import GravityModel
from firmware_bridge.adapters.simulated_can import BusFaults
from firmware_bridge.client import KnotChunk
from tests.bus_bench import BusBench, BusRig, SimulatedCan
from tests.support import chunk_from

YAM = load_arm("yam")
MOTORS = load_motors(YAM)
CARRIED_KG = 1.2
"""The gripper, and half a kilogram of which the drive knows nothing."""
SOUND = BusFaults()


class Motion:
    """A swing of every joint of a YAM around a pose, from rest; a chunk replaces the one before after `EVERY_US`."""

    AMPLITUDE_RAD = np.array([0.6, 0.4, 0.4, 0.4, 0.5, 0.6])
    RATE_1_S = 1.5
    SPACING_US, KNOTS, EVERY_US = 100_000, 11, 400_000

    def __init__(self, origin_rad: np.ndarray, zero_us: int) -> None:
        self.origin_rad, self.zero_us = origin_rad, zero_us

    def chunk(self, number: int) -> KnotChunk:
        start_us = self.zero_us + number * self.EVERY_US
        phase = self.RATE_1_S * 1e-6 * (number * self.EVERY_US + self.SPACING_US * np.arange(self.KNOTS)[:, None])
        q = self.origin_rad + self.AMPLITUDE_RAD * np.sin(phase) ** 3
        dq = self.AMPLITUDE_RAD * 3 * self.RATE_1_S * np.sin(phase) ** 2 * np.cos(phase)
        return chunk_from(number + 1, start_us % 2**32, q, dq, self.SPACING_US)


class DamiaoBench(BusBench):
    """Motors, bus and drive. `core` adds the firmware's core and the adapter: then the rig of `tests.support` fits."""

    def __init__(
        self,
        faults: BusFaults = SOUND,
        core: bool = False,
        trace: Path | None = None,
        change: Callable[[list[SimulatedMotor]], None] = lambda motors: None,
        propped: bool = True,
    ) -> None:
        super().__init__()
        self.motors = simulated_motors(MOTORS, YAM.home_rad)
        change(self.motors)
        self.bus = SimulatedBus(MOTORS, self.motors, faults, self.clock.ns, CARRIED_KG)
        self.bus.is_propped = propped
        self.can = SimulatedCan(self.bus, self.clock)
        self.said: list[str] = []
        self.drive = self.open_drive()
        if core:
            self._begin_core("yam", self.drive, trace)

    def open_drive(self) -> DamiaoDrive:
        """Connects to the motors, as the last one left them."""
        return DamiaoDrive(
            lambda: self.can,
            MOTORS,
            GravityModel([spec.link for spec in MOTORS.motors], MOTORS.tool_kg),
            exchange(len(MOTORS.motors), 1_000_000),
            self.said.append,
            self.clock.now_ns,
            self.clock.sleep,
        )

    @property
    def joints_rad(self) -> np.ndarray:
        return np.array(self.bus.joints_rad)


class DamiaoRig(BusRig):
    """The rig on a bench with a core."""

    def __init__(self, bench: DamiaoBench) -> None:
        super().__init__(arm=YAM, device=bench)
