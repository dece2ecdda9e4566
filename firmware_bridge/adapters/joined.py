"""Several arms, each on a bus of its own, as one: their axes side by side, one cycle, and every fault that of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from firmware_bridge.adapters.base import Measurement
from firmware_bridge.adapters.bus_drive import BusDrive

MERGED: dict[str, Callable[[Sequence[float]], float]] = {
    "success_rate_least": min,
    "cycles": max,
    "temperature_most_c": max,
    "grip_torque_most_nm": max,
    "voltage_least_v": min,
    "bus_load": max,
}
"""What becomes of the figures of several arms; the others are added up."""


class JoinedDrive:
    """The arms in their order. Every bus is asked before any is waited for, so that a cycle is as long as one arm's.

    What one of them has to say of a fault the core hears in that cycle, as of the whole: it stops all. No arm comes on
    while another has a fault.
    """

    def __init__(self, arms: Sequence[BusDrive[Any]]) -> None:
        self._arms = tuple(arms)
        ends = [sum(len(arm.position_rad) for arm in arms[: index + 1]) for index in range(len(arms))]
        self._axes = tuple(slice(start, end) for start, end in zip([0, *ends], ends))
        self._wanted = False
        self.CYCLE_PERIODS = max(arm.CYCLE_PERIODS for arm in arms)

    @property
    def position_rad(self) -> tuple[float, ...]:
        """As last measured."""
        return tuple(q for arm in self._arms for q in arm.position_rad)

    @property
    def fault(self) -> str:
        """What keeps the arms from moving, in words; empty where nothing does."""
        return next((arm.fault for arm in self._arms if arm.fault), "")

    def while_waiting(self, serve: Callable[[], None]) -> None:
        self._arms[0].while_waiting(serve)

    def measure(self) -> Measurement:
        for arm in self._arms:
            arm.collect()
        stamp_ns = self._arms[0].wait_for_cycle()
        for arm in self._arms:
            arm.begin(stamp_ns)
        told = [arm.finish() for arm in self._arms]
        return Measurement(
            tuple(q for one in told for q in one.position_rad),
            all(one.ok for one in told),
            (all if self._wanted else any)(one.drive_is_on for one in told),
            told[0].periods,
            told[-1].age_us,
        )

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        refused = enable and not self._wanted and bool(self.fault)
        self._wanted = enable and not refused
        for arm, axes in zip(self._arms, self._axes):
            on = self._wanted or (refused and bool(arm.fault))  # the one that has the fault tells it again
            arm.command(set_point_rad[axes], velocity_rad_s[axes], on)

    def clear(self) -> None:
        for arm in self._arms:
            arm.clear()

    def statistics(self) -> dict[str, float]:
        told = [arm.statistics() for arm in self._arms]
        return {name: MERGED.get(name, sum)([one[name] for one in told]) for name in told[0]}

    def close(self) -> None:
        """Takes the drive of every arm away."""
        for arm in self._arms:
            arm.close()
