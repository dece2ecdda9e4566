"""The scenes an arm can work in, and how a run in one of them is judged.

The arm decides what it can do: one with a pointer reaches, one with a gripper lifts an object, two lift a tray. The
instruction says which object, and an instruction for another kind of arm is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.errors import InputError
from edge.sim.axes import Axes
from edge.sim.kinematics import ToolKinematics
from edge.sim.library import mujoco
from edge.sim.lift import (
    HELD_S,
    LAYOUTS,
    LIFTED_M,
    WRIST_CAMERA,
    Arrangement,
    build_lift_model,
    heights_m,
    layout_of,
    lifted,
    named_object,
)
from edge.sim.render import CameraRenderer
from edge.sim.scene import ARM_QPOS, DOF, REACHED_M, Placement, build_model, target_of
from edge.sim.stage import CAMERA
from edge.sim.tray import CARRIED_S, TRAY, Handles, Place, build_tray_model, ready

FloatArray = NDArray[np.float64]
REACH, LIFT = TASKS = ("reach", "lift")
VERBS = {
    REACH: ("reach", "go to", "move to", "point at"),
    LIFT: ("pick up", "lift", "grab", "raise"),
}
"""How an instruction of each task begins."""


@dataclass(frozen=True)
class Hold:
    """What became of a task over a run: when it was first done, and whether that lasted.

    `reached_s` counts from the first position and is None if it was never done; `held_s` is for how long it has been
    done at the end without a break. `worst_m` is the worst since it was first done: the largest distance from the goal,
    or the least height of an object to be lifted.
    """

    reached_s: float | None
    held_s: float
    worst_m: float | None
    text: str

    @staticmethod
    def over(time_s: FloatArray, metres: FloatArray, done: NDArray[np.bool_], task: str) -> Hold:
        """Of positions at `time_s` (n,), what they are judged by in `metres` (n,), and which are good enough."""
        if not done.any():
            return Hold(None, 0.0, None, f"never in {time_s[-1] - time_s[0]:.1f} s")
        first = int(np.argmax(done))
        since = first if done.all() else int(np.flatnonzero(~done)[-1]) + 1
        held_s = float(time_s[-1] - time_s[since]) if since < len(done) else 0.0
        reached_s, after = float(time_s[first] - time_s[0]), metres[first:]
        worst_m = float(after.max() if task == REACH else after.min())
        measure = "at most {:.0f} mm from its goal" if task == REACH else "at least {:.0f} mm high"
        lasted = f"held for the last {held_s:.1f} s" if held_s else "not held"
        text = f"after {reached_s:.1f} s, {lasted}, {measure.format(1000 * worst_m)} since"
        return Hold(reached_s, held_s, worst_m, text)


@dataclass(frozen=True)
class BenchVerdict:
    """How a simulated run ended.

    `distance_m` is what `success` was judged by: from the pointer's tip to its goal, at most `tolerance_m`; or the
    height to which the object was held, at least `tolerance_m`. `text` says it in words. `hold` tells of the way there,
    where positions were kept on it.
    """

    task: str
    target: str
    success: bool
    distance_m: float
    tolerance_m: float
    text: str
    scene_seed: int
    hold: Hold | None = None

    def to_plain(self) -> dict[str, object]:
        return asdict(self)


class Scene(Protocol):
    """One arrangement of objects, compiled, and the measure of success in it.

    `start` is where the axes begin; `watch_s` is how long a verdict has to look at the end.
    """

    @property
    def task(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def model(self) -> mujoco.MjModel: ...

    @property
    def cameras(self) -> tuple[str, ...]: ...

    @property
    def start(self) -> tuple[float, ...]: ...

    @property
    def watch_s(self) -> float: ...

    def instruction(self, number: int) -> str:
        """One that names object `number`."""

    def verdict(self, instruction: str, track: FloatArray) -> BenchVerdict | None:
        """Judges generalised positions (n, nq) over `watch_s`; None when no single object is named."""

    def hold(self, instruction: str, time_s: FloatArray, track: FloatArray) -> Hold | None:
        """What became of the task over a run, from generalised positions (n, nq) at `time_s` (n,); None as above."""


def task_of(instruction: str) -> str | None:
    """The task an instruction sets by the way it begins; None for words that are not known."""
    for task, verbs in VERBS.items():
        if instruction.lower().startswith(tuple(verb + " " for verb in verbs)):
            return task
    return None


def open_scene(arm: ArmProfile, seed: int, instruction: str = "") -> Scene:
    """The scene of an arm. Raises `InputError` for an arm that has none, and for what another kind of arm can do."""
    reaches, lifts = arm.dof == DOF and not arm.grippers, arm.embodiment in LIFTING
    task = task_of(instruction)
    if not (reaches or lifts):
        raise InputError(
            f"the simulated bench has an FR3 with a pointer or a hand, and one SO-101 or two, not '{arm.name}'"
        )
    if lifts and task == REACH:
        raise InputError(f"'{arm.name}' has a gripper, its scene is for lifting; '{instruction}' needs --arm franka")
    if reaches and task == LIFT:
        raise InputError(f"'{arm.name}' has no gripper; '{instruction}' needs --arm franka_hand or so101")
    return LIFTING[arm.embodiment](arm, seed) if lifts else ReachScene(arm, seed)


def scene_cameras(scene: Scene, names: Sequence[str]) -> tuple[str, ...]:
    """The scene's cameras for a policy's: those of the same names, else the first ones. Raises `InputError`."""
    if set(names) <= set(scene.cameras):
        return tuple(names)
    if len(names) > len(scene.cameras):
        have = ", ".join(scene.cameras)
        raise InputError(f"the bundle sees through {len(names)} cameras, the scene has {have}; give --camera NAME=URL")
    return scene.cameras[: len(names)]


class ReachScene:
    """Three cubes; the pointer's tip is to come to rest above one of them."""

    task, watch_s, cameras = REACH, 0.0, (CAMERA,)

    def __init__(self, arm: ArmProfile, seed: int) -> None:
        self.seed = seed
        self.start = arm.home_rad
        self.placement = Placement.sample(np.random.default_rng(seed))
        self.model = build_model(self.placement)
        self._data = mujoco.MjData(self.model)

    def instruction(self, number: int) -> str:
        return f"reach the {('red', 'green', 'blue')[number % 3]} cube"

    def verdict(self, instruction: str, track: FloatArray) -> BenchVerdict | None:
        target = target_of(instruction)
        if target is None:
            return None
        distance = float(self._distances_m(target, track[-1:])[0])
        reached = distance <= REACHED_M
        text = f"{target} cube {'reached' if reached else 'NOT reached'}, {1000 * distance:.0f} mm from its goal"
        return BenchVerdict(REACH, target, reached, distance, REACHED_M, text, self.seed)

    def hold(self, instruction: str, time_s: FloatArray, track: FloatArray) -> Hold | None:
        target = target_of(instruction)
        if target is None or not len(track):
            return None
        distances = self._distances_m(target, track)
        return Hold.over(time_s, distances, distances <= REACHED_M, REACH)

    def tip_m(self, axes: FloatArray) -> FloatArray:
        """Where the pointer's tip is at joint positions (7,), shape (3,)."""
        self._data.qpos[ARM_QPOS] = axes
        mujoco.mj_kinematics(self.model, self._data)
        return np.array(self._data.site("tip").xpos)

    def _distances_m(self, target: str, track: FloatArray) -> FloatArray:
        goal = self.placement.goal_m(target)
        return np.array([np.linalg.norm(self.tip_m(axes) - goal) for axes in track[:, :DOF]])


