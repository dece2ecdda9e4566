"""Lifting: the scene, what counts as lifted, and the whole chain from a chunk to an object in the air."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from bench.evaluate import EvaluationSettings, evaluate
from edge.arms import load_arm
from edge.cameras import open_camera
from edge.cameras.base import CameraError
from edge.errors import InputError
from edge.log.recorder import Recorder
from edge.log.trace import read_trace, violations
from edge.sim.axes import Axes
from edge.sim.bench import SimulatedBench
from edge.sim.kinematics import ToolKinematics
from edge.sim.lift import FREE_JOINT, LAYOUTS, LIFTED_M, OBJECTS, Arrangement, layout_of, lifted, named_object
from edge.sim.lockstep import LockstepSettings, run_source
from edge.sim.scenes import LiftScene, open_scene
from firmware_bridge.errors import BridgeError
from firmware_bridge.simulator import LockstepDevice, SimulatedArm
from lab.experts.expert_planner import EXPERT_SHAPE, ExpertPlanner
from lab.experts.lift_expert import LiftExpert, Sight
from lab.experts.reach_expert import STEP_S

ARMS = ("franka_hand", "so101")
UNSEEN = 4_000_000


def scene_of(arm: str, seed: int = 0) -> LiftScene:
    scene = open_scene(load_arm(arm), seed)
    assert isinstance(scene, LiftScene)
    return scene


def track(scene: LiftScene, heights: dict[str, float]) -> np.ndarray:
    """A world that stands still, each object at some height."""
    data = mujoco.MjData(scene.model)
    for name, height in heights.items():
        data.qpos[int(scene.model.joint(name).qposadr[0]) + 2] = height
    return np.tile(data.qpos, (26, 1))


@pytest.mark.parametrize(("arm", "episode"), [("franka_hand", 0), ("so101", 1)])
def test_the_expert_lifts_through_runtime_and_firmware(arm: str, episode: int, tmp_path: Path) -> None:
    """Gripper axis, limiter, timing: the expert's chunks lose nothing on their way to the motors."""
    profile, scene, trace = load_arm(arm), scene_of(arm, UNSEEN + episode), tmp_path / "trace.csv"
    task = scene.instruction(episode)
    run = LockstepSettings(task, 5.5, trace=trace)
    outcome = run_source(EXPERT_SHAPE, STEP_S, profile, scene, run, lambda device: ExpertPlanner(scene, task, device))
    assert outcome.stop is None
    assert outcome.verdict is not None and outcome.verdict.success, outcome.verdict
    assert outcome.controller.counters.refused == []
    assert outcome.controller.counters.interventions <= 5
    rows = read_trace(trace)
    assert violations(rows, profile.limits, profile.edges) == []
    (jaw,) = profile.grippers
    assert np.ptp(rows.q[:, jaw]) > 0.5 * abs(np.subtract(*scene.layout.grip))


@pytest.mark.slow  # 50 episodes of each arm, several minutes
@pytest.mark.parametrize("arm", ARMS)
def test_it_lifts_nine_times_in_ten(arm: str) -> None:
    report = evaluate(EvaluationSettings(None, arm, 50))
    assert report.success >= 0.9, [row.verdict.text for row in report.rows if not row.verdict.success]


def test_without_its_gripper_the_expert_lifts_nothing() -> None:
    """The negative control of the chain: the same run with a gripper that is told to stay open."""
    scene, arm = scene_of("franka_hand", UNSEEN), load_arm("franka_hand")
    task = scene.instruction(0)

    class OpenHand(ExpertPlanner):
        def answer(self, request):  # type: ignore[no-untyped-def]
            result = super().answer(request)
            result.increments_rad[:, -1] = 0.0
            return result

    run = LockstepSettings(task, 4.0)
    outcome = run_source(EXPERT_SHAPE, STEP_S, arm, scene, run, lambda device: OpenHand(scene, task, device))
    assert outcome.verdict is not None and not outcome.verdict.success
    assert "NOT lifted" in outcome.verdict.text


@pytest.mark.parametrize("arm", ARMS)
def test_the_simulated_drive_measures_the_axes(arm: str, tmp_path: Path) -> None:
    """What the device says of its axes is what the world says, for a tendon as for a joint."""
    scene = scene_of(arm)
    file = tmp_path / "scene.mjb"
    mujoco.mj_saveModel(scene.model, str(file))
    device = LockstepDevice(SimulatedArm(arm, scene.start, file))
    try:
        device.tick(5)
        np.testing.assert_allclose(Axes(scene.model).read(np.array(device.world())), scene.start, atol=2e-3)
    finally:
        device.close()


def test_a_bench_in_real_time_has_both_cameras_and_a_judge(tmp_path: Path) -> None:
    bench = SimulatedBench(load_arm("so101"), 3, tmp_path, None, task="pick up the red cube")
    try:
        frames = []
        for url in bench.camera_urls(("front", "wrist")):
            camera = open_camera(url, (128, 128))
            frames.append(camera.grab().image)
            camera.close()
        assert frames[0].shape == (128, 128, 3) and (frames[0] != frames[1]).any()
        with pytest.raises(CameraError, match="has no camera 'back'; it has front, wrist"):
            open_camera(f"{bench.camera_url}?camera=back", (128, 128))
        verdict = bench.verdict("pick up the red cube", Recorder(1, 6).samples())
        assert verdict is not None and not verdict.success
        assert verdict.text == "red cube NOT lifted, held 13 mm above the table"
        assert bench.verdict("pick up something", Recorder(1, 6).samples()) is None
    finally:
        bench.close()


def test_an_arm_with_other_axes_than_the_scene_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scene.mjb"
    mujoco.mj_saveModel(scene_of("franka_hand").model, str(file))
    with pytest.raises(BridgeError):
        LockstepDevice(SimulatedArm("franka", load_arm("franka").home_rad, file))
    assert "has 8 actuators, the arm has 7 axes" in capfd.readouterr().err


