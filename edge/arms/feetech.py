"""An arm of Feetech bus servos by its URL, `feetech:/dev/ttyACM0`, and the calibration that it needs.

An arm that is made of several has a bus for each: `feetech:/dev/ttyACM0,/dev/ttyACM1`, in the profile's order.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from edge.arms.drives import DRIVES, BusUrl, Notify
from edge.arms.profile import ArmProfile
from edge.errors import InputError
from firmware_bridge.adapters import ArmDrive
from firmware_bridge.adapters.feetech.bus import open_bus
from firmware_bridge.adapters.feetech.calibration import (
    Calibration,
    JointSpan,
    operating_range,
    read_calibration,
    scales,
)
from firmware_bridge.adapters.feetech.drive import FeetechDrive
from firmware_bridge.adapters.feetech.leader import Leader, Leaders
from firmware_bridge.adapters.feetech.registers import RAD_PER_COUNT
from firmware_bridge.adapters.feetech.servos import Grip
from firmware_bridge.adapters.joined import JoinedDrive
from firmware_bridge.errors import BridgeError
from firmware_bridge.url import option

PSEUDO_TERMINALS = "/dev/pts/"
BETWEEN = ","
"""Between the ports, and the calibrations, of several buses."""


class CalibrationError(InputError):
    """A calibration that cannot be used; the message names the file and the fix."""


@dataclass(frozen=True)
class ArmBus:
    """One bus: its port, the arm on it by its own profile, its calibration file, and its axes in the whole arm.

    `side` is what the whole calls this arm; empty where it is the whole.
    """

    side: str
    port: str
    file: Path
    arm: ArmProfile
    axes: slice

    def calibration(self) -> Calibration:
        """With the joints' own names, as the file has them. Raises `DriveError`."""
        return read_calibration(self.file, self.arm.name, self.arm.joints)

    def calibration_in(self, whole: ArmProfile) -> Calibration:
        """With the names that the whole arm has for its joints, by which a message tells two arms apart."""
        made = self.calibration()
        named = zip(made.servos, whole.joints[self.axes])
        return Calibration(made.arm, tuple(replace(one, joint=joint) for one, joint in named))


@dataclass(frozen=True)
class FeetechUrl(BusUrl):
    """The servo bus at the port `target`, and the calibration of the arm on it; by default, the arm's in this folder.
    `grip` is the most torque of the jaw, as a share of its servo's.

    A servo bus on a pseudo-terminal looks like any other, so no URL can only mean a simulated arm.
    """

    FORM: ClassVar[str] = "feetech:PATH?calibration=FILE&grip=SHARE"
    cycle_periods: ClassVar[int] = FeetechDrive.CYCLE_PERIODS
    calibration: Path | None = None
    grip: float = option(Grip.torque, least=0.05, most=1.0)

    @property
    def latch_name(self) -> str:
        """The number of a pseudo-terminal is another arm's tomorrow: a link to one has a name that stays."""
        return "" if PSEUDO_TERMINALS in self.target else f"feetech-{self.target}"

    def check(self, arm: ArmProfile) -> None:
        self.buses(arm)

    def buses(self, arm: ArmProfile, kind: str = "") -> tuple[ArmBus, ...]:
        """The bus of every arm that `arm` is made of. `kind` stands in the default names of the calibrations.

        Raises `InputError` for another number of ports, or of calibrations.
        """
        parts = arm.parts or (("", arm),)
        names = [f"{side}-" if side else "" for side, _ in parts]
        given = str(self.calibration) if self.calibration else ""
        files = _listed(given, len(parts)) if given else [f"{arm.name}-{name}{kind}calibration.json" for name in names]
        ports = _listed(self.target, len(parts))
        if len(ports) != len(parts) or len(files) != len(parts):
            sides = [side for side, _ in parts]
            form = BETWEEN.join(f"{side.upper()}_PORT" for side in sides)
            what = "a port" if len(ports) != len(parts) else "a calibration"
            raise InputError(
                f"'feetech:{self.target}': '{arm.name}' is {len(parts)} arms, {' and '.join(sides)}, and each needs "
                f"{what}; write feetech:{form}?calibration={BETWEEN.join(f'{side.upper()}_FILE' for side in sides)}"
            )
        found, first = [], 0
        for (side, part), port, file in zip(parts, ports, files):
            found.append(ArmBus(side, port, Path(file), part, slice(first, first + part.dof)))
            first += part.dof
        if len(set(ports)) != len(ports):
            raise InputError(f"'feetech:{self.target}' names one port twice; each arm has a bus of its own")
        return tuple(found)

    def open(self, arm: ArmProfile, notify: Notify) -> ArmDrive:
        buses, spans, grip = self.buses(arm), joint_spans(arm), Grip(torque=self.grip)
        made = [bus.calibration_in(arm) for bus in buses]
        with ExitStack() as opened:
            arms = []
            for bus, calibration in zip(buses, made):
                arms.append(_opened(bus, calibration, spans[bus.axes], notify, grip))
                opened.callback(arms[-1].close)
            opened.pop_all()
        return arms[0] if len(arms) == 1 else JoinedDrive(arms)

    def fitted(self, arm: ArmProfile) -> ArmProfile:
        spans, ranges = joint_spans(arm), []
        for bus in self.buses(arm):
            own = spans[bus.axes]
            ranges += [operating_range(*pair) for pair in zip(scales(bus.calibration_in(arm), own), own)]
        low, high = (tuple(ends) for ends in zip(*ranges))
        return replace(arm, operating=replace(arm.operating, position_min_rad=low, position_max_rad=high))


