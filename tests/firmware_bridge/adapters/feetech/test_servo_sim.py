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
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus, Supply
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


def blocked(goal: int = 3000, **settings: int) -> SimulatedServo:
    """Switched on, against something that holds its shaft."""
    servo = switched_on(goal)
    servo.stalled = True
    for name, value in settings.items():
        servo[getattr(reg, name)] = value
    return servo


def put(servo: SimulatedServo, register: reg.Register, value: int) -> None:
    servo.write(register.address, register.pack(value))


def test_a_stalled_shaft_becomes_an_overload_and_a_hot_one_lets_go() -> None:
    servo = blocked(PROTECTION_CURRENT=511)
    moved(servo, 2.1)
    servo.show()
    assert servo.encoder == 1000 and servo[reg.PRESENT_LOAD] == 1000 and servo[reg.PRESENT_CURRENT] > 400
    assert not servo.faults
    moved(servo, 0.5)
    assert servo.faults == Fault.OVERLOAD and servo.is_on
    servo[reg.PRESENT_TEMPERATURE] = 71
    moved(servo, 0.01)
    assert not servo.is_on


def test_the_torque_is_limited_by_register_48_and_an_overload_brings_it_down() -> None:
    servo = blocked(TORQUE_LIMIT=500, OVERLOAD_TORQUE=25)
    moved(servo, 1.0)
    assert servo.torque_nm == pytest.approx(0.5 * reg.STALL_NM)
    moved(servo, 2.0)
    assert servo.torque_nm == pytest.approx(0.2 * reg.STALL_NM), "register 34, as delivered"
    put(servo, reg.GOAL_POSITION, 3005)
    moved(servo, 0.01)
    assert servo.torque_nm == pytest.approx(0.2 * reg.STALL_NM), "the same goal, to a degree"
    put(servo, reg.GOAL_POSITION, 3020)
    moved(servo, 0.01)
    assert servo.torque_nm == pytest.approx(0.5 * reg.STALL_NM) and not servo.faults


def test_what_register_19_does_not_enable_does_not_act() -> None:
    servo = blocked(UNLOADING=0, OVERLOAD_TORQUE=25, PROTECTION_CURRENT=100)
    moved(servo, 3.0)
    assert servo.is_on and not servo.faults and servo.torque_nm == pytest.approx(reg.STALL_NM)


def test_a_current_above_its_limit_takes_the_torque_away_until_it_is_switched_on_again() -> None:
    servo = blocked(PROTECTION_CURRENT=250, OVERCURRENT_TIME=50, OVERLOAD_TORQUE=120)
    moved(servo, 0.4)
    assert servo.is_on
    moved(servo, 0.4)
    servo.show()
    assert not servo.is_on and servo.faults == Fault.CURRENT and servo[reg.STATUS] == Fault.CURRENT
    put(servo, reg.TORQUE_ENABLE, 1)
    assert servo.is_on and not servo.faults


def test_what_was_written_while_locked_is_gone_with_the_supply() -> None:
    servo = SimulatedServo(1, 1000)
    put(servo, reg.MAX_TORQUE, 400)
    assert servo[reg.MAX_TORQUE] == 400 and servo[reg.TORQUE_LIMIT] == 1000, "taken over when the supply comes on"
    assert servo.started_anew()[reg.MAX_TORQUE] == 1000
    for register, value in ((reg.LOCK, 0), (reg.MAX_TORQUE, 500), (reg.LOCK, 1)):
        put(servo, register, value)
    after = servo.started_anew()
    assert (after[reg.MAX_TORQUE], after[reg.TORQUE_LIMIT], after[reg.GOAL_POSITION], after.is_on) == (
        500,
        500,
        0,
        False,
    )


