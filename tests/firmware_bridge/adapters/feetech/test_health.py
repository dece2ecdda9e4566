"""What the servos tell of themselves, and what is too much."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firmware_bridge.adapters.feetech.health import GripLimits, Health, HealthWatch, VoltageRange
from firmware_bridge.adapters.feetech.registers import Fault
from firmware_bridge.adapters.feetech.simulated_servo import SimulatedServo

WELL = Health(load=0.1, voltage_v=12.0, temperature_c=35, current_a=0.2)
SECOND = 1_000_000_000


def watch(grip: GripLimits | None = None) -> HealthWatch:
    return HealthWatch("servo 3 (elbow_flex)", VoltageRange(10.0, 14.0), grip)


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


GRIP = GripLimits(torque=0.5, current_a=1.625)
PRESSING = Health(0.5, 12.0, 40, 1.35, torque_limit=0.5)


def test_a_jaw_may_be_strained_within_its_own_limits_and_not_hot() -> None:
    one = watch(GRIP)
    assert not one.judge(PRESSING, 0) and not one.judge(PRESSING, 9 * SECOND)
    assert not one.error_byte(Fault.OVERLOAD) and "temperature" in one.error_byte(Fault.OVERLOAD | Fault.TEMPERATURE)
    assert one.judge(replace(PRESSING, temperature_c=66), 9 * SECOND)


def test_an_overload_of_a_jaw_is_counted_once_for_as_long_as_it_lasts() -> None:
    one = watch(GRIP)
    for error in (0, Fault.OVERLOAD, Fault.OVERLOAD, 0, Fault.OVERLOAD):
        assert not one.error_byte(error)
    assert one.overloads == 2


@pytest.mark.parametrize("change", [{"load": 0.6}, {"load": -0.6}, {"current_a": 1.7}])
def test_a_jaw_that_presses_harder_than_it_was_set_to_is_a_fault(change: dict) -> None:
    one = watch(GRIP)
    assert not one.judge(replace(PRESSING, **change), 0)
    assert "has been strained for 1 s" in one.judge(replace(PRESSING, **change), SECOND + 1)


def test_a_jaw_whose_limit_is_gone_is_a_fault_at_once() -> None:
    told = watch(GRIP).judge(replace(PRESSING, torque_limit=1.0), 0)
    assert "may use 100% of its torque, and was set to 50%" in told


def test_what_is_a_fault_of_a_current_is_one_of_a_jaw_as_well() -> None:
    assert "current" in watch(GRIP).error_byte(Fault.CURRENT), "its servo has let go"


def test_faults_of_its_own_are_named() -> None:
    assert watch().error_byte(0) == ""
    assert watch().error_byte(Fault.OVERLOAD | Fault.VOLTAGE).endswith("a fault of its own: voltage and overload")


def test_extremes_are_kept() -> None:
    one = watch()
    for temperature, voltage in ((30, 12.0), (50, 11.0), (40, 12.5)):
        one.judge(Health(0.0, voltage, temperature, 0.0), 0)
    assert (one.hottest_c, one.lowest_v) == (50, 11.0)