def test_axes_place_and_read_alike() -> None:
    scene = scene_of("franka_hand")
    data, axes = mujoco.MjData(scene.model), Axes(scene.model)
    before = np.array(data.qpos)
    wanted = np.array([*scene.start[:-1], 0.05])
    axes.place(data, wanted)
    np.testing.assert_allclose(axes.read(data.qpos), wanted)
    assert data.joint("finger_left").qpos[0] == data.joint("finger_right").qpos[0] == pytest.approx(0.025)
    np.testing.assert_array_equal(data.qpos[-FREE_JOINT * len(OBJECTS) :], before[-FREE_JOINT * len(OBJECTS) :])


@pytest.mark.parametrize(
    ("heights", "success"),
    [
        ({"red cube": LIFTED_M + 0.01}, True),
        ({"red cube": LIFTED_M - 0.001}, False),
        ({"green can": LIFTED_M + 0.01}, False),
        ({"red cube": LIFTED_M + 0.01, "green can": LIFTED_M + 0.01}, False),
        ({}, False),
    ],
)
def test_what_counts_as_lifted(heights: dict[str, float], success: bool) -> None:
    scene = scene_of("franka_hand")
    verdict = scene.verdict("pick up the red cube", track(scene, heights))
    assert verdict is not None and verdict.success is success


def test_an_object_that_was_dropped_in_the_last_moment_is_not_lifted() -> None:
    scene = scene_of("franka_hand")
    seen = track(scene, {"red cube": 0.12})
    assert lifted(scene.model, seen, "red cube")
    seen[-1] = track(scene, {"red cube": 0.05})[0]
    assert not lifted(scene.model, seen, "red cube")


@pytest.mark.parametrize("arm", ARMS)
def test_objects_stand_apart_and_in_reach(arm: str) -> None:
    layout, limits = layout_of(load_arm(arm).embodiment), load_arm(arm).operating
    low, high = np.array(limits.position_min_rad)[:-1], np.array(limits.position_max_rad)[:-1]
    kinematics = ToolKinematics(scene_of(arm).model, layout)
    for seed in range(10):
        poses = np.array(Arrangement.sample(layout, np.random.default_rng(seed)).poses)
        gaps = [np.linalg.norm(poses[i, :2] - poses[j, :2]) for i in range(3) for j in range(i)]
        assert min(gaps) >= layout.gap_m
        for x, y, _ in poses:
            for z in (layout.grasp_m, layout.hover_m, layout.raised_m):
                posture = kinematics.posture(np.array([x, y, z]))
                assert np.all((posture > low) & (posture < high)), (x, y, z, posture)
                np.testing.assert_allclose(kinematics.tool_m(posture), [x, y, z], atol=1e-5)
    assert Arrangement.sample(layout, np.random.default_rng(7)) == Arrangement.sample(layout, np.random.default_rng(7))


@pytest.mark.parametrize("arm", ARMS)
def test_near_places_get_near_postures(arm: str) -> None:
    """A kink in the posture would be a jolt in the demonstrations."""
    layout = layout_of(load_arm(arm).embodiment)
    kinematics = ToolKinematics(scene_of(arm).model, layout)
    near, far, aside = layout.area_m
    line = np.linspace([near, -aside, layout.grasp_m], [far, aside, layout.raised_m], 60)
    bends = np.diff([kinematics.posture(place) for place in line], 2, axis=0)
    assert np.abs(bends).max() < 2e-3


def test_a_place_out_of_reach_is_refused() -> None:
    kinematics = ToolKinematics(scene_of("so101").model, LAYOUTS["so101"])
    with pytest.raises(ValueError, match="no posture puts the tool at"):
        kinematics.posture(np.array([0.8, 0.0, 0.1]))


def test_the_expert_opens_again_after_a_grasp_of_nothing() -> None:
    scene = scene_of("franka_hand")
    layout, expert = scene.layout, LiftExpert(scene.model, scene.layout)
    x, y, _ = scene.arrangement.poses[0]
    tool = np.array([x + 0.05, y, layout.grasp_m])
    closed = np.append(expert.kinematics.posture(tool), layout.grip[1])
    sight = Sight(closed, np.zeros(8), closed, np.array([x, y, layout.half_m]))
    goal, grip = expert.intention(tool, sight)
    assert grip == layout.grip[0]
    np.testing.assert_allclose(goal, [tool[0], tool[1], layout.hover_m])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pick up the red cube", "red cube"),
        ("lift the can", "green can"),
        ("grab the blue one", "blue brick"),
        ("lift the red can", None),
        ("lift something", None),
    ],
)
def test_the_object_an_instruction_names(text: str, name: str | None) -> None:
    assert named_object(text) == name


@pytest.mark.parametrize(
    ("arm", "instruction", "message"),
    [
        ("franka", "pick up the red cube", "'franka' has no gripper; .* needs --arm franka_hand or so101"),
        ("so101", "reach the red cube", "'so101' has a gripper, its scene is for lifting; .* needs --arm franka"),
    ],
)
def test_an_instruction_for_another_arm_is_refused(arm: str, instruction: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_scene(load_arm(arm), 0, instruction)


def test_there_is_no_expert_for_reaching() -> None:
    with pytest.raises(InputError, match="an expert for lifting only, and the task here is to reach; give a --bundle"):
        evaluate(EvaluationSettings(None, "franka", 1))


def test_a_task_of_another_arm_is_refused() -> None:
    with pytest.raises(InputError, match="--task lift: the scene of 'franka' is for 'reach'"):
        evaluate(EvaluationSettings(None, "franka", 1, task="lift"))
