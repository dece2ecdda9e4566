"""The tray of two arms: what counts as lifted, that one arm cannot, and the chain from a chunk to a tray in the air."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from edge.arms import load_arm
from edge.errors import InputError
from edge.log.trace import read_trace, violations
from edge.sim.axes import Axes
from edge.sim.lift import LIFTED_M
from edge.sim.lockstep import LockstepSettings, run_source
from edge.sim.scenes import TrayScene, open_scene
from edge.sim.tray import (
    ASIDE_M,
    HANDLE_M,
    LEVEL_RAD,
    NEAR_M,
    ONE_ARM,
    SIDES,
    TRAY,
    TURN_RAD,
    Handles,
    Place,
    one_arm,
    put_tray,
    to_arm,
)
from lab.experts.expert_planner import EXPERT_SHAPE, ExpertPlanner, play_step
from lab.experts.reach_expert import STEP_S
from lab.experts.tray_expert import TrayExpert

ARM, TASK = load_arm("bi_so101"), "pick up the tray"
UNSEEN = 4_000_000


def scene_of(seed: int) -> TrayScene:
    scene = open_scene(ARM, seed, TASK)
    assert isinstance(scene, TrayScene)
    return scene


def posed(scene: TrayScene, height_m: float, tilt_rad: float, about: str = "y") -> np.ndarray:
    """A world that stands still, the tray's middle at a height and tilted about an axis of its own."""
    data = mujoco.MjData(scene.model)
    first = int(scene.model.joint(TRAY).qposadr[0])
    half = tilt_rad / 2
    turn = np.array([np.cos(half), np.sin(half) * (about == "x"), np.sin(half) * (about == "y"), 0.0])
    data.qpos[first : first + 7] = [0.0, 0.0, height_m, *turn]
    return np.tile(data.qpos, (51, 1))


@pytest.mark.parametrize(
    ("height_m", "tilt_rad", "about", "success"),
    [
        (LIFTED_M + 0.001, 0.0, "y", True),
        (LIFTED_M - 0.001, 0.0, "y", False),
        (LIFTED_M + 0.05, LEVEL_RAD - 0.01, "y", True),
        (LIFTED_M + 0.05, LEVEL_RAD + 0.01, "y", False),
        (LIFTED_M + 0.05, LEVEL_RAD + 0.01, "x", False),
        (LIFTED_M + 0.01, LEVEL_RAD - 0.01, "y", False),
    ],
    ids=["up", "low", "nearly level", "one end down", "turned over", "one handle low"],
)
def test_what_counts_as_lifted(height_m: float, tilt_rad: float, about: str, success: bool) -> None:
    scene = scene_of(0)
    track = posed(scene, height_m, tilt_rad, about)
    verdict = scene.verdict(TASK, track)
    assert verdict is not None and verdict.success is success, verdict
    dropped = scene.verdict(TASK, np.vstack([track, posed(scene, 0.013, 0.0)[:1]]))
    assert dropped is not None and not dropped.success
    assert scene.verdict("pick up the red cube", track) is None


def play(seed: int, sides: tuple[str, ...], steps: int = 70) -> tuple[TrayScene, np.ndarray]:
    """What the expert does with these arms while the others stay where they are: a position a step, (steps, nq)."""
    scene, expert = scene_of(seed), TrayExpert(sides)
    data, axes = mujoco.MjData(scene.model), Axes(scene.model)
    axes.place(data, np.array(scene.start))
    mujoco.mj_forward(scene.model, data)
    command, last, track = np.array(scene.start), np.zeros(ARM.dof), []
    for _ in range(steps):
        last = expert.increments(command, last, axes.read(data.qpos), Handles.of(scene.model, data.qpos))
        play_step(scene.model, data, command, last)
        command = command + last
        track.append(np.array(data.qpos))
    return scene, np.array(track)


@pytest.mark.parametrize("side", SIDES)
def test_one_arm_cannot_lift_it(side: str) -> None:
    """It takes its handle and lifts that, the tray tips, and the other handle never leaves the table."""
    highest = 0.0
    for seed in range(UNSEEN, UNSEEN + 4):
        scene, track = play(seed, (side,))
        handles = Handles.of(scene.model, track).places_m[..., 2]
        own = list(SIDES).index(side)
        highest = max(highest, handles[:, own].max())
        assert handles[:, 1 - own].max() < 0.03, (seed, handles[:, 1 - own].max())
    assert highest > LIFTED_M, "it does lift its own"


def test_two_arms_lift_it_through_runtime_and_firmware(tmp_path: Path) -> None:
    """Twelve axes: the expert's chunks lose nothing on their way to the motors, and every limit is kept."""
    scene, trace = scene_of(UNSEEN + 1), tmp_path / "trace.csv"
    run = LockstepSettings(TASK, 5.0, trace=trace)
    outcome = run_source(EXPERT_SHAPE, STEP_S, ARM, scene, run, lambda device: ExpertPlanner(scene, TASK, device))
    assert outcome.stop is None and outcome.controller.counters.refused == []
    assert outcome.verdict is not None and outcome.verdict.success, outcome.verdict
    rows = read_trace(trace)
    assert violations(rows, ARM.limits, ARM.edges) == []
    assert all(np.ptp(rows.q[:, jaw]) > 0.5 * abs(np.subtract(*ONE_ARM.grip)) for jaw in ARM.grippers)


def test_either_handle_is_in_reach_wherever_the_tray_stands() -> None:
    """At every corner of where it is put, the jaws across the handle, within the operating range."""
    scene, kinematics = scene_of(0), one_arm()
    low, high = (np.array(ends)[:5] for ends in (ARM.operating.position_min_rad, ARM.operating.position_max_rad))
    data = mujoco.MjData(scene.model)
    for corner in np.array(np.meshgrid(*[(-1, 1)] * 3)).reshape(3, -1).T * (NEAR_M, ASIDE_M, TURN_RAD):
        put_tray(scene.model, data, Place(*corner))
        handles = Handles.of(scene.model, data.qpos)
        assert np.linalg.norm(np.diff(handles.places_m, axis=0)) == pytest.approx(2 * HANDLE_M)
        assert handles.along_rad == pytest.approx(corner[2])
        for side, place in zip(SIDES, handles.places_m):
            x, y, _ = to_arm(side, place)
            for z in (ONE_ARM.grasp_m, ONE_ARM.hover_m, ONE_ARM.raised_m):
                posture = kinematics.posture(np.array([x, y, z]), along_rad=float(handles.along_rad))
                assert np.all((posture > low) & (posture < high)), (side, x, y, z, posture)
                np.testing.assert_allclose(kinematics.tool_m(posture), [x, y, z], atol=1e-5)


def test_arms_that_have_no_tray_say_who_has() -> None:
    with pytest.raises(InputError, match="'bi_so101' has a gripper, its scene is for lifting"):
        open_scene(ARM, 0, "reach the red cube")
