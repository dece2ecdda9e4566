"""Records expert demonstrations of the simulated FR3 with MuJoCo physics.

`python -m lab.experts.demonstrations --episodes 400 --seed 0 --out DIR` writes a LeRobot v3 dataset, and goes on
where it was when it was stopped. In an episode the expert is told two or three times which cube to reach, also in
mid-motion, so that neither the image, nor the instruction, nor the history alone tells what it does next. With
--plain it is told once, near home, and the instructions take turns: what somebody would record who wants N
demonstrations of each task.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from edge.sim.render import CameraRenderer  # first: it chooses the GL backend before mujoco is imported

import mujoco
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from lab.experts.reach_expert import STEP_S, InverseKinematics, next_velocity
from lab.experts.lift_demonstrations import record_lift
from edge.sim.scene import ARM_QPOS, DOF, TARGETS, Placement, build_model, place_cubes
from edge.sim.stage import CAMERA_SIZE_PX

CAMERA = "observation.images.front"
PHRASES = ("reach the {} cube", "go to the {} cube", "move to the {} cube", "point at the {} cube")
INSTRUCTIONS = tuple(phrase.format(colour) for phrase in PHRASES for colour in TARGETS)
PHYSICS_STEPS = round(STEP_S / 0.001)
LIMIT_MARGIN_RAD = 0.03
PLAIN_STEPS = 35
"""Of an episode with one instruction: the longest way takes about 25, then the arm rests."""


@dataclass
class Episode:
    """One recorded episode of T steps; `segment` counts the instructions given so far."""

    state_rad: list[NDArray[np.float64]]
    action_rad: list[NDArray[np.float64]]
    instruction: list[int]
    segment: list[int]
    frames: list[NDArray[np.uint8]]


def start_pose(
    arm: ArmProfile, ik: InverseKinematics, rng: np.random.Generator, home: bool = False
) -> NDArray[np.float64]:
    """Half of the episodes start near home, half with the tip anywhere above the table; all inside the limits.

    `home` lets all of them start near home.
    """
    low = np.array(arm.operating.position_min_rad) + LIMIT_MARGIN_RAD
    high = np.array(arm.operating.position_max_rad) - LIMIT_MARGIN_RAD
    while True:
        q = np.array(arm.home_rad)
        if rng.random() < 0.5 and not home:
            q = ik.solve(rng.uniform([0.35, -0.30, 0.09], [0.66, 0.30, 0.50]))
        q += rng.normal(0.0, 0.05, DOF)
        if np.all((q > low) & (q < high)):
            return q


class Recorder:
    """Plays episodes in one compiled scene whose cubes are moved; compiling it anew takes longer than an episode."""

    def __init__(self, arm: ArmProfile, with_frames: bool) -> None:
        self.arm = arm
        self.model = build_model(Placement.sample(np.random.default_rng(0)))
        self.data = mujoco.MjData(self.model)
        self.ik = InverseKinematics(self.model, np.array(arm.home_rad))
        self.camera = CameraRenderer(self.model) if with_frames else None

    def record(self, rng: np.random.Generator, plain: int | None = None) -> Episode:
        """Plays one. The state is the measured pose at a knot; the action leads the command to the next knot.

        `plain` is the number of the one instruction of an episode that begins near home.
        """
        model, data = self.model, self.data
        placement = Placement.sample(rng)
        mujoco.mj_resetData(model, data)
        place_cubes(model, data, placement)
        command = start_pose(self.arm, self.ik, rng, home=plain is not None)
        velocity = np.zeros(DOF)
        data.qpos[ARM_QPOS] = command
        mujoco.mj_forward(model, data)
        episode = Episode([], [], [], [], [])
        for segment in range(1 if plain is not None else int(rng.integers(2, 4))):
            instruction = plain if plain is not None else int(rng.integers(len(INSTRUCTIONS)))
            goal = self.ik.solve(placement.goal_m(list(TARGETS)[instruction % len(TARGETS)]))
            for _ in range(PLAIN_STEPS if plain is not None else int(rng.integers(18, 50))):
                velocity = next_velocity(command, velocity, goal)
                episode.state_rad.append(np.array(data.qpos[ARM_QPOS]))
                episode.action_rad.append(velocity * STEP_S)
                episode.instruction.append(instruction)
                episode.segment.append(segment)
                if self.camera is not None:
                    episode.frames.append(self.camera.render(data))
                for step in range(1, PHYSICS_STEPS + 1):
                    data.ctrl[:] = command + velocity * (STEP_S * step / PHYSICS_STEPS)
                    mujoco.mj_step(model, data)
                command = command + velocity * STEP_S
        return episode

    def close(self) -> None:
        """Frees the renderer."""
        if self.camera is not None:
            self.camera.close()


def dataset_spec(arm: ArmProfile, with_frames: bool) -> DatasetSpec:
    """Measured joint positions, increments of the commanded ones over the step that follows, and the camera."""
    columns: dict[str, Vector | Camera] = {
        "observation.state": Vector(tuple(f"{joint}.pos_rad" for joint in arm.joints)),
        "action": Vector(tuple(f"{joint}.increment_rad" for joint in arm.joints)),
    }
    if with_frames:
        columns[CAMERA] = Camera(CAMERA_SIZE_PX, CAMERA_SIZE_PX)
    return DatasetSpec(fps=round(1 / STEP_S), robot=arm.embodiment, columns=columns)


def write_episode(writer: DatasetWriter, episode: Episode) -> None:
    """Appends one episode, each step under the instruction it was taken for."""
    columns = {"observation.state": np.array(episode.state_rad), "action": np.array(episode.action_rad)}
    if episode.frames:
        columns[CAMERA] = np.array(episode.frames)
    writer.add_episode(columns, [INSTRUCTIONS[instruction] for instruction in episode.instruction])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.experts.demonstrations", description=__doc__)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-frames", action="store_true", help="trajectories only, for stage 1")
    parser.add_argument("--plain", action="store_true", help="to reach: one instruction an episode, told near home")
    parser.add_argument("--task", choices=("reach", "lift"), default="reach")
    parser.add_argument("--arm", default=None, help="arm profile (default: franka to reach, franka_hand to lift)")
    args = parser.parse_args(argv)
    if args.task == "lift":
        record_lift(load_arm(args.arm or "franka_hand"), args.episodes, args.seed, args.out, not args.no_frames)
        return
    arm = load_arm(args.arm or "franka")
    with DatasetWriter(args.out, dataset_spec(arm, not args.no_frames)) as writer:
        plain = {"plain": True} if args.plain else {}
        writer.continues({"seed": args.seed, "simulated": True, "source": "lab.experts.demonstrations", **plain})
        recorder = Recorder(arm, not args.no_frames)
        for number in tqdm(range(writer.episodes, args.episodes), unit="episode"):
            told = number % len(INSTRUCTIONS) if args.plain else None
            write_episode(writer, recorder.record(np.random.default_rng([args.seed, number]), told))
        recorder.close()


if __name__ == "__main__":
    main()
