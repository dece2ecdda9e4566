"""Keeps processors busy the way inference does: the policy of a bundle, one chunk after the other, without a pause."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from edge.bundle import load_bundle
from edge.inference import open_policy
from edge.policy import PolicyInput

TASK = "reach the red cube"


@contextmanager
def inference_load(bundle: Path, cpus: tuple[int, ...]) -> Iterator[None]:
    """Runs `chunks` in a process of its own on `cpus` (anywhere, when empty) until the block ends."""
    command = [sys.executable, "-m", "bench.load", str(bundle), "--cpus", *map(str, cpus)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the load ended with {process.wait()} before it began")
        yield
    finally:
        process.kill()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--cpus", type=int, nargs="*", default=[])
    args = parser.parse_args()
    if args.cpus:
        os.sched_setaffinity(0, args.cpus)
    bundle = load_bundle(args.bundle)
    policy = open_policy(bundle, args.arm, TASK, threads=1)
    shape, joints = policy.shape, len(policy.embodiment.joints)
    history = np.zeros((shape.history, joints))
    frames = np.zeros((shape.cameras, *shape.frame_px, 3), dtype=np.uint8)
    seen = PolicyInput(frames, history, history, np.zeros(shape.history, np.bool_), np.zeros((0, joints)), (0, 0))
    policy.infer(seen)
    print(f"busy since {time.monotonic_ns()}", flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        policy.infer(seen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
