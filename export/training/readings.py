"""In which unit a recording's numbers are: told, or the only one in which they fit the arm. Never guessed.

LeRobot records an SO arm in degrees, zero in the middle of each joint's travel, or normalised to -100 to 100 of the
travel that was calibrated (0.4.0 to 0.4.2 by default); the jaw is 0 to 100 of its own travel in both. Its robot types
suggest one of them and prove nothing, since users set it either way. What was calibrated is the arm's own sweep: with
its calibration file -100 to 100 are of that, without it of the profile's travel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, ProfileError, load_arm
from edge.arms.feetech import CalibrationError, own_sweeps
from export.training.lerobot import DatasetError, DatasetInfo, Rows
from export.training.mapping import READING, EmbodimentMapping, Group
from export.training.steps import states_of
from firmware_bridge.reading import Reader, one_line

Values = NDArray[np.float64]
UNITS = ("degrees", "radians", "normalised")
"""How all axes of a robot are read; `radians` is each axis's own unit, metres for a gripper that slides."""
MARGIN = 0.1
"""Of an axis's range: as far beyond its ends a calibration may put a number."""
LEAST_MOTION = 0.1
"""Of its range, that one joint at least has moved in a reading that fits."""
FASTEST = 3.0
"""Times an axis's velocity limit: what no hand moves it by from one frame to the next."""
WHOLE_TURN = ("wrist_roll",)
"""Joints that LeRobot calibrates over a whole turn of their servo, 0 to 4095, whatever their limits are."""
EDGE = 0.5
"""Below 100, from which on a value counts as touching it."""


@dataclass(frozen=True)
class Reading:
    """How one axis is read: its limits in the recording's numbers, and `value * scale + offset` in the arm's unit."""

    low: float
    high: float
    scale: float = 1.0
    offset: float = 0.0


def readings(arm: ArmProfile, sweeps: Sequence[float] | None = None) -> dict[str, list[Reading]]:
    """Of each kind of units, one for each axis; `sweeps` are the arm's own that has recorded, as of `own_sweeps`."""
    table: dict[str, list[Reading]] = {name: [] for name in UNITS}
    for index, (joint, unit, (low, high)) in enumerate(zip(arm.own_joints, arm.units, arm.stops_rad)):
        turn = 180 / math.pi if unit == "rad" else 1.0
        start, end = (-math.pi, math.pi) if joint in WHOLE_TURN else (low, high)
        if sweeps is not None:  # its middle is the middle of the travel, as on the arm (`feetech.calibration.Scale`)
            start, end = (low + high - sweeps[index]) / 2, (low + high + sweeps[index]) / 2
        jaw = Reading(0.0, 100.0, (high - low) / 100, low) if index in arm.grippers else None
        table["radians"].append(Reading(low, high))
        table["degrees"].append(jaw or Reading(low * turn, high * turn, 1 / turn))
        table["normalised"].append(jaw or Reading(-100.0, 100.0, (end - start) / 200, (start + end) / 2))
    return table


def read_as(
    info: DatasetInfo,
    rows: Rows,
    mapping: EmbodimentMapping,
    units: str | None,
    calibration: Path | None = None,
) -> tuple[EmbodimentMapping, str]:
    """The mapping with its units known, and a remark for the user or nothing.

    Its values have been held against the arm's range and a plausible speed. A mapping that names no arm comes back as
    it is. `calibration` is that of the arm that has recorded. Raises `DatasetError`.
    """
    if mapping.arm is None:
        return mapping, ""
    try:
        arm = load_arm(mapping.arm)
    except ProfileError as error:
        raise DatasetError(f"{mapping.file}: {error}") from None
    seen = Seen.of(info, rows, mapping, arm)
    if not mapping.reads:
        wrong = seen.unlike([Reading(*pair) for pair in arm.stops_rad])
        if wrong:
            raise UNLIKE.refuse(info.file, f"after {mapping.file.name} {wrong}")
        return mapping, ""
    try:
        tables = readings(arm, own_sweeps(arm, calibration) if calibration is not None else None)
    except CalibrationError as error:
        raise DatasetError(f"--calibration: {error}") from None
    chosen = _chosen(info, seen, units, tables)
    table = tables[chosen]
    remark = f"{info.folder}: read as {chosen}"
    if chosen == "normalised":
        remark += f" of {'the profile' if calibration is None else calibration.name}'s travel"
    if chosen != "normalised" and seen.touches_100:
        remark += ", as told; its numbers touch +-100 and never leave it, as LeRobot's normalised recordings do"
    state, action = _spread(mapping.states, table), _spread(mapping.actions, table)
    return replace(mapping, states=state, actions=action), remark


UNLIKE = Reader(DatasetError, "correct its mapping, or record again (docs/howto/data.md)")


