"""The Franka's drive against a scripted libfranka: faults that no simulator of the robot makes."""

from __future__ import annotations

import sys
import time

import pytest

from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.franka_fci import FrankaDrive
from firmware_bridge.adapters.franka_options import FrankaOptions
from firmware_bridge.url import Url, read_options
from tests.firmware_bridge.adapters.scripted_franka import (
    HERE,
    LIMITS,
    THERE,
    ControlException,
    NetworkException,
    ScriptedRobot,
    library,
)

PLAIN = FrankaOptions()


class Franka:
    """A drive, the robot behind it, and what it said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, options: FrankaOptions = PLAIN) -> None:
        self.calls: list[str] = []
        self.robot = ScriptedRobot(self.calls)
        self.said: list[str] = []
        monkeypatch.setitem(sys.modules, "pylibfranka", library(self.robot))
        self.drive = FrankaDrive("172.16.0.2", options, LIMITS, self.said.append)

    def moving(self) -> Franka:
        self.drive.measure()
        self.drive.command(HERE, [0.0] * 7, True)
        assert self.drive.measure().drive_is_on
        self.drive.command(HERE, [0.0] * 7, True)
        return self


@pytest.fixture
def franka(monkeypatch: pytest.MonkeyPatch) -> Franka:
    return Franka(monkeypatch)


def test_thresholds_are_set_before_anything_else(franka: Franka) -> None:
    assert franka.calls == ["thresholds", "impedance", "read"]


def test_the_robot_is_set_up_as_the_url_says(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"collision_torque": "30", "contact_torque": "20", "collision_force": "40", "impedance": "1000"}
    robot = Franka(monkeypatch, read_options(Url("fci", "", asked), FrankaOptions)[0]).robot
    assert robot.thresholds == ((20.0,) * 7, (30.0,) * 7, (40.0,) * 6, (40.0,) * 6)
    assert robot.impedance == (1000.0,) * 7


def test_a_contact_threshold_is_the_collisions_unless_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    options = FrankaOptions(collision_torque_nm=(30.0,) * 7, collision_force_n=(40.0,) * 6)
    assert Franka(monkeypatch, options).robot.thresholds == ((30.0,) * 7, (30.0,) * 7, (40.0,) * 6, (40.0,) * 6)


def test_in_velocity_mode_the_correction_points_to_the_set_point(monkeypatch: pytest.MonkeyPatch) -> None:
    franka = Franka(monkeypatch, FrankaOptions(mode="velocity"))
    franka.drive.measure()
    franka.drive.command(HERE, [0.0] * 7, True)
    assert franka.calls[-1] == "start velocity"
    ahead = [q + 0.002 for q in HERE]
    for _ in range(200):  # the robot reports that it should be HERE, and is asked to be ahead
        assert franka.drive.measure().drive_is_on
        franka.drive.command(ahead, [0.0] * 7, True)
    assert franka.robot.written[0].dq == pytest.approx([0.0] * 7, abs=1e-4), "it begins softly"
    assert franka.robot.written[-1].dq == pytest.approx([0.01] * 7, abs=1e-4)
    for _ in range(200):
        if franka.robot.written[-1].motion_finished:
            break
        franka.drive.measure()
        franka.drive.command(ahead, [0.0] * 7, False)
    assert franka.robot.written[-1].motion_finished and max(map(abs, franka.robot.written[-1].dq)) < 1e-3


def test_at_rest_a_motion_begins_where_the_robot_regulates_to(franka: Franka) -> None:
    told = franka.drive.measure()
    assert (told.position_rad, told.ok, told.drive_is_on, told.periods) == (HERE, True, False, 1)
    assert franka.moving().drive.measure().position_rad == THERE


def test_the_motion_ends_when_the_core_takes_the_drive_away(franka: Franka) -> None:
    franka.moving()
    assert franka.drive.measure().drive_is_on
    franka.drive.command(THERE, [0.0] * 7, False)
    assert franka.robot.written[-1].motion_finished and not franka.robot.written[-2].motion_finished
    assert not franka.drive.measure().drive_is_on


def test_lost_packets_are_counted_by_the_robots_own_clock(franka: Franka) -> None:
    franka.moving()
    franka.robot.now_s += 0.004
    assert franka.drive.measure().periods == 5
    franka.robot.now_s += 0.1  # a whole window of the robot's own count
    franka.drive.measure()
    told = franka.drive.statistics()
    assert (told["success_rate_least"], told["success_rate_last"], told["end_effector_kg"]) == (0.98, 0.98, 0.73)


@pytest.mark.parametrize("during", ["readOnce", "writeOnce"])
def test_a_reflex_is_told_until_the_core_has_heard_and_stays_until_cleared(franka: Franka, during: str) -> None:
    franka.moving()
    error = ControlException("libfranka: motion aborted by reflex! joint_reflex")
    if during == "readOnce":
        franka.robot.raises = error
        assert not franka.drive.measure().ok
    else:
        franka.drive.measure()
        franka.robot.raises = error
        franka.drive.command(HERE, [0.0] * 7, True)
    franka.robot.errors = "joint_reflex"
    for _ in range(3):
        told = franka.drive.measure()
        assert not told.ok and not told.drive_is_on
        franka.drive.command(HERE, [0.0] * 7, True)
    franka.drive.command(HERE, [0.0] * 7, False)  # the core is in FAULT
    assert franka.drive.measure().ok, "where it is, it knows: the fault can be cleared"
    franka.drive.command(HERE, [0.0] * 7, True)
    assert franka.calls.count("start") == 1, "no motion before the clear"
    assert "recover" not in franka.calls
    franka.robot.errors = ""
    franka.drive.clear()
    franka.drive.measure()
    franka.drive.command(HERE, [0.0] * 7, True)
    assert franka.calls.count("recover") == 1 and franka.calls.count("start") == 2
    assert any("reflex" in text for text in franka.said)


def test_a_robot_that_does_not_recover_is_a_fault_again(franka: Franka) -> None:
    franka.moving()
    franka.robot.raises = ControlException("motion aborted by reflex")
    franka.drive.measure()
    franka.drive.command(HERE, [0.0] * 7, False)
    franka.robot.raises = RuntimeError("the user stop is pressed")
    franka.drive.clear()
    assert not franka.drive.measure().ok
    assert franka.said[-1] == "the robot does not recover: the user stop is pressed"


def test_a_robot_with_a_fault_at_rest_is_not_armed_in_silence(franka: Franka) -> None:
    franka.robot.errors = "joint_reflex"
    assert not franka.drive.measure().ok
    franka.drive.command(HERE, [0.0] * 7, False)
    assert franka.drive.measure().ok
    franka.drive.command(HERE, [0.0] * 7, True)
    assert not franka.drive.measure().ok and "start" not in franka.calls


def test_a_line_that_breaks_is_found_again(franka: Franka, monkeypatch: pytest.MonkeyPatch) -> None:
    franka.moving()
    franka.robot.raises = NetworkException("libfranka: UDP receive: Timeout")
    told = franka.drive.measure()
    assert not told.ok and not told.drive_is_on and told.position_rad == THERE
    franka.drive.command(HERE, [0.0] * 7, True)
    assert not franka.drive.measure().ok
    now_s = time.monotonic()
    monkeypatch.setattr("firmware_bridge.adapters.franka_fci.time.monotonic", lambda: now_s + 5.0)
    franka.drive.measure()
    franka.drive.command(HERE, [0.0] * 7, False)
    assert franka.drive.measure().ok and franka.said[-1] == "the robot answers again"
    assert franka.calls.count("start") == 1


def test_closing_stops_a_motion_and_nothing_else(franka: Franka) -> None:
    franka.drive.close()
    assert "stop" not in franka.calls
    franka.drive.close()


def test_closing_in_motion(franka: Franka) -> None:
    franka.moving().drive.close()
    assert franka.calls[-1] == "stop"


def test_without_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pylibfranka", None)
    with pytest.raises(DriveError, match=r"vla-edge\[franka\]"):
        FrankaDrive("172.16.0.2", FrankaOptions(), LIMITS, lambda text: None)
