"""What simulated motors turn: a shaft with inertia and friction, and the end stops of an arm; ours throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass

CURRENT_LOOP_S = 0.001
STILL_RAD_S = 1e-3
STOP_NM_RAD, STOP_NMS_RAD = 2000.0, 20.0
"""Of the arm's own end stops."""


@dataclass(frozen=True)
class Build:
    """What a motor and its share of an arm are made of."""

    torque_nm: float
    inertia_kgm2: float
    viscous_nms: float
    friction_nm: float


class Shaft:
    """`position_rad` and `velocity_rad_s` of what a motor turns through a current loop that lags."""

    def __init__(self, build: Build, position_rad: float) -> None:
        self.build = build
        self.position_rad, self.velocity_rad_s, self.torque_nm = position_rad, 0.0, 0.0
        self.stops_rad = (-math.inf, math.inf)

    def advance(self, seconds: float, wanted_nm: float, load_nm: float, held: bool = False) -> None:
        """`load_nm` is what the arm's weight pulls with, in the direction of the angle; `held` stops the shaft."""
        most = self.build.torque_nm
        wanted_nm = min(max(wanted_nm, -most), most)
        self.torque_nm += (wanted_nm - self.torque_nm) * min(1.0, seconds / CURRENT_LOOP_S)
        if held:
            self.velocity_rad_s = 0.0
        else:
            self._move(seconds, self.torque_nm + load_nm)

    def _move(self, seconds: float, torque_nm: float) -> None:
        build = self.build
        low, high = self.stops_rad
        beyond = min(self.position_rad - low, 0.0) + max(self.position_rad - high, 0.0)
        if beyond:
            torque_nm -= STOP_NM_RAD * beyond + STOP_NMS_RAD * self.velocity_rad_s
        if abs(self.velocity_rad_s) < STILL_RAD_S and abs(torque_nm) <= build.friction_nm:
            self.velocity_rad_s = 0.0
            return
        direction = math.copysign(1.0, self.velocity_rad_s or torque_nm)
        torque_nm -= build.viscous_nms * self.velocity_rad_s + build.friction_nm * direction
        before = self.velocity_rad_s
        self.velocity_rad_s += torque_nm / build.inertia_kgm2 * seconds
        if before and before * self.velocity_rad_s < 0.0:  # friction stops a shaft, and does not turn it round
            self.velocity_rad_s = 0.0
        self.position_rad += self.velocity_rad_s * seconds
