"""The simulated motors of a YAM in this process, on a clock that stands still until somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.arms.damiao import load_motors
from firmware_bridge.adapters.damiao.drive import DamiaoDrive
from firmware_bridge.adapters.damiao.motors import exchange
from firmware_bridge.adapters.damiao.simulated import SimulatedBus, SimulatedMotor, simulated_motors
from firmware_bridge.adapters.gravity import GravityModel
from firmware_bridge.adapters.simulated_can import BusFaults
from tests.bus_bench import BusBench, BusRig, SimulatedCan, Swing

YAM = load_arm("yam")
MOTORS = load_motors(YAM)
CARRIED_KG = 1.2
"""The gripper, and half a kilogram of which the drive knows nothing."""
SOUND = BusFaults()
SWING = partial(Swing, [0.6, 0.4, 0.4, 0.4, 0.5, 0.6], 1.5)


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
