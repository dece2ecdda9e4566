"""Counts in how many unseen scenes LeRobot's own torch code lifts what its policy was trained for.

`python -m tools.lerobot.evaluate FOLDER --episodes 100` runs in LeRobot's environment: its processors, its policy, its
`predict_action`, one goal a step, synchronous as LeRobot runs a policy, and the world stands still while it computes.
Arm, objects, cameras, scenes and verdict are those of `python -m bench.evaluate`; neither runtime nor firmware
is in between: the servos are led evenly to each goal, as in the demonstrations.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

from edge.sim.scenes import Scene, open_scene, scene_cameras  # first: it chooses the GL backend

import mujoco
import numpy as np
import torch
from lerobot.common.control_utils import predict_action
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from numpy.typing import NDArray
from tqdm import tqdm

from bench.episodes import FIRST_SCENE, instruction
from edge.run.proportion import wilson
from edge.arms import ArmProfile, load_arm
from edge.doors.lerobot_names import LeRobotAxes
from edge.sim.axes import Axes
from edge.sim.render import CameraRenderer
from lab.experts.expert_planner import play_step
from lab.experts.reach_expert import STEP_S
from lab.experts.teleoperation import ARM, LED

REST_STEPS = round(1.0 / STEP_S)
"""After the last goal the arm has a second to come to rest, of which the last part is judged."""
PICTURES = "observation.images."


class LeRobotPolicy:
    """A `pretrained_model` folder, run by LeRobot."""

    def __init__(self, folder: Path) -> None:
        config = PreTrainedConfig.from_pretrained(folder)
        self.policy: Any = get_policy_class(config.type).from_pretrained(folder)
        self.policy.eval()
        self._pre, self._post = make_pre_post_processors(config, pretrained_path=str(folder))
        self.cameras = {
            name.removeprefix(PICTURES): feature.shape[1:] for name, feature in config.image_features.items()
        }

    def goal(self, seen: dict[str, NDArray[Any]], task: str) -> NDArray[np.float64]:
        """The next goal (axes,), in the robot's units; computes a chunk where none is left."""
        device = torch.device("cpu")
        action = predict_action(seen, self.policy, device, self._pre, self._post, use_amp=False, task=task)
        return action.squeeze(0).double().numpy()


def play(policy: LeRobotPolicy, arm: ArmProfile, scene: Scene, task: str, duration_s: float) -> bool:
    """One episode; whether the object was lifted."""
    units = LeRobotAxes(arm).units
    data, axes, command = mujoco.MjData(scene.model), Axes(scene.model), np.array(scene.start)
    axes.place(data, command)
    mujoco.mj_forward(scene.model, data)
    low, high = np.array(arm.operating.position_min_rad), np.array(arm.operating.position_max_rad)
    names = scene_cameras(scene, list(policy.cameras))
    eyes = {name: CameraRenderer(scene.model, *size) for name, size in zip(names, policy.cameras.values())}
    policy.policy.reset()
    for _ in range(round(duration_s / STEP_S)):
        seen: dict[str, NDArray[Any]] = {"observation.state": units.from_arm(axes.read(data.qpos)).astype(np.float32)}
        for name, eye in eyes.items():
            seen[f"{PICTURES}{name}"] = eye.render(data, name)
        goal = np.clip(units.to_arm(policy.goal(seen, task)), low, high)
        play_step(scene.model, data, command, goal - command)
        command = goal
    track = []
    for _ in range(REST_STEPS):
        track.append(np.array(data.qpos))
        play_step(scene.model, data, command, np.zeros_like(command))
    for eye in eyes.values():
        eye.close()
    verdict = scene.verdict(task, np.array([*track, data.qpos])[-round(scene.watch_s / STEP_S) - 1 :])
    return verdict is not None and verdict.success


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arm", choices=LED, default=ARM, help="what lifts (default %(default)s)")
    parser.add_argument("--object", help="what is lifted (default: the first that the arm has)")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--duration", type=float, default=8.0, help="seconds per episode (default %(default)g)")
    parser.add_argument("--first-scene", type=int, default=FIRST_SCENE)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy, arm, lifted = LeRobotPolicy(args.folder), load_arm(args.arm), []
    target = args.object or LED[args.arm].objects[0]
    for episode in tqdm(range(args.episodes), unit="episode", disable=None):
        scene = open_scene(arm, args.first_scene + episode)
        lifted.append(play(policy, arm, scene, instruction(scene, episode, target), args.duration))
    count = sum(lifted)
    low, high = wilson(count, args.episodes)
    print(
        f"lift the {target} by LeRobot: {count} of {args.episodes} after {args.duration:g} s: "
        f"{100 * count / args.episodes:.0f} % (95 % interval {100 * low:.0f} to {100 * high:.0f} %), simulated"
    )
    if args.json:
        report = {"object": target, "episodes": args.episodes, "duration_s": args.duration, "lifted": lifted}
        args.json.write_text(json.dumps(report | {"succeeded": count, "confidence_95": [low, high]}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
