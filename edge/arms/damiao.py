"""An arm of Damiao motors by its URL, `damiao:socketcan:can0`, and the description of its motors that it needs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edge.arms.drives import CanArmUrl, Notify
from edge.arms.profile import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.damiao.drive import DamiaoDrive
from firmware_bridge.adapters.damiao.motors import MotorArm, exchange
from firmware_bridge.adapters.gravity import GravityModel
from firmware_bridge.bus_load import CanShare
from firmware_bridge.reading import Reader
from firmware_bridge.url import option

MOTORS = Path(__file__).parent / "motors"
READER = Reader(InputError, "write it as docs/howto/can-arms.md shows")


def load_motors(arm: ArmProfile, file: Path | None = None) -> MotorArm:
    """The motors of an arm, by default those that ship with its profile. Raises `InputError`."""
    path = file or MOTORS / f"{arm.name}.toml"
    if file is None and not path.is_file():
        known = ", ".join(sorted(one.stem for one in MOTORS.glob("*.toml")))
        raise InputError(f"no motors are described for '{arm.name}', only for {known}; add motors=FILE.toml")
    found = READER.into(MotorArm, READER.toml(path), path)
    if (joints := tuple(spec.joint for spec in found.motors)) != arm.joints:
        raise READER.refuse(path, f"its joints are {', '.join(joints)}, and those of '{arm.name}' are others")
    ids = [one for spec in found.motors for one in (spec.id, spec.feedback_id)]
    if len(set(ids)) != len(ids) or any(spec.direction == 0 for spec in found.motors):
        raise READER.refuse(path, "every id and feedback_id occurs once, and a direction is 1 or -1")
    if not all(0.0 < high - low < 6.28 for low, high in (spec.range_rad for spec in found.motors)):
        raise READER.refuse(path, "range_rad goes up, and is less than a turn")
    return found


@dataclass(frozen=True)
class DamiaoUrl(CanArmUrl):
    """The motors on a bus. `payload_kg` is at the last joint, the gripper included; by default what the description of
    the motors says."""

    FORM: ClassVar[str] = "damiao:INTERFACE:CHANNEL?bitrate=N&payload_kg=KG&motors=FILE"
    cycle_periods: ClassVar[int] = DamiaoDrive.CYCLE_PERIODS
    payload_kg: float | None = option(None, most=20.0)
    motors: Path | None = None

    def load(self, arm: ArmProfile) -> CanShare:
        return exchange(len(load_motors(arm, self.motors).motors), self.bitrate)

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        found = load_motors(arm, self.motors)
        payload_kg = found.tool_kg if self.payload_kg is None else self.payload_kg
        return DamiaoDrive(
            self.open_bus,
            found,
            GravityModel([spec.link for spec in found.motors], payload_kg),
            self.load(arm),
            notify,
            time.monotonic_ns,
            time.sleep,
        )
