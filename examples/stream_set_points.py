"""Streams set-points to a simulated Franka, within all limits: `python examples/stream_set_points.py [SECONDS]`.

Needs nothing more than the package. A set-point that comes late or not at all ends in a controlled stop.
"""

import sys
from collections.abc import Iterator

import numpy as np

import edge

STEP_S = 0.02


def sway(start: np.ndarray, seconds: float) -> Iterator[np.ndarray]:
    """Joints 2 and 4 to and fro, from rest; one set-point for the end of each step."""
    for time_s in np.arange(STEP_S, seconds, STEP_S):
        yield start + (1 - np.cos(2.0 * time_s)) * np.array([0, 0.05, 0, 0.05, 0, 0, 0])


with edge.connect("franka", "sim:", scene_seed=None) as arm:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    outcome = arm.stream(sway(arm.q_rad(), seconds), step_s=STEP_S)
print(f"{outcome.ended}: {outcome.report['chunks']['committed']} chunks in {outcome.moved_s:.1f} s")
