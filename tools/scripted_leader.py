"""Records episodes of a simulated SO-101 with `edge-record`, led by a script: what a person with a leader arm does.

The leader is an SO-101 of simulated servos (`servo-sim`), whose shafts the script moves as hands would: it plays what
the scripted expert does in the same scene. In the first episodes the lifting policy has the arm, and is taken over once
each: pause, bring the leader to the arm, lead it, pause, hand it back. All others are led from their beginning. The
operator's keys go through the command's own stdin; what it prints is all that the script knows of a run.

`python -m tools.scripted_leader --bundle BUNDLE --out DIR --episodes 50 --corrected 2`; simulated throughout.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from edge.sim.scenes import LiftScene, open_scene  # first: it chooses the GL backend before mujoco is imported

import mujoco
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edge.arms import load_arm
from edge.arms.feetech import joint_spans
from edge.sim.axes import Axes
from edge.sim.lift import LIFTED_M, named_object
from firmware_bridge.adapters.feetech.calibration import Calibration, ServoCalibration, scales
from firmware_bridge.adapters.feetech.registers import COUNTS, RAD_PER_COUNT
from lab.experts.expert_planner import play_step
from lab.experts.lift_expert import LiftExpert, Sight
from lab.experts.reach_expert import STEP_S

ARM = load_arm("so101")
HAND_S = 0.02
READY_S, PAUSE_S = 3.0, 1.5
BROUGHT_S = 0.3
ASIDE_RAD = np.array([0.15, -0.15, 0.15, 0.0, 0.0, 0.0])
MOST_STEPS, HELD_STEPS = 70, 8
FIRST_SCENE = 2_300_000
"""Unseen by every policy's training."""
AWAY = re.compile(r"the leader is ([+-][\d.]+) \S+ from the arm in (\w+);")
Rows = NDArray[np.float64]


def swept() -> Calibration:
    """As if every joint had been swept around the middle of its counts over its whole travel."""
    middle, rows = COUNTS // 2, []
    for number, (joint, (low, high)) in enumerate(zip(ARM.joints, ARM.stops_rad), start=1):
        half = min(round((high - low) / 2 / RAD_PER_COUNT), middle - 1)
        rows.append(ServoCalibration(joint, number, 1, 0, middle - half, middle + half))
    return Calibration(ARM.name, tuple(rows))


