"""Steps a policy on frames of one's own, without an arm: `python examples/step_a_policy.py BUNDLE [STEPS]`.

Needs a bundle (`edge-export checkpoints/reach.pt -o BUNDLE`). Here the frames are noise, and the arm follows exactly.
"""

import sys

import numpy as np

import edge

policy = edge.open_policy(sys.argv[1], "franka", "reach the red cube")
draw = np.random.default_rng(0)
q_rad = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
for _ in range(int(sys.argv[2]) if len(sys.argv) > 2 else 20):
    frames = [draw.integers(0, 256, (*camera.frame_px, 3), dtype=np.uint8) for camera in policy.cameras]
    q_rad += policy.step(frames, q_rad)
print("after", policy.step_s, "s a step:", q_rad.round(4))
