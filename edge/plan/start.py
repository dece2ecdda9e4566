"""Whether a policy's first goals are where the arm stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.arms import ArmProfile
from edge.errors import InputError
from edge.plan.trajectory import FloatArray


@dataclass(frozen=True)
class FarStart:
    """The joint that stands furthest from its first goal, measured against its bound."""

    joint: str
    goal_rad: float
    measured_rad: float
    bound_rad: float
    unit: str

    @property
    def distance_rad(self) -> float:
        return abs(self.goal_rad - self.measured_rad)

    def __str__(self) -> str:
        return (
            f"{self.joint} stands at {self.measured_rad:.3f} {self.unit} and the policy's first goal is "
            f"{self.goal_rad:.3f}: {self.distance_rad:.3f} {self.unit} away, and at most {self.bound_rad:g} is allowed"
        )


def far_from_start(first_goals_rad: FloatArray, measured_rad: FloatArray, arm: ArmProfile) -> FarStart | None:
    """What is wrong with beginning at `measured_rad` (J,) towards `first_goals_rad` (J,); None when nothing is.

    Raises `InputError` for a profile without bounds, and for goals or a pose that are not finite.
    """
    if arm.goals is None:
        raise InputError(f"the profile of '{arm.name}' has no table [goals]: add it as docs/howto/add-an-arm.md says")
    for name, finite in zip(arm.joints, np.isfinite(first_goals_rad) & np.isfinite(measured_rad)):
        if not finite:
            raise InputError(f"{name}: the first goal or the measured position is not a finite number")
    away = np.abs(first_goals_rad - measured_rad)
    shares = away / np.array(arm.goals.start_rad)
    joint = int(shares.argmax())
    if shares[joint] <= 1.0:
        return None
    return FarStart(
        arm.joints[joint],
        float(first_goals_rad[joint]),
        float(measured_rad[joint]),
        arm.goals.start_rad[joint],
        arm.units[joint],
    )
