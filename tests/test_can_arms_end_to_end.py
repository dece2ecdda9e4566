"""A simulated arm on a CAN bus between processes: moved by a public driver's own code, and by ours."""

from __future__ import annotations

import math
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.arms import load_arm
from edge.arms.bridge import open_bridge
from edge.cli.can_sim import serve
from edge.log.trace import read_trace
from edge.run.arm import ConnectedArm, client_in_real_time
from firmware_bridge.adapters.damiao.frames import MotorState, Register
from firmware_bridge.adapters.damiao.simulated import SimulatedBus, simulated_motors
from firmware_bridge.adapters.piper.simulated import SimulatedPiper
from firmware_bridge.adapters.simulated_can import BusFaults
from firmware_bridge.codes import DeviceState
from firmware_bridge.transports.python_can import PythonCanBus
from tests.bus_bench import Swing
from tests.damiao_bench import MOTORS, YAM
from tests.damiao_bench import SWING as YAM_SWING
from tests.piper_bench import PIPER
from tests.piper_bench import SWING as PIPER_SWING
from tests.support import broken_limits, states_in_order

pytestmark = pytest.mark.real_time
STARTS_S = 30.0


class CanSim:
    """`can-sim` on a multicast group of its own."""

    def __init__(self, arm: str, folder: Path, group: int, *options: str) -> None:
        self.bus, self.trace_file = f"udp_multicast:239.74.163.{group}", folder / "joints.csv"
        command = [sys.executable, "-m", "edge.cli.can_sim", "--arm", arm, "--bus", self.bus]
        self.process = subprocess.Popen(
            [*command, "--trace", str(self.trace_file), *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], STARTS_S)[0] and self.process.stdout.readline()

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether the motors were on (n,), and the axes (n, J) in rad or m; ends the process."""
        self.process.terminate()
        self.process.communicate(timeout=10)
        rows = np.array([[float(part) for part in row.split(",")] for row in self.trace_file.read_text().split()[1:]])
        return rows[:, 1] == 1, rows[:, 2:]


@pytest.fixture
def sims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[CanSim]]:
    """Each test keeps its arms' faults for itself: one that is made again does not begin with them."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made: list[CanSim] = []
    yield made
    for sim in made:
        sim.process.kill()
        sim.process.wait()


def test_a_public_driver_moves_it() -> None:
    """On python-can's virtual bus, since a multicast one hands that driver its own questions as answers."""
    driver = pytest.importorskip("damiao_motor", reason="pip install damiao-motor")
    motors = simulated_motors(MOTORS, YAM.home_rad)
    bus = SimulatedBus(MOTORS, motors, BusFaults(), time.monotonic_ns(), MOTORS.tool_kg)
    bus.is_propped = True
    stopped = threading.Event()
    line = PythonCanBus("virtual", "public driver", 1_000_000, None)
    simulated = threading.Thread(target=serve, args=(bus, line, None, stopped.is_set))
    simulated.start()
    controller = driver.DaMiaoController(channel="public driver", bustype="virtual")
    try:
        arm = [controller.add_motor(one.id, one.feedback_id, motor_type=one.model[2:]) for one in MOTORS.motors]
        for motor in arm:
            assert motor.get_register(Register.PMAX, timeout=2.0) == pytest.approx(12.5)
            motor.ensure_control_mode("MIT")
        controller.enable_all()
        wrist, until = arm[5], time.monotonic() + 1.5
        while time.monotonic() < until:
            for motor, one, q in zip(arm[:5], MOTORS.motors, YAM.home_rad):
                motor.send_cmd_mit(target_position=q, stiffness=one.kp, damping=one.kd)
            wrist.send_cmd_mit(target_position=0.5, stiffness=10.0, damping=1.5)
            time.sleep(0.01)
        told, shaft_rad = wrist.get_states(), motors[5].position_rad
        controller.disable_all()
        time.sleep(0.05)
    finally:
        controller.shutdown()
        stopped.set()
        simulated.join()
        line.close()
    assert told["status"] == "ENABLED" and shaft_rad == pytest.approx(0.5, abs=0.03)
    assert told["pos"] == pytest.approx(shaft_rad, abs=0.01)
    assert all(motor.state == MotorState.DISABLED for motor in motors)


