"""The Franka Hand as an eighth axis: what it is told to do, and that the arm's loop never waits for it."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest

from edge.arms.franka import arm_limits
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.franka_hand import FrankaHandDrive, open_franka
from firmware_bridge.adapters.franka_options import FrankaOptions
from firmware_bridge.adapters.hand_process import HandLoop, HandMemory, HandProcess, HandState
from tests.firmware_bridge.adapters.contract import serve
from tests.franky import franky
from tests.support import FRANKA

ADDRESS = "127.0.0.56"


class ScriptedGripper:
    """A hand that is at once where it was told to be, or stops at what is between its fingers."""

    def __init__(self) -> None:
        self.width, self.least, self.calls = 0.04, 0.0, []

    def read_once(self) -> SimpleNamespace:
        return SimpleNamespace(width=self.width)

    def move(self, width: float, speed: float) -> bool:
        self.calls.append(("move", round(width, 4)))
        self.width = max(width, self.least)
        return self.width == width

    def grasp(self, width: float, speed: float, force: float, inner: float, outer: float) -> bool:
        self.calls.append(("grasp", round(width, 4)))
        self.width = max(width, self.least)
        return abs(self.width - width) <= outer


class Hand:
    def __init__(self) -> None:
        self.gripper, self.memory = ScriptedGripper(), HandMemory()
        self.loop = HandLoop(self.gripper, self.memory, lambda: 7)

    def commanded(self, width_m: float, enable: bool = True) -> list[tuple[str, float]]:
        """The commands that follow."""
        before = len(self.gripper.calls)
        self.memory.command(width_m, enable)
        self.loop.step()
        return self.gripper.calls[before:]


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_nothing_is_asked_or_told_before_the_first_time() -> None:
    memory = HandMemory()
    assert memory.commanded() is None and memory.reported() is None
    memory.command(0.05, True)
    memory.report(HandState(0.04, 3, 2, 1))
    assert memory.commanded() == (0.05, True) and memory.reported() == HandState(0.04, 3, 2, 1)
    memory.close()
    memory.close()


def test_opening_is_a_move_and_closing_a_grasp(hand: Hand) -> None:
    assert hand.commanded(0.06) == [("move", 0.06)]
    assert hand.commanded(0.02) == [("grasp", 0.02)]


def test_a_width_within_the_deadband_is_no_command(hand: Hand) -> None:
    assert hand.commanded(0.0415) == []
    assert hand.commanded(0.0425) == [("move", 0.0425)]
    assert hand.commanded(0.0410) == []


def test_an_object_is_grasped_once_and_held(hand: Hand) -> None:
    hand.gripper.least = 0.03
    assert hand.commanded(0.01) == [("grasp", 0.01)]
    assert hand.commanded(0.01) == [] == hand.commanded(0.009), "it is closed as far as it goes"
    assert hand.commanded(0.05) == [("move", 0.05)]
    told = hand.memory.reported()
    assert told is not None and (told.commands, told.refused) == (1, 0)


def test_a_drive_that_is_off_moves_nothing_and_forgets(hand: Hand) -> None:
    assert hand.commanded(0.08, enable=False) == []
    assert hand.commanded(0.08) == [("move", 0.08)]
    hand.gripper.width = 0.03  # moved by hand meanwhile
    assert hand.commanded(0.03, enable=False) == [] == hand.commanded(0.03)


def test_what_the_hand_cannot_do_is_not_asked_of_it(hand: Hand) -> None:
    assert hand.commanded(0.2) == [("move", 0.08)]
    assert hand.commanded(-0.1) == [("grasp", 0.0)]


def test_a_refused_command_is_counted(hand: Hand) -> None:
    hand.gripper.least = 0.07
    hand.commanded(0.05)
    hand.loop.step()
    told = hand.memory.reported()
    assert told is not None and (told.commands, told.refused) == (1, 1)


def test_no_hand_is_one_line() -> None:
    pytest.importorskip("pylibfranka", reason="pip install 'vla-edge[franka]'")
    with pytest.raises(DriveError, match=r"no Franka Hand answers at 127\.0\.0\.54; without one leave out gripper=1"):
        HandProcess("127.0.0.54").wait()


def test_arm_and_hand_move_together_and_a_lost_hand_is_a_fault() -> None:
    pytest.importorskip("franky_sim", reason="pip install franky-sim pin")
    said: list[str] = []
    limits = arm_limits(FRANKA)
    options = FrankaOptions(realtime="ignore", gripper=True)
    with franky(ADDRESS, lockstep=True):
        drive = open_franka(ADDRESS, options, limits, said.append)
        assert isinstance(drive, FrankaHandDrive)
        *joints, width_m = drive.measure().position_rad
        assert len(joints) == 7 and width_m == pytest.approx(0.04, abs=0.001)
        for target_m in (0.06, 0.02):
            took_s = move_hand(drive, joints, target_m)
            assert np.percentile(took_s, 99) < 0.2, "the arm's loop goes on while the hand is waited for"
        os.kill(drive._hand._process.pid, signal.SIGKILL)
        serve(drive, [*joints, 0.02], True, lambda told: not told.ok)
        assert said[-1] == "the hand does not answer any more"
        serve(drive, [*joints, 0.02], False, lambda told: told.ok)
        assert said[-1] == "the hand answers again"
        assert drive.statistics()["hand_commands"] >= 0
        drive.close()


def move_hand(drive: FrankaHandDrive, joints: list[float], target_m: float) -> list[float]:
    """Asks for a width until the hand is there; how long each period of the arm took."""
    took_s, before_s = [], time.monotonic()

    def arrived(told: object) -> bool:
        nonlocal before_s
        now_s = time.monotonic()
        took_s.append(now_s - before_s)
        before_s = now_s
        return abs(drive.position_rad[-1] - target_m) < 0.004

    serve(drive, [*joints, target_m], True, arrived)
    assert len(took_s) > 100, "the hand takes its time"
    return took_s
