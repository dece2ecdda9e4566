"""Two SO-101 on a simulated bus each, behind one drive and one core, on a clock that stands still between waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.arms.feetech import joint_spans
from firmware_bridge.adapters.base import Measurement
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import Calibration
from firmware_bridge.adapters.feetech.drive import FeetechDrive
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo
from firmware_bridge.adapters.joined import JoinedDrive
from tests.bus_bench import BusBench, BusRig, SteppedClock
from tests.servo_bench import SCALES, SO101, SOUND, SimulatedPort, calibration, servos_at

BOTH = load_arm("bi_so101")
SIDES = tuple(side for side, _ in BOTH.parts)
AXES = {side: slice(SO101.dof * index, SO101.dof * (index + 1)) for index, side in enumerate(SIDES)}
Change = Callable[[dict[int, SimulatedServo]], None]


class OneSide:
    """One arm's servos and their bus."""

    def __init__(self, side: str, faults: LineFaults, change: Change, clock: SteppedClock) -> None:
        self.side, self.clock = side, clock
        self.servos = servos_at(SO101.home_rad)
        change(self.servos)
        self.bus = SimulatedBus(self.servos, faults, clock.ns)
        self.port = SimulatedPort(self.bus, clock)

    @property
    def shafts_rad(self) -> list[float]:
        self.bus.advance(self.clock.ns)
        return [scale.rad(servo.position) for scale, servo in zip(SCALES, self.servos.values())]

    @property
    def holds(self) -> bool:
        """Whether any of its servos does."""
        return any(servo.is_on for servo in self.servos.values())

    def open(self, notify: Callable[[str], None]) -> FeetechDrive:
        """Connects to it, under the names that the whole arm has for its joints."""
        own = calibration()
        named = tuple(replace(one, joint=f"{self.side}_{one.joint}") for one in own.servos)
        return FeetechDrive(
            lambda: ServoBus(self.port, self.clock.now_ns, self.clock.wait),
            Calibration(own.arm, named),
            joint_spans(BOTH)[AXES[self.side]],
            notify,
            self.clock.now_ns,
            self.clock.sleep,
        )


class Watched(JoinedDrive):
    """A drive whose first report that cannot be relied on is kept, with what the core's clock was then."""

    now_us: Callable[[], int] = staticmethod(lambda: 0)
    first_bad_us: int | None = None

    def measure(self) -> Measurement:
        told = super().measure()
        if not told.ok and self.first_bad_us is None:
            self.first_bad_us = self.now_us()
        return told


class TwoArmBench(BusBench):
    """`core` adds the firmware's core and the adapter: then `TwoArmRig` fits."""

    def __init__(
        self,
        faults: LineFaults = SOUND,
        core: bool = False,
        trace: Path | None = None,
        change: Change = lambda servos: None,
    ) -> None:
        super().__init__()
        seeds = [replace(faults, seed=faults.seed + index) for index in range(len(SIDES))]
        self.sides = {side: OneSide(side, one, change, self.clock) for side, one in zip(SIDES, seeds)}
        self.said: list[str] = []
        self.drive = self.open_drive()
        if core:
            self._begin_core(BOTH.name, self.drive, trace)
            self.drive.now_us = lambda: self.core.now_us

    def open_drive(self) -> Watched:
        """Connects to all servos, as the last one left them."""
        arms = [side.open(self.said.append) for side in self.sides.values()]
        return Watched(arms)

    @property
    def joints_rad(self) -> np.ndarray:
        return np.array([q for side in self.sides.values() for q in side.shafts_rad])


class TwoArmRig(BusRig):
    """The rig on a bench with a core."""

    def __init__(self, bench: TwoArmBench) -> None:
        super().__init__(arm=BOTH, device=bench)
