"""Somebody else's policy through the same path: goals of every kind, named cameras, degrees, on the simulated clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, BundleError, load_bundle
from edge.bundle.manifest import ActionKind
from edge.cameras import CameraError, assigned
from edge.cli.run import main as edge_run
from edge.log.trace import read_trace, violations
from edge.policy.base import BundlePolicy, PolicyInput, open_policy
from edge.policy.feeds import prefix_weights
from edge.run.counters import Slow
from edge.sim.lockstep import LockstepOutcome, LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene
from firmware_bridge.codes import MICRO
from tests.foreign_bundle import BRIGHT, FRONT_PX, HORIZON, SO101, TARGET, WRIST_PX, shares_of, write_foreign

KINDS: tuple[ActionKind, ...] = ("position", "position_relative_to_state", "increment")
LOW, HIGH = SO101.stops_rad[-1]
TASK = "pick up the red cube"


def in_degrees(q_rad: np.ndarray) -> np.ndarray:
    """Positions (..., 6) as the policy has them."""
    percent = 100 * (q_rad[..., -1:] - LOW) / (HIGH - LOW)
    return np.concatenate([np.degrees(q_rad[..., :-1]), percent], axis=-1)


def observation(measured_rad: np.ndarray, commanded_rad: np.ndarray, grey: tuple[int, int, int]) -> PolicyInput:
    """`grey`: of the front camera a step ago, of it now, of the wrist camera now."""
    front = np.stack([np.full((*FRONT_PX, 3), level, np.uint8) for level in grey[:2]])
    wrist = np.stack([np.full((*WRIST_PX, 3), level, np.uint8) for level in (200, grey[2])])
    nothing = np.zeros((0, 6))
    return PolicyInput(
        [front, wrist],
        nothing,
        nothing,
        np.zeros(0, np.bool_),
        nothing,
        (3, 7),
        measured_rad=measured_rad,
        commanded_rad=commanded_rad,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_goals_of_every_kind_become_positions_of_the_arm(tmp_path: Path, kind: ActionKind) -> None:
    policy = open_policy(load_bundle(write_foreign(tmp_path / "b", kind)), "so101", "", 1)
    measured = np.array(SO101.home_rad) + 0.01 * np.arange(12).reshape(2, 6)
    commanded = np.array(SO101.home_rad)[None] + 0.002
    output = policy.infer(observation(measured, commanded, (10, 30, 50)))
    now = in_degrees(measured[-1])
    lit = np.array([BRIGHT * (30 - 10), BRIGHT * 50, 0, 0, 0, 0])
    moved = shares_of(HORIZON)[:, None] * (TARGET - now)
    assert output.increments_rad.size == 0
    if kind == "increment":
        along = commanded[0] + np.cumsum(policy_increments(np.diff(moved, axis=0, prepend=0) + lit), axis=0)
        assert output.goals_rad == pytest.approx(along, abs=2e-5)
    else:
        assert in_degrees(output.goals_rad) == pytest.approx(now + moved + lit, abs=2e-5)


def policy_increments(rows: np.ndarray) -> np.ndarray:
    """Rows of increments in degrees and percent, in rad."""
    return np.concatenate([np.radians(rows[:, :-1]), rows[:, -1:] * (HIGH - LOW) / 100], axis=1)


def test_linked_engines_share_one_buffer(tmp_path: Path) -> None:
    from edge.engines import open_engines

    engines = open_engines(load_bundle(write_foreign(tmp_path / "b")), "onnxruntime", 1)
    assert engines["decoder"].inputs["features"] is engines["backbone"].outputs["features"]


def test_noise_is_the_runs_seed(tmp_path: Path) -> None:
    policy = open_policy(load_bundle(write_foreign(tmp_path / "b", noise=0.5)), "so101", "", 1)
    quiet = open_policy(load_bundle(write_foreign(tmp_path / "q")), "so101", "", 1)
    home = np.array(SO101.home_rad)
    seen = observation(np.stack([home, home]), home[None], (0, 0, 0))
    first, again = (policy.infer(seen).goals_rad for _ in range(2))
    noise = in_degrees(first) - in_degrees(quiet.infer(seen).goals_rad)
    drawn = np.random.default_rng((3, 7)).standard_normal((1, *noise.shape), dtype=np.float32)[0]
    assert np.array_equal(first, again) and noise == pytest.approx(0.5 * drawn, abs=1e-4)


def played(folder: Path, trace: Path, duration_s: float = 6.0, **bundle: object) -> tuple[Bundle, LockstepOutcome]:
    bundle_there = load_bundle(write_foreign(folder, **bundle))  # type: ignore[arg-type]
    policy: BundlePolicy = open_policy(bundle_there, "so101", TASK, 1)
    settings = LockstepSettings(TASK, duration_s, execute_steps=10, latency_ms=60, jitter=0.3, seed=4, trace=trace)
    return bundle_there, run_lockstep(bundle_there, SO101, policy, open_scene(SO101, 5, TASK), settings)


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_through_runtime_and_firmware(tmp_path: Path, kind: ActionKind) -> None:
    _, outcome = played(tmp_path / "b", tmp_path / "trace.csv", kind=kind)
    trace, counters = read_trace(tmp_path / "trace.csv"), outcome.controller.counters
    assert outcome.stop is None and violations(trace, SO101.limits) == []
    assert len(counters.committed_ids) >= 0.9 * counters.chunks >= 8 and counters.refused == []
    assert counters.goals.chunks == counters.chunks - counters.late
    last = outcome.controller.last_state
    assert last is not None
    away = TARGET - in_degrees(np.array(last.commanded_urad) * MICRO)
    assert np.abs(away).max() < (8 if kind == "increment" else 4), "increments add up what the cameras move"
    assert counters.pauses.answers <= 2, "the frame of the step before is there"


def test_goals_beyond_the_limits_slow_the_arm_down_and_are_named_as_the_reason(tmp_path: Path) -> None:
    fast = np.array([60.0, -80.0, 70.0, 80.0, -60.0, 95.0])
    _, outcome = played(tmp_path / "b", tmp_path / "trace.csv", 2.0, target=fast)
    changes = outcome.controller.counters.pace_changes
    assert outcome.stop is None and max(changes, key=lambda change: change.spacing_us).why is Slow.GOALS


@pytest.mark.parametrize("ensemble", [1, 3])
def test_a_run_with_averaged_goals_is_replayed_with_them(tmp_path: Path, ensemble: int) -> None:
    bundle = load_bundle(write_foreign(tmp_path / "b", noise=0.5))
    settings = LockstepSettings(TASK, 3.0, execute_steps=5, ensemble=ensemble, log=tmp_path / "run.mcap")
    outcome = run_lockstep(bundle, SO101, open_policy(bundle, "so101", TASK, 1), open_scene(SO101, 5, TASK), settings)
    assert outcome.stop is None and len(outcome.controller.counters.committed_ids) >= 8
    assert edge_run(["--replay", str(tmp_path / "run.mcap")]) == 0


def test_a_start_far_from_the_first_goals_moves_nothing(tmp_path: Path) -> None:
    _, outcome = played(tmp_path / "b", tmp_path / "trace.csv", 2.0, at_once=True)
    assert outcome.stop is not None and "away, and at most" in outcome.stop and "--approach" in outcome.stop
    assert not any(read_trace(tmp_path / "trace.csv").chunk)


@pytest.mark.parametrize(
    ("decay", "wanted"),
    [("linear", [1, 1, 0.75, 0.5, 0.25, 0, 0]), ("exponential", [1, 1, 0.4875, 0.1888, 0.0413, 0, 0])],
)
def test_prefix_weights_fall_from_what_is_committed_to_the_end_of_the_plan(decay: str, wanted: list[float]) -> None:
    assert prefix_weights(7, 2, 5, decay) == pytest.approx(wanted, abs=1e-4)
    assert prefix_weights(4, 0, 0, decay) == pytest.approx([0, 0, 0, 0])
    assert prefix_weights(4, 4, 4, decay) == pytest.approx([1, 1, 1, 1])


def test_an_arm_that_has_other_units_or_joints_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(write_foreign(tmp_path / "b"))
    with pytest.raises(BundleError, match="was trained for so101, not for 'fr3'"):
        open_policy(bundle, "franka", "", 1)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["wrist=v4l2:/dev/video2?size=640x480", "front=pattern:"], ("pattern:", "v4l2:/dev/video2?size=640x480")),
        (["pattern:", "pattern:"], "this bundle sees through 2 cameras; give --camera front=URL --camera wrist=URL"),
        (["v4l2:/dev/video0?fps=30"], "this bundle sees through 2 cameras"),
        (["front=pattern:"], "no --camera for 'wrist'; give --camera front=URL --camera wrist=URL"),
        (["front=pattern:", "front=pattern:"], "camera 'front' is given twice"),
        (["front=pattern:", "top=pattern:"], "this bundle has no camera 'top'"),
        ([], "no --camera for 'front'"),
    ],
)
def test_cameras_are_named(given: list[str], found: tuple[str, ...] | str) -> None:
    if isinstance(found, tuple):
        assert assigned(given, ("front", "wrist")) == found
        return
    with pytest.raises(CameraError, match=found):
        assigned(given, ("front", "wrist"))


def test_a_single_camera_needs_no_name() -> None:
    assert assigned(["v4l2:/dev/video0?fps=30"], ["front"]) == ("v4l2:/dev/video0?fps=30",)
    assert assigned(["front=pattern:"], ["front"]) == ("pattern:",)
