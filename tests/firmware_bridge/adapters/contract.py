"""What the contract suite needs of an arm: a drive, and something that can be broken behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.arms import ArmProfile
from firmware_bridge.adapters import Adapter, ArmDrive, Measurement
from firmware_bridge.codes import DeviceState
from firmware_bridge.hosted import HostedDevice
from tests.support import Rig

PATIENCE = 10_000
"""Measurements in which an arm does what it was asked: 10 s where a period is 1 ms."""


class ArmBench(ABC):
    """One kind of arm on a bench.

    arm            its profile
    near_rad       how near to a set-point that stands still the arm has to come
    bridged        how many periods may be missing until the core is told
    """

    arm: ArmProfile
    near_rad: float
    bridged: int

    @abstractmethod
    def open(self) -> ArmDrive:
        """Connects to the arm."""

    @abstractmethod
    def break_down(self) -> None:
        """The arm stops by itself, or its line is gone."""

    @abstractmethod
    def heal(self) -> None:
        """What was wrong is put right; whether the arm moves again is not decided here."""

    def rig(self, trace: Path) -> Rig:
        """Host and core around the arm, stepped together; for an arm whose cycle is one period of the core."""
        return Rig(arm=self.arm, device=CoreOnBench(self, trace))

    def device_us(self, rig: Rig) -> int:
        """Device time at the host's present."""
        return int(rig.device.now_us)

    @abstractmethod
    def close(self) -> None:
        """Leaves nothing running."""


def serve(
    drive: ArmDrive,
    set_point_rad: Sequence[float],
    enable: bool,
    until: Callable[[Measurement], bool],
    patience: int = PATIENCE,
) -> Measurement:
    """Measures and commands a pose at rest until something holds; fails when it does not."""
    rest = [0.0] * len(set_point_rad)
    for _ in range(patience):
        told = drive.measure()
        if until(told):
            drive.command(set_point_rad, rest, enable)
            return told
        drive.command(set_point_rad, rest, enable)
    raise AssertionError(f"not in {patience} periods; the last was {told}")


class Wire:
    """Both ends of the line: the adapter reads what the host writes, and the other way round."""

    def __init__(self) -> None:
        self.to_device, self.to_host = b"", b""
        self.is_clear = True

    def read(self) -> bytes:
        data, self.to_device = self.to_device, b""
        return data

    def write(self, data: bytes) -> None:
        self.to_host += data

    def close(self) -> None:
        pass


class CoreOnBench:
    """What a rig steps in place of a lockstep device: the core with the arm behind it, a measurement a period."""

    def __init__(self, bench: ArmBench, trace: Path) -> None:
        self.drive, self.wire = bench.open(), Wire()
        self.core = HostedDevice(bench.arm.name, self.drive.position_rad, trace)
        self.adapter = Adapter(self.core, self.drive, self.wire, lambda: self.now_us * 1000, bench.bridged)

    @property
    def now_us(self) -> int:
        return self.core.now_us

    @property
    def state(self) -> DeviceState:
        return self.core.state

    def tick(self, count: int = 1) -> None:
        until_us = self.now_us + 1000 * count
        for _ in range(2 * count):  # a measurement may bring no new period
            if self.now_us < until_us:
                self.adapter.step()

    def read(self) -> bytes:
        data, self.wire.to_host = self.wire.to_host, b""
        return data

    def write(self, data: bytes) -> None:
        self.wire.to_device += data

    def close(self) -> None:
        self.core.close()
        self.drive.close()
