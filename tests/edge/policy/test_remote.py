"""A policy behind openpi's protocol: an arm that a server of somebody else's moves, and every way it can fail."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.doors.served import ServedBundle
from edge.errors import InputError
from edge.log.trace import read_trace, violations
from edge.policy.base import PolicyInput, open_policy
from edge.policy.remote import RemoteAxis, RemoteCamera, RemoteSpec, ServerAddress, describe_server
from edge.sim.lockstep import LockstepOutcome, LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene
from tests.openpi_servers import openpi_server, serving
from tests.support import broken_limits

pytestmark = pytest.mark.long  # servers, and timeouts that pass

HORIZON = 16
HANGS_S = 2.0
"""After which a server that hangs is given up; a healthy one on a busy machine answers within it."""
HEALTHY_S = 30.0
"""For servers that go wrong in other ways."""
ARMS = {"franka": "rad", "so101": "deg"}
SPECS = {
    name: RemoteSpec(20.0, HORIZON, {"front": RemoteCamera("observation/image", 96, 96)}, unit=unit, execute=8)
    for name, unit in ARMS.items()
}


class Swings:
    """Moves the first joint to and fro by what is 0.2 rad in the policy's unit; counts its observations."""

    def __init__(self, arm: str) -> None:
        self.size = np.rad2deg(0.2) if ARMS[arm] == "deg" else 0.2
        self.home: np.ndarray | None = None
        self.seen: list[dict[str, Any]] = []

    def __call__(self, observation: dict[str, Any]) -> Any:
        self.seen.append(observation)
        state = observation["observation/state"]
        if self.home is None and np.any(state):
            self.home = state.copy()
        goals = np.tile(state if self.home is None else self.home, (HORIZON, 1))
        phase = 0.35 * (len(self.seen) * 8 + np.arange(HORIZON))
        goals[:, 0] += self.size * np.sin(phase / 2) if self.home is not None else 0.0
        return {"actions": goals}


def _address(port: int, timeout_s: float = 1.0) -> ServerAddress:
    return ServerAddress(f"openpi://127.0.0.1:{port}", timeout_s)


def _run(
    port: int, arm_name: str, folder: Path, duration_s: float = 4.0, timeout_s: float = 1.0, **settings: Any
) -> tuple[LockstepOutcome, Any]:
    arm, task = load_arm(arm_name), "reach the red cube"
    bundle = describe_server(_address(port, timeout_s), arm, task, folder / "bundle", SPECS[arm_name])
    policy = open_policy(bundle, arm.name, task, 1)
    episode = LockstepSettings(task, duration_s, execute_steps=8, seed=1, trace=folder / "trace.csv", **settings)
    outcome = run_lockstep(bundle, arm, policy, open_scene(arm, 3), episode)
    return outcome, read_trace(folder / "trace.csv")


@pytest.mark.parametrize("arm", ARMS)
def test_a_server_of_somebody_elses_moves_the_arm(arm: str, tmp_path: Path) -> None:
    policy = Swings(arm)
    with openpi_server(policy) as port:
        outcome, trace = _run(port, arm, tmp_path)
    assert outcome.stop is None and violations(trace, load_arm(arm).limits) == []
    counters = outcome.controller.counters
    assert len(counters.committed_ids) >= 0.9 * counters.chunks > 5
    assert np.ptp(trace.q[:, 0]) > 0.2, "half of what its goals move"
    last = policy.seen[-1]
    assert last["observation/image"].shape == (96, 96, 3) and last["observation/image"].std() > 1
    assert last["prompt"] == "reach the red cube" and last["observation/state"].shape == (load_arm(arm).dof,)


KINDS = (
    *("ends the connection", "garbage", "an error", "a chunk of another width", "a shorter chunk", "not finite"),
    *("no actions", "text for numbers", "far outside"),
)


def _spoiled(kind: str, after: int = 5) -> Callable[[dict[str, Any]], Any]:
    """A server that goes wrong behind so many good chunks."""
    swings = Swings("franka")

    def answer(observation: dict[str, Any]) -> Any:
        good = swings(observation)
        if len(swings.seen) <= after:
            return good
        if kind == "hangs":
            time.sleep(3 * HANGS_S)
        actions = good["actions"]
        return {
            "ends the connection": None,
            "garbage": b"\xc1\xff garbage",
            "an error": "CUDA out of memory\n" * 50,
            "a chunk of another width": {"actions": actions[:, :3]},
            "a shorter chunk": {"actions": actions[:4]},
            "not finite": {"actions": actions * np.nan},
            "no actions": {"action": actions},
            "text for numbers": {"actions": "up"},
            "far outside": {"actions": actions + 100.0},
            "hangs": good,
        }[kind]

    return answer


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_goes_wrong_ends_the_run_in_order(kind: str, tmp_path: Path) -> None:
    with openpi_server(_spoiled(kind)) as port:
        outcome, trace = _run(port, "franka", tmp_path)
    _judge_end(outcome, trace)


def _judge_end(outcome: LockstepOutcome, trace: Any) -> None:
    assert outcome.stop is not None and len(str(outcome.stop)) < 400 and str(outcome.stop).isprintable()
    assert violations(trace, load_arm("franka").limits) == []
    assert trace.state[-1] in ("HOLD", "IDLE") and np.ptp(trace.q[-50:], axis=0).max() < 1e-6, "at rest"


