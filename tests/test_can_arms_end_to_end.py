"""A simulated arm on a CAN bus between processes: moved by a public driver's own code, and by ours."""

from __future__ import annotations

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

from edge.arms.bridge import open_bridge
from edge.cli.can_sim import serve
from edge.log.trace import read_trace
from edge.run.arm import ConnectedArm, client_in_real_time
from firmware_bridge.adapters.damiao.frames import MotorState, Register
from firmware_bridge.adapters.damiao.simulated import BusFaults, SimulatedBus, simulated_motors
from firmware_bridge.codes import DeviceState
from firmware_bridge.transports.python_can import PythonCanBus
from tests.damiao_bench import MOTORS, YAM, Motion
from tests.support import broken_limits, states_in_order

pytestmark = pytest.mark.real_time
STARTS_S = 30.0


class CanSim:
    """`can-sim` on a multicast group of its own."""

    def __init__(self, folder: Path, group: int, *options: str) -> None:
        self.bus, self.trace_file = f"udp_multicast:239.74.163.{group}", folder / "joints.csv"
        command = [sys.executable, "-m", "edge.cli.can_sim", "--arm", "yam", "--bus", self.bus]
        self.process = subprocess.Popen(
            [*command, "--trace", str(self.trace_file), *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], STARTS_S)[0] and self.process.stdout.readline()

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Whether the motors were on (n,), and the joints (n, 6) in rad; ends the process."""
        self.process.terminate()
        self.process.communicate(timeout=10)
        rows = np.array([[float(part) for part in row.split(",")] for row in self.trace_file.read_text().split()[1:]])
        return rows[:, 1] == 1, rows[:, 2:]


@pytest.fixture
def sims() -> Iterator[list[CanSim]]:
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


def test_a_run_over_adapter_and_bus(sims: list[CanSim], tmp_path: Path) -> None:
    sims.append(CanSim(tmp_path, 79, "--lost", "0.01", "--payload-kg", "1.0"))
    bridge = open_bridge(f"damiao:{sims[0].bus}", YAM, tmp_path / "trace.csv")
    try:
        client = client_in_real_time(bridge.transport)
        ConnectedArm.connect(YAM, client).switch_on()
        commanded = np.array(client.wait_for_state().commanded_urad) / 1e6
        next_ns = time.monotonic_ns()
        motion = Motion(commanded, round(client.link.clock.device_us(next_ns)) + 300_000)
        until_ns, chunk, report, said = next_ns + 3_000_000_000, 0, None, []
        for tick in range(10_000):
            now_ns = time.monotonic_ns()
            if now_ns > until_ns:
                break
            client.heartbeat(tick + 2)
            if now_ns >= next_ns:
                client.send_chunk(motion.chunk(chunk))
                chunk, next_ns = chunk + 1, next_ns + 1000 * Motion.EVERY_US
            inbox = client.poll(now_ns)
            report, said = inbox.state or report, said + inbox.events
            client.keep_clock(now_ns, 0.01)
            time.sleep(0.005)
        assert report is not None and report.state == DeviceState.STREAMING, said
        client.stop()
    finally:
        bridge.close()
    told: dict[str, Any] = bridge.statistics or {}
    assert 0.9 < told["success_rate_least"] < 1.0 and told["bus_load"] == pytest.approx(0.405)
    trace = read_trace(tmp_path / "trace.csv")
    assert broken_limits(trace, YAM) == [] and "STREAMING" in states_in_order(trace)
    on, joints = sims[0].joints()
    moved, asked = np.ptp(joints[on], axis=0), np.ptp(trace.q[trace.state == "STREAMING"], axis=0)
    assert np.all(moved > 0.6 * asked) and np.all(moved < 1.4 * asked + 0.05)
