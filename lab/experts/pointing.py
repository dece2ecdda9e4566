"""Renders scenes for the pointing task: one frame each, with the place of every cube.

`python -m lab.experts.pointing --scenes 30000 --seed 2 --out DIR` writes `scenes.json` and `scenes.npz`. The backbone
learns from them to find the cube that the instruction names, before it learns to act: what a pretrained VLM brings
along, and one that is trained from nothing does not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.sim.render import CameraRenderer
from edge.sim.scene import ARM_QPOS, DOF, TARGETS, Placement, build_model, place_cubes
from edge.sim.stage import CAMERA_SIZE_PX
from lab.experts.demonstrations import INSTRUCTIONS, start_pose
from lab.experts.reach_expert import InverseKinematics

SCENES_FORMAT = 1
AT_A_CUBE = 0.3
"""Share of the scenes in which the arm already is at a cube, where it hides part of it."""


def arm_pose(
    arm: ArmProfile, ik: InverseKinematics, placement: Placement, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A pose as demonstrations show it: at a cube, or anywhere the expert starts from."""
    if rng.random() < AT_A_CUBE:
        goal = placement.goal_m(str(rng.choice(list(TARGETS))))
        return ik.solve(goal) + rng.normal(0.0, 0.03, DOF)
    while True:
        try:
            return start_pose(arm, ik, rng)
        except ValueError:  # drawn out of reach
            continue


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.experts.pointing", description=__doc__)
    parser.add_argument("--scenes", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    arm = load_arm("franka")
    rng = np.random.default_rng(args.seed)
    model = build_model(Placement.sample(rng))
    data = mujoco.MjData(model)
    ik = InverseKinematics(model, np.array(arm.home_rad))
    camera = CameraRenderer(model)
    frames = np.empty((args.scenes, CAMERA_SIZE_PX, CAMERA_SIZE_PX, 3), dtype=np.uint8)
    xy_m = np.empty((args.scenes, len(TARGETS), 2), dtype=np.float32)
    for scene in tqdm(range(args.scenes), unit="scene"):
        placement = Placement.sample(rng)
        place_cubes(model, data, placement)
        data.qpos[ARM_QPOS] = arm_pose(arm, ik, placement, rng)
        mujoco.mj_forward(model, data)
        frames[scene], xy_m[scene] = camera.render(data), placement.xy_m
    camera.close()
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "scenes.npz", frames=frames, xy_m=xy_m)
    description = {
        "format": SCENES_FORMAT,
        "instructions": list(INSTRUCTIONS),
        "targets": list(TARGETS),
        "seed": args.seed,
        "simulated": True,
    }
    (args.out / "scenes.json").write_text(json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    main()
