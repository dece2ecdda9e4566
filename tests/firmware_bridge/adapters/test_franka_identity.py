"""Which robot it is: what it tells, what a profile may not allow, and what cannot be read."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from edge.arms import load_arm
from edge.arms.drives import DRIVES
from edge.arms.franka import arm_limits
from edge.errors import InputError
from firmware_bridge.adapters.fci_sim import wire
from firmware_bridge.adapters.fci_sim.loss import PacketLoss
from firmware_bridge.adapters.fci_sim.server import FciServer
from firmware_bridge.adapters.fci_sim.strict_robot import FR3, PANDA, RobotLimits, StrictRobot
from firmware_bridge.adapters.franka_identity import Identity, UnknownRobot, ask, read_model
from tests.support import FRANKA

ADDRESS = "127.0.0.55"


@pytest.fixture
def robot(request: pytest.FixtureRequest) -> Iterator[None]:
    limits: RobotLimits = request.param
    server, over = FciServer(StrictRobot(limits), ADDRESS, PacketLoss(0.0, 1, 0), 5, lockstep=False), threading.Event()

    def serve() -> None:
        while not over.is_set():
            server.period()
            time.sleep(0.001)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    over.set()
    thread.join()
    server.close()


@pytest.mark.parametrize("robot", [FR3], indirect=True)
def test_a_robot_says_who_it_is(robot: None) -> None:
    told = ask(ADDRESS)
    assert str(told) == "fr3, version 10 of the interface" and told.excess(arm_limits(FRANKA)) == ""
    assert "joint 1 of this robot goes from -2.750 to 2.750" in told.excess(arm_limits(load_arm("panda")))


@pytest.mark.parametrize("robot", [PANDA], indirect=True)
def test_another_robot_than_the_profiles_is_refused_before_anything(robot: None) -> None:
    said: list[str] = []
    with pytest.raises(InputError, match=r"is no 'franka': joint 1 .*choose the profile of this robot"):
        DRIVES.read(f"fci:{ADDRESS}").open(FRANKA, said.append)
    assert said == ["robot: panda, version 10 of the interface"]


def test_a_robot_that_has_become_slower_near_its_ends_is_another_one() -> None:
    name, joints = read_model(wire.model(FR3).encode())
    slow = Identity(10, name, (joints[0].__class__(-2.75, 2.75, 2.62, 2.0, 0.3), *joints[1:]))
    assert "joint 1 of this robot may move at" in slow.excess(arm_limits(FRANKA))
    assert Identity(5).excess(arm_limits(FRANKA)) == "", "a robot without a model says nothing against a profile"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "cannot be read"),
        (b"<robot name='x'><joint", "cannot be read"),
        (b"<robot name='x'></robot>", "has 0 joints"),
        (b"<!DOCTYPE r [<!ENTITY a 'b'>]><robot/>", "declares entities"),
        (b"<robot name='x'><joint type='revolute'/></robot>", "without limits"),
        (
            b"<robot name='x'><joint type='revolute'><limit lower='nan' upper='1' velocity='1'/></joint></robot>",
            "no num",
        ),
    ],
)
def test_a_model_that_cannot_be_read_is_none(text: bytes, why: str) -> None:
    with pytest.raises(UnknownRobot, match=why):
        read_model(text)
