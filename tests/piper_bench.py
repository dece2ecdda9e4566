"""A simulated Piper in this process, on a clock that stands still until somebody waits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.arms.piper import piper_arm
from firmware_bridge.adapters.piper.drive import PiperDrive, bus_share
from firmware_bridge.adapters.piper.simulated import SimulatedPiper
from firmware_bridge.adapters.simulated_can import BusFaults
from tests.bus_bench import BusBench, BusRig, SimulatedCan, Swing

PIPER = load_arm("piper")
GRIP_NM, CARRIED_KG = 1.0, 0.5
SOUND = BusFaults()
SWING = partial(Swing, [0.6, 0.4, 0.4, 0.5, 0.5, 0.6, 0.015], 1.2)
BITRATE = 1_000_000


class PiperBench(BusBench):
    """Arm, bus and drive. `core` adds the firmware's core and the adapter: then the rig of `tests.support` fits."""

    def __init__(
        self,
        faults: BusFaults = SOUND,
        core: bool = False,
        trace: Path | None = None,
        change: Callable[[SimulatedPiper], None] = lambda arm: None,
        firmware: str = "S-V1.8-2",
        let_go: bool = False,
    ) -> None:
        super().__init__()
        self.arm = SimulatedPiper(PIPER.home_rad, faults, self.clock.ns, CARRIED_KG, firmware=firmware)
        self.arm.is_propped = True
        change(self.arm)
        self.can = SimulatedCan(self.arm, self.clock)
        self.said: list[str] = []
        self.drive = self.open_drive(let_go)
        if core:
            self._begin_core("piper", self.drive, trace)

    def open_drive(self, let_go: bool = False) -> PiperDrive:
        """Connects to the arm, as the last one left it."""
        return PiperDrive(
            lambda: self.can,
            piper_arm(PIPER),
            GRIP_NM,
            let_go,
            bus_share(BITRATE),
            self.said.append,
            self.clock.now_ns,
            self.clock.sleep,
        )

    @property
    def joints_rad(self) -> np.ndarray:
        return np.array(self.arm.joints_rad)


class PiperRig(BusRig):
    """The rig on a bench with a core."""

    def __init__(self, bench: PiperBench) -> None:
        super().__init__(arm=PIPER, device=bench)
