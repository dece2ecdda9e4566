"""Records the lifting expert as LeRobot records a person who leads an SO-101, or two: one object, goals, degrees.

`python -m lab.experts.teleoperation --object "red cube" --episodes 800 --out DIR` writes a LeRobot v3 dataset for a
policy that takes no text; with `--arm bi_so101` two arms lift a tray. The other objects are in every scene. What
disturbs an episode is cut out of it, and what comes after is an episode of its own: no chunk reaches across.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.doors.lerobot_names import ROBOTS, LeRobotAxes
from edge.log.dataset import Camera, DatasetSpec, DatasetWriter, Vector
from edge.policy.axes import Units
from edge.sim.lift import WRIST_CAMERA
from edge.sim.lift_phrases import DISTURBED, OBJECTS
from edge.sim.stage import CAMERA
from edge.sim.tray import TRAY, VIEW_PX
from lab.experts.lift_recorder import LiftEpisode, LiftRecorder, Recorder, Situations, succeeded
from lab.experts.reach_expert import STEP_S
from lab.experts.tray_recorder import TrayRecorder

FloatArray = NDArray[np.float64]
SOURCE = "lab.experts.teleoperation"
ARM = "so101"
SIZE_PX = 48
LIFTS_PER_PART, MOST_PARTS = 50, 3
"""A file of the dataset ends with a whole lift, which is disturbed once at most."""
SHORTEST_STEPS = 5
"""What is left of an episode before or after a disturbance is kept from this length on."""
STARTS = {"ready": 0.65, "anywhere": 0.12, "low": 0.05, "near": 0.18}
DISTURBED_SHARE, DISTURBANCES = 0.3, {"push": 0.5, "grip": 0.3, "move": 0.2}


@dataclass(frozen=True)
class Led:
    """What can be recorded with an arm: objects to lift, cameras, how wide a frame is for its height, and who plays
    (number of the object, height and width of a frame)."""

    objects: tuple[str, ...]
    cameras: tuple[str, ...]
    aspect: float
    open: Callable[[int, tuple[int, int]], Recorder]


def _one_arm(target: int, frame_px: tuple[int, int]) -> Recorder:
    return LiftRecorder(load_arm(ARM), True, frame_px[0], Situations(STARTS, DISTURBED_SHARE, DISTURBANCES, target))


LED = {
    ARM: Led(OBJECTS, (CAMERA, WRIST_CAMERA), 1.0, _one_arm),
    "bi_so101": Led((TRAY,), (CAMERA,), VIEW_PX[1] / VIEW_PX[0], lambda target, size_px: TrayRecorder(True, size_px)),
}


def spec(arm: ArmProfile, frame_px: tuple[int, int]) -> DatasetSpec:
    """The columns of LeRobot's own recordings; frames as pictures, so that nothing of them is lost."""
    names = LeRobotAxes(arm).names
    columns: dict[str, Vector | Camera] = {"observation.state": Vector(names), "action": Vector(names)}
    for camera in LED[arm.name].cameras:
        columns[f"observation.images.{camera}"] = Camera(*frame_px, "image")
    return DatasetSpec(fps=round(1 / STEP_S), robot=ROBOTS[arm.name], columns=columns)


def parts(episode: LiftEpisode) -> Iterator[slice]:
    """The steps of a recorded episode between its disturbances."""
    begin = 0
    for at, task in enumerate([*episode.tasks, DISTURBED]):
        if task == DISTURBED:
            if at - begin >= SHORTEST_STEPS:
                yield slice(begin, at)
            begin = at + 1


class _Worker:
    """Plays numbered episodes in a process of its own."""

    recorder: Recorder
    seed: int

    @classmethod
    def start(cls, arm: str, target: int, frame_px: tuple[int, int], seed: int) -> None:
        cls.recorder, cls.seed = LED[arm].open(target, frame_px), seed

    @classmethod
    def play(cls, number: int) -> tuple[LiftEpisode, int]:
        return succeeded(cls.recorder, cls.seed, number)


def write(writer: DatasetWriter, episode: LiftEpisode, units: Units, task: str) -> None:
    """Appends the undisturbed parts of an episode: measured positions, and the goal each step goes to."""
    commands = np.array(episode.commands) + np.array(episode.actions)
    columns = {"observation.state": units.from_arm(np.array(episode.states)), "action": units.from_arm(commands)}
    columns |= {f"observation.images.{camera}": np.array(frames) for camera, frames in episode.frames.items()}
    for part in parts(episode):
        writer.add_episode({name: values[part] for name, values in columns.items()}, task)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {SOURCE}", description=__doc__)
    parser.add_argument("--arm", choices=LED, default=ARM, help="what lifts (default %(default)s)")
    parser.add_argument("--object", help="what is lifted (default: the first that the arm has)")
    parser.add_argument("--episodes", type=int, default=800, help="lifts that are recorded (default %(default)d)")
    parser.add_argument("--size", type=int, default=SIZE_PX, help="height of a frame in pixels (default %(default)d)")
    parser.add_argument("--seed", type=int, default=20, help="episodes are a function of it (default %(default)d)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that play (default %(default)d)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    arm, led = load_arm(args.arm), LED[args.arm]
    target, frame_px = args.object or led.objects[0], (args.size, round(args.size * led.aspect))
    if target not in led.objects:
        parser.error(f"--object {target!r}: '{arm.name}' lifts one of {', '.join(led.objects)}")
    task, given = f"pick up the {target}", (args.arm, led.objects.index(target), frame_px, args.seed)
    pool = multiprocessing.get_context("spawn").Pool(args.jobs, _Worker.start, given)
    with pool, DatasetWriter(args.out, spec(arm, frame_px), LIFTS_PER_PART * MOST_PARTS) as writer:
        writer.continues({"seed": args.seed, "simulated": True, "source": SOURCE, "object": target})
        lifts, attempts = (int(writer.remarks.get(name, 0)) for name in ("lifts", "attempts"))
        played = pool.imap(_Worker.play, range(lifts, args.episodes))
        for episode, tried in tqdm(played, total=args.episodes - lifts, unit="lift", disable=None):
            lifts, attempts = lifts + 1, attempts + tried
            writer.remarks |= {"lifts": lifts, "attempts": attempts}
            write(writer, episode, LeRobotAxes(arm).units, task)
            if lifts % LIFTS_PER_PART == 0:
                writer.flush()


if __name__ == "__main__":
    main()