class LiftScene:
    """Three objects; the named one is to be held up, and no other."""

    task, watch_s, cameras = LIFT, HELD_S, (CAMERA, WRIST_CAMERA)

    def __init__(self, arm: ArmProfile, seed: int) -> None:
        self.seed, self.layout = seed, layout_of(arm.embodiment)
        self.arrangement = Arrangement.sample(self.layout, np.random.default_rng(seed))
        self.model = build_lift_model(self.layout, self.arrangement)
        posture = ToolKinematics(self.model, self.layout).posture(np.array(self.layout.ready_m))
        self.start = (*map(float, posture), self.layout.grip[0])

    def instruction(self, number: int) -> str:
        return f"pick up the {('red cube', 'green can', 'blue brick')[number % 3]}"

    def verdict(self, instruction: str, track: FloatArray) -> BenchVerdict | None:
        target = named_object(instruction)
        if target is None:
            return None
        height = float(heights_m(self.model, track)[target].min())
        success = lifted(self.model, track, target)
        text = f"{target} {'lifted' if success else 'NOT lifted'}, held {1000 * height:.0f} mm above the table"
        return BenchVerdict(LIFT, target, success, height, LIFTED_M, text, self.seed)

    def hold(self, instruction: str, time_s: FloatArray, track: FloatArray) -> Hold | None:
        target = named_object(instruction)
        if target is None or not len(track):
            return None
        heights = heights_m(self.model, track)[target]
        return Hold.over(time_s, heights, np.array([lifted(self.model, row[None], target) for row in track]), LIFT)


class TrayScene:
    """A tray between two arms; both handles are to be held up, and the tray level."""

    task, watch_s, cameras = LIFT, CARRIED_S, (CAMERA,)

    def __init__(self, arm: ArmProfile, seed: int) -> None:
        self.seed = seed
        self.model = build_tray_model(Place.sample(np.random.default_rng(seed)))
        self.start = ready()

    def instruction(self, number: int) -> str:
        return f"pick up the {TRAY}"

    def verdict(self, instruction: str, track: FloatArray) -> BenchVerdict | None:
        if not self._names_it(instruction):
            return None
        handles = Handles.of(self.model, track)
        height, tilt, success = (
            float(handles.height_m.min()),
            float(handles.tilt_rad.max()),
            bool(handles.carried.all()),
        )
        text = (
            f"{TRAY} {'lifted' if success else 'NOT lifted'}, its lower handle held {1000 * height:.0f} mm above the "
            f"table, {np.degrees(tilt):.0f} degrees from level"
        )
        return BenchVerdict(LIFT, TRAY, success, height, LIFTED_M, text, self.seed)

    def hold(self, instruction: str, time_s: FloatArray, track: FloatArray) -> Hold | None:
        if not self._names_it(instruction) or not len(track):
            return None
        handles = Handles.of(self.model, track)
        return Hold.over(time_s, handles.height_m, handles.carried, LIFT)

    def _names_it(self, instruction: str) -> bool:
        return TRAY in instruction.lower().split()


LIFTING: dict[str, Callable[[ArmProfile, int], Scene]] = {**dict.fromkeys(LAYOUTS, LiftScene), "bi_so101": TrayScene}
"""The scene of each embodiment that lifts."""


def picture(scene: Scene, axes: tuple[float, ...], size_px: int) -> NDArray[np.uint8]:
    """What the scene's first camera sees with the arm at `axes`, uint8 (size, size, 3)."""
    data = mujoco.MjData(scene.model)
    Axes(scene.model).place(data, np.array(axes))
    mujoco.mj_forward(scene.model, data)
    renderer = CameraRenderer(scene.model, size_px)
    try:
        return renderer.render(data)
    finally:
        renderer.close()
