"""A Franka with a Franka Hand: seven joints in rad, and the hand's width in m as the eighth axis."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from firmware_bridge.adapters.base import Measurement
from firmware_bridge.adapters.franka_fci import RECONNECT_S, FrankaDrive
from firmware_bridge.adapters.franka_options import FrankaOptions
from firmware_bridge.adapters.hand_process import HandProcess
from firmware_bridge.adapters.rate_guard import ArmLimits
from firmware_bridge.printing import harmless

JOINTS = 7


class FrankaHandDrive:
    """Both as one arm. The robot's period is the arm's; the hand is never waited for.

    `open_hand` starts looking for it and does not wait. A silent hand is a fault while that lasts, is looked for again
    once a second, and moves nothing by itself.
    """

    def __init__(
        self,
        arm: FrankaDrive,
        hand: HandProcess,
        open_hand: Callable[[], HandProcess],
        notify: Callable[[str], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self._arm, self._hand, self._open_hand, self._clock_ns = arm, hand, open_hand, clock_ns
        self._notify = harmless(notify)
        state = hand.state
        self._width_m = state.width_m if state is not None else 0.0
        self._counted = (0, 0)
        self._heard = True
        self._opened_ns = clock_ns()

    @property
    def position_rad(self) -> tuple[float, ...]:
        """As last measured; the last entry in m."""
        return (*self._arm.position_rad, self._width_m)

    @property
    def fault(self) -> str:
        """The arm's: a silent hand is looked for again by itself."""
        return self._arm.fault

    def measure(self) -> Measurement:
        measured = self._arm.measure()
        heard = self._listen()
        return replace(measured, position_rad=(*measured.position_rad, self._width_m), ok=measured.ok and heard)

    def _listen(self) -> bool:
        now_ns = self._clock_ns()
        state, heard = self._hand.state, self._hand.is_heard(now_ns)
        if state is not None:
            self._width_m, self._counted = state.width_m, (state.commands, state.refused)
        if heard is not self._heard:
            self._notify("the hand answers again" if heard else "the hand does not answer any more")
            self._heard = heard
        if not heard and self._hand.is_over and now_ns - self._opened_ns > RECONNECT_S * 1e9:
            self._opened_ns = now_ns
            self._hand.close()
            self._hand = self._open_hand()
        return heard

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        self._arm.command(set_point_rad[:JOINTS], velocity_rad_s[:JOINTS], enable)
        self._hand.command(set_point_rad[JOINTS], enable and self._heard)

    def clear(self) -> None:
        self._arm.clear()

    def statistics(self) -> dict[str, float]:
        commands, refused = self._counted
        return {**self._arm.statistics(), "hand_commands": commands, "hand_refused": refused}

    def close(self) -> None:
        self._arm.close()
        self._hand.close()


def open_franka(
    address: str, options: FrankaOptions, limits: ArmLimits, notify: Callable[[str], None]
) -> FrankaDrive | FrankaHandDrive:
    """The robot, with its hand where the options say so. Raises `DriveError`."""
    arm = FrankaDrive(address, options, limits.first(JOINTS), notify)
    if not options.gripper:
        return arm
    try:
        hand = HandProcess(address).wait()
    except BaseException:
        arm.close()
        raise
    return FrankaHandDrive(arm, hand, lambda: HandProcess(address), notify, time.monotonic_ns)
