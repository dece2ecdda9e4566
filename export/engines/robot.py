"""What no file of a folder says: the arm, its rate, and the unit of its numbers. Given or measured, never guessed.

LeRobot's SO arms record degrees, zero in the middle of each joint's travel (0.4.3 and newer), or -100 to 100 of the
calibrated travel (0.4.0 to 0.4.2 by default); the jaw is 0 to 100 of its own travel in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edge.arms import ArmProfile, ProfileError, available_arms, load_arm
from edge.arms.feetech import CalibrationError, own_sweeps
from edge.bundle.manifest import Unit
from export.families.base import CheckpointError, Given
from export.families.lerobot.folder import ACTION, STATE, Folder
from export.families.lerobot.policy import training_range
from export.training.lerobot.errors import DatasetError
from export.training.lerobot.info import DatasetInfo, read_info
from export.training.readings import LEAST_MOTION, MARGIN, UNITS, Reading, readings

ARMS = {
    **dict.fromkeys(("so101", "so101_follower", "so_follower"), "so101"),
    **dict.fromkeys(("bi_so101", "bi_so_follower"), "bi_so101"),
}
"""Arms by the robot types that datasets name."""
SHORTEST_STEP_S, LONGEST_STEP_S = 0.002, 1.0


@dataclass(frozen=True)
class Axis:
    """A joint of the arm: its column among the policy's numbers, what the dataset calls it, its unit in the bundle."""

    joint: str
    column: int
    source: str
    unit: Unit
    travel: tuple[float, float] | None


@dataclass(frozen=True)
class Robot:
    """The arm a policy was trained on. `how` says, for each of units and axes, where they come from."""

    arm: ArmProfile
    rate_hz: float
    units: str
    axes: tuple[Axis, ...]
    how: dict[str, str]

    @property
    def step_s(self) -> float:
        return 1 / self.rate_hz


def find_robot(folder: Folder, given: Given, absolute: bool = True) -> Robot:
    """Puts together what dataset and options say. Raises `CheckpointError` for what is missing, or at odds.

    With `absolute` the actions are positions, and tell the unit as the states do.
    """
    info = _dataset(folder, given.dataset)
    arm = _arm(folder, given, info)
    rate_hz = _rate(given, info)
    how = {}
    order, names, how["axes"] = _order(folder, arm, info)
    try:
        table = readings(arm, own_sweeps(arm, given.calibration) if given.calibration is not None else None)
    except CalibrationError as error:
        raise CheckpointError(f"--calibration: {error}") from None
    features = (STATE, ACTION) if absolute else (STATE,)
    units, how["units"] = _units(folder, arm, given, order, info, features, table)
    if units == "normalised" and given.calibration is not None:
        how["units"] += f", of the sweeps in {given.calibration.name}"
    rows = table[units]
    axes = tuple(
        Axis(joint, column, names[column], *bundle_unit(arm, index, units, row))
        for index, (joint, column, row) in enumerate(zip(arm.joints, order, rows))
    )
    return Robot(arm, rate_hz, units, axes, how)


def bundle_unit(arm: ArmProfile, index: int, units: str, row: Reading) -> tuple[Unit, tuple[float, float] | None]:
    """What a bundle calls an axis's unit, and the travel that a share of it is of, in the arm's unit."""
    if index in arm.grippers and units != "radians":
        return "percent", (row.offset, row.offset + 100 * row.scale)
    if units == "normalised":
        return "plus_minus_100", (row.offset - 100 * row.scale, row.offset + 100 * row.scale)
    names: dict[str, Unit] = {"rad": "deg" if units == "degrees" else "rad", "m": "m"}
    return names[arm.units[index]], None


def _dataset(folder: Folder, path: Path | None) -> DatasetInfo | None:
    if path is None:
        return None
    try:
        info = read_info(path)
        for name, width in ((STATE, folder.state_width), (ACTION, folder.action_width)):
            found = info.feature(name, "the policy").shape
            if found != (width,):
                raise CheckpointError(
                    f"{info.file}: '{name}' has {found} numbers, the policy's {width}; "
                    "name the dataset it was trained on"
                )
    except DatasetError as error:
        raise CheckpointError(str(error)) from None
    return info


def _arm(folder: Folder, given: Given, info: DatasetInfo | None) -> ArmProfile:
    known = ", ".join(available_arms())
    suggested = None if info is None or info.robot is None else ARMS.get(info.robot)
    name = given.arm or suggested
    if name is None and info is not None:
        raise CheckpointError(f"{info.file}: robot_type '{info.robot}' is no arm known here; add --arm ({known})")
    if name is None:
        raise CheckpointError(
            f"{folder.path}: no file of a LeRobot folder says which arm, how fast, and in which unit; "
            f"add --dataset DIR (the dataset it was trained on), or --arm ({known}) and --rate HZ"
        )
    if given.arm and suggested and given.arm != suggested:
        raise CheckpointError(
            f"--arm {given.arm}, and the dataset was recorded with a '{info and info.robot}'; leave one out"
        )
    try:
        arm = load_arm(name)
    except ProfileError as error:
        raise CheckpointError(str(error)) from None
    for what, width in (("state", folder.state_width), ("actions", folder.action_width)):
        if width != arm.dof:
            raise CheckpointError(
                f"{folder.config_file}: the policy's {what} have {width} numbers, {arm.name} has {arm.dof} axes; "
                "choose another --arm"
            )
    return arm


