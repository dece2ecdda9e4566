"""A Franka that speaks FCI, simulated by franky-sim, a millisecond a step: `python franky_server.py HOST`.

The package's own loop sleeps between steps and runs at 920 Hz; a robot keeps its millisecond. With `--lockstep` it
waits for the answer to each of its states instead, for tests in which time does not matter.
"""

from __future__ import annotations

import argparse
import select
import time

from franky_sim import SimulationServer
from franky_sim.constants import DEFAULT_INITIAL_JOINT_POS
from franky_sim.franka_robot_server import FrankaRobotServer
from franky_sim.mujoco_simulator import MujocoSimulator

STEP_S = 0.001
LONGEST_BURST_S = 0.02
ANSWER_S = 0.05


def keep_time(server: SimulationServer) -> None:
    due_s = time.monotonic()
    while True:
        server.run_once(realtime=False)
        due_s += STEP_S
        left_s = due_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
        elif left_s < -LONGEST_BURST_S:  # held up by the machine: the time is lost, as for a paused robot
            due_s -= left_s


def keep_step(server: SimulationServer, robot: FrankaRobotServer) -> None:
    while True:
        server.run_once(realtime=False)
        if robot.current_motion_id:
            select.select([robot._FrankaServer__udp_socket], [], [], ANSWER_S)
        else:
            time.sleep(STEP_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("--start", type=lambda text: [float(q) for q in text.split(",")])
    parser.add_argument("--lockstep", action="store_true")
    args = parser.parse_args()
    with MujocoSimulator(enable_visualization=False) as simulator:
        simulator.add_robot(initial_q=args.start or DEFAULT_INITIAL_JOINT_POS)
        with SimulationServer(simulator, hostname_candidates=[args.host]) as server:
            print("ready", flush=True)
            if args.lockstep:
                keep_step(server, server.robot_servers[0])
            keep_time(server)


if __name__ == "__main__":
    main()
