"""`fci-sim` and an unmodified pylibfranka on loopback: what the strict robot is on the wire."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edge.arms.franka import arm_limits
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.fci_sim import wire
from firmware_bridge.adapters.fci_sim.strict_robot import Generator
from firmware_bridge.adapters.franka_fci import FrankaDrive
from firmware_bridge.adapters.franka_options import FrankaOptions
from tests.fci_process import fci_sim
from tests.support import FRANKA

pylibfranka = pytest.importorskip("pylibfranka", reason="pip install 'vla-edge[franka]'")
ADDRESS = "127.0.0.53"
PERIODS = 1000
LOST = ("--lockstep", "--loss", "0.05", "--burst", "10", "--seed", "2")


def opened(said: list[str], mode: str = "position", **options: float) -> FrankaDrive:
    return FrankaDrive(ADDRESS, FrankaOptions(realtime="ignore", mode=mode, **options), arm_limits(FRANKA), said.append)


def swing(begin: np.ndarray, ms: int) -> tuple[list[float], list[float]]:
    """Out and back in a second, all joints, and at rest from then on."""
    phase = 2 * np.pi * min(ms, PERIODS) / PERIODS
    width = 0.1 * np.array([1, -1, 1, -1, 1, -1, 1])
    return list(begin + width * (1 - np.cos(phase)) / 2), list(width * np.pi * np.sin(phase))


@pytest.mark.parametrize("mode", ["position", "velocity"])
def test_a_motion_on_a_lossy_line_is_no_reflex(mode: str) -> None:
    said: list[str] = []
    with fci_sim(ADDRESS, "--begin-ms", "60", *LOST) as robot:
        drive = opened(said, mode)
        begin = np.array(drive.measure().position_rad)
        drive.command(begin, [0.0] * 7, True)
        ms = 0
        while ms < PERIODS + 100:
            told = drive.measure()
            assert told.ok and told.drive_is_on, said
            ms += told.periods
            drive.command(*swing(begin, ms), True)
        for _ in range(300):
            told = drive.measure()
            drive.command(begin, [0.0] * 7, False)
            if not told.drive_is_on:
                break
        drive.close()
        became = robot.end()
    assert (became["motions"], became["reflexes"], became["mode"]) == (1, 0, "idle"), (became, said)
    assert became["longest_loss"] >= 8 and became["lost"] > 20, "and it was lossy"
    assert max(became["worst_share"].values()) <= 1.0


def test_a_reflex_the_user_stop_and_the_ways_out() -> None:
    said: list[str] = []
    with fci_sim(ADDRESS, "--lockstep") as robot:
        drive = opened(said)
        here = drive.measure().position_rad

        def until(holds: bool, enable: bool, ok: bool = True) -> None:
            for _ in range(1500):
                told = drive.measure()
                drive.command(here, [0.0] * 7, enable)
                if told.drive_is_on is holds and told.ok is ok:
                    return
            raise AssertionError(said)

        until(True, enable=True)
        robot.say("push 4 60")
        until(False, enable=True, ok=False)
        assert "joint_reflex" in drive.fault
        robot.say("push 4 0")
        until(False, enable=False)
        drive.clear()
        assert drive.fault == ""
        until(True, enable=True)
        robot.say("stop")
        until(False, enable=True, ok=False)
        drive.clear()
        assert "the robot does not recover" in drive.fault and "User Stop" in drive.fault
        robot.say("release")
        until(False, enable=False)
        drive.clear()
        until(True, enable=True)
        drive.close()
        assert robot.end()["motions"] == 3


ASKS = """
import sys, time, pylibfranka
robot = pylibfranka.Robot(sys.argv[1], pylibfranka.RealtimeConfig.kIgnore)
robot.set_load(0.5, [0.0, 0.0, 0.05], [0.0] * 9)
time.sleep(0.02)
state = robot.read_once()
model = robot.load_model()
print(len(model.mass(state)), state.m_load, state.robot_mode.name, list(state.q) != list(state.q_d))
"""


def test_it_is_a_robot_to_libfranka() -> None:
    """Its model, its state and a load, in a process of its own: libfranka's part of that is not ours to trust."""
    with fci_sim(ADDRESS):
        asked = [sys.executable, "-c", ASKS, ADDRESS]
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30)
    assert told.stdout.split() == ["49", "0.5", "Idle", "True"], told.stderr


def test_another_version_of_the_interface_is_told_which_one_it_is() -> None:
    robot_speaks = wire.connected(7, accepted=False)
    assert wire.HEADER.unpack_from(robot_speaks) == (0, 7, len(robot_speaks)) and robot_speaks[12:15] == b"\x01\x0a\x00"


def test_no_robot_is_said_in_one_line() -> None:
    with pytest.raises(DriveError, match=f"no Franka answers at {ADDRESS}"):
        opened([])


def test_what_is_no_message_ends_the_connection() -> None:
    with pytest.raises(ValueError, match="3 bytes"):
        wire.Requests().feed(wire.HEADER.pack(0, 0, 3))
    half = wire.HEADER.pack(1, 5, wire.HEADER.size + 4)
    cut = wire.Requests()
    assert cut.feed(half) == [] and cut.feed(b"abcd")[0].payload == b"abcd"
    packet = wire.ROBOT_COMMAND.pack(3, *range(7), *range(7, 14), *(0.0,) * 24, False, True, *(0.0,) * 7, False)
    assert wire.set_point(packet, Generator.JOINT_VELOCITY)[1].values == tuple(range(7, 14))
    assert wire.set_point(packet, Generator.JOINT_POSITION)[1].finished
