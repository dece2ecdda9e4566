"""What the servos are asked before anything moves: who they are, how they are set up, whose calibration it is; and what
they are set to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import MADE_WITH, Calibration, ServoCalibration
from firmware_bridge.adapters.feetech.health import GripLimits, VoltageRange
from firmware_bridge.adapters.feetech.registers import Fault, Register

ACCELERATION = 254
"""The most that register 41 takes, as in LeRobot's driver: 38.96 rad/s^2, more than twice what the core commands."""
SPEED = 2600
"""Counts/s, 3.99 rad/s, for register 46: above what the profile lets the core command, also of a jaw that opens by 140
degrees (2,572 counts/s); the servo's own last resort (ours)."""
GAINS = {reg.P_GAIN: 16, reg.I_GAIN: 0, reg.D_GAIN: 32}
"""LeRobot's, softer than as delivered (32, 0, 32), so that the arm does not shake."""
PROTECTIONS = Fault.TEMPERATURE | Fault.CURRENT | Fault.OVERLOAD
"""What a servo may take its own torque away for, as delivered (register 19)."""
TWELVE_VOLTS = 12.0
LEAST_OF_TWELVE_V = 10.0
"""Ours: a servo made for 12 V says that it bears 4; at 10 V it still reaches 3.9 rad/s without load, at 5 V 2."""
LET_GO = "edge-calibrate --arm so101 --drive feetech:PORT --let-go"
NEAR_COUNTS = 16
"""Two positions told one after the other by an arm that nobody moves."""
NEAR_UNITS = 3
"""Two voltages or temperatures told one after the other."""


@dataclass(frozen=True)
class Grip:
    """How hard a jaw presses, and when its servo spares itself: LeRobot's values, half of what the servo could.

    torque            the most, as a share of the stall torque (registers 16 and 48)
    current_a         above it for 2 s the servo lets go (register 28)
    overload          above this share of the stall torque for 2 s the servo goes down to `overloaded` (36, 34)
    """

    torque: float = 0.5
    current_a: float = 250 * reg.CURRENT_UNIT_A
    overload: float = 0.25
    overloaded: float = 0.2

    @property
    def registers(self) -> dict[Register, int]:
        """What is kept in the servo, and `TORQUE_LIMIT`, which it takes from there only when its supply comes on."""
        torque = round(self.torque / reg.LOAD_UNIT)
        return {
            reg.MAX_TORQUE: torque,
            reg.PROTECTION_CURRENT: round(self.current_a / reg.CURRENT_UNIT_A),
            reg.PROTECTIVE_TORQUE: round(100 * self.overloaded),
            reg.OVERLOAD_TORQUE: round(100 * self.overload),
            reg.TORQUE_LIMIT: torque,
        }

    @property
    def limits(self) -> GripLimits:
        """What the jaw's servo is held to while it holds something."""
        return GripLimits(self.torque, self.current_a)

    def __str__(self) -> str:
        return (
            f"with at most {self.torque:.0%} of its torque ({self.torque * reg.STALL_NM:.2f} N m at 12 V), after 2 s "
            f"above {self.overload:.0%} with {self.overloaded:.0%}, and lets go after 2 s above {self.current_a:.2f} A"
        )


LEROBOTS_GRIP = Grip()


@dataclass(frozen=True)
class Supply:
    """What a servo is made for, and what it gets."""

    allowed: VoltageRange
    voltage_v: float


@dataclass(frozen=True)
class Image:
    """The registers 0 to 70 of a servo at one time."""

    data: bytes

    SIZE = reg.PRESENT_CURRENT.address + reg.PRESENT_CURRENT.size
    STEADY = reg.GOAL_POSITION.address
    """Those below are told alike twice: no answer of another time, and no damaged one, is believed."""

    def __getitem__(self, register: Register) -> int:
        return register.unpack(self.data[register.address :])


def name_of(joint: str, servo: int) -> str:
    """A servo in words."""
    return f"servo {servo} ({joint})"


def find(bus: ServoBus, joint: str, servo: int) -> Image:
    """All that the servo holds. Raises `DriveError` where it does not answer, or is another model."""
    data = bus.read_block(servo, 0, Image.SIZE, Image.STEADY)
    if data is None or Image(data)[reg.ID] != servo:
        raise DriveError(
            f"{name_of(joint, servo)} does not answer; check the arm's power, the cables and the servo's id"
        )
    image = Image(data)
    if image[reg.MODEL] != reg.MODEL_NUMBER:
        raise DriveError(
            f"{name_of(joint, servo)} is model {image[reg.MODEL]}, not an STS3215 ({reg.MODEL_NUMBER}); use that servo"
        )
    return image


def need(bus: ServoBus, joint: str, servo: int, register: Register, near: int = 0) -> int:
    """A register's value, told twice within `near`. Raises `DriveError` where the servo does not answer."""
    value = bus.read(servo, register, near)
    if value is None:
        raise DriveError(f"{name_of(joint, servo)} has stopped answering; check the cables")
    return value


