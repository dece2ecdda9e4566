"""A policy on the strict Franka, on the simulated clock: its line, its adapter and its hand in place of the device.

The cameras see the scene with the arm where it is measured; the objects are only drawn, and stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import mujoco
import numpy as np

from edge.arms import ArmProfile
from edge.sim.axes import Axes
from edge.sim.lockstep import LockstepSettings, SteppedDevice
from edge.sim.scenes import Scene
from firmware_bridge.adapters.fci_sim.loss import PacketLoss
from firmware_bridge.adapters.fci_sim.strict_robot import StrictRobot
from firmware_bridge.adapters.franka_hand import JOINTS, FrankaHandDrive
from firmware_bridge.adapters.hand_process import SPEED_M_S, HandState
from tests.firmware_bridge.adapters.contract import CoreOnBench
from tests.firmware_bridge.adapters.strict_bench import StrictBench

PERIOD_S = 0.001


class SteppedHand:
    """A hand that goes where it is told with its speed, and is read every period. Stands in for `HandProcess`."""

    is_over = False

    def __init__(self, width_m: float, clock_ns: Callable[[], int]) -> None:
        self._width_m = self._target_m = width_m
        self._clock_ns = clock_ns

    @property
    def state(self) -> HandState:
        way_m = self._target_m - self._width_m
        self._width_m += float(np.clip(way_m, -SPEED_M_S * PERIOD_S, SPEED_M_S * PERIOD_S))
        return HandState(self._width_m, self._clock_ns(), 0, 0)

    def is_heard(self, now_ns: int) -> bool:
        return True

    def command(self, width_m: float, enable: bool) -> None:
        self._target_m = float(np.clip(width_m, 0.0, 0.08)) if enable else self._width_m

    def close(self) -> None:
        pass


class HandedBench(StrictBench):
    """The strict robot, with a hand where the profile has an eighth axis."""

    def __init__(self, arm: ArmProfile, start: Sequence[float], loss: PacketLoss) -> None:
        super().__init__(loss=loss)
        self.arm, self.start = arm, start
        self.library.robot = StrictRobot(start_rad=start[:JOINTS], payload_kg=0.3)

    def open(self) -> FrankaHandDrive | object:  # type: ignore[override]
        drive = super().open()
        if self.arm.dof == JOINTS:
            return drive
        hand = SteppedHand(self.start[JOINTS], self.clock_ns)
        return FrankaHandDrive(drive, hand, lambda: hand, self.said.append, self.clock_ns)  # type: ignore[arg-type, return-value]

    def clock_ns(self) -> int:
        return 1_000_000 * self.library.now_ms


class StrictDevice(CoreOnBench):
    """What a lockstep run steps: the core beside the strict robot, in a scene."""

    def __init__(self, bench: HandedBench, scene: Scene, trace: Path) -> None:
        super().__init__(bench, trace)
        self.bench, self._axes, self._data = bench, Axes(scene.model), mujoco.MjData(scene.model)

    def world(self) -> np.ndarray:
        self._axes.place(self._data, np.array(self.adapter.measured_rad))
        return self._data.qpos.copy()


def strict_device(loss: PacketLoss, made: list[StrictDevice]) -> Callable[..., AbstractContextManager[SteppedDevice]]:
    """For `run_lockstep`; the device is put into `made`."""

    @contextmanager
    def opened(arm: ArmProfile, scene: Scene, settings: LockstepSettings) -> Iterator[SteppedDevice]:
        bench = HandedBench(arm, scene.start, loss)
        assert settings.trace is not None
        device = StrictDevice(bench, scene, settings.trace)
        made.append(device)
        try:
            yield device
        finally:
            device.core.flush()
            device.close()
            bench.close()

    return opened
