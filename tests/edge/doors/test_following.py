"""An arm in a process of its own that follows set-points, and LeRobot's names and units of its axes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.doors.following import follow
from edge.doors.lerobot_names import LeRobotAxes, with_calibration
from edge.errors import InputError, VlaEdgeError
from edge.log.trace import read_trace
from tests.support import broken_limits, states_in_order

SO101 = load_arm("so101")


def test_lerobots_units_are_degrees_and_a_gripper_in_percent_of_its_travel() -> None:
    axes = LeRobotAxes(SO101)
    low, high = SO101.stops_rad[5]
    shown = axes.shown(np.array([math.pi / 2, 0, 0, 0, -math.pi / 6, low + (high - low) / 4]))
    assert list(shown) == [f"{joint}.pos" for joint in SO101.joints]
    assert list(shown.values()) == pytest.approx([90, 0, 0, 0, -30, 25])
    assert axes.read(dict(reversed(shown.items()))) == pytest.approx(
        [math.pi / 2, 0, 0, 0, -math.pi / 6, low + (high - low) / 4]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gripper.pos": math.nan}, "gripper.pos is not finite"),
        ({"elbow_flex.pos": -math.inf}, "elbow_flex.pos is not finite"),
        ({"elbow_flex.pos": "up"}, "one number per joint"),
        ({"elbow_flex.pos": None}, "one number per joint"),
        ({"elbow.pos": 1.0}, "not so: elbow.pos"),
        ({"shoulder_pan.pos": [1.0, 2.0]}, "one number per joint"),
    ],
)
def test_an_action_that_is_none_is_refused(change: dict[str, object], message: str) -> None:
    action: dict[str, object] = dict.fromkeys(LeRobotAxes(SO101).names, 1.0)
    with pytest.raises(ValueError, match=message):
        LeRobotAxes(SO101).read(action | change)
    with pytest.raises(ValueError, match=r"not so: gripper\.pos"):
        LeRobotAxes(SO101).read({name: 1.0 for name in LeRobotAxes(SO101).names if name != "gripper.pos"})


def test_lerobots_calibration_is_the_servo_buss_unless_another_is_named(tmp_path: Path) -> None:
    file = tmp_path / "arm.json"
    assert with_calibration("feetech:/dev/x", file, SO101) == "feetech:/dev/x"
    file.write_text("{}")
    assert with_calibration("feetech:/dev/x", file, SO101) == f"feetech:/dev/x?calibration={file}"
    assert with_calibration("feetech:/dev/x?calibration=mine", file, SO101) == "feetech:/dev/x?calibration=mine"
    assert with_calibration("sim:", file, SO101) == "sim:"
    assert with_calibration("serial:/dev/x", file, SO101) == "serial:/dev/x"


def test_lerobot_calibrates_each_of_two_arms_in_the_folder_of_single_ones(tmp_path: Path) -> None:
    file = tmp_path / "bi_so_follower" / "arm.json"
    (tmp_path / "so_follower").mkdir()
    files = [tmp_path / "so_follower" / f"arm_{side}.json" for side in ("left", "right")]
    files[0].write_text("{}")
    assert with_calibration("feetech:l,r", file, load_arm("bi_so101")) == "feetech:l,r"
    files[1].write_text("{}")
    found = with_calibration("feetech:l,r", file, load_arm("bi_so101"))
    assert found == f"feetech:l,r?calibration={files[0]},{files[1]}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arm": "arm"}, "unknown arm 'arm'"),
        ({"speed": 0.0}, "above 0 to 1"),
        ({"cameras": ["front"]}, "give its scene_seed"),
        ({"bridge_url": "serial:/dev/ttyNOPE"}, "/dev/ttyNOPE"),
        ({"bridge_url": "nothing:"}, "no arm at 'nothing:'"),
    ],
)
def test_bad_input_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(VlaEdgeError, match=message) as refused:
        follow(**{"arm": "so101"} | settings)  # type: ignore[arg-type]
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_it_follows_and_refuses_and_ends_in_order(tmp_path: Path) -> None:
    trace_file = tmp_path / "trace.csv"
    with follow("so101", trace=str(trace_file)) as arm:
        start = arm.q()
        goal = start + 0.2
        beyond = np.full(6, 9.0)
        for wrong in (np.full(6, np.nan), np.zeros(5), beyond * np.inf):
            with pytest.raises(ValueError, match="finite numbers"):
                arm.go(wrong)
        deadline = time.monotonic() + 10
        while np.abs(arm.q() - goal).max() > 0.01 and time.monotonic() < deadline:
            assert arm.go(goal) == pytest.approx(goal)
            time.sleep(1 / 30)
        assert arm.q() == pytest.approx(goal, abs=0.01)
        assert (arm.go(beyond) == SO101.operating.position_max_rad).all()
        time.sleep(0.2)
    trace = read_trace(trace_file)
    assert not arm.moves and arm.report["ended"] == "user" and arm.report["error"] is None
    assert broken_limits(trace, SO101) == [] and states_in_order(trace)[-1] == "IDLE"
    with pytest.raises(InputError, match="has ended"):
        arm.go(goal)


@pytest.mark.real_time
@pytest.mark.side_by_side
def test_an_arm_whose_sender_is_killed_comes_to_rest(tmp_path: Path) -> None:
    script = (
        "import time; from edge.doors.following import follow\n"
        f"arm = follow('so101', trace={str(tmp_path / 'trace.csv')!r})\n"
        "arm.go(arm.q() + 0.5); print('moving', flush=True); time.sleep(60)"
    )
    sender = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None and sender.stdout.readline() == "moving\n"
    time.sleep(0.3)
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait()
    time.sleep(2.0)
    trace = read_trace(tmp_path / "trace.csv")
    assert broken_limits(trace, SO101) == [] and np.abs(trace.dq[-1]).max() == 0
