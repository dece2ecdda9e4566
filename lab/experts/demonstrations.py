"""Records expert demonstrations of the simulated FR3 with MuJoCo physics.

`python -m lab.experts.demonstrations --episodes 400 --seed 0 --out DIR` writes a LeRobot v3 dataset, and goes on
where it was when it was stopped. In an episode the expert is told two or three times which cube to reach, also in
mid-motion, so that neither the image, nor the instruction, nor the history alone tells what it does next. With
--plain it is told once, near home, and the instructions take turns: what somebody would record who wants N
demonstrations of each task. With --returns it begins at rest beside, above or below its goal, returns and rests, is
held, pushed or carried off, and returns again; with --settles it hardly moves, a little off its goal or in another
posture, and settles. Both are what an arm must have seen to stay where it is.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.log.dataset import DatasetWriter
from edge.sim.lift import WRIST_CAMERA
from edge.sim.lift_phrases import DISTURBED
from edge.sim.render import CameraRenderer
from edge.sim.scene import ARM_QPOS, CUBE_HALF_M, DOF, TARGETS, Placement, build_model, place_cubes
from edge.sim.stage import CAMERA
from lab.experts.lift_recorder import LiftRecorder, succeeded
from lab.experts.reach_expert import ACCELERATION_RAD_S2, STEP_S, InverseKinematics, next_velocity
from lab.experts.recording import Episode, dataset_spec, write_episode

SOURCE = "lab.experts.demonstrations"
"""What a dataset names as its maker."""
LIFTS_PER_PART = 50
PHRASES = ("reach the {} cube", "go to the {} cube", "move to the {} cube", "point at the {} cube")
INSTRUCTIONS = tuple(phrase.format(colour) for phrase in PHRASES for colour in TARGETS)
PHYSICS_STEPS = round(STEP_S / 0.001)
LIMIT_MARGIN_RAD = 0.03
PLAIN_STEPS = 35
"""Of an episode with one instruction: the longest way takes about 25, then the arm rests."""
OFF_M = (0.01, 0.10)
"""How far from its goal the tip of a returning arm begins."""
MOST_RISE_M, RISE_SPREAD_M = 0.07, 0.008
"""How far above or below it, and by how much the turned joints may change that."""
OFF_POSTURE_RAD = 0.03
"""Spread of the joints about the pose with the pointer straight down: an arm that drifts turns as well."""
CLEAR_M = 0.012
"""The tip of a returning arm keeps this far from cubes and table, where it begins and on its way."""
RETURN_STEPS, CARRY_STEPS = (25, 50), (4, 12)
"""A return takes about 12, then the arm rests for seconds."""
DISTURBANCES = {"hold": 0.3, "push": 0.45, "carry": 0.25}
"""What happens to a returning arm, and how often: it stands still, it drifts, or it is carried to another pose."""
DISTURBED_TIMES, GO_ON_STEPS = (2, 4), (8, 40)
"""So many of them in an episode, and so many steps of the expert between them: some strike on the way back."""
SETTLE_OFF_M, SETTLE_POSTURE_RAD = 0.10, 0.10
"""At most, and spread at most: where a slow drift of a minute may have led."""
SETTLE_RAD_S, SETTLE_DRIFT_STEPS, SETTLE_STEPS = 0.01, (2, 12), (16, 24)
PUSH_STEPS, PUSH_RAD_S = (1, 7), 0.2
"""A push adds up to this to every joint's velocity, for as long as a robot commits ahead."""


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
            try:
                q = ik.solve(rng.uniform([0.35, -0.30, 0.09], [0.66, 0.30, 0.50]))
            except ValueError:  # a corner of that box has no pose with the pointer straight down
                continue
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
        placement = Placement.sample(rng)
        play = self._begin(placement, start_pose(self.arm, self.ik, rng, home=plain is not None))
        for _ in range(1 if plain is not None else int(rng.integers(2, 4))):
            instruction = plain if plain is not None else int(rng.integers(len(INSTRUCTIONS)))
            goal = self.ik.solve(placement.goal_m(list(TARGETS)[instruction % len(TARGETS)]))
            steps = PLAIN_STEPS if plain is not None else int(rng.integers(18, 50))
            play.towards(goal, steps, INSTRUCTIONS[instruction])
        return play.episode

    def record_return(self, rng: np.random.Generator) -> ReachEpisode:
        """Plays one that begins at rest off its goal, is disturbed, returns, and so on, and rests at last.

        Disturbances are recorded under the task `DISTURBED`.
        """
        placement, instruction = Placement.sample(rng), int(rng.integers(len(INSTRUCTIONS)))
        goal_m = placement.goal_m(list(TARGETS)[instruction % len(TARGETS)])
        goal, told = self.ik.solve(goal_m), INSTRUCTIONS[instruction]
        play = self._begin(placement, self.pose_off(goal, goal_m, placement, rng))
        for _ in range(int(rng.integers(*DISTURBED_TIMES))):
            self._disturb(play, goal, goal_m, placement, rng)
            play.towards(goal, int(rng.integers(*GO_ON_STEPS)), told)
        play.towards(goal, int(rng.integers(*RETURN_STEPS)), told)
        return play.episode

    def record_settling(self, rng: np.random.Generator) -> ReachEpisode:
        """Plays a short one: the arm hardly moves, somewhere near its goal, until the expert brings it there.

        The tip may be right and the posture wrong. The drift is recorded under the task `DISTURBED`.
        """
        placement, instruction = Placement.sample(rng), int(rng.integers(len(INSTRUCTIONS)))
        goal_m = placement.goal_m(list(TARGETS)[instruction % len(TARGETS)])
        goal = self.ik.solve(goal_m)
        while True:
            aside = rng.normal(0.0, 1.0, 3)
            aside *= rng.uniform(0.0, SETTLE_OFF_M) * rng.random() / np.linalg.norm(aside)
            try:
                q = self.ik.solve(goal_m + aside) + rng.normal(0.0, rng.uniform(0.0, SETTLE_POSTURE_RAD), DOF)
            except ValueError:
                continue
            if self._inside(q) and self._way_clear(q, goal, placement):
                break
        play = self._begin(placement, q)
        slow = rng.normal(0.0, rng.uniform(0.0, SETTLE_RAD_S), DOF)
        play.drift(play.drifting(slow, int(rng.integers(*SETTLE_DRIFT_STEPS))), DISTURBED)
        play.towards(goal, int(rng.integers(*SETTLE_STEPS)), INSTRUCTIONS[instruction])
        return play.episode

    def _disturb(
        self,
        play: _Play,
        goal: NDArray[np.float64],
        goal_m: NDArray[np.float64],
        placement: Placement,
        rng: np.random.Generator,
    ) -> None:
        """Some steps under the task `DISTURBED`, from which the way back is free; none where it would not be."""
        kind = str(rng.choice(list(DISTURBANCES), p=list(DISTURBANCES.values())))
        if kind == "carry":
            play.towards(self.pose_off(goal, goal_m, placement, rng), int(rng.integers(*CARRY_STEPS)), DISTURBED)
            return
        steps, gain, wanted = int(rng.integers(*PUSH_STEPS)), 0.0, np.zeros(DOF)
        if kind == "push":
            gain, wanted = rng.uniform(0.0, 1.2), rng.normal(0.0, rng.uniform(0.0, PUSH_RAD_S) / 2, DOF)
        velocities = play.drifting(gain * play.velocity + wanted, steps)
        after = play.command + velocities.sum(axis=0) * STEP_S
        if self._inside(after) and self._way_clear(after, goal, placement):
            play.drift(velocities, DISTURBED)

    def _inside(self, q: NDArray[np.float64]) -> bool:
        low, high = np.array(self.arm.operating.position_min_rad), np.array(self.arm.operating.position_max_rad)
        return bool(np.all((q > low + LIMIT_MARGIN_RAD) & (q < high - LIMIT_MARGIN_RAD)))

    def _way_clear(self, q: NDArray[np.float64], goal: NDArray[np.float64], placement: Placement) -> bool:
        return all(clear(self.ik.tip_m(q + part * (goal - q)), placement) for part in np.linspace(0.0, 1.0, 12))

    def pose_off(
        self, goal: NDArray[np.float64], goal_m: NDArray[np.float64], placement: Placement, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """A pose, (7,), with the tip off its goal in any direction, and no cube or table on its way back.

        As many begin below the goal as above it, and as far: the height is drawn before cubes and table have a say.
        Where most ways back lead down, a policy that sees the height poorly learns to sink.
        """
        rise_m = rng.uniform(-MOST_RISE_M, MOST_RISE_M)
        while True:
            aside = rng.uniform(-OFF_M[1], OFF_M[1], 2)
            try:
                q = self.ik.solve(goal_m + np.array([*aside, rise_m]))
            except ValueError:
                continue
            q += rng.normal(0.0, OFF_POSTURE_RAD, DOF)
            off_m = self.ik.tip_m(q) - goal_m
            near = OFF_M[0] <= np.linalg.norm(off_m) <= OFF_M[1] and abs(off_m[2] - rise_m) < RISE_SPREAD_M
            if near and self._inside(q) and self._way_clear(q, goal, placement):
                return q

    def _begin(self, placement: Placement, command: NDArray[np.float64]) -> _Play:
        mujoco.mj_resetData(self.model, self.data)
        place_cubes(self.model, self.data, placement)
        self.data.qpos[ARM_QPOS] = command
        mujoco.mj_forward(self.model, self.data)
        return _Play(self.model, self.data, self.camera, command)

    def close(self) -> None:
        """Frees the renderer."""
        if self.camera is not None:
            self.camera.close()


def clear(tip_m: NDArray[np.float64], placement: Placement, margin_m: float = CLEAR_M) -> bool:
    """Whether a tip (3,) keeps this far from the table and from every cube."""
    beside = [np.abs(tip_m[:2] - xy).max() > CUBE_HALF_M + margin_m for xy in placement.xy_m]
    return bool(tip_m[2] > margin_m and (tip_m[2] > 2 * CUBE_HALF_M + margin_m or all(beside)))


class _Play:
    """An episode as it is played: the arm follows the expert, and every step is kept."""

    def __init__(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        camera: CameraRenderer | None,
        command: NDArray[np.float64],
    ) -> None:
        self.episode, self._segment = ReachEpisode(), 0
        self._model, self._data, self._camera = model, data, camera
        self.command, self.velocity = command, np.zeros(DOF)

    def towards(self, goal: NDArray[np.float64], steps: int, task: str) -> None:
        """So many steps of the expert towards a pose (7,), recorded as the next segment under this task."""
        for _ in range(steps):
            self._step(next_velocity(self.command, self.velocity, goal), task)
        self._segment += 1

    def drifting(self, wanted_rad_s: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        """Velocities (steps, 7) that go over to the wanted ones no faster than the expert accelerates."""
        most, velocity, found = ACCELERATION_RAD_S2 * STEP_S, self.velocity, []
        for _ in range(steps):
            velocity = velocity + np.clip(wanted_rad_s - velocity, -most, most)
            found.append(velocity)
        return np.array(found)

    def drift(self, velocities_rad_s: NDArray[np.float64], task: str) -> None:
        """These steps, recorded as the next segment under this task."""
        for velocity in velocities_rad_s:
            self._step(velocity, task)
        self._segment += 1

    def _step(self, velocity: NDArray[np.float64], task: str) -> None:
        model, data, episode = self._model, self._data, self.episode
        self.velocity = velocity
        episode.states.append(np.array(data.qpos[ARM_QPOS]))
        episode.actions.append(velocity * STEP_S)
        episode.tasks.append(task)
        episode.segment.append(self._segment)
        if self._camera is not None:
            episode.frames.setdefault(CAMERA, []).append(self._camera.render(data))
        for step in range(1, PHYSICS_STEPS + 1):
            data.ctrl[:] = self.command + velocity * (STEP_S * step / PHYSICS_STEPS)
            mujoco.mj_step(model, data)
        self.command = self.command + velocity * STEP_S


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
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--plain", action="store_true", help="to reach: one instruction an episode, told near home")
    kind.add_argument(
        "--returns", action="store_true", help="to reach: begin off the goal, return, rest, be carried off"
    )
    parser.add_argument("--task", choices=("reach", "lift"), default="reach")
    parser.add_argument("--arm", default=None, help="arm profile (default: franka to reach, franka_hand to lift)")
    kind.add_argument("--settles", action="store_true", help="to reach: hardly move, near the goal, and settle on it")
    args = parser.parse_args(argv)
    if args.task == "lift" and (args.plain or args.returns or args.settles):
        parser.error("--plain, --returns and --settles are for --task reach")
    if args.task == "lift":
        record_lift(load_arm(args.arm or "franka_hand"), args.episodes, args.seed, args.out, not args.no_frames)
        return
    arm = load_arm(args.arm or "franka")
    with DatasetWriter(args.out, dataset_spec(arm, () if args.no_frames else (CAMERA,))) as writer:
        kinds = {name: True for name in ("plain", "returns", "settles") if getattr(args, name)}
        writer.continues({"seed": args.seed, "simulated": True, "source": SOURCE, **kinds})
        recorder = Recorder(arm, not args.no_frames)
        for number in tqdm(range(writer.episodes, args.episodes), unit="episode"):
            rng, instruction = np.random.default_rng([args.seed, number]), number % len(INSTRUCTIONS)
            if args.returns:
                episode = recorder.record_return(rng)
            elif args.settles:
                episode = recorder.record_settling(rng)
            else:
                episode = recorder.record(rng, instruction if args.plain else None)
            write_episode(writer, episode)
        recorder.close()


if __name__ == "__main__":
    main()
