"""A Python function as the policy, on a simulated Franka: `python examples/own_policy.py [SECONDS]`.

Needs nothing more than the package: without a scene, the simulated arm needs no MuJoCo.
"""

import sys

import numpy as np

import edge

STEP_S, STEPS = 0.1, 15


def nod(observation: edge.Observation) -> np.ndarray:
    """Joint 4 swings by 0.1 rad around where the arm began; row k is the goal for the end of step k."""
    time_s = STEP_S * (observation.step + 1 + np.arange(STEPS))
    goals = np.tile(home, (STEPS, 1))
    goals[:, 3] += 0.05 * (1 - np.cos(2.0 * time_s))
    return goals


with edge.connect("franka", "sim:", scene_seed=None) as arm:
    home = arm.q_rad()
    outcome = arm.run(nod, step_s=STEP_S, horizon=STEPS, duration_s=float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
print(f"{outcome.ended}: moved by up to {np.ptp(outcome.samples.measured_rad, axis=0).max():.3f} rad")
