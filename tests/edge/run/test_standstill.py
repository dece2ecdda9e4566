"""The end of a motion on the simulated clock: at rest and the drive off, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.log.trace import read_trace
from edge.run.standstill import bring_to_rest
from firmware_bridge.codes import DeviceState
from firmware_bridge.errors import LinkLost
from tests.support import FRANKA, Rig, broken_limits, swing


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Rig]:
    """An arm in mid-motion; however a test ends it, no limit was broken."""
    rig = Rig(tmp_path / "trace.csv").armed()
    rig.commit(swing(1, rig.device.now_us + 100_000))
    rig.run(500)
    assert rig.device.state == DeviceState.STREAMING
    yield rig
    rig.device.tick(1500)
    rig.close()
    assert broken_limits(read_trace(tmp_path / "trace.csv"), FRANKA) == []


def stopped(rig: Rig) -> tuple[bool, str | None]:
    return bring_to_rest(rig.client, clock_s=lambda: rig.host_ns / 1e9)


def test_a_moving_arm_comes_to_rest_and_its_drive_goes_off(moving: Rig) -> None:
    assert stopped(moving) == (False, None)
    assert moving.device.state == DeviceState.IDLE


def test_a_latched_device_is_named(moving: Rig) -> None:
    moving.client.estop()
    armed, problem = stopped(moving)
    assert not armed and problem is not None and problem.startswith("the device is in ESTOP")


def test_a_device_that_has_vanished_stops_by_itself(moving: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving.device, "read", lambda: b"")
    monkeypatch.setattr(moving.device, "write", lambda data, channel=0: None)
    moving.device.tick(101)
    with pytest.raises(LinkLost, match=r"no state from the device for 10\d ms"):
        moving.client.check_alive(moving.host_ns)
    armed, problem = stopped(moving)
    assert armed and problem is not None and "stops by itself when its heartbeat is missing" in problem
    moving.device.tick(1000)
    assert moving.device.state == DeviceState.HOLD
