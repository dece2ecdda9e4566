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

from bench.policy_run import Runner, chunk_run
from edge.bundle import load_bundle


@contextmanager
def inference_load(bundle: Path, how: Runner, cpus: tuple[int, ...]) -> Iterator[None]:
    """Computes chunks in a process of its own on `cpus` (anywhere, when empty) until the block ends."""
    command = [sys.executable, "-m", "bench.load", str(bundle), "--arm", how.arm, "--task", how.task]
    command += ["--cpus", *map(str, cpus)]
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
    parser.add_argument("--arm", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--cpus", type=int, nargs="*", default=[])
    args = parser.parse_args()
    if args.cpus:
        os.sched_setaffinity(0, args.cpus)
    infer = chunk_run(load_bundle(args.bundle), Runner(args.arm, args.task))
    infer()
    print(f"busy since {time.monotonic_ns()}", flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        infer()
    return 0


if __name__ == "__main__":
    sys.exit(main())
