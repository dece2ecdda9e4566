"""What the servos are asked before anything moves: who they are, how they are set up, whose calibration it is."""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import MADE_WITH, Calibration, ServoCalibration
from firmware_bridge.adapters.feetech.health import VoltageRange
from firmware_bridge.adapters.feetech.registers import Fault, Register

ACCELERATION = 254
"""The most that register 41 takes, as in LeRobot's driver: 38.96 rad/s^2, more than twice what the core commands."""
SPEED = 2500
"""Counts/s, 3.83 rad/s, for register 46: a quarter above what the profile lets the core command (ours), the servo's own
last resort."""
PROTECTIONS = Fault.TEMPERATURE | Fault.CURRENT | Fault.OVERLOAD
"""What a servo may take its own torque away for, as delivered (register 19)."""
TWELVE_VOLTS = 12.0
LEAST_OF_TWELVE_V = 10.0
"""Ours: a servo made for 12 V says that it bears 4; at 10 V it still reaches 3.9 rad/s without load, at 5 V 2."""
LET_GO = "edge-calibrate --arm so101 --drive feetech:PORT --let-go"


@dataclass(frozen=True)
class Supply:
    """What a servo is made for, and what it gets."""

    allowed: VoltageRange
    voltage_v: float


def name_of(joint: str, servo: int) -> str:
    """A servo in words."""
    return f"servo {servo} ({joint})"


def find(bus: ServoBus, joint: str, servo: int) -> None:
    """Raises `DriveError` where the servo does not answer, or is another model."""
    if not bus.find(servo):
        raise DriveError(
            f"{name_of(joint, servo)} does not answer; check the arm's power, the cables and the servo's id"
        )
    model = need(bus, joint, servo, reg.MODEL)
    if model != reg.MODEL_NUMBER:
        raise DriveError(
            f"{name_of(joint, servo)} is model {model}, not an STS3215 ({reg.MODEL_NUMBER}); use that servo"
        )


def need(bus: ServoBus, joint: str, servo: int, register: Register) -> int:
    """A register's value. Raises `DriveError` where the servo does not answer."""
    value = bus.read(servo, register)
    if value is None:
        raise DriveError(f"{name_of(joint, servo)} has stopped answering; check the cables")
    return value


def put(bus: ServoBus, joint: str, servo: int, register: Register, value: int) -> None:
    """Writes a register where it does not hold the value already. Raises `DriveError` when it does not take it."""
    if need(bus, joint, servo, register) != value and not bus.write(servo, register, value):
        raise DriveError(
            f"{name_of(joint, servo)} does not take {value} into register {register.address}; check the cables"
        )


def check_calibrated(bus: ServoBus, one: ServoCalibration) -> None:
    """Raises `DriveError` where the servo does not hold what the calibration says."""
    name = name_of(one.joint, one.servo)
    offset = need(bus, one.joint, one.servo, reg.HOMING_OFFSET)
    if offset != one.homing_offset:
        raise DriveError(
            f"{name} has homing offset {offset} and the calibration {one.homing_offset}, which is another arm's or an "
            f"old one; calibrate again: {MADE_WITH}"
        )
    if need(bus, one.joint, one.servo, reg.MODE) != reg.POSITION_MODE:
        raise DriveError(f"{name} is not in position mode; calibrate again: {MADE_WITH}")
    own = Fault(need(bus, one.joint, one.servo, reg.UNLOADING) & 0x2F)
    if Fault.TEMPERATURE | Fault.OVERLOAD not in own:
        raise DriveError(f"{name} has its own protection switched off (register 19); calibrate again: {MADE_WITH}")


def supply(bus: ServoBus, joint: str, servo: int) -> Supply:
    """The supply of a servo. Raises `DriveError` where it is not what the servo is made for."""
    low, high, now = (
        reg.VOLTAGE_UNIT_V * need(bus, joint, servo, register)
        for register in (reg.VOLTAGE_MIN, reg.VOLTAGE_MAX, reg.PRESENT_VOLTAGE)
    )
    allowed = VoltageRange(max(low, LEAST_OF_TWELVE_V) if high >= TWELVE_VOLTS else low, high)
    fault = allowed.fault(now)
    if fault:
        raise DriveError(f"{name_of(joint, servo)} {fault}")
    return Supply(allowed, now)


def prepare(bus: ServoBus, calibration: Calibration, may_hold: bool) -> list[Supply]:
    """Checks every servo and sets up what the loop relies on. Raises `DriveError`; the torque stays as it is.

    Unless it `may_hold`, an arm that holds its pose is refused: it would fall when its torque is taken away.
    """
    servos = calibration.servos
    for one in servos:
        find(bus, one.joint, one.servo)
    for one in servos:
        check_calibrated(bus, one)
    supplies = [supply(bus, one.joint, one.servo) for one in servos]
    holding = [one for one in servos if need(bus, one.joint, one.servo, reg.TORQUE_ENABLE)]
    if holding and not may_hold:
        names = ", ".join(name_of(one.joint, one.servo) for one in holding)
        raise DriveError(f"{names}: holds a pose already; take the arm in hand, then {LET_GO}")
    for one in servos:
        put(bus, one.joint, one.servo, reg.RETURN_DELAY, 0)
        put(bus, one.joint, one.servo, reg.ACCELERATION, ACCELERATION)
        put(bus, one.joint, one.servo, reg.GOAL_VELOCITY, SPEED)
    return supplies