def position(bus: ServoBus, joint: str, servo: int) -> int:
    """Where a joint that nobody moves stands, in counts. Raises `DriveError`."""
    return need(bus, joint, servo, reg.PRESENT_POSITION, NEAR_COUNTS)


def put(bus: ServoBus, joint: str, servo: int, register: Register, value: int) -> None:
    """Writes a register where it does not hold the value already. Raises `DriveError` when it does not take it."""
    if need(bus, joint, servo, register) != value:
        _write(bus, joint, servo, register, value)


def _write(bus: ServoBus, joint: str, servo: int, register: Register, value: int) -> None:
    if not bus.write(servo, register, value):
        raise DriveError(
            f"{name_of(joint, servo)} does not take {value} into register {register.address}; check the cables"
        )


def check_offset(image: Image, one: ServoCalibration) -> None:
    """Raises `DriveError` where the servo counts from elsewhere than the calibration says."""
    offset = image[reg.HOMING_OFFSET]
    if offset != one.homing_offset:
        raise DriveError(
            f"{name_of(one.joint, one.servo)} has homing offset {offset} and the calibration {one.homing_offset}, "
            f"which is another arm's or an old one; calibrate again: {MADE_WITH}"
        )


def check_calibrated(image: Image, one: ServoCalibration) -> None:
    """Raises `DriveError` where the servo does not hold what a calibration sets."""
    name = name_of(one.joint, one.servo)
    check_offset(image, one)
    if image[reg.MODE] != reg.POSITION_MODE:
        raise DriveError(f"{name} is not in position mode; calibrate again: {MADE_WITH}")
    own = Fault(image[reg.UNLOADING] & 0x2F)
    if Fault.TEMPERATURE | Fault.OVERLOAD not in own:
        raise DriveError(f"{name} has its own protection switched off (register 19); calibrate again: {MADE_WITH}")


def supply(bus: ServoBus, image: Image, joint: str, servo: int) -> Supply:
    """The supply of a servo. Raises `DriveError` where it is not what the servo is made for."""
    now = need(bus, joint, servo, reg.PRESENT_VOLTAGE, NEAR_UNITS)
    low, high, now_v = (reg.VOLTAGE_UNIT_V * value for value in (image[reg.VOLTAGE_MIN], image[reg.VOLTAGE_MAX], now))
    allowed = VoltageRange(max(low, LEAST_OF_TWELVE_V) if high >= TWELVE_VOLTS else low, high)
    fault = allowed.fault(now_v)
    if fault:
        raise DriveError(f"{name_of(joint, servo)} {fault}")
    return Supply(allowed, now_v)


def set_up(bus: ServoBus, image: Image, one: ServoCalibration, settings: dict[Register, int]) -> None:
    """Writes what differs, and so that it is kept without supply. Raises `DriveError`."""
    different = {register: value for register, value in settings.items() if image[register] != value}
    kept = any(register.address < reg.SAVED for register in different)
    if kept:
        put(bus, one.joint, one.servo, reg.LOCK, 0)
    for register, value in different.items():
        _write(bus, one.joint, one.servo, register, value)
    if kept:
        put(bus, one.joint, one.servo, reg.LOCK, 1)


def prepare(
    bus: ServoBus, calibration: Calibration, may_hold: bool, gripper: str = "", grip: Grip = LEROBOTS_GRIP
) -> list[Supply]:
    """Checks every servo and sets up what the loop relies on. Raises `DriveError`; the torque stays as it is.

    Unless it `may_hold`, an arm that holds its pose is refused: it would fall when its torque is taken away. The joint
    called `gripper` gets the limits of `grip`.
    """
    servos = calibration.servos
    images = [find(bus, one.joint, one.servo) for one in servos]
    for image, one in zip(images, servos):
        check_calibrated(image, one)
    supplies = [supply(bus, image, one.joint, one.servo) for image, one in zip(images, servos)]
    holding = [one for image, one in zip(images, servos) if image[reg.TORQUE_ENABLE]]
    if holding and not may_hold:
        raise DriveError(f"{_names(holding)}: holds a pose already; take the arm in hand, then {LET_GO}")
    always = {reg.RETURN_DELAY: 0, reg.ACCELERATION: ACCELERATION, reg.GOAL_VELOCITY: SPEED, **GAINS}
    for image, one in zip(images, servos):
        always[reg.PHASE] = image[reg.PHASE] & ~reg.WHOLE_ANGLE  # as LeRobot does: goals are within one turn
        set_up(bus, image, one, always | (grip.registers if one.joint == gripper else {}))
    return supplies


def _names(servos: Sequence[ServoCalibration]) -> str:
    return ", ".join(name_of(one.joint, one.servo) for one in servos)
