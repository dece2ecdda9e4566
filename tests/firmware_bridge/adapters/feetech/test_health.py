"""What the servos tell of themselves, and what is too much."""

from __future__ import annotations

import pytest

from firmware_bridge.adapters.feetech.health import Health, HealthWatch, VoltageRange
from firmware_bridge.adapters.feetech.registers import Fault
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo

WELL = Health(load=0.1, voltage_v=12.0, temperature_c=35, current_a=0.2)
SECOND = 1_000_000_000


def watch(grips: bool = False) -> HealthWatch:
    return HealthWatch("servo 3 (elbow_flex)", VoltageRange(10.0, 14.0), grips)


def test_it_is_read_from_the_registers() -> None:
    servo = SimulatedServo(3, 2048)
    assert Health.unpack(bytes(servo.registers[40:71])) == Health(0.0, pytest.approx(12.0), 30, 0.0)
    servo.registers[60:62] = (0x400 | 250).to_bytes(2, "little")
    servo.registers[69:71] = (100).to_bytes(2, "little")
    told = Health.unpack(bytes(servo.registers[40:71]))
    assert told.load == pytest.approx(-0.25) and told.current_a == pytest.approx(0.65)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"temperature_c": 64}, ""),
        ({"temperature_c": 65}, "servo 3 (elbow_flex) is at 65 degrees (limit 65); let it cool down"),
        ({"voltage_v": 10.1}, "gets 10.1 V and needs more than 10.0 V; check the supply and its cable"),
        ({"voltage_v": 13.9}, "gets 13.9 V and bears less than 14.0 V; use the supply that it is made for"),
    ],
)
def test_at_once(change: dict, message: str) -> None:
    told = watch().judge(Health(**(WELL.__dict__ | change)), 0)
    assert (message in told) if message else not told


@pytest.mark.parametrize("change", [{"load": -0.9}, {"current_a": 2.6}])
def test_strain_counts_when_it_lasts(change: dict) -> None:
    strained = Health(**(WELL.__dict__ | change))
    one = watch()
    assert not one.judge(strained, 0) and not one.judge(strained, SECOND)
    assert "has been strained for 1 s" in one.judge(strained, SECOND + 1)
    assert not one.judge(WELL, 2 * SECOND)
    assert not one.judge(strained, 3 * SECOND), "it begins anew"


def test_a_gripper_may_be_strained_and_not_hot() -> None:
    one = watch(grips=True)
    strained = Health(0.95, 12.0, 40, 2.6)
    assert not one.judge(strained, 0) and not one.judge(strained, 9 * SECOND)
    assert not one.error_byte(Fault.OVERLOAD) and "temperature" in one.error_byte(Fault.OVERLOAD | Fault.TEMPERATURE)
    assert one.judge(Health(0.95, 12.0, 66, 0.0), 9 * SECOND)


def test_faults_of_its_own_are_named() -> None:
    assert watch().error_byte(0) == ""
    assert watch().error_byte(Fault.OVERLOAD | Fault.VOLTAGE).endswith("a fault of its own: voltage and overload")


def test_extremes_are_kept() -> None:
    one = watch()
    for temperature, voltage in ((30, 12.0), (50, 11.0), (40, 12.5)):
        one.judge(Health(0.0, voltage, temperature, 0.0), 0)
    assert (one.hottest_c, one.lowest_v) == (50, 11.0)