@pytest.mark.slow  # a run for each end: minutes; `make doors`
def test_every_end_of_a_server_at_any_chunk_is_in_order(tmp_path: Path) -> None:
    draw, kinds = np.random.default_rng(4), (*KINDS, "hangs")
    for number in range(int(os.environ.get("VLA_EDGE_ENDS", "200"))):
        kind, after = kinds[number % len(kinds)], int(draw.integers(2, 9))
        folder = tmp_path / str(number)
        folder.mkdir()
        with openpi_server(_spoiled(kind, after)) as port:
            patience_s = HANGS_S if kind == "hangs" else HEALTHY_S
            outcome, trace = _run(port, "franka", folder, 4.0, patience_s)
        try:
            _judge_end(outcome, trace)
        except AssertionError as broken:
            raise AssertionError(f"{kind} after {after} chunks: {broken}") from None
        shutil.rmtree(folder)
    print(f"\n{number + 1} ends of servers, each in order")


@pytest.mark.slow  # half a minute of simulated motion each; `make doors`
@pytest.mark.parametrize("delay_ms", [20, 100, 300])
@pytest.mark.parametrize("arm", ARMS)
def test_a_slow_network_with_jitter_keeps_every_limit(arm: str, delay_ms: int, tmp_path: Path) -> None:
    with openpi_server(Swings(arm)) as port:
        outcome, trace = _run(port, arm, tmp_path, 10.0, latency_ms=delay_ms, jitter=0.2)
    counters = outcome.controller.counters
    jumps = counters.splice_acceleration
    print(
        f"\n{arm}, {delay_ms} ms: {counters.committed_ids.total} of {counters.chunks} committed, {counters.late} late, "
        f"largest jump {max(jumps):.3f} rad/s^2, least buffer {counters.least_buffer_ms} ms"
    )
    assert outcome.stop is None and broken_limits(trace, load_arm(arm)) == [] and counters.refused.total == 0
    assert counters.committed_ids.total >= 0.9 * counters.chunks > 5 and np.ptp(trace.q[:, 0]) > 0.2


def test_a_server_that_hangs_costs_its_time_and_no_more() -> None:
    def answer(observation: dict[str, Any]) -> Any:
        time.sleep(3.0)
        return {}

    with openpi_server(answer) as port, pytest.raises(InputError, match=r"did not answer within 0\.2 s"):
        began_s = time.monotonic()
        try:
            describe_server(_address(port, 0.2), load_arm("franka"), "x", Path("never-made"), SPECS["franka"])
        finally:
            assert time.monotonic() - began_s < 2.5


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("openpi://127.0.0.1:1", "no policy server answers"),
        ("http://127.0.0.1:1", "openpi://HOST:PORT"),
        ("openpi://no.such.host.invalid:8000", "no policy server answers"),
    ],
)
def test_an_address_without_a_server_is_one_line(url: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=what) as refused:
        describe_server(ServerAddress(url), load_arm("franka"), "x", tmp_path / "bundle", SPECS["franka"])
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 260


def test_a_server_that_does_not_say_what_it_is_has_to_be_described(tmp_path: Path) -> None:
    with openpi_server(Swings("franka")) as port, pytest.raises(InputError, match="--policy-spec"):
        describe_server(_address(port), load_arm("franka"), "x", tmp_path / "bundle", None)


def test_joints_of_another_arm_are_refused(tmp_path: Path) -> None:
    axes = tuple(RemoteAxis(joint) for joint in reversed(load_arm("franka").joints))
    spec = RemoteSpec(20.0, HORIZON, axes=axes)
    with openpi_server(Swings("franka")) as port:
        bundle = describe_server(_address(port), load_arm("franka"), "x", tmp_path / "bundle", spec)
    with pytest.raises(InputError, match="joint 1 of this policy"):
        open_policy(bundle, "franka", "x", 1)


def test_a_bundle_behind_our_own_server_computes_the_same_chunks(bundle_path: Path, tmp_path: Path) -> None:
    """The server says what its numbers mean; history, prefix and noise are those of the policy in place."""
    arm, bundle, task = load_arm("franka"), load_bundle(bundle_path), "reach the blue cube"
    here, draw = open_policy(bundle, arm.name, task, 1), np.random.default_rng(5)
    served = ServedBundle(bundle, arm, "", "onnxruntime", 1, seed=7)
    key = tmp_path / "key"
    key.write_text("a long secret\n")
    with serving(served, "a long secret") as port:
        address = ServerAddress(f"openpi://127.0.0.1:{port}", 20.0, str(key))
        there = open_policy(describe_server(address, arm, task, tmp_path / "bundle", None), arm.name, task, 1)
        with pytest.raises(InputError, match="401"):
            describe_server(ServerAddress(address.url), arm, task, tmp_path / "without", None)
        for number in range(2, 5):
            rows = here.shape.history
            q = arm.home_rad + draw.normal(0, 0.05, (rows, arm.dof))
            committed = np.cumsum(draw.normal(0, 0.005, (3, arm.dof)), axis=0) + q[-1]
            observed = PolicyInput(
                [draw.integers(0, 256, (*camera.frame_px, 3), dtype=np.uint8) for camera in here.cameras],
                q,
                draw.normal(0, 0.01, (rows, arm.dof)),
                np.arange(rows) > 1,
                np.diff(np.concatenate((q[-1:], committed)), axis=0),
                (7, number),  # describing the server took its first chunk
                measured_rad=q[-1:],
                commanded_rad=np.concatenate((q[-1:], committed)),
            )
            goals = q[-1] + np.cumsum(here.infer(observed).increments_rad, axis=0)
            np.testing.assert_allclose(there.infer(observed).goals_rad, goals, atol=1e-5)