def test_the_makers_own_driver_moves_a_piper() -> None:
    """`piper_sdk`, by its own threads, encoder and decoder."""
    sdk = pytest.importorskip("piper_sdk", reason="pip install piper_sdk")
    arm = SimulatedPiper(PIPER.home_rad, BusFaults(), time.monotonic_ns())
    arm.is_propped = True
    stopped = threading.Event()
    line = PythonCanBus("virtual", "piper", 1_000_000, None)
    simulated = threading.Thread(target=serve, args=(arm, line, None, stopped.is_set))
    simulated.start()
    piper = sdk.C_PiperInterface_V2(can_name="piper", judge_flag=False, can_auto_init=False)
    piper.CreateCanBus("piper", bustype="virtual", judge_flag=False)
    piper.ConnectPort()
    try:
        until = time.monotonic() + 5.0
        while not piper.EnablePiper() and time.monotonic() < until:
            time.sleep(0.01)
        wanted = np.array(PIPER.home_rad)
        wanted[5:] += 0.3, -0.02
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            piper.MotionCtrl_2(0x01, 0x01, 100, 0x00)
            piper.JointCtrl(*(round(math.degrees(q) * 1000) for q in wanted[:6]))
            piper.GripperCtrl(round(wanted[6] * 1e6), 1000, 0x01, 0)
            time.sleep(0.01)
        is_on, reached = arm.is_on, np.array(arm.joints_rad)
        told, version = piper.GetArmJointMsgs().joint_state, piper.GetPiperFirmwareVersion()
        fastest = piper.GetAllMotorAngleLimitMaxSpd().all_motor_angle_limit_max_spd.motor[2]
        until = time.monotonic() + 5.0
        while piper.DisablePiper() and time.monotonic() < until:
            time.sleep(0.02)
        is_off = not any(joint.is_on for joint in arm.joints)
    finally:
        piper.DisconnectPort()
        stopped.set()
        simulated.join()
        line.close()
    assert is_on and is_off and version == "S-V1.8-2"
    assert reached == pytest.approx(wanted, abs=0.03)
    assert math.radians(told.joint_6 / 1000) == pytest.approx(reached[5], abs=0.01)
    assert fastest.max_joint_spd == 300


RUNS = {
    "yam": ("damiao", YAM_SWING, ("--payload-kg", "1.0"), 0.405),
    "piper": ("piper", PIPER_SWING, ("--payload-kg", "0.5"), 0.545),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_over_adapter_and_bus(sims: list[CanSim], tmp_path: Path, name: str) -> None:
    scheme, swing, options, load = RUNS[name]
    arm = load_arm(name)
    sims.append(CanSim(name, tmp_path, 79, "--lost", "0.01", *options))
    bridge = open_bridge(f"{scheme}:{sims[0].bus}", arm, tmp_path / "trace.csv")
    try:
        client = client_in_real_time(bridge.transport)
        ConnectedArm.connect(arm, client).switch_on()
        commanded = np.array(client.wait_for_state().commanded_urad) / 1e6
        next_ns = time.monotonic_ns()
        motion = swing(commanded, round(client.link.clock.device_us(next_ns)) + 300_000)
        until_ns, chunk, report, said = next_ns + 3_000_000_000, 0, None, []
        for tick in range(10_000):
            now_ns = time.monotonic_ns()
            if now_ns > until_ns:
                break
            client.heartbeat(tick + 2)
            if now_ns >= next_ns:
                client.send_chunk(motion.chunk(chunk))
                chunk, next_ns = chunk + 1, next_ns + 1000 * Swing.EVERY_US
            inbox = client.poll(now_ns)
            report, said = inbox.state or report, said + inbox.events
            client.keep_clock(now_ns, 0.01)
            time.sleep(0.005)
        assert report is not None and report.state == DeviceState.STREAMING, said
        client.stop()
    finally:
        bridge.close()
    told: dict[str, Any] = bridge.statistics or {}
    assert 0.9 < told["success_rate_least"] < 1.0 and told["bus_load"] == pytest.approx(load)
    trace = read_trace(tmp_path / "trace.csv")
    assert broken_limits(trace, arm) == [] and "STREAMING" in states_in_order(trace)
    on, joints = sims[0].joints()
    moved, asked = np.ptp(joints[on], axis=0), np.ptp(trace.q[trace.state == "STREAMING"], axis=0)
    assert np.all(moved > 0.6 * asked) and np.all(moved < 1.4 * asked + 0.05)
