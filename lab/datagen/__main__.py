"""Records expert trajectories of one arm, or of all.

`python -m lab.datagen --out runs/prior --episodes 200` writes one dataset per arm and goes on where it was when it
was stopped. Attempts are numbered; each draws from its own seed, so the datasets do not depend on `--jobs`, nor on
interruptions. Only attempts that succeed are kept; info.json says how many there were.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge.log.dataset import DatasetWriter
from edge.log.dataset.spec import DatasetWriteError
from lab.datagen.rollout import Attempt, Simulator, dataset_spec

ARMS = ("panda", "sawyer", "ur5e", "iiwa", "kinova3", "xarm7", "metaworld", "so101")
EPISODES_PER_PART = 50
LOWEST_SUCCESS = 0.2
"""An expert that fails more often than this over a whole part is broken, and recording it ends."""


def simulator_of(arm: str) -> Simulator:
    """Imports a simulator only when it is asked for: each takes seconds."""
    if arm == "metaworld":
        from lab.datagen.metaworld_tasks import MetaworldSawyer

        return MetaworldSawyer()
    if arm == "so101":
        from lab.datagen.so101_pick_place import So101PickPlace

        return So101PickPlace()
    from lab.datagen.robosuite_lift import ARMS as LIFTING
    from lab.datagen.robosuite_lift import RobosuiteLift

    return RobosuiteLift(next(name for name in LIFTING if name.lower() == arm))


_workers: list[Simulator] = []
"""The simulator of a worker process, made once."""


def _begin(make: Callable[[], Simulator]) -> None:
    _workers.append(make())


def _attempt(seed: int, number: int) -> Attempt:
    return _workers[0].attempt(np.random.default_rng([seed, number]), number)


def attempts(
    simulator: Simulator, make: Callable[[], Simulator], seed: int, first: int, jobs: int
) -> Iterator[Attempt]:
    """Attempts from number `first` on, in their order, played here or by `jobs` processes."""
    if jobs == 1:
        yield from (simulator.attempt(np.random.default_rng([seed, number]), number) for number in count(first))
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _begin, (make,)) as pool:
        for start in count(first, 8 * jobs):
            yield from pool.imap(partial(_attempt, seed), range(start, start + 8 * jobs))


def record(make: Callable[[], Simulator], folder: Path, episodes: int, seed: int, jobs: int = 1) -> str:
    """Fills `folder` up to so many successful episodes; returns a line that says how it went."""
    simulator = make()
    with DatasetWriter(folder, dataset_spec(simulator), EPISODES_PER_PART) as writer:
        writer.continues({"seed": seed, "simulated": True, "source": "lab.datagen"})
        if writer.episodes >= episodes:
            return f"{simulator.robot}: has {writer.episodes} episodes already"
        tried = int(writer.remarks.get("attempts", 0))
        had, before = writer.episodes, tried
        began_s, worked_s = time.monotonic(), time.process_time()
        with tqdm(total=episodes, initial=had, desc=simulator.robot, unit="episode", mininterval=1.0) as bar:
            for attempt in attempts(simulator, make, seed, tried, jobs):
                tried += 1
                if attempt.success:
                    writer.remarks = {
                        **writer.remarks,
                        "attempts": tried,
                        "success_rate": (writer.episodes + 1) / tried,
                    }
                    writer.add_episode(attempt.columns(), attempt.task)
                    bar.update()
                if writer.episodes >= episodes:
                    break
                if tried - before >= EPISODES_PER_PART and writer.episodes - had < LOWEST_SUCCESS * (tried - before):
                    raise DatasetWriteError(
                        f"{folder}: {writer.episodes - had} of {tried - before} attempts succeeded; the expert fails"
                    )
        done, of = writer.episodes - had, max(tried - before, 1)
        speed = f"{60 * done / max(time.monotonic() - began_s, 1e-9):.0f} a minute"
        if jobs == 1:
            speed += f", {60 * done / max(time.process_time() - worked_s, 1e-9):.0f} in a minute of CPU time"
        return f"{simulator.robot}: {done} episodes of {tried - before} attempts ({done / of:.0%}), {speed}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.datagen", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for one dataset per arm")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--episodes", type=int, default=200, help="successful ones per arm (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes per arm (default %(default)s)")
    args = parser.parse_args(argv)
    try:
        for arm in args.arms:
            print(record(partial(simulator_of, arm), args.out / arm, args.episodes, args.seed, args.jobs), flush=True)
    except DatasetWriteError as error:
        print(f"datagen: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
