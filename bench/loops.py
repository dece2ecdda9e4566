"""The loops that are timed: ours, and those that others ship, each with the same small work in every step.

`python -m bench.loops NAME --rate HZ --seconds S --out FILE` runs one of them in a process of its own and writes when
each step began. The others are `openpi-client`'s `Runtime`, unchanged, and LeRobot's recording loop: `precise_sleep` of
what is left of the period, as in its `lerobot_record` script.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.plan.trajectory import spline_velocities
from edge.realtime.rights import cpus_here, realtime
from edge.realtime.scheduler import FixedStep, measured_spin_ns

Times = NDArray[np.int64]
"""(steps, 2): when each began, in ns, and its place on the grid."""
WORK = np.linspace(0, 1, 105).reshape(15, 7)


def empty(steps: int) -> Times:
    return np.stack([np.zeros(steps, dtype=np.int64), np.arange(steps)], axis=1)


def work() -> None:
    """About what joining a chunk costs."""
    spline_velocities(WORK, 0.1, WORK[0])


def ours(rate_hz: float, steps: int) -> Times:
    """`edge.realtime.scheduler.FixedStep` with the rights that the system grants."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(LOOPS))
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    np.save(args.out, LOOPS[args.name](args.rate, round(args.rate * args.seconds)), allow_pickle=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
