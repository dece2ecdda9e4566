"""One process that plays demonstrations of lifting and leaves them as shards: arrays, not video, for a reader nearby.

`python -m lab.lift.record --arm so101 --first 3 --stride 6 --episodes 1000 --seconds 110 --out DIR` plays episodes 3,
9, 15, ... below 1000. Episode n is the one that `lab.experts.demonstrations --task lift` records as its n-th from the
same seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.bundle.files import replacing
from edge.sim.lift import WRIST_CAMERA
from edge.sim.stage import CAMERA
from lab.experts.lift_recorder import LiftEpisode, LiftRecorder, succeeded

PER_SHARD = 10
"""Episodes in one file: about 60 MB with frames."""


def write_shard(path: Path, recorder: LiftRecorder, episodes: list[LiftEpisode], attempts: int) -> None:
    """Writes episodes end to end; the file has its name once it is whole."""
    tool_m = recorder.expert.kinematics.tool_m
    states = np.concatenate([np.array(episode.states) for episode in episodes])
    frames = [[episode.frames[camera] for camera in (CAMERA, WRIST_CAMERA)] for episode in episodes]
    with replacing(path) as partial, partial.open("wb") as opened:
        np.savez(
            opened,
            lengths=np.array([len(episode.states) for episode in episodes]),
            states=states.astype(np.float32),
            actions=np.concatenate([np.array(episode.actions) for episode in episodes]).astype(np.float32),
            tasks=np.array([task for episode in episodes for task in episode.tasks]),
            frames=np.concatenate([np.stack([np.array(view) for view in views], axis=1) for views in frames]),
            objects_m=np.concatenate([np.array(episode.objects_m) for episode in episodes]).astype(np.float32),
            targets=np.concatenate([np.array(episode.targets) for episode in episodes]),
            tool_m=np.array([tool_m(state[:-1]) for state in states], dtype=np.float32),
            attempts=np.array(attempts),
        )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.lift.record", description=__doc__)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--stride", type=int, default=1)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no episode later than this")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    end = time.monotonic() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    recorder = LiftRecorder(load_arm(args.arm), with_frames=True)
    held: list[LiftEpisode] = []
    attempts, count = 0, 0
    numbers = range(args.first, args.episodes, args.stride)
    for number in numbers:
        if time.monotonic() > end:
            break
        episode, tried = succeeded(recorder, args.seed, number)
        held.append(episode)
        attempts, count = attempts + tried, count + 1
        if len(held) == (PER_SHARD if count > 2 * PER_SHARD else PER_SHARD // 2):  # the first ones soon
            write_shard(args.out / f"{args.arm}-{number:06d}.npz", recorder, held, attempts)
            held, attempts = [], 0
    if held:
        write_shard(args.out / f"{args.arm}-{numbers[count - 1]:06d}.npz", recorder, held, attempts)
    print(f"{args.arm} {args.first}/{args.stride}: {count} episodes", flush=True)
    recorder.close()


if __name__ == "__main__":
    main()
