"""What the policy's numbers mean on this arm: units, columns, and actions as increments or absolute goals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.bundle import ActionNumber, ArmSpec, AxisSpec, BundleError, StateNumber
from edge.bundle.manifest import Unit
from edge.plan.goals import GoalKind, absolute_goals
from edge.policy.base import FloatArray, PolicyInput

PER_TRAVEL: dict[Unit, tuple[float, float]] = {"percent": (0.0, 100.0), "plus_minus_100": (-100.0, 100.0)}
ARM_UNITS: dict[Unit, str] = {"rad": "rad", "deg": "rad", "m": "m"}
"""The arm's own unit of an axis that a policy may have in this one; a share of its travel suits any."""


@dataclass(frozen=True)
class Units:
    """Positions of the arm's axes, (..., J), as the policy has them: `(q - zero) * per`."""

    zero: FloatArray
    per: FloatArray

    @staticmethod
    def of(axes: tuple[AxisSpec, ...], units: tuple[Unit, ...], arm: ArmProfile) -> Units:
        """Raises `BundleError` for a unit that an axis of the arm cannot have."""
        zero, per = np.zeros(len(axes)), np.ones(len(axes))
        for index, (axis, unit) in enumerate(zip(axes, units)):
            if ARM_UNITS.get(unit, arm.units[index]) != arm.units[index]:
                raise BundleError(
                    f"joint '{axis.joint}' is in {arm.units[index]} and the policy has it in {unit}; "
                    "choose another arm, or export with --units"
                )
            if unit == "deg":
                per[index] = 180 / np.pi
            elif unit in PER_TRAVEL:
                low, high = axis.travel or arm.stops_rad[index]
                least, most = PER_TRAVEL[unit]
                per[index] = (most - least) / (high - low)
                zero[index] = low - least / per[index]
        return Units(zero, per)

    def from_arm(self, q: FloatArray) -> FloatArray:
        return (q - self.zero) * self.per

    def to_arm(self, value: FloatArray) -> FloatArray:
        return value / self.per + self.zero

    def difference_from_arm(self, dq: FloatArray) -> FloatArray:
        return dq * self.per

    def difference_to_arm(self, value: FloatArray) -> FloatArray:
        return value / self.per


@dataclass(frozen=True)
class Columns:
    """Where the axes' numbers stand in a tensor's last dimension, normalised: `(value - offset) / scale`."""

    columns: tuple[int, ...]
    offset: FloatArray
    scale: FloatArray

    def write(self, into: NDArray[np.generic], values: FloatArray, mask: NDArray[np.bool_] | None = None) -> None:
        """Normalises rows (..., J); rows that do not count, and columns of no axis, are zero."""
        into[:] = 0
        normalised = (values - self.offset) / self.scale
        into[..., list(self.columns)] = normalised if mask is None else np.where(mask[..., None], normalised, 0.0)

    def read(self, tensor: NDArray[np.generic]) -> FloatArray:
        """The axes' numbers (..., J)."""
        values: FloatArray = tensor[..., list(self.columns)].astype(np.float64) * self.scale + self.offset
        return values


class Axes:
    """The axes of one arm, as a policy has them."""

    def __init__(self, spec: ArmSpec, arm: ArmProfile, first_goal_step: int = 1) -> None:
        axes = spec.axes
        self._state_units = Units.of(axes, tuple(axis.state.unit for axis in axes), arm)
        self._action_units = Units.of(axes, tuple(axis.action.unit for axis in axes), arm)
        self.states = _columns([axis.state for axis in axes])
        self.actions = _columns([axis.action for axis in axes])
        kinds = np.array([axis.action.kind for axis in axes])
        self._kinds = [GoalKind(axis.action.kind) for axis in axes]
        self._increment, self._relative = kinds == "increment", kinds == "position_relative_to_state"
        self._skip = 1 - first_goal_step

    def write_states(self, into: NDArray[np.generic], q: FloatArray, mask: NDArray[np.bool_] | None = None) -> None:
        """Positions (..., J) in the arm's unit, as the engines take them."""
        self.states.write(into, self._state_units.from_arm(q), mask)

    def write_increments(self, into: NDArray[np.generic], dq: FloatArray, mask: NDArray[np.bool_]) -> None:
        """Increments (n, J) of the commanded positions, as actions of a policy whose actions are increments."""
        self.actions.write(into, self._action_units.difference_from_arm(dq), mask)

    def write_goals(self, into: NDArray[np.generic], observed: PolicyInput, rows: int) -> None:
        """The actions of the first `rows` steps from the observed one on, which are committed; 0 behind them."""
        into[rows:] = 0
        if self._increment.all() and rows <= len(observed.prefix_rad):
            self.actions.write(into[:rows], self._action_units.difference_from_arm(observed.prefix_rad[:rows]))
            return
        at = observed.commanded_rad[1 : rows + 1]
        increments = np.diff(observed.commanded_rad[: rows + 1], axis=0)
        values = self._action_units.from_arm(at)
        values = np.where(self._increment, self._action_units.difference_from_arm(increments), values)
        away = self._action_units.difference_from_arm(at - observed.measured_rad[-1])
        self.actions.write(into[:rows], np.where(self._relative, away, values))

    def increments_rad(self, chunk: NDArray[np.generic]) -> FloatArray:
        """Of the result (horizon, columns), where every axis has increments: (horizon, J)."""
        return self._action_units.difference_to_arm(self.actions.read(chunk))

    def goals_rad(self, chunk: NDArray[np.generic], observed: PolicyInput) -> FloatArray:
        """Of the result (horizon, columns): absolute goals (n, J), the first due at the end of the observed step."""
        values = self.actions.read(chunk)
        away, positions = self._action_units.difference_to_arm(values), self._action_units.to_arm(values)
        in_arms_unit = np.where(self._increment | self._relative, away, positions)
        goals = absolute_goals(in_arms_unit, self._kinds, observed.measured_rad[-1], observed.commanded_rad[0])
        return goals[self._skip :]


def trained_states(spec: ArmSpec, arm: ArmProfile) -> tuple[FloatArray, FloatArray] | None:
    """Mean and spread of every joint's position in training, in the arm's unit; None where they are not known."""
    mean, spread = np.array(spec.training.state_mean), np.array(spec.training.state_spread)
    if not (len(mean) and len(spread)):
        return None
    units = Units.of(spec.axes, tuple(axis.state.unit for axis in spec.axes), arm)
    return units.to_arm(mean), units.difference_to_arm(spread)


def _columns(numbers: list[StateNumber] | list[ActionNumber]) -> Columns:
    return Columns(
        tuple(one.column for one in numbers),
        np.array([one.offset for one in numbers]),
        np.array([one.scale for one in numbers]),
    )
