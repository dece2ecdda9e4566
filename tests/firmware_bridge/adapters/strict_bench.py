"""The strict robot behind the Franka's drive, on a simulated clock, as a bench for the contract suite and its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge.arms.franka import arm_limits
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.fci_sim.strict_robot import StrictRobot
from firmware_bridge.adapters.franka_fci import BRIDGED_PERIODS, FrankaDrive
from firmware_bridge.adapters.franka_options import FrankaOptions
from firmware_bridge.client import KnotChunk
from tests.firmware_bridge.adapters.contract import ArmBench, CoreOnBench
from tests.firmware_bridge.adapters.strict_franka import StrictLibrary
from tests.support import FRANKA, HOME, Rig, chunk_from

LIMITS = arm_limits(FRANKA)


class StrictBench(ArmBench):
    """A robot that lags, sags under 0.3 kg that nobody declared, and has noise; it breaks down by a push.

    line   of `StrictLibrary`: what gets lost, how long a motion takes to begin
    """

    arm, near_rad, bridged = FRANKA, 0.005, BRIDGED_PERIODS

    def __init__(self, options: FrankaOptions | None = None, payload_kg: float = 0.3, **line: Any) -> None:
        self.library = StrictLibrary(StrictRobot(payload_kg=payload_kg), **line)
        self.said: list[str] = []
        self._options = options or FrankaOptions()
        self._before = sys.modules.get("pylibfranka")
        sys.modules["pylibfranka"] = self.library  # type: ignore[assignment]

    @property
    def robot(self) -> StrictRobot:
        return self.library.robot

    @property
    def story(self) -> tuple[list[str], list[str]]:
        """What the drive said, and what the robot has against it."""
        return self.said, self.library.why

    def open(self) -> FrankaDrive:
        return FrankaDrive("172.16.0.2", self._options, LIMITS, self.said.append)

    def break_down(self) -> None:
        self.robot.push(3, 50.0)

    def heal(self) -> None:
        self.robot.push(3, 0.0)

    def close(self) -> None:
        del sys.modules["pylibfranka"]
        if self._before is not None:
            sys.modules["pylibfranka"] = self._before


class StrictRig(Rig):
    """Host, core, adapter, drive and strict robot, a period at a time."""

    def __init__(self, folder: Path, bench: StrictBench) -> None:
        self.bench = bench
        super().__init__(arm=FRANKA, device=CoreOnBench(bench, folder / "trace.csv"))

    @property
    def robot(self) -> StrictRobot:
        return self.bench.robot

    @property
    def drive(self) -> ArmDrive:
        drive: ArmDrive = self.device.drive
        return drive

    def off_plan_rad(self) -> float:
        """How far the robot's desired positions are from the core's set-points."""
        return float(np.abs(np.subtract(self.robot.q_d, self.device.core.set_point_rad[:])).max())

    def close(self) -> None:
        super().close()
        self.bench.close()


def fast_swing(identity: int, start_us: int, knots: int = 26, spacing_us: int = 20_000) -> KnotChunk:
    """All joints at once, up to 0.9 rad/s and 7.3 rad/s^2, and still moving at its end."""
    rate, width = 8.0, 0.114
    at = spacing_us * np.arange(knots)[:, None] * 1e-6
    side = np.array([1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    q = HOME + side * width * (1 - np.cos(rate * at))
    return chunk_from(identity, start_us, q, side * width * rate * np.sin(rate * at), spacing_us)
