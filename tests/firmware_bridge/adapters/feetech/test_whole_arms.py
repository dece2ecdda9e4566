"""Eleven arms as people calibrate them, loaded, with noise, folded on their stops: from host to shafts, stepped.

Each arms where it lies, moves inward only, goes home, closes its jaw to its stop and holds an object with the torque
that is stated. The kinds that differ in code run always, all eleven with `make so101-arms`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.doors.following_process import EXECUTE_STEPS, SHAPE, STEP_S
from edge.inference.records import Planner
from edge.log.recorder import Recorder
from edge.log.trace import read_trace, violations
from edge.plan.replanner import ControlSettings
from edge.run.arm import ConnectedArm
from edge.run.controller import Controller
from edge.run.homing import HOME_SHAPE, SPACING_S, HomePlanner, home_controller, plan_home
from edge.run.pursuit import Pursuer, Pursuit
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.codes import DeviceState
from tests.servo_bench import ServoBench, ServoRig, loaded
from tests.so101_shapes import GRIPPER, SHAPES, JawShape

SO101 = load_arm("so101")
CLOSED_RAD, OPEN_RAD = SO101.stops_rad[5]
FOLDED = {1: -1, 2: 1, 3: 1}
"""Joints of an arm that lies folded, and at which of their stops."""
OBJECT_COUNTS = 65
"""10 mm between jaws, 0.1 m from the jaw's axis: 5.7 degrees."""
KINDS = [SHAPES[5]]
"""Closed high, close to where counts begin anew, with a negative offset: all that differs in code."""
OTHERS = [
    pytest.param(shape, marks=pytest.mark.slow(reason="eleven arms at 20 s each"), id=str(shape))
    for shape in SHAPES
    if shape not in KINDS
]
ALL = [*(pytest.param(shape, id=str(shape)) for shape in KINDS), *OTHERS]
CONTROL_MS = 5


class WholeArm:
    """An arm that lies folded with its jaw closed, and a host on the same clock."""

    def __init__(self, shape: JawShape, trace: Path) -> None:
        self.file, self.shape = trace, shape
        made = shape.calibration()

        def fold(servos: dict) -> None:
            loaded(servos, made)
            for joint, end in FOLDED.items():
                one, servo = made.servos[joint], servos[made.servos[joint].servo]
                servo.hand(servo.stops[0 if end * one.direction < 0 else 1])
            servos[GRIPPER].hand(servos[GRIPPER].stops[0 if made.servos[5].direction > 0 else 1])

        self.bench = ServoBench(core=True, trace=trace, change=fold, made=made)
        self.rig = ServoRig(self.bench)
        self.rig.device.tick(20)
        self.connected = ConnectedArm.connect(SO101, self.rig.client)
        self.folded_rad = self.bench.shafts_rad
        self._tick = 1

    @property
    def jaw_nm(self) -> float:
        return abs(self.bench.servos[GRIPPER].torque_nm)

    def go(self, controller: Controller, until: Callable[[], bool], most_s: float) -> bool:
        end_ns = self.bench.host_ns + round(1e9 * most_s)
        while self.bench.host_ns < end_ns:
            self._tick += 1
            controller.step(self.bench.host_ns, self._tick)
            self.rig.client.keep_clock(self.bench.host_ns, 0.003)
            if until():
                return True
            self.rig.device.tick(CONTROL_MS)
        return False

    def go_home(self) -> bool:
        move = plan_home(SO101, np.array(self.connected.standing().measured_urad) * 1e-6)
        assert move is not None
        self.connected.switch_on(self._tick)
        planner = HomePlanner(move, HOME_SHAPE.horizon, SPACING_S)
        controller = home_controller(self.connected, planner, Recorder(1, SO101.dof))
        return self.go(controller, lambda: planner.arrived(controller.splicer.executed_steps()), 30.0)

    def pursue(self, target_rad: np.ndarray) -> Controller:
        planner: Planner = Pursuer(Pursuit.of(SO101, STEP_S), SHAPE.horizon, lambda: target_rad)
        settings = ControlSettings(EXECUTE_STEPS, self.connected.lead_us())
        return Controller(self.rig.client, planner, SO101, SHAPE, STEP_S, settings, Recorder(1, SO101.dof))

    def stop(self) -> None:
        self.rig.client.stop()
        self.rig.device.tick(400)
        assert self.bench.state == DeviceState.HOLD

    def close(self) -> None:
        self.bench.core.flush()
        trace = read_trace(self.file)
        armed = slice(int(np.flatnonzero(trace.state == "ARMED")[0]), None)  # set-points begin where the arm is
        assert violations(trace.part(armed), SO101.limits) == []
        self.bench.close()


@pytest.mark.parametrize("shape", ALL)
def test_it_goes_home_from_its_fold_closes_its_jaw_and_holds_what_is_in_it(shape: JawShape, tmp_path: Path) -> None:
    arm = WholeArm(shape, tmp_path / "trace.csv")
    bench, operating = arm.bench, SO101.operating
    beyond = np.maximum(np.array(operating.position_min_rad) - arm.folded_rad, 0)
    beyond = np.maximum(beyond, arm.folded_rad - np.array(operating.position_max_rad))
    assert np.count_nonzero(beyond[:5] > 0.05) == len(FOLDED), "it lies outside its operating range"

    assert arm.go_home(), bench.said
    arm.stop()
    away = np.abs(bench.shafts_rad - SO101.home_rad)
    assert away.max() < 0.03, "a load of 0.15 holds a joint 0.014 rad away"
    bench.core.flush()
    trace = read_trace(arm.file)
    moving = trace.q[trace.state == "STREAMING"]
    further = np.maximum(np.array(operating.position_min_rad) - moving, moving - np.array(operating.position_max_rad))
    assert (np.diff(np.maximum(further, 0), axis=0) < 1e-4).all(), "inward only"

    arm.connected.switch_on(arm._tick)
    closed = np.array([*SO101.home_rad[:5], CLOSED_RAD])
    assert not arm.go(arm.pursue(closed), lambda: False, 1.2) and bench.state == DeviceState.STREAMING, bench.said
    stop = bench.servos[GRIPPER].stops[0 if bench.made.servos[5].direction > 0 else 1]
    assert abs(bench.servos[GRIPPER].encoder - stop) * 360 / reg.COUNTS < 1.0, "closed to its stop within a degree"
    arm.stop()

    opened = np.array([*SO101.home_rad[:5], CLOSED_RAD + 0.4])
    arm.connected.switch_on(arm._tick)
    arm.go(arm.pursue(opened), lambda: False, 1.0)
    jaw, end = bench.servos[GRIPPER], OBJECT_COUNTS if bench.made.servos[5].direction > 0 else -OBJECT_COUNTS
    held = stop + end
    jaw.stops = (held, jaw.stops[1]) if end > 0 else (jaw.stops[0], held)
    arm.stop()
    arm.connected.switch_on(arm._tick)
    grip = arm.pursue(closed)
    stated_nm = bench.drive.statistics()["grip_torque_most_nm"]
    arm.go(grip, lambda: False, 1.0)
    assert arm.jaw_nm == pytest.approx(stated_nm, abs=0.01) and jaw.encoder == held
    arm.go(grip, lambda: False, 2.5)
    assert arm.jaw_nm == pytest.approx(0.2 * reg.STALL_NM, abs=0.01) and jaw.encoder == held, (
        "it spares itself, and holds"
    )
    assert bench.state in (DeviceState.STREAMING, DeviceState.ARMED) and bench.said == []
    assert bench.drive.statistics()["grip_overloads"] == 1
    arm.close()