@dataclass(frozen=True)
class Seen:
    """What a recording's numbers were like: states (rows, joints), and the least and most with the commands."""

    arm: ArmProfile
    rows: Rows
    fps: float
    states: Values
    low: Values
    high: Values

    @staticmethod
    def of(info: DatasetInfo, rows: Rows, mapping: EmbodimentMapping, arm: ArmProfile) -> Seen:
        """Raises `DatasetError` for a mapping whose states are not the arm's joints, in their order."""
        if mapping.joints != arm.joints or sum(len(group.slots) for group in mapping.states) != arm.dof:
            raise DatasetError(
                f"{mapping.file}: arm '{arm.name}' has the joints {', '.join(arm.joints)}; states and actions must be "
                "those, in this order"
            )
        states = states_of(info, rows, mapping, np.arange(len(rows.frame)))
        low, high = states.min(axis=0), states.max(axis=0)
        for group, joints in _joints(mapping.actions):
            if group.kind in ("position", "hold"):
                values = rows.columns[group.column][:, group.indices(info, mapping.file)].astype(np.float64)
                values = values * group.scale + (group.offset if group.kind == "hold" else _offsets(mapping)[joints])
                low[joints] = np.minimum(low[joints], values.min(axis=0))
                high[joints] = np.maximum(high[joints], values.max(axis=0))
        return Seen(arm, rows, info.fps, states, low, high)

    @property
    def touches_100(self) -> bool:
        """Whether the joints reach 100 or -100 and never go beyond."""
        joints = [index for index in range(self.arm.dof) if index not in self.arm.grippers]
        most = max(np.abs(self.low[joints]).max(), np.abs(self.high[joints]).max())
        return bool(100 - EDGE <= most <= 100 + 1e-3)

    def unlike(self, table: list[Reading]) -> str:
        """What speaks against a reading: a range, then a speed; nothing where it fits."""
        for joint, row, least, most in zip(self.arm.joints, table, self.low, self.high):
            spare = MARGIN * (row.high - row.low)
            if least < row.low - spare or most > row.high + spare:
                return f"{joint} goes from {least:.4g} to {most:.4g}, and its range is {row.low:.4g} to {row.high:.4g}"
        jumps = np.abs(np.diff(self.states, axis=0)) * [row.scale for row in table]
        jumps[np.diff(self.rows.episode) != 0] = 0.0
        too_fast = np.argwhere(jumps * self.fps > FASTEST * np.array(self.arm.limits.velocity_rad_s))
        if not too_fast.size:
            return ""
        frame, axis = map(int, too_fast[0])
        before, after = self.states[frame : frame + 2, axis]
        wraps = ", as an angle that wraps" if jumps[frame, axis] > math.pi else ""
        return (
            f"{self.arm.joints[axis]} jumps from {before:.4g} to {after:.4g} within one frame{wraps} "
            f"({self.rows.place(frame + 1).partition(', ')[2]})"
        )

    def moves(self, table: list[Reading]) -> bool:
        """Whether any joint but the gripper has moved by more than a little: radians read as degrees hardly would."""
        return any(
            most - least >= LEAST_MOTION * (row.high - row.low)
            for index, (row, least, most) in enumerate(zip(table, self.low, self.high))
            if index not in self.arm.grippers
        )


def _chosen(info: DatasetInfo, seen: Seen, told: str | None, table: dict[str, list[Reading]]) -> str:
    """The unit that was told and that the numbers fit, or the only one that they fit."""
    if told is not None:
        wrong = seen.unlike(table[told])
        if wrong:
            raise DatasetError(f"{info.file}: --units {told} does not fit: {wrong}; name the unit that the data are in")
        return told
    fits = [name for name in UNITS if not seen.unlike(table[name]) and seen.moves(table[name])]
    if len(fits) == 1:
        return fits[0]
    joint = int(np.argmax(seen.high - seen.low))
    ranges = [f"{name} {table[name][joint].low:.4g} to {table[name][joint].high:.4g}" for name in fits or UNITS]
    why = "" if fits else f": {one_line(seen.unlike(table['degrees']) or 'nothing moves', 90)}"
    hint = ", touching +-100 and never beyond" if seen.touches_100 else ""
    raise DatasetError(
        f"{one_line(str(info.file), 80)}: {seen.arm.joints[joint]} goes from {seen.low[joint]:.4g} to "
        f"{seen.high[joint]:.4g}{hint}, which fits {' and '.join(fits) or 'no unit'} ({', '.join(ranges)}){why}; add "
        f"--units {'|'.join(fits or UNITS)}"
    )


def _joints(groups: tuple[Group, ...]) -> list[tuple[Group, slice]]:
    """Each group with the joints that it has, which follow each other."""
    found, first = [], 0
    for group in groups:
        found.append((group, slice(first, first + len(group.slots))))
        first += len(group.slots)
    return found


def _offsets(mapping: EmbodimentMapping) -> Values:
    """Of the states, joint by joint: a commanded position is in the same numbers."""
    return np.concatenate([group.offset for group in mapping.states])


def _spread(groups: tuple[Group, ...], table: list[Reading]) -> tuple[Group, ...]:
    """The groups that are to be read, with their axes' scales and offsets."""
    return tuple(
        replace(
            group,
            scale=tuple(row.scale for row in table[joints]),
            offset=tuple(row.offset for row in table[joints]),
            unit="",
        )
        if group.unit == READING
        else group
        for group, joints in _joints(groups)
    )
