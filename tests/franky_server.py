"""A Franka that speaks FCI, simulated by franky-sim, a millisecond a step: `franky_server.py HOST [Q1,...,Q7]`.

The package's own loop sleeps between steps and runs at 920 Hz; a robot keeps its millisecond.
"""

from __future__ import annotations

import sys
import time

from franky_sim import SimulationServer
from franky_sim.mujoco_simulator import MujocoSimulator

STEP_S = 0.001
LONGEST_BURST_S = 0.02

with MujocoSimulator(enable_visualization=False) as simulator:
    simulator.add_robot(**({"initial_q": [float(q) for q in sys.argv[2].split(",")]} if len(sys.argv) > 2 else {}))
    with SimulationServer(simulator, hostname_candidates=[sys.argv[1]]) as server:
        print("ready", flush=True)
        due_s = time.monotonic()
        while True:
            server.run_once(realtime=False)
            due_s += STEP_S
            left_s = due_s - time.monotonic()
            if left_s > 0:
                time.sleep(left_s)
            elif left_s < -LONGEST_BURST_S:  # held up by the machine: the time is lost, as for a paused robot
                due_s -= left_s
