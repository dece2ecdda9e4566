"""Runs a bundle on a simulated Franka: `python examples/run_a_bundle.py BUNDLE [SECONDS]`.

Needs a bundle (`edge-export checkpoints/reach.pt -o BUNDLE`) and the `sim` extra.
"""

import sys

import edge

TASK = "reach the red cube"

bundle = edge.load_bundle(sys.argv[1])
with edge.connect("franka", "sim:", task=TASK) as arm:
    outcome = arm.run(bundle, task=TASK, duration_s=float(sys.argv[2]) if len(sys.argv) > 2 else 10.0)
print(f"{outcome.ended}: {outcome.report['chunks']['committed']} chunks, {outcome.report['simulated_scene']}")
