"""The fault that outlives the process that has seen it: the file, and the adapter that begins with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.errors import SafetyStop
from edge.run.arm import ConnectedArm, LatchedFault
from edge.run.clearing import clear, is_latched
from firmware_bridge.adapters import Adapter
from firmware_bridge.adapters.fci_sim.strict_robot import RobotMode
from firmware_bridge.adapters.latch import UNREADABLE, LatchFile, open_latch
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.hosted import HostedDevice
from tests.firmware_bridge.adapters.strict_bench import StrictBench, StrictRig
from tests.firmware_bridge.adapters.test_strict_franka import moving
from tests.support import FRANKA


class Life:
    """An adapter's processes, one after the other, beside one robot and one file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bench = folder, StrictBench()
        self.file = folder / "arm.latch"
        self.rig: StrictRig | None = None

    def begins(self) -> StrictRig:
        """Another process: a new core, a new host, the same robot."""
        if self.rig is not None:
            self.rig.device.core.close()
        rig = StrictRig(self.folder, self.bench)
        on_bench = rig.device
        on_bench.core.close()
        on_bench.core = HostedDevice("franka", on_bench.drive.position_rad, self.folder / "trace.csv")
        on_bench.adapter = Adapter(
            on_bench.core,
            on_bench.drive,
            on_bench.wire,
            lambda: on_bench.now_us * 1000,
            self.bench.bridged,
            latch=LatchFile(self.file),
        )
        self.rig = rig
        rig.client = rig.new_client(100 + self.bench.library.now_ms % 1000)
        rig.device.tick(5)
        return rig


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    life = Life(tmp_path)
    yield life
    assert life.rig is not None
    life.rig.close()


def cleared(rig: StrictRig) -> str | None:
    rig.client.connect("franka", FRANKA.hash32, 7)
    assert is_latched(rig.client.wait_for_state())
    return clear(rig.client, clock_s=lambda: rig.host_ns / 1e9)


def test_a_fault_outlives_the_process_and_goes_by_a_persons_word(life: Life) -> None:
    rig = moving(life.begins())
    rig.robot.push(3, 40.0)
    rig.run(300)
    assert rig.device.state == DeviceState.FAULT
    kept = json.loads(life.file.read_text())
    assert (kept["state"], kept["reason"]) == (DeviceState.FAULT, StopReason.FEEDBACK_LOST)
    assert "reflex" in kept["why"]
    rig.robot.push(3, 0.0)
    assert life.bench.library.automatic_error_recovery() is None, "somebody frees the robot by itself, in Desk"

    again = life.begins()
    assert again.robot.mode is RobotMode.IDLE and again.device.state == DeviceState.FAULT
    with pytest.raises(LatchedFault, match=r"feedback lost\); find the cause, then clear it: edge-run .* --clear"):
        again.armed()
    assert again.robot.motions == 1
    assert cleared(again) is None and life.file.read_text() == ""

    third = life.begins()
    assert third.device.state in (DeviceState.SILENT, DeviceState.IDLE)
    third.armed()
    assert third.robot.mode is RobotMode.MOVE


def test_an_emergency_stop_outlives_it_as_well(life: Life) -> None:
    rig = moving(life.begins())
    rig.client.estop()
    rig.run(300)
    assert rig.device.state == DeviceState.ESTOP
    again = life.begins()
    assert (again.device.state, again.device.core.reason) == (DeviceState.ESTOP, StopReason.HOST_ESTOP)
    assert cleared(again) is None


def test_a_robot_that_is_found_in_a_reflex_is_a_fault_before_anything_is_armed(life: Life) -> None:
    life.bench.robot.push(1, 60.0)
    life.bench.robot.period(None)
    life.bench.robot.push(1, 0.0)
    rig = life.begins()
    with pytest.raises(SafetyStop, match="clear it"):
        ConnectedArm.connect(FRANKA, rig.client)
    assert cleared(rig) is None and rig.robot.mode is RobotMode.IDLE


def test_what_does_not_come_free_is_a_fault_again(life: Life) -> None:
    life.bench.robot.press_user_stop()
    rig = life.begins()
    problem = cleared(rig)
    assert problem is not None and "cause is still there" in problem
    assert rig.device.state == DeviceState.FAULT
    rig.robot.release_user_stop()
    rig.robot.push(1, 60.0)  # and now something leans on it
    rig.device.tick(20)
    rig.client = rig.new_client(77)
    problem = cleared(rig)
    assert problem is not None and "the arm is not free" in problem
    assert rig.device.state == DeviceState.FAULT, "and not only in words"


@pytest.mark.parametrize(
    "text", ["x", "[]", "{}", '{"state": 2, "reason": 1, "why": "", "when": ""}', '{"state": 7, "reason": 99}', "\0\1"]
)
def test_what_cannot_be_read_is_a_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.latch"
    path.write_text(text)
    assert LatchFile(path).found == UNREADABLE


def test_words_in_it_are_words(tmp_path: Path) -> None:
    path = tmp_path / "a.latch"
    latch = LatchFile(path)
    assert latch.found is None
    latch.put(DeviceState.FAULT, StopReason.TICK_LATE, "\x1b[31mred" + "x" * 5000)
    found = LatchFile(path).found
    assert found is not None and found.reason == StopReason.TICK_LATE and str(found).isprintable()
    assert len(found.why) <= 300 and "latched since 2" in str(found)
    latch.clear()
    assert LatchFile(path).found is None


def test_without_a_place_it_is_said_and_the_arm_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null")
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    assert open_latch("fci-1", said.append) is None
    assert len(said) == 1 and "forgotten with this process" in said[0]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    latch = open_latch("fci-127.0.0.1/../../x", said.append)
    assert latch is not None and [path.name for path in (tmp_path / "vla-edge").iterdir()] == [
        "fci-127.0.0.1_.._.._x.latch"
    ]
    latch.close()
