"""Timing of the fixed-step loop beside the loops that others ship, on one machine in one run.

Each loop does the same small work in a process of its own while inference keeps the other processor busy. They take
turns, so that a noisy minute of the machine does not fall on one of them alone. A step is late by what it begins after
its place on the grid `first + n * period`, where a loop that skips a place says so (ours counts it; the others know no
grid, so their n is the number of the step). An overrun is a step that begins two periods or more after the one before.

The others are `openpi-client`'s `Runtime`, unchanged, and LeRobot's recording loop: `precise_sleep` of what is left of
the period, as in its `lerobot_record` script. Both come from PyPI without their dependencies:
`pip install --no-deps openpi-client==0.1.2 lerobot==0.4.4`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.load import inference_load
from edge.realtime import cpus_here, realtime
from edge.scheduler import FixedStep, measured_spin_ns
from edge.trajectory import spline_velocities

Times = NDArray[np.int64]
"""(steps, 2): when each began, in ns, and its place on the grid."""
WORK = np.linspace(0, 1, 105).reshape(15, 7)


def empty(steps: int) -> Times:
    return np.stack([np.zeros(steps, dtype=np.int64), np.arange(steps)], axis=1)


def work() -> None:
    """About what joining a chunk costs."""
    spline_velocities(WORK, 0.1, WORK[0])


def ours(rate_hz: float, steps: int) -> Times:
    """`edge.scheduler.FixedStep` with the rights that the system grants."""
    begins = empty(steps)
    with realtime(cpus_here()):
        spin_ns = measured_spin_ns(time.monotonic_ns, time.sleep)
        loop = FixedStep(round(1e9 / rate_hz), time.monotonic_ns, time.sleep, spin_ns)
        for step in range(steps):
            begins[step] = loop.wait(), loop.ticks
            work()
    return begins


def openpi(rate_hz: float, steps: int) -> Times:
    """`openpi_client.runtime.runtime.Runtime` with an environment that notes the time."""
    from openpi_client.runtime.runtime import Runtime

    begins = empty(steps)

    class Robot:
        step = 0

        def get_observation(self) -> dict[str, Any]:
            begins[self.step, 0] = time.monotonic_ns()
            self.step += 1
            return {}

        def get_action(self, observation: dict[str, Any]) -> dict[str, Any]:
            work()
            return {}

        def apply_action(self, action: dict[str, Any]) -> None:
            pass

        def reset(self) -> None:
            pass

        def is_episode_complete(self) -> bool:
            return self.step >= steps

    robot = Robot()
    Runtime(robot, robot, [], max_hz=rate_hz).run()
    return begins


def lerobot(rate_hz: float, steps: int) -> Times:
    """LeRobot's record loop: the time a step took is subtracted from the period, and the rest is slept."""
    from lerobot.utils.robot_utils import precise_sleep

    begins = empty(steps)
    for step in range(steps):
        start_s = time.perf_counter()
        begins[step, 0] = time.monotonic_ns()
        work()
        precise_sleep(max(1 / rate_hz - (time.perf_counter() - start_s), 0.0))
    return begins


LOOPS: dict[str, Callable[[float, int], Times]] = {"vla-edge": ours, "openpi-client": openpi, "lerobot": lerobot}


def figures(rounds: list[Times], rate_hz: float) -> dict[str, float]:
    """Percentiles of lateness and of the period's error in us, overruns in percent, drift in us per second."""
    period_ns = 1e9 / rate_hz
    lates = [times[:, 0] - times[0, 0] - period_ns * (times[:, 1] - times[0, 1]) for times in rounds]
    tails_us = [float(np.median(late[-len(late) // 10 :])) / 1000 for late in lates]
    periods = np.concatenate([np.diff(times[:, 0]) for times in rounds])
    late, error = np.concatenate(lates), np.abs(periods - period_ns)
    seconds = sum(map(len, rounds)) / rate_hz
    return {
        "steps": int(sum(map(len, rounds))),
        "late_p50_us": round(float(np.percentile(late, 50)) / 1000, 1),
        "late_p99_us": round(float(np.percentile(late, 99)) / 1000, 1),
        "late_max_us": round(float(late.max()) / 1000, 1),
        "period_error_p50_us": round(float(np.percentile(error, 50)) / 1000, 1),
        "period_error_p99_us": round(float(np.percentile(error, 99)) / 1000, 1),
        "overruns_percent": round(100 * float(np.mean(periods >= 2 * period_ns)), 4),
        "drift_us_per_s": round(sum(tails_us) / seconds, 2),
    }


def measure(name: str, rate_hz: float, seconds: float) -> Times:
    """One round of one loop in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "begins.npy"
        command = [sys.executable, "-m", "bench.loop", "--child", name, "--rate", str(rate_hz), "--out", str(out)]
        subprocess.run([*command, "--seconds", str(seconds)], check=True)
        begins: Times = np.load(out, allow_pickle=False)
    return begins


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"), help="what the load computes")
    parser.add_argument("--rate", type=float, default=250.0)
    parser.add_argument("--seconds", type=float, default=60.0, help="per loop, over all rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loops", nargs="+", choices=list(LOOPS), default=list(LOOPS))
    parser.add_argument("--idle", action="store_true", help="without the load")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=list(LOOPS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        np.save(args.out, LOOPS[args.child](args.rate, round(args.rate * args.seconds)), allow_pickle=False)
        return 0
    rounds: dict[str, list[Times]] = {name: [] for name in args.loops}

    def take_turns() -> None:
        for _ in range(args.rounds):
            for name in args.loops:
                rounds[name].append(measure(name, args.rate, args.seconds / args.rounds))

    if args.idle:
        take_turns()
    else:
        with inference_load(args.bundle, cpus_here().others):
            take_turns()
    table = {name: figures(taken, args.rate) for name, taken in rounds.items()}
    for name, row in table.items():
        print(f"{name:<14}" + "  ".join(f"{key} {value:g}" for key, value in row.items()))
    if args.json:
        args.json.write_text(json.dumps({"rate_hz": args.rate, "loaded": not args.idle, "loops": table}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
