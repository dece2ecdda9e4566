"""LeRobot's own code, asked for one chunk at a time by `edge-bench lerobot-speed`, in LeRobot's environment.

`python -m tools.lerobot.timed FOLDER OBSERVATION.npz --threads N [--compile]` opens the folder as LeRobot does, in
FP32, says "ready", and answers every line of stdin with one line: "run" with the nanoseconds of one chunk, "save
FILE.npy", which keeps the last chunk in the robot's units, with "saved". A chunk is preprocessor, policy and
postprocessor.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

NOISE, TASK = "noise", "task"
"""Beside the keys that LeRobot itself gives an observation."""


def open_policy(folder: Path, threads: int, compiled: bool) -> tuple[Any, Any, Any]:
    """Policy, pre- and postprocessor. A folder's paths are as seen from the folder above it."""
    torch.set_num_threads(threads)
    os.chdir(folder.parent)
    config = PreTrainedConfig.from_pretrained(folder)
    policy: Any = get_policy_class(config.type).from_pretrained(folder, config=config).float().eval()
    if compiled and hasattr(policy.model, "sample_actions"):  # what LeRobot's own `compile_model` compiles
        policy.model.sample_actions = torch.compile(policy.model.sample_actions)
    elif compiled:
        policy.model = torch.compile(policy.model)
    return (policy, *make_pre_post_processors(config, pretrained_path=str(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("observation", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print what they like
    policy, preprocessor, postprocessor = open_policy(args.folder.resolve(), args.threads, args.compile)
    with np.load(args.observation) as held:
        given = dict(held)
    task = str(given.pop(TASK))
    more = {NOISE: torch.from_numpy(given.pop(NOISE))[None]} if NOISE in given else {}

    def chunk() -> torch.Tensor:
        seen: dict[str, Any] = {
            key: torch.from_numpy(array).permute(2, 0, 1) / 255 if array.ndim == 3 else torch.from_numpy(array)
            for key, array in given.items()
        }
        with torch.inference_mode():
            made: torch.Tensor = postprocessor(policy.predict_action_chunk(preprocessor(seen | {TASK: task}), **more))
        return made[0]

    last = None
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        word, _, path = line.strip().partition(" ")
        if word == "run":
            began_ns = time.perf_counter_ns()
            last = chunk()
            print(time.perf_counter_ns() - began_ns, file=answers, flush=True)
        elif last is not None:
            np.save(path, last.numpy())
            print("saved", file=answers, flush=True)


if __name__ == "__main__":
    main()
