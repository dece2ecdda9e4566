"""Records expert demonstrations of the simulated FR3 with MuJoCo physics.

`python -m lab.experts.demonstrations --episodes 400 --seed 0 --out DIR` writes a LeRobot v3 dataset, and goes on
where it was when it was stopped. In an episode the expert is told two or three times which cube to reach, also in
mid-motion, so that neither the image, nor the instruction, nor the history alone tells what it does next. With
--plain it is told once, near home, and the instructions take turns: what somebody would record who wants N
demonstrations of each task.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from edge.sim.render import CameraRenderer  # first: it chooses the GL backend before mujoco is imported

import mujoco
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.log.dataset import DatasetWriter
from lab.experts.reach_expert import STEP_S, InverseKinematics, next_velocity
from lab.experts.lift_recorder import LiftRecorder, succeeded
from lab.experts.recording import Episode, dataset_spec, write_episode
from edge.sim.scene import ARM_QPOS, DOF, TARGETS, Placement, build_model, place_cubes
from edge.sim.lift import WRIST_CAMERA
from edge.sim.stage import CAMERA

SOURCE = "lab.experts.demonstrations"
"""What a dataset names as its maker."""
LIFTS_PER_PART = 50
PHRASES = ("reach the {} cube", "go to the {} cube", "move to the {} cube", "point at the {} cube")
INSTRUCTIONS = tuple(phrase.format(colour) for phrase in PHRASES for colour in TARGETS)
PHYSICS_STEPS = round(STEP_S / 0.001)
LIMIT_MARGIN_RAD = 0.03
PLAIN_STEPS = 35
"""Of an episode with one instruction: the longest way takes about 25, then the arm rests."""


@dataclass
class ReachEpisode(Episode):
    """`segment` counts the instructions given so far."""

    segment: list[int] = field(default_factory=list)


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

    def record(self, rng: np.random.Generator, plain: int | None = None) -> ReachEpisode:
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
        episode = ReachEpisode()
        for segment in range(1 if plain is not None else int(rng.integers(2, 4))):
            instruction = plain if plain is not None else int(rng.integers(len(INSTRUCTIONS)))
            goal = self.ik.solve(placement.goal_m(list(TARGETS)[instruction % len(TARGETS)]))
            for _ in range(PLAIN_STEPS if plain is not None else int(rng.integers(18, 50))):
                velocity = next_velocity(command, velocity, goal)
                episode.states.append(np.array(data.qpos[ARM_QPOS]))
                episode.actions.append(velocity * STEP_S)
                episode.tasks.append(INSTRUCTIONS[instruction])
                episode.segment.append(segment)
                if self.camera is not None:
                    episode.frames.setdefault(CAMERA, []).append(self.camera.render(data))
                for step in range(1, PHYSICS_STEPS + 1):
                    data.ctrl[:] = command + velocity * (STEP_S * step / PHYSICS_STEPS)
                    mujoco.mj_step(model, data)
                command = command + velocity * STEP_S
        return episode

    def close(self) -> None:
        """Frees the renderer."""
        if self.camera is not None:
            self.camera.close()


def record_lift(arm: ArmProfile, episodes: int, seed: int, out: Path, with_frames: bool) -> None:
    """Records lifting until the dataset in `out` has so many episodes; goes on where an interrupted run was.

    What the dataset says of itself counts the expert's attempts, so that its failures are not hidden.
    """
    recorder, cameras = LiftRecorder(arm, with_frames), (CAMERA, WRIST_CAMERA) if with_frames else ()
    with DatasetWriter(out, dataset_spec(arm, cameras), LIFTS_PER_PART) as writer:
        writer.continues({"seed": seed, "simulated": True, "source": f"{SOURCE} --task lift"})
        writer.remarks.setdefault("attempts", 0)
        for number in tqdm(range(writer.episodes, episodes), unit="episode", disable=None):
            episode, attempts = succeeded(recorder, seed, number)
            writer.remarks["attempts"] += attempts
            write_episode(writer, episode)
    recorder.close()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {SOURCE}", description=__doc__)
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
    with DatasetWriter(args.out, dataset_spec(arm, () if args.no_frames else (CAMERA,))) as writer:
        plain = {"plain": True} if args.plain else {}
        writer.continues({"seed": args.seed, "simulated": True, "source": SOURCE, **plain})
        recorder = Recorder(arm, not args.no_frames)
        for number in tqdm(range(writer.episodes, args.episodes), unit="episode"):
            instruction = number % len(INSTRUCTIONS) if args.plain else None
            write_episode(writer, recorder.record(np.random.default_rng([args.seed, number]), instruction))
        recorder.close()


if __name__ == "__main__":
    main()
