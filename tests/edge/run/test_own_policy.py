"""A Python function as the policy, on a simulated clock against the real firmware."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge.errors import InputError, SafetyStop
from edge.inference.process import Inference
from edge.inference.records import PlannerStatus, PlanRequest, PlanResult
from edge.inference.thread import InferenceThread
from edge.log.recorder import Recorder
from edge.log.trace import read_trace
from edge.policy.function_policy import FunctionPolicy, Observation, PolicyEnded, PolicyFunction
from edge.policy.set_points import SetPoints
from edge.run.arm import LEAD_MARGIN_US, ConnectedArm
from edge.run.controller import Controller, ControlSettings
from edge.run.motion import Motion
from edge.run.policies import FunctionSettings
from firmware_bridge.codes import DeviceState
from firmware_bridge.constants import MIN_LEAD_US
from tests.support import FRANKA, HOME, Rig, broken_limits

STEPS, STEP_S = 15, 0.1


class Own:
    """A function on a rig, with a planner that answers 40 ms after the request."""

    def __init__(self, trace: Path, function: PolicyFunction, answer: str = "goals") -> None:
        self.trace_file, self.rig = trace, Rig(trace)
        self.rig.device.tick()
        connected = ConnectedArm.connect(FRANKA, self.rig.client)
        connected.switch_on()
        self.policy = FunctionPolicy(function, 7, STEPS, answer, lambda: self.rig.client.last_state)  # type: ignore[arg-type]
        self._inference = Inference(self.policy, [], 0, lambda: self.rig.host_ns)
        self._waiting: tuple[int, PlanResult] | None = None
        self.ended = self.ending = False
        settings = ControlSettings(5, connected.lead_us())
        recorder = Recorder(10_000, 7)
        self.controller = Controller(
            self.rig.client, self, FRANKA, self.policy.shape, STEP_S, settings, recorder, 40_000
        )
        self.tick = 1

    def request(self, request: PlanRequest) -> None:
        try:
            self._waiting = self.rig.host_ns + 40_000_000, self._inference.answer(request)
        except PolicyEnded:
            self.ended = True

    def result(self) -> PlanResult | None:
        if self._waiting is None or self.rig.host_ns < self._waiting[0]:
            return None
        (_, result), self._waiting = self._waiting, None
        self.ending = len(result.rows_rad) < STEPS
        return result

    def status(self) -> PlannerStatus | None:
        return None

    def go(self, milliseconds: int) -> Own:
        for _ in range(milliseconds // 4):
            self.tick += 1
            self.controller.step(self.rig.host_ns, self.tick)
            self.rig.device.tick(4)
        return self

    def left_us(self) -> float:
        return self.controller.timeline.buffered_us(self.rig.client.link.clock.device_us(self.rig.host_ns))

    def commanded_rad(self) -> np.ndarray:
        return np.array(self.rig.client.wait_for_state().commanded_urad) * 1e-6


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Own]]:
    runs: list[Own] = []

    def begin(*arguments: object) -> Own:
        runs.append(Own(tmp_path / "trace.csv", *arguments))  # type: ignore[arg-type]
        return runs[-1]

    yield begin
    for run in runs:
        run.rig.device.tick(1500)
        run.rig.close()
        assert broken_limits(read_trace(run.trace_file), FRANKA) == []


def swing(observation: Observation) -> np.ndarray:
    time_s = STEP_S * (observation.step + 1 + np.arange(STEPS))
    return HOME + 0.1 * (1 - np.cos(1.5 * time_s))[:, None] * np.ones(7)


def test_goals_are_where_the_arm_is_commanded_to_be_at_the_ends_of_the_steps(start: Callable[..., Own]) -> None:
    run = start(swing).go(4000)
    timeline = run.controller.timeline
    assert run.controller.counters.refused == [] and timeline.last > 30
    for knot in range(20, 31):
        wanted = HOME + 0.1 * (1 - math.cos(1.5 * STEP_S * knot))
        np.testing.assert_allclose(timeline.q_urad(knot) * 1e-6, wanted, atol=2e-3)


def test_increments_are_taken_as_they_are(start: Callable[..., Own]) -> None:
    seen: list[Observation] = []

    def creep(observation: Observation) -> np.ndarray:
        seen.append(observation)
        return np.full((STEPS, 7), 1e-3)

    run = start(creep, "increments").go(2500)
    timeline = run.controller.timeline
    np.testing.assert_allclose((timeline.q_urad(12) - timeline.q_urad(10)) * 1e-6, 2e-3, atol=2e-6)
    last = seen[-1]  # what the function sees is what has been commanded, to a microradian
    np.testing.assert_allclose(last.start_rad, timeline.q_urad(last.step) * 1e-6, atol=2e-6)
    ends = [timeline.q_urad(last.step + 1 + row) * 1e-6 for row in range(len(last.committed_rad))]
    assert ends
    np.testing.assert_allclose(last.committed_rad, ends, atol=2e-6)


def test_what_is_not_finite_is_refused_before_anything_else(start: Callable[..., Own]) -> None:
    def broken(observation: Observation) -> np.ndarray:
        goals = swing(observation)
        if observation.step > 5:
            goals[12, 3] = np.nan
        return goals

    with pytest.raises(SafetyStop, match="not finite of joint 4"):
        start(broken).go(4000)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda observation: np.zeros((STEPS, 6)), r"the answer is \(15, 6\); return \(n, 7\) with n from 1 to 15"),
        (lambda observation: np.zeros((16, 7)), r"the answer is \(16, 7\)"),
        (lambda observation: {}[observation.step], "the function raised KeyError: 0"),
        (lambda observation: "left", "the function raised ValueError"),
    ],
)
def test_a_function_that_fails_stops_the_run(start: Callable[..., Own], answer: PolicyFunction, message: str) -> None:
    run = start(answer)
    with pytest.raises(SafetyStop, match=f"inference failed: .*{message}"):
        run.go(1000)
    assert isinstance(run.policy.error, (ValueError, KeyError))


def test_goals_that_begin_far_from_the_arm_are_refused(start: Callable[..., Own]) -> None:
    with pytest.raises(SafetyStop, match=r"first goal is .* rad away, and at most 0\.1 is allowed"):
        start(lambda observation: np.tile(HOME + 1.0, (STEPS, 1))).go(4000)


def jumps(by_rad: float) -> PolicyFunction:
    goal = HOME + by_rad * (np.arange(7) == 0)
    return lambda observation: np.tile(goal if observation.step > 4 else HOME, (STEPS, 1))


def test_a_jump_becomes_a_motion_within_the_limits(start: Callable[..., Own]) -> None:
    run = start(jumps(0.05)).go(5000)
    np.testing.assert_allclose(run.commanded_rad(), HOME + 0.05 * (np.arange(7) == 0), atol=2e-3)
    assert run.controller.counters.goals.changed > 0


def test_a_jump_that_the_arm_cannot_follow_nearly_enough_is_refused(start: Callable[..., Own]) -> None:
    with pytest.raises(SafetyStop, match=r"5 chunks in a row were refused, .*deviation of joint 1: .* allows 0\.025"):
        start(jumps(0.5)).go(6000)


def test_a_function_that_ends_leaves_the_rest_of_its_plan(start: Callable[..., Own]) -> None:
    """Short answers are short plans: the arm executes them to the end and stops within its limits."""
    run = start(lambda observation: swing(observation)[: 15 - observation.step] if observation.step < 10 else None)
    while not run.ended:
        run.go(20)
    run.controller.run_out("the policy has ended")
    run.go(2000)
    assert run.controller.motion is Motion.HELD and run.rig.device.state == DeviceState.HOLD
    assert run.controller.timeline.last == 15
    assert np.abs(run.commanded_rad() - HOME).max() > 0.1


def points(count: int, first: int = 1) -> list[np.ndarray]:
    return [HOME + 0.05 * (1 - math.cos(0.1 * index)) for index in range(first, first + count)]


def test_set_points_are_followed_to_their_end(start: Callable[..., Own]) -> None:
    with closing(SetPoints(points(40), 7, STEPS)) as ahead:
        run = start(ahead)
        while not run.ended and (not run.ending or run.left_us() > 200_000):
            run.go(20)
    timeline = run.controller.timeline
    run.controller.run_out("the policy has ended")
    run.go(2000)
    assert run.controller.motion is Motion.HELD
    assert run.controller.counters.refused == [] and timeline.last == 40
    np.testing.assert_allclose(timeline.q_urad(40) * 1e-6, points(1, 40)[0], atol=2e-3)


def test_set_points_that_stop_coming_are_waited_for_and_end_with_the_run() -> None:
    hold = threading.Event()

    def stuck() -> Iterator[np.ndarray]:
        yield from points(STEPS)
        hold.wait(10)

    ahead = SetPoints(stuck(), 7, STEPS)
    observation = Observation(3, HOME, HOME, np.zeros((0, 7)), np.zeros((0, 0, 0, 3), np.uint8))
    answered = threading.Event()
    waiting = threading.Thread(target=lambda: (ahead(observation), answered.set()))
    waiting.start()
    assert not answered.wait(0.3)
    ahead.close()
    assert answered.wait(2.0)
    hold.set()
    waiting.join()


def test_set_points_that_cannot_be_are_an_error_where_they_are_taken() -> None:
    ahead = SetPoints([HOME, HOME[:6]], 7, STEPS)
    while not ahead.ready():
        time.sleep(0.01)
    with pytest.raises(ValueError, match=r"a set-point is \(6,\); give \(7,\)"):
        ahead(Observation(0, HOME, HOME, np.zeros((0, 7)), np.zeros((0, 0, 0, 3), np.uint8)))


@pytest.mark.parametrize(
    "arguments", [(0.001, 15, "goals"), (2.0, 15, "goals"), (0.1, 1, "goals"), (0.1, 50, "goals"), (0.1, 15, "poses")]
)
def test_settings_of_a_function_that_cannot_be(arguments: tuple[float, int, str]) -> None:
    with pytest.raises(InputError, match="give"):
        FunctionSettings(*arguments)  # type: ignore[arg-type]


def test_a_latched_fault_is_not_armed_over_and_the_lead_has_a_margin() -> None:
    rig = Rig()
    rig.device.tick()
    connected = ConnectedArm.connect(FRANKA, rig.client)
    rig.client.estop()
    rig.run(50)
    with pytest.raises(SafetyStop, match=r"the device is in ESTOP .*find the cause, then clear it"):
        connected.switch_on()
    assert connected.lead_us() == MIN_LEAD_US + LEAD_MARGIN_US
    rig.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_has_a_reason_and_is_not_started_again() -> None:
    class Broken:
        policy = FunctionPolicy(swing, 7, STEPS, "goals", lambda: None)

        def answer(self, request: PlanRequest) -> PlanResult:
            raise SystemError("nobody catches this")

    with closing(InferenceThread(Broken(), STEP_S, (), lambda planner: planner)) as inference:  # type: ignore[arg-type]
        assert inference.exit_reason() is None
        inference.request(PlanRequest(1, 0, 0, HOME, HOME, np.ones(1, np.bool_), HOME, HOME, HOME))
        deadline = time.monotonic() + 5
        while inference.exit_reason() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert inference.exit_reason() == "the policy's thread has ended by itself"
        with pytest.raises(SafetyStop, match="cannot be started again"):
            inference.restart()