def _listed(text: str, count: int) -> list[str]:
    """One name, or several with `BETWEEN` between them; the path of a single arm may have that in it."""
    return [text] if count == 1 else [part for part in text.split(BETWEEN) if part]


def _opened(bus: ArmBus, calibration: Calibration, spans: list[JointSpan], notify: Notify, grip: Grip) -> FeetechDrive:
    return FeetechDrive(lambda: open_bus(bus.port), calibration, spans, notify, time.monotonic_ns, time.sleep, grip)


def feetech_url(url: str) -> FeetechUrl:
    """Reads the URL of a servo bus. Raises `InputError`."""
    found = DRIVES.read(url)
    if not isinstance(found, FeetechUrl):
        raise InputError(f"'{url}': a bus of servos is needed; write {FeetechUrl.FORM}")
    return found


def open_leader(url: str, arm: ArmProfile) -> Leader | Leaders:
    """The leader for `arm` at a URL, which is written as a follower's; see `Leader`. It is read and never written.

    Its calibration is by default the file `NAME-leader-calibration.json` in this folder; of several arms
    `NAME-SIDE-leader-calibration.json`. Raises `VlaEdgeError` or `BridgeError`.
    """
    spans = joint_spans(arm)
    with ExitStack() as opened:
        found = []
        for part in feetech_url(url).buses(arm, "leader-"):
            calibration = part.calibration_in(arm)
            bus = open_bus(part.port)
            opened.callback(bus.close)
            found.append(Leader(bus, calibration, spans[part.axes], time.monotonic_ns))
        opened.pop_all()
    return found[0] if len(found) == 1 else Leaders(found)


def own_sweeps(arm: ArmProfile, calibration: Path) -> list[float]:
    """By how much each joint of a calibrated arm turns from one end of its sweep to the other, rad; of several arms,
    `calibration` are their files with `BETWEEN` between them. Raises `CalibrationError`."""
    parts = [part for _, part in arm.parts] or [arm]
    files = _listed(str(calibration), len(parts))
    if len(files) != len(parts):
        raise CalibrationError(f"{calibration}: '{arm.name}' is {len(parts)} arms; name a file for each, as A,B")
    try:
        made = [read_calibration(Path(file), part.name, part.joints) for file, part in zip(files, parts)]
    except BridgeError as error:
        raise CalibrationError(str(error)) from None
    return [RAD_PER_COUNT * (one.range_max - one.range_min) for each in made for one in each.servos]


def joint_spans(arm: ArmProfile) -> list[JointSpan]:
    """What a calibration is compared with."""
    operating = arm.operating
    rows = zip(
        arm.joints,
        arm.stops_rad,
        zip(operating.position_min_rad, operating.position_max_rad),
        arm.home_rad,
    )
    return [JointSpan(*row, jaw=index in arm.grippers) for index, row in enumerate(rows)]