class LeaderArm:
    """Simulated servos on a pseudo-terminal, and a hand that moves them; for a `with`."""

    def __init__(self, folder: Path) -> None:
        self.calibration, self.pose = folder / "leader-calibration.json", np.array(ARM.home_rad)
        made = swept()
        made.write(self.calibration)
        self._scales = scales(made, joint_spans(ARM))
        command = [sys.executable, "-m", "firmware_bridge.adapters.feetech.servo_sim"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"feetech:{json.loads(self._process.stdout.readline())['port']}?calibration={self.calibration}"
        self.put(self.pose)

    def put(self, pose: Rows) -> None:
        """Moves it there at once."""
        self.pose = pose
        assert self._process.stdin is not None
        for scale, q in zip(self._scales, pose):
            self._process.stdin.write(f"hand {scale.servo} {scale.count(float(q))}\n")
        self._process.stdin.flush()

    def play(self, poses: Rows, step_s: float) -> None:
        """Moves it evenly from pose to pose, (n, 6), `step_s` apart."""
        path, began = np.vstack([self.pose, poses]), time.monotonic()
        while (at := (time.monotonic() - began) / step_s) < len(poses):
            row = int(at)
            self.put(path[row] + (at - row) * (path[row + 1] - path[row]))
            time.sleep(HAND_S)
        self.put(path[-1])

    def __enter__(self) -> LeaderArm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()


class Command:
    """`edge-record` with a person at its keys."""

    def __init__(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "edge.cli.record", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.lines: list[str] = []
        self._read = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)
            self.lines.append(line)

    def press(self, key: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and said why
            self._process.stdin.write(key)
            self._process.stdin.flush()

    def wait_for(self, *texts: str, seconds: float = 120.0) -> str:
        """The next line with one of these texts, passing over those before it; empty when there was none in time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            while self._read < len(self.lines):
                line = self.lines[self._read]
                self._read += 1
                if any(text in line for text in texts):
                    return line
            if self._process.poll() is not None and self._read == len(self.lines):
                return ""
            time.sleep(HAND_S)
        return ""

    def end(self) -> int:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        return self._process.wait(120)


def demonstration(scene: LiftScene, task: str) -> Rows:
    """What the expert commands in the scene until the object is up, (n, 6), played in a simulation of its own."""
    model, data = scene.model, mujoco.MjData(scene.model)
    axes, expert = Axes(model), LiftExpert(model, scene.layout)
    axes.place(data, np.array(scene.start))
    mujoco.mj_forward(model, data)
    first = int(model.joint(str(named_object(task))).qposadr[0])
    command, last, rows, up = np.array(scene.start), np.zeros(len(scene.start)), [], 0
    while len(rows) < MOST_STEPS and up < HELD_STEPS:
        sight = Sight(command, last, axes.read(data.qpos), np.array(data.qpos[first : first + 3]))
        last = expert.increments(sight)
        play_step(model, data, command, last)
        command = command + last
        rows.append(command)
        up = up + 1 if data.qpos[first + 2] >= LIFTED_M + 0.01 else 0
    return np.array(rows)


def lead(command: Command, leader: LeaderArm, scene: LiftScene, task: str) -> None:
    """One episode from its beginning. It ends by itself, and the simulator judges it."""
    path = demonstration(scene, task)
    command.wait_for("press c")
    leader.put(np.array(scene.start))
    command.press("c")
    command.wait_for("clocks synchronised")
    time.sleep(READY_S)
    leader.play(path, STEP_S)


def correct(command: Command, leader: LeaderArm) -> None:
    """Takes the arm over from the policy, moves it aside and back, and hands it back. Does nothing when it is late."""
    command.wait_for("first inference", seconds=60)
    time.sleep(READY_S)
    command.press("p")
    command.wait_for("waits for the start command", seconds=20)
    time.sleep(PAUSE_S)
    for _ in range(4 * len(ARM.joints)):
        command.press("t")
        told = AWAY.search(command.wait_for("the leader is", seconds=PAUSE_S))
        if told is None:
            break
        pose = leader.pose.copy()
        pose[ARM.joints.index(told[2])] -= float(told[1])
        leader.put(pose)
        time.sleep(BROUGHT_S)
    stood = leader.pose
    leader.play(np.linspace(stood, stood + ASIDE_RAD, 10), STEP_S)
    leader.play(np.linspace(stood + ASIDE_RAD, stood, 10), STEP_S)
    command.press("p")
    command.wait_for("waits for the start command", seconds=20)
    time.sleep(PAUSE_S)
    command.press("c")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripted_leader", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the lifting policy's")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--corrected", type=int, default=2, help="of them, with a take-over (default %(default)d)")
    parser.add_argument("--task", default="pick up the red cube")
    parser.add_argument("--seconds", type=float, default=10.0, help="of an episode that is led")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = args.out / "data"
    with LeaderArm(args.out) as leader:
        common = ["--arm", ARM.name, "--task", args.task, "--out", str(data), "--leader", leader.url]
        led = ["--camera", "front=sim:?camera=front", "--camera", "wrist=sim:?camera=wrist", "--frame-size", "128x128"]
        led += ["--duration", str(args.seconds)]
        policy = ["--policy", "--bundle", str(args.bundle), "--duration", "30", "--camera-names", "front", "wrist"]
        # A run that the machine was too busy for may end before the take-over: it is an episode without one.
        while (left := args.corrected - taken_over(data)) > 0 and episodes(data) + left <= args.episodes:
            first = next_scene(data)
            command = Command([*common, *policy, "--episodes", str(left), "--scene-seed", str(first)])
            for _ in range(left):
                correct(command, leader)
            command.end()
        while (left := args.episodes - episodes(data)) > 0:
            first = next_scene(data)
            command = Command([*common, *led, "--episodes", str(left), "--scene-seed", str(first)])
            for number in range(left):
                lead(command, leader, _scene(first + number, args.task), args.task)
            command.end()
    told = json.loads((data / "meta" / "info.json").read_text())["vla_edge"]["episodes"]
    taken, successes = taken_over(data), sum(one["verdict"] == "success" for one in told)
    print(f"{len(told)} episodes, {successes} successes, {taken} with a take-over")
    return 0 if (len(told), taken) == (args.episodes, args.corrected) else 1


def episodes(data: Path) -> int:
    """How many the dataset has. A run without a motion that has frames leaves none, and is made again."""
    info = data / "meta" / "info.json"
    return int(json.loads(info.read_text())["total_episodes"]) if info.exists() else 0


def taken_over(data: Path) -> int:
    """In how many of its episodes a person had the arm for a part of the steps."""
    files = sorted(data.glob("data/*/*.parquet"))
    if not files:
        return 0
    rows = pa.concat_tables([pq.read_table(file, columns=["episode_index", "intervention"]) for file in files])
    marks: dict[int, set[bool]] = {}
    for row in rows.to_pylist():
        marks.setdefault(row["episode_index"], set()).add(bool(np.ravel(row["intervention"])[0]))
    return sum(len(found) == 2 for found in marks.values())


def next_scene(data: Path) -> int:
    """One that no run has been made in."""
    return FIRST_SCENE + len(list((data / "logs").glob("*.mcap")))


def _scene(seed: int, task: str) -> LiftScene:
    scene = open_scene(ARM, seed, task)
    assert isinstance(scene, LiftScene)
    return scene


if __name__ == "__main__":
    raise SystemExit(main())
