"""Plays expert demonstrations of the lifting task, with things that go wrong.

An episode begins in one of several situations and may be disturbed on its way: the tool is pushed aside, the gripper
opens or closes at the wrong time, the object is moved, another object is asked for. The disturbance itself is recorded
under the task `DISTURBED`, which no policy is to imitate; what the expert does afterwards is what it is there for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.sim.axes import Axes
from edge.sim.lift import LIFTED_M, WRIST_CAMERA, Arrangement, build_lift_model, layout_of, put_object
from edge.sim.lift_phrases import DISTURBED, OBJECTS, PHRASES
from edge.sim.render import CameraRenderer
from edge.sim.stage import CAMERA, CAMERA_SIZE_PX
from lab.experts.expert_planner import play_step
from lab.experts.lift_expert import LiftExpert, Sight
from lab.experts.recording import Episode

FloatArray = NDArray[np.float64]
MOST_STEPS = 110
HELD_STEPS = 12
"""An episode goes on for so long after the object is up: holding still is part of the task."""
PUSH_M = 0.08


@dataclass(frozen=True)
class Situations:
    """What happens in the episodes of a recording.

    starts        shares that begin as a run does; anywhere above the table; low and beside; close above the object
    disturbed     share that is disturbed; disturbances: by what
    target        number of the one object that is asked for; None for all of them
    """

    starts: Mapping[str, float]
    disturbed: float
    disturbances: Mapping[str, float]
    target: int | None = None


EVERYTHING = Situations(
    {"ready": 0.35, "anywhere": 0.35, "low": 0.12, "near": 0.18},
    0.6,
    {"push": 0.4, "grip": 0.25, "move": 0.2, "ask": 0.15},
)


@dataclass
class LiftEpisode(Episode):
    """`tasks` holds the instruction, or `DISTURBED`.

    `commands` are the commanded positions at the beginning of each step. `objects_m` (objects, 3) and `targets` say
    where the objects are and which is meant. They are no part of a dataset: a network that starts from nothing learns
    from them where to look.
    """

    commands: list[FloatArray] = field(default_factory=list)
    objects_m: list[FloatArray] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    success: bool = False

    def add(self, state: FloatArray, command: FloatArray, action: FloatArray, task: str) -> None:
        """A step: measured and commanded positions (axes,) at its beginning, and what is added to the command."""
        self.states.append(state)
        self.commands.append(command)
        self.actions.append(action)
        self.tasks.append(task)


class LiftRecorder:
    """Plays episodes in one compiled scene whose objects are moved."""

    def __init__(
        self,
        arm: ArmProfile,
        with_frames: bool,
        size_px: int = CAMERA_SIZE_PX,
        situations: Situations = EVERYTHING,
    ) -> None:
        self.layout, self.situations = layout_of(arm.embodiment), situations
        self.model = build_lift_model(self.layout, Arrangement.sample(self.layout, np.random.default_rng(0)))
        self.data = mujoco.MjData(self.model)
        self.axes, self.expert = Axes(self.model), LiftExpert(self.model, self.layout)
        self.renderer = CameraRenderer(self.model, size_px) if with_frames else None

    def record(self, rng: np.random.Generator) -> LiftEpisode:
        """Plays one. The state is measured at a knot; the action leads the command to the next knot."""
        mujoco.mj_resetData(self.model, self.data)
        arrangement = Arrangement.sample(self.layout, rng)
        for name, pose in zip(OBJECTS, arrangement.poses):
            put_object(self.model, self.data, self.layout, name, pose)
        return _Playing(self, arrangement, rng).play()

    def close(self) -> None:
        """Frees the renderer."""
        if self.renderer is not None:
            self.renderer.close()


class _Playing:
    """One episode while it is played."""

    def __init__(self, recorder: LiftRecorder, arrangement: Arrangement, rng: np.random.Generator) -> None:
        self.recorder, self.rng, self.layout = recorder, rng, recorder.layout
        self.situations = recorder.situations
        self.model, self.data = recorder.model, recorder.data
        self.query()
        self.command = self.start(arrangement)
        self.last = np.zeros_like(self.command)
        self.episode = LiftEpisode()
        recorder.axes.place(self.data, self.command)
        mujoco.mj_forward(self.model, self.data)

    def query(self) -> None:
        """Draws the object that is asked for, and the words."""
        target = self.situations.target
        self.target = int(self.rng.integers(len(OBJECTS))) if target is None else target
        self.instruction = str(self.rng.choice(PHRASES)).format(OBJECTS[self.target])

    def start(self, arrangement: Arrangement) -> FloatArray:
        """Where the axes begin."""
        layout, rng = self.layout, self.rng
        near, far, aside = layout.area_m
        kind = drawn(rng, self.situations.starts)
        grip = rng.uniform(layout.held[0], layout.grip[0]) if kind == "anywhere" else layout.grip[0]
        while True:
            if kind == "ready":
                tool = np.array(layout.ready_m) + rng.normal(0.0, 0.01, 3)
            elif kind == "near":
                x, y, _ = arrangement.poses[self.target]
                beside = rng.normal(0.0, 0.15 * layout.half_m, 2)
                tool = np.array([x + beside[0], y + beside[1], rng.uniform(layout.grasp_m, layout.hover_m)])
            else:
                least = layout.grasp_m if kind == "low" else layout.grasp_m + 3 * layout.half_m
                most = layout.grasp_m + 0.02 if kind == "low" else layout.raised_m + 0.06
                tool = rng.uniform([near, -aside, least], [far, aside, most])
            gaps = [np.hypot(tool[0] - x, tool[1] - y) for x, y, _ in arrangement.poses]
            if kind != "low" or min(gaps) > 4 * layout.half_m:
                break
        posture = self.recorder.expert.kinematics.posture(tool)
        if kind in ("ready", "anywhere"):
            posture = posture + rng.normal(0.0, 0.03, len(posture))
        return np.append(posture, grip)

    def play(self) -> LiftEpisode:
        disturbed = self.rng.random() < self.situations.disturbed
        strike_at = int(self.rng.integers(4, 40)) if disturbed else MOST_STEPS
        up = 0
        for step in range(MOST_STEPS):
            if step == strike_at:
                self.disturb(drawn(self.rng, self.situations.disturbances))
            self.step(self.recorder.expert.increments(self.sight()), self.instruction)
            up = up + 1 if self.object_m()[2] >= LIFTED_M + 0.01 else 0
            if up == HELD_STEPS:
                self.episode.success = True
                break
        return self.episode

    def disturb(self, kind: str) -> None:
        """Something goes wrong, or is asked for anew."""
        layout, rng = self.layout, self.rng
        if kind == "ask":
            self.query()
            return
        if kind == "move":
            self.move_object()
            self.step(np.zeros_like(self.command), DISTURBED)
            return
        tool = self.recorder.expert.kinematics.tool_m(self.command[:-1])
        goal, grip = tool, float(self.command[-1])
        if kind == "push":
            near, far, aside = layout.area_m  # the arm reaches all of it
            lowest = max(layout.grasp_m, tool[2] - 0.03)
            goal = tool + rng.uniform(-PUSH_M, PUSH_M, 3)
            goal = np.clip(goal, [near, -aside, lowest], [far, aside, layout.raised_m + 0.06])
        else:
            grip = float(rng.uniform(layout.grip[1], layout.grip[0]))
        for _ in range(int(rng.integers(3, 7))):
            self.step(self.recorder.expert.towards(goal, grip, self.sight()), DISTURBED)

    def move_object(self) -> None:
        """The object is found elsewhere, unless the gripper is at it already or the others are in the way."""
        layout, rng = self.layout, self.rng
        places = [self.object_m(index)[:2] for index in range(len(OBJECTS))]
        here = places[self.target]
        tool = self.recorder.expert.kinematics.tool_m(self.command[:-1])
        there = here + rng.uniform(-0.05, 0.05, 2)
        gaps = [np.linalg.norm(there - place) for index, place in enumerate(places) if index != self.target]
        near, far, aside = layout.area_m
        inside = near <= there[0] <= far and abs(there[1]) <= aside
        clear = tool[2] > layout.hover_m - 0.02 or min(np.linalg.norm(tool[:2] - at) for at in (here, there)) > 0.08
        if inside and clear and min(gaps) >= layout.gap_m and self.object_m()[2] < 2 * layout.half_m:
            turn = float(np.arctan2(there[1], there[0])) if layout.radial else 0.0
            put_object(self.model, self.data, layout, OBJECTS[self.target], (float(there[0]), float(there[1]), turn))

    def object_m(self, index: int | None = None) -> FloatArray:
        first = int(self.model.joint(OBJECTS[self.target if index is None else index]).qposadr[0])
        return np.array(self.data.qpos[first : first + 3])

    def sight(self) -> Sight:
        return Sight(self.command, self.last, self.recorder.axes.read(self.data.qpos), self.object_m())

    def step(self, increment: FloatArray, task: str) -> None:
        """Records what is seen and done now, and lets it happen."""
        episode, renderer = self.episode, self.recorder.renderer
        episode.add(self.recorder.axes.read(self.data.qpos), self.command, increment, task)
        episode.objects_m.append(np.array([self.object_m(index) for index in range(len(OBJECTS))]))
        episode.targets.append(self.target)
        if renderer is not None:
            for camera in (CAMERA, WRIST_CAMERA):
                episode.frames.setdefault(camera, []).append(renderer.render(self.data, camera))
        play_step(self.model, self.data, self.command, increment)
        self.command, self.last = self.command + increment, increment


def drawn(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """One of the names, by its share."""
    return str(rng.choice(list(shares), p=list(shares.values())))


class Recorder(Protocol):
    """Who plays the episodes of a task."""

    def record(self, rng: np.random.Generator) -> LiftEpisode: ...

    def close(self) -> None: ...


def succeeded(recorder: Recorder, seed: int, number: int) -> tuple[LiftEpisode, int]:
    """Episode `number`: the first attempt of its own that ends with the object up, and how many it took."""
    for attempt in range(100):
        episode = recorder.record(np.random.default_rng([seed, number, attempt]))
        if episode.success:
            return episode, attempt + 1
    raise RuntimeError(f"episode {number} of seed {seed}: the expert failed a hundred times in a row")