def _rate(given: Given, info: DatasetInfo | None) -> float:
    if given.rate_hz is None and info is None:
        raise CheckpointError(
            "no file of a LeRobot folder says how fast it was recorded; add --rate HZ, or --dataset DIR"
        )
    if given.rate_hz is not None and info is not None and given.rate_hz != info.fps:
        raise CheckpointError(
            f"--rate {given.rate_hz:g}, and the dataset was recorded at {info.fps:g} Hz; leave out --rate"
        )
    rate = info.fps if given.rate_hz is None and info is not None else given.rate_hz
    if rate is None or not 1 / LONGEST_STEP_S <= rate <= 1 / SHORTEST_STEP_S:
        raise CheckpointError(f"a rate of {rate} Hz; {1 / LONGEST_STEP_S:g} to {1 / SHORTEST_STEP_S:g} is possible")
    return rate


def _order(folder: Folder, arm: ArmProfile, info: DatasetInfo | None) -> tuple[list[int], Sequence[str], str]:
    """The column of each of the arm's joints, what the columns are called, and who says so."""
    named = folder.config.get("action_feature_names")
    names, source = (tuple(map(str, named)), "config.json") if named else ((), "")
    if info is not None:
        names, source = info.features[ACTION].names or names, str(info.file)
        states = info.features[STATE].names
        if states and names and states != names:
            raise CheckpointError(f"{info.file}: states and actions name other joints; one order is implemented")
    if not names:
        return list(range(arm.dof)), arm.joints, "the arm's own order: nothing names the columns"
    joints = [name.removesuffix(".pos").removeprefix("main_") for name in names]
    if sorted(joints) != sorted(arm.joints):
        raise CheckpointError(
            f"{source}: the columns are {', '.join(names)}; the joints of {arm.name} are {', '.join(arm.joints)}"
        )
    return [joints.index(joint) for joint in arm.joints], names, f"named in {source}"


def _units(
    folder: Folder,
    arm: ArmProfile,
    given: Given,
    order: list[int],
    info: DatasetInfo | None,
    features: Sequence[str],
    table: dict[str, list[Reading]],
) -> tuple[str, str]:
    """The one reading that the training data fit, or the one that was given and that they fit."""
    ranges = [training_range(folder, feature) for feature in features]
    low = torch.stack([least[order] for least, _ in ranges]).amin(0).tolist()
    high = torch.stack([most[order] for _, most in ranges]).amax(0).tolist()
    if given.units is not None:
        beyond = _beyond(arm, table[given.units], low, high)
        if beyond is not None:
            raise CheckpointError(f"--units {given.units} does not fit: {beyond}; name the unit that the data are in")
        return given.units, "given"
    fits = [
        name for name in UNITS if _beyond(arm, table[name], low, high) is None and _moves(arm, table[name], low, high)
    ]
    if len(fits) == 1:
        return fits[0], "the only one in which the training data fit the arm"
    shown = "; ".join(
        f"{name}: {arm.joints[0]} is {table[name][0].low:.4g} to {table[name][0].high:.4g}" for name in fits or UNITS
    )
    suggests = f" (the dataset's robot_type is '{info.robot}')" if info is not None and info.robot else ""
    raise CheckpointError(
        f"{folder.path}: in training {arm.joints[0]} was {low[0]:.4g} to {high[0]:.4g}, which fits "
        f"{' and '.join(fits) if fits else 'no reading of this arm'} ({shown}){suggests}; "
        f"add --units {'|'.join(fits or UNITS)}"
    )


def _beyond(arm: ArmProfile, rows: list[Reading], low: list[float], high: list[float]) -> str | None:
    """The first axis whose numbers lie outside the arm's range."""
    for joint, row, least, most in zip(arm.joints, rows, low, high):
        spare = MARGIN * (row.high - row.low)
        if least < row.low - spare or most > row.high + spare:
            return (
                f"in training {joint} was {least:.4g} to {most:.4g}, and its range is {row.low:.4g} to {row.high:.4g}"
            )
    return None


def _moves(arm: ArmProfile, rows: list[Reading], low: list[float], high: list[float]) -> bool:
    """Whether any joint but the gripper has moved by more than a little: radians read as degrees hardly would."""
    return any(
        most - least >= LEAST_MOTION * (row.high - row.low)
        for index, (row, least, most) in enumerate(zip(rows, low, high))
        if index not in arm.grippers
    )