def test_a_load_holds_the_shaft_away_and_takes_it_to_its_stop_without_torque() -> None:
    servo = switched_on(2000)
    servo.load, servo.stops = -0.25, (900, 3000)
    assert moved(servo, 1.5)[-1] == pytest.approx(2000 - 15, abs=0.5)
    put(servo, reg.TORQUE_ENABLE, 0)
    track = moved(servo, 3.0)
    assert track[100] < 1970 and track[-1] == 900, "it sinks, and rests"
    servo.load, servo.encoder = -0.02, 1500
    assert moved(servo, 1.0)[-1] == 1500, "the gears hold what is lighter than their friction"


@pytest.mark.parametrize("offset", [-2047, -1948, 0, 1871, 2047])
@pytest.mark.parametrize("encoder", [-700.0, 100.0, 2047.0, 3500.0, 5000.0])
def test_within_a_turn_it_tells_0_to_4095_whatever_the_offset_and_goes_the_short_way(
    offset: int, encoder: float
) -> None:
    servo = SimulatedServo(1, encoder)
    put(servo, reg.HOMING_OFFSET, offset)
    told = servo[reg.PRESENT_POSITION]
    assert told == (encoder - offset) % reg.COUNTS
    put(servo, reg.GOAL_POSITION, told + 60 if told < 4000 else told - 60)
    put(servo, reg.TORQUE_ENABLE, 1)
    assert np.ptp(moved(servo, 0.5)) == pytest.approx(60, abs=1)
    servo[reg.PHASE] |= reg.WHOLE_ANGLE
    servo.show()
    assert servo[reg.PRESENT_POSITION] % reg.COUNTS == round(servo.position) % reg.COUNTS


def test_noise_is_in_what_it_tells_alone() -> None:
    servo = SimulatedServo(1, 1000)
    servo.noise = 2
    told = set()
    for _ in range(100):
        servo.show()
        told.add(servo[reg.PRESENT_POSITION])
    assert told == {998, 999, 1000, 1001, 1002} and servo.encoder == 1000


def test_the_supply_sags_under_load_and_servos_start_anew_when_it_breaks_down() -> None:
    servos = {number: blocked() for number in (1, 2)}
    bus = SimulatedBus(servos, LineFaults(), 0)
    bus.supply = Supply(12.0, ohms=0.5)
    for ms in range(1, 400):
        bus.advance(1_000_000 * ms)
    assert servos[1][reg.PRESENT_VOLTAGE] == pytest.approx(120 - 10 * 0.5 * 5.4, abs=2) and servos[1].is_on
    bus.supply = Supply(12.0, ohms=2.0)
    bus.advance(401_000_000)
    assert not any(servo.is_on for servo in servos.values()) and servos[1].silent
    for ms in range(402, 802, 10):
        bus.advance(1_000_000 * ms)
    assert not servos[1].silent and servos[1][reg.GOAL_POSITION] == 0


# The words it takes ---------------------------------------------------------------------------------------------------


def test_words(capsys: pytest.CaptureFixture[str]) -> None:
    bus = SimulatedBus({1: SimulatedServo(1, 1000), 2: SimulatedServo(2, 1000)}, LineFaults(), 0)
    words = ("load 2 -0.2", "stops 2 900 1000", "noise 2 1", "supply 12 0.1")
    for text in (*words, "silent 1", "stall 2", "heat 2 66", "voltage 5.0", "hand 1 1500"):
        apply(bus, text.split())
    assert bus.servos[1].silent and bus.servos[2].stalled and bus.servos[1].encoder == 1500
    assert bus.servos[2][reg.PRESENT_TEMPERATURE] == 66 and bus.servos[1][reg.PRESENT_VOLTAGE] == 50
    assert (bus.servos[2].load, bus.servos[2].stops, bus.servos[2].noise) == (-0.2, (900, 1000), 1)
    for text in ("speaks 1", "free 2", "reset 2"):
        apply(bus, text.split())
    assert not bus.servos[1].silent and bus.servos[2][reg.PRESENT_TEMPERATURE] == 30
    assert capsys.readouterr().err == ""
    for text in ("explode 1", "heat 9 1", "silent", ""):
        apply(bus, text.split())
    assert capsys.readouterr().err.count("is not understood") == 4
