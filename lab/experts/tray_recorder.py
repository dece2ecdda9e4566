"""Plays expert demonstrations of two arms that lift a tray, with things that go wrong (see `lift_recorder`)."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from edge.sim.axes import Axes
from edge.sim.lift import LIFTED_M
from edge.sim.lift_phrases import DISTURBED
from edge.sim.render import CameraRenderer
from edge.sim.stage import CAMERA
from edge.sim.tray import (
    HANDLE_HALF_M,
    ONE_ARM,
    SIDES,
    TRAY,
    VIEW_PX,
    Handles,
    Place,
    build_tray_model,
    put_tray,
    to_arm,
)
from lab.experts.expert_planner import play_step
from lab.experts.lift_recorder import HELD_STEPS, MOST_STEPS, LiftEpisode, Situations, drawn
from lab.experts.tray_expert import AXES, TrayExpert

FloatArray = NDArray[np.float64]
SITUATIONS = Situations({"ready": 0.6, "anywhere": 0.25, "near": 0.15}, 0.35, {"push": 0.6, "grip": 0.4})
BOX_M = ((0.18, -0.07, 0.06), (0.29, 0.07, 0.14))
"""Where a tool may begin or be pushed to, in the frame of its arm: clear of the tray."""
UP_M = HANDLE_HALF_M[2] + 0.005
"""With a handle higher than this nobody pushes an arm: the other one would be thrown with it."""


class TrayRecorder:
    """Plays episodes in one compiled scene whose tray is moved."""

    def __init__(
        self, with_frames: bool, frame_px: tuple[int, int] = VIEW_PX, situations: Situations = SITUATIONS
    ) -> None:
        self.situations = situations
        self.model = build_tray_model(Place(0.0, 0.0, 0.0))
        self.data = mujoco.MjData(self.model)
        self.axes, self.expert = Axes(self.model), TrayExpert()
        self.renderer = CameraRenderer(self.model, *frame_px) if with_frames else None

    def record(self, rng: np.random.Generator) -> LiftEpisode:
        """Plays one. The state is measured at a knot; the action leads the command to the next knot."""
        mujoco.mj_resetData(self.model, self.data)
        put_tray(self.model, self.data, Place.sample(rng))
        return _Playing(self, rng).play()

    def close(self) -> None:
        """Frees the renderer."""
        if self.renderer is not None:
            self.renderer.close()


class _Playing:
    """One episode while it is played."""

    def __init__(self, recorder: TrayRecorder, rng: np.random.Generator) -> None:
        self.recorder, self.rng = recorder, rng
        self.model, self.data = recorder.model, recorder.data
        kind = drawn(rng, recorder.situations.starts)
        self.command = np.concatenate([self.start(side, kind) for side in SIDES])
        self.last, self.episode = np.zeros_like(self.command), LiftEpisode()
        recorder.axes.place(self.data, self.command)
        mujoco.mj_forward(self.model, self.data)

    @property
    def handles(self) -> Handles:
        return Handles.of(self.model, self.data.qpos)

    def start(self, side: str, kind: str) -> FloatArray:
        """Where the axes of one arm begin."""
        rng, handles, kinematics = self.rng, self.handles, self.recorder.expert.arms[side].kinematics
        grip, along = ONE_ARM.grip[0], float(handles.along_rad)
        if kind == "ready":
            posture = kinematics.posture(np.array(ONE_ARM.ready_m) + rng.normal(0.0, 0.01, 3))
            return np.append(posture + rng.normal(0.0, 0.03, len(posture)), grip)
        if kind == "near":
            x, y, _ = to_arm(side, handles.places_m[list(SIDES).index(side)])
            beside = rng.normal(0.0, 0.15 * HANDLE_HALF_M[1], 2)
            tool = np.array([x + beside[0], y + beside[1], rng.uniform(ONE_ARM.grasp_m, ONE_ARM.hover_m)])
            return np.append(kinematics.posture(tool, along_rad=along), grip)
        posture = kinematics.posture(rng.uniform(*BOX_M), along_rad=along + rng.normal(0.0, 0.15))
        return np.append(posture, rng.uniform(ONE_ARM.held[0], grip))

    def play(self) -> LiftEpisode:
        disturbed = self.rng.random() < self.recorder.situations.disturbed
        strike_at, up = int(self.rng.integers(4, 40)) if disturbed else MOST_STEPS, 0
        for step in range(MOST_STEPS):
            handles = self.handles
            if step == strike_at and handles.places_m[:, 2].max() < UP_M:
                self.disturb(drawn(self.rng, self.recorder.situations.disturbances))
                handles = self.handles
            expert, measured = self.recorder.expert, self.recorder.axes.read(self.data.qpos)
            self.step(expert.increments(self.command, self.last, measured, handles), f"pick up the {TRAY}")
            handles = self.handles
            up = up + 1 if handles.carried and handles.height_m >= LIFTED_M + 0.01 else 0
            if up == HELD_STEPS:
                self.episode.success = True
                break
        return self.episode

    def disturb(self, kind: str) -> None:
        """One of the arms is pushed upwards and aside, or its jaw moved; the other one waits."""
        rng, expert = self.rng, self.recorder.expert
        side = str(rng.choice(list(SIDES)))
        arm = expert.arms[side]
        goal, grip = arm.kinematics.tool_m(self.command[AXES[side]][:-1]), float(self.command[AXES[side]][-1])
        if kind == "push":
            goal = np.clip(goal + rng.uniform((-0.06, -0.06, 0.0), (0.06, 0.06, 0.06)), *BOX_M)
        else:
            grip = float(rng.uniform(ONE_ARM.grip[1], ONE_ARM.grip[0]))
        for _ in range(int(rng.integers(3, 7))):
            measured = self.recorder.axes.read(self.data.qpos)
            sight = expert.sight(side, self.command, self.last, measured, self.handles)
            increment = np.zeros_like(self.command)
            increment[AXES[side]] = arm.towards(goal, grip, sight)
            self.step(increment, DISTURBED)

    def step(self, increment: FloatArray, task: str) -> None:
        """Records what is seen and done now, and lets it happen."""
        episode, renderer = self.episode, self.recorder.renderer
        episode.add(self.recorder.axes.read(self.data.qpos), self.command, increment, task)
        if renderer is not None:
            episode.frames.setdefault(CAMERA, []).append(renderer.render(self.data, CAMERA))
        play_step(self.model, self.data, self.command, increment)
        self.command, self.last = self.command + increment, increment
