"""Torque on and off, decided by what is read back alone."""

from __future__ import annotations

import pytest

from firmware_bridge.adapters.feetech.packets import PacketReader
from firmware_bridge.adapters.feetech.torque import LONGEST_SWITCH_S, NEAR_COUNTS, TorqueState, TorqueSwitch

NAMES = {1: "servo 1", 2: "servo 2"}
HERE = {1: 2000, 2: 2100}
LATE_NS = round(1e9 * LONGEST_SWITCH_S) + 1


def switch(on: bool | None = None) -> TorqueSwitch:
    one = TorqueSwitch(NAMES, 254, 0)
    if on is not None:
        report(one, False)
    if on:
        one.want(True, 0)
        report(one, False)
        assert one.packet(HERE)
        report(one, True)
        assert one.packet(HERE) == b""
    return one


def report(one: TorqueSwitch, on: bool, goals: dict[int, int] = HERE, acceleration: int = 254) -> None:
    for servo, goal in goals.items():
        one.learn(servo, TorqueState(on, acceleration, goal))


def written(packet: bytes) -> dict[int, int]:
    data = PacketReader().feed(packet)[0].data
    return {data[at]: data[at + 1] for at in range(2, len(data), 2)}


def test_what_nobody_has_told_counts_as_on() -> None:
    one = switch()
    assert one.is_on and not one.settled and written(one.packet(HERE)) == {1: 0, 2: 0}
    one.learn(1, TorqueState(False, 254, 0))
    assert one.is_on and written(one.packet(HERE)) == {2: 0}
    one.learn(2, TorqueState(False, 254, 0))
    assert not one.is_on and one.packet(HERE) == b""


def test_torque_waits_for_goals_that_were_read_back() -> None:
    one = switch(on=False)
    one.want(True, 0)
    assert one.packet(HERE) == b"", "what was read before tells nothing of the goals"
    one.learn(1, TorqueState(False, 254, HERE[1]))
    assert one.packet(HERE) == b"", "servo 2 has not told"
    one.learn(2, TorqueState(False, 254, HERE[2] + NEAR_COUNTS + 1))
    assert one.packet(HERE) == b"", "servo 2 would jump"
    one.learn(2, TorqueState(False, 254, HERE[2] + NEAR_COUNTS))
    assert written(one.packet(HERE)) == {1: 1, 2: 1}
    one.learn(1, TorqueState(True, 254, HERE[1]))
    assert written(one.packet(HERE)) == {2: 1}, "the packet for servo 2 got lost"


def test_off_is_not_believed_before_it_is_read() -> None:
    one = switch(on=True)
    one.want(False, 0)
    assert one.is_on and written(one.packet(HERE)) == {1: 0, 2: 0}
    one.learn(1, TorqueState(False, 254, 0))
    assert one.is_on
    one.learn(2, TorqueState(False, 254, 0))
    assert not one.is_on


def test_off_before_on_was_read() -> None:
    one = switch(on=False)
    one.want(True, 0)
    report(one, False)
    assert one.packet(HERE)
    one.want(False, 0)
    assert one.is_on, "they may have come on"


def test_a_servo_that_lets_go_is_a_fault_and_stays_off() -> None:
    one = switch(on=True)
    assert one.fault(LATE_NS) == ""
    one.learn(2, TorqueState(False, 254, 0))
    assert "servo 2 has let go by itself" in one.fault(LATE_NS) and one.packet(HERE) == b""


def test_a_servo_that_started_anew_is_a_fault() -> None:
    one = switch(on=True)
    one.learn(1, TorqueState(True, 0, 0))
    assert "servo 1 has started anew; check its supply" in one.fault(0)


@pytest.mark.parametrize(("on", "word"), [(True, "come on"), (False, "let go")])
def test_one_that_does_not_switch_is_a_fault_after_a_while(on: bool, word: str) -> None:
    one = switch(on=not on)
    one.want(on, 0)
    one.learn(1, TorqueState(on, 254, HERE[1]))
    assert one.fault(LATE_NS - 1) == "" and f"servo 2 does not {word}" in one.fault(LATE_NS)
