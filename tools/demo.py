"""The demo: exports the shipped checkpoint, drives the simulated Franka to a cube, and judges the run by its trace.

Exits 0 when the arm reached the named cube and its own 1 kHz trace breaks no limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.bundle import BundleError, load_bundle, sha256
from edge.cli.run import main as edge_run
from edge.log.trace import ROUNDING, limit_shares, read_trace
from export.commands.export import main as edge_export

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "checkpoints" / "reach.pt"
ARM = "franka"


def is_current(bundle: Path) -> bool:
    """Whether the bundle there was made from the shipped checkpoint, with a task of its own."""
    try:
        found = load_bundle(bundle).manifest
        return found.checkpoint_sha256 == sha256(CHECKPOINT) and found.text is not None and found.text.task != ""
    except BundleError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for bundle, report, plot and trace")
    parser.add_argument("--task", default="reach the red cube")
    parser.add_argument("--duration", type=float, default=12.0)
    parser.add_argument("--scene-seed", type=int, default=2026)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bundle, report, trace = args.out / "bundle", args.out / "run.json", args.out / "trace.csv"

    print("== export: checkpoint -> three engines")
    if is_current(bundle):
        print(f"{bundle} is up to date")
    elif edge_export([str(CHECKPOINT), "-o", str(bundle), "--task", args.task]) != 0:
        return 1

    print(f"\n== run: {args.task}, simulated {ARM}, real firmware over a serial line")
    arguments = ["--arm", ARM, "--bundle", str(bundle), "--task", args.task, "--duration", str(args.duration)]
    arguments += ["--scene-seed", str(args.scene_seed), "--report", str(report), "--trace", str(trace), "--overwrite"]
    code = edge_run(arguments)
    if code != 0:
        return code

    print(
        "\n== the device's own 1 kHz trace: its motion against the limits of the run, all of it against the arm's own"
    )
    arm, found = load_arm(ARM), read_trace(trace)
    driven = np.flatnonzero(np.isin(found.state, ("ARMED", "STREAMING")))
    motion, with_stop = found.part(slice(driven[0], driven[-1] + 1)), found.part(slice(driven[0], None))
    shares = limit_shares(motion, arm.operating)
    stop_shares = limit_shares(with_stop, arm.limits, arm.edges)  # a stop may use what the firmware was compiled with
    for name, values in shares.items():
        print(f"{name:<14} {100 * values.max():5.1f} % and {100 * stop_shares[name].max():5.1f} % of the limit")
    scene = json.loads(report.read_text())["simulated_scene"]
    within = all(values.max() <= 1.0 + ROUNDING for judged in (shares, stop_shares) for values in judged.values())
    print(f"\n{scene['text']}, limits {'held' if within else 'BROKEN'}")
    return 0 if scene["success"] and within else 1


if __name__ == "__main__":
    sys.exit(main())
