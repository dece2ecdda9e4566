"""The simulated servos: driven by the vendor's own SDK, and as they move."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.registers import Fault
from firmware_bridge.adapters.feetech.servo_sim import apply
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus
from firmware_bridge.adapters.feetech.simulated_servo import NO_LOAD_COUNTS_S, STEP_S, SimulatedServo
from tests.servo_process import ServoProcess

# The vendor's SDK -----------------------------------------------------------------------------------------------------


@pytest.fixture
def servos(tmp_path: Path) -> Iterator[ServoProcess]:
    process = ServoProcess(tmp_path, "--start", "2048,2048,2048,2048,2048,2048", "--offset", "0,0,0,0,0,0")
    yield process
    process.close()


@pytest.mark.real_time
def test_the_vendors_own_sdk_drives_them(servos: ServoProcess) -> None:
    sdk: Any = pytest.importorskip("scservo_sdk", reason="pip install feetech-servo-sdk")
    port, handler = sdk.PortHandler(servos.port), sdk.PacketHandler(0)
    assert port.openPort() and port.setBaudRate(1_000_000)
    assert handler.ping(port, 3) == (777, sdk.COMM_SUCCESS, 0)
    assert handler.ping(port, 9)[1] == sdk.COMM_RX_TIMEOUT
    assert handler.write1ByteTxRx(port, 3, reg.ACCELERATION.address, 100) == (sdk.COMM_SUCCESS, 0)
    assert handler.read1ByteTxRx(port, 3, reg.ACCELERATION.address) == (100, sdk.COMM_SUCCESS, 0)
    goals = sdk.GroupSyncWrite(port, handler, reg.GOAL_POSITION.address, 2)
    torque = sdk.GroupSyncWrite(port, handler, reg.TORQUE_ENABLE.address, 1)
    for servo in range(1, 7):
        goal = 2048 + 100 * servo
        assert goals.addParam(servo, [sdk.SCS_LOBYTE(goal), sdk.SCS_HIBYTE(goal)]) and torque.addParam(servo, [1])
    assert goals.txPacket() == torque.txPacket() == sdk.COMM_SUCCESS
    time.sleep(1.0)
    positions = sdk.GroupSyncRead(port, handler, reg.PRESENT_POSITION.address, 2)
    for servo in range(1, 7):
        assert positions.addParam(servo)
    assert positions.txRxPacket() == sdk.COMM_SUCCESS
    told = [positions.getData(servo, reg.PRESENT_POSITION.address, 2) for servo in range(1, 7)]
    assert told == [2048 + 100 * servo for servo in range(1, 7)]
    assert handler.read1ByteTxRx(port, 1, reg.PRESENT_TEMPERATURE.address)[0] == 30
    port.closePort()


# How they move --------------------------------------------------------------------------------------------------------


def moved(servo: SimulatedServo, seconds: float) -> np.ndarray:
    """Its shaft every step."""
    track = []
    for _ in range(round(seconds / STEP_S)):
        servo.advance(STEP_S)
        track.append(servo.encoder)
    return np.array(track)


def switched_on(goal: int, acceleration: int = 50, speed: int = 0) -> SimulatedServo:
    servo = SimulatedServo(1, 1000)
    servo[reg.ACCELERATION], servo[reg.GOAL_VELOCITY], servo[reg.GOAL_POSITION] = acceleration, speed, goal
    servo.write(reg.TORQUE_ENABLE.address, b"\x01")
    return servo


@pytest.mark.parametrize(("acceleration", "speed"), [(50, 0), (50, 1500), (254, 800), (0, 0)])
def test_speed_and_acceleration_are_finite(acceleration: int, speed: int) -> None:
    track = moved(switched_on(2500, acceleration, speed), 2.5)
    assert track[-1] == pytest.approx(2500, abs=0.5) and track.max() < 2501, "it stops at its goal"
    velocity = np.diff(track) / STEP_S
    assert velocity.max() == pytest.approx(speed or min(NO_LOAD_COUNTS_S, velocity.max()), rel=0.02)
    assert velocity.max() <= NO_LOAD_COUNTS_S + 1e-6
    most = 100 * (acceleration or 254)
    assert np.abs(np.diff(velocity)).max() / STEP_S <= most * 1.01
    assert np.abs(np.diff(velocity)[:20]).max() / STEP_S > most / 12, "and it uses them"


def test_without_torque_only_a_hand_moves_it() -> None:
    servo = SimulatedServo(1, 1000)
    servo[reg.GOAL_POSITION] = 3000
    assert np.ptp(moved(servo, 0.2)) == 0
    servo.hand(1200)
    assert servo[reg.PRESENT_POSITION] == 1200
    servo.write(reg.TORQUE_ENABLE.address, b"\x01")
    servo.hand(100)
    assert servo.encoder == 1200


def test_the_homing_offset_shifts_what_it_tells() -> None:
    servo = SimulatedServo(1, 3000)
    servo.write(reg.HOMING_OFFSET.address, reg.HOMING_OFFSET.pack(-500))
    assert servo[reg.PRESENT_POSITION] == 3500
    servo.write(reg.HOMING_OFFSET.address, reg.HOMING_OFFSET.pack(952))
    assert servo[reg.PRESENT_POSITION] == 2048


def test_a_goal_outside_its_limits_is_not_reached() -> None:
    servo = switched_on(3900)
    servo.write(reg.POSITION_MAX.address, reg.POSITION_MAX.pack(1500))
    assert moved(servo, 1.5)[-1] == pytest.approx(1500, abs=0.5)


def test_what_is_read_only_stays() -> None:
    servo = SimulatedServo(1, 1000)
    servo.write(reg.MODEL.address, b"\x00\x00")
    servo.write(reg.PRESENT_TEMPERATURE.address, b"\x10")
    assert (servo[reg.MODEL], servo[reg.PRESENT_TEMPERATURE]) == (777, 30)


def test_a_stalled_shaft_becomes_an_overload_and_a_hot_one_lets_go() -> None:
    servo = switched_on(3000)
    servo.stalled = True
    moved(servo, 1.9)
    servo.show()
    assert servo.encoder == 1000 and servo[reg.PRESENT_LOAD] == 1000 and servo[reg.PRESENT_CURRENT] > 400
    assert not servo.faults
    moved(servo, 0.5)
    assert servo.faults == Fault.OVERLOAD
    servo[reg.PRESENT_TEMPERATURE] = 71
    moved(servo, 0.01)
    assert not servo.is_on


# The words it takes ---------------------------------------------------------------------------------------------------


def test_words(capsys: pytest.CaptureFixture[str]) -> None:
    bus = SimulatedBus({1: SimulatedServo(1, 1000), 2: SimulatedServo(2, 1000)}, LineFaults(), 0)
    for text in ("silent 1", "stall 2", "heat 2 66", "voltage 5.0", "hand 1 1500"):
        apply(bus, text.split())
    assert bus.servos[1].silent and bus.servos[2].stalled and bus.servos[1].encoder == 1500
    assert bus.servos[2][reg.PRESENT_TEMPERATURE] == 66 and bus.servos[1][reg.PRESENT_VOLTAGE] == 50
    for text in ("speaks 1", "free 2", "reset 2"):
        apply(bus, text.split())
    assert not bus.servos[1].silent and bus.servos[2][reg.PRESENT_TEMPERATURE] == 30
    assert capsys.readouterr().err == ""
    for text in ("explode 1", "heat 9 1", "silent", ""):
        apply(bus, text.split())
    assert capsys.readouterr().err.count("is not understood") == 4
