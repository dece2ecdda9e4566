"""Runs a bundle on the simulated clock with a log of each episode, and makes a dataset of the logs with `edge-record`.

`python -m tools.recorded_run --bundle BUNDLE --episodes 3 --out DIR`; the logs are kept in DIR/logs, the dataset is
DIR/data. `make lerobot-recording` then loads it with LeRobot.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.cli.record import main as edge_record
from edge.policy.base import open_policy
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene

FIRST_SCENE = 2_100_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="recorded_run", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--task", default="reach the red cube")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--duration", type=float, default=5.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    bundle, arm = load_bundle(args.bundle), load_arm(args.arm)
    policy = open_policy(bundle, arm.name, args.task, 1)
    (args.out / "logs").mkdir(parents=True, exist_ok=True)
    for number in range(args.episodes):
        log = args.out / "logs" / f"episode-{number:03d}.mcap"
        settings = LockstepSettings(args.task, args.duration, seed=number, log=log)
        outcome = run_lockstep(bundle, arm, policy, open_scene(arm, FIRST_SCENE + number, args.task), settings)
        verdict = "success" if outcome.done else "fail"
        arguments = ["--from", str(log), "--out", str(args.out / "data"), "--verdict", verdict]
        if code := edge_record(arguments):
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
