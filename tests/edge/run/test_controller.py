"""The control loop's decisions, on a simulated clock against the real firmware, with a scripted policy."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from edge.bundle import ChunkShape
from edge.errors import SafetyStop
from edge.inference.records import Outcome, PlannerStatus, PlanRequest, PlanResult
from edge.log.recorder import Recorder
from edge.log.trace import Trace, read_trace
from edge.plan.replanner import ControlSettings
from edge.plan.timeline import START_SHARES
from edge.run.controller import Controller
from edge.run.counters import PaceChange, Slow
from firmware_bridge.codes import DeviceState
from tests.support import FRANKA, HOME, Rig, broken_limits

SHAPE = ChunkShape(horizon=15, history=15, max_delay=6)
STEP_S = 0.1
LEAD_US = 30_000
Script = Callable[[PlanRequest], np.ndarray]


def wave(request: PlanRequest) -> np.ndarray:
    """Increments of a smooth swing that depend on the step alone, so that all chunks agree."""
    steps = request.step + np.arange(16)
    position = 0.1 * (1 - np.cos(0.25 * steps))[:, None] * np.ones(7)
    return np.diff(position, axis=0)


@dataclass
class ScriptedPlanner:
    """Answers after a delay on the host's simulated clock."""

    rig: Rig
    script: Script
    latency_us: Callable[[int], int]

    def __post_init__(self) -> None:
        self.requests: list[PlanRequest] = []
        self._waiting: tuple[int, PlanResult] | None = None

    def request(self, request: PlanRequest) -> None:
        self.requests.append(request)
        ready_ns = self.rig.host_ns + 1000 * self.latency_us(request.id)
        self._waiting = (
            ready_ns,
            PlanResult(
                request.id, Outcome.CHUNK, "", 1, np.array([2, 3, 4]), 0, self.script(request), np.zeros((0, 7))
            ),
        )

    def result(self) -> PlanResult | None:
        if self._waiting is None or self.rig.host_ns < self._waiting[0]:
            return None
        _, result = self._waiting
        self._waiting = None
        return result

    def status(self) -> PlannerStatus | None:
        return None


class Run:
    """A controller on a rig."""

    def __init__(
        self,
        trace: Path,
        script: Script = wave,
        latency_us: Callable[[int], int] = lambda _: 40_000,
        may_starve: bool = False,
    ) -> None:
        self.trace_file = trace
        self.rig = Rig(trace).armed()
        self.planner = ScriptedPlanner(self.rig, script, latency_us)
        settings, recorder = ControlSettings(5, LEAD_US, may_starve), Recorder(10_000, 7)
        self.controller = Controller(
            self.rig.client, self.planner, FRANKA, SHAPE, STEP_S, settings, recorder, latency_us(0)
        )
        self.tick = 1

    def go(self, milliseconds: int, period_ms: int = 4) -> None:
        for _ in range(milliseconds // period_ms):
            self.tick += 1
            self.controller.step(self.rig.host_ns, self.tick)
            self.rig.device.tick(round(period_ms * self.rig.rate))

    def stall(self, milliseconds: int) -> None:
        """The control process does not run; the device does."""
        self.rig.device.tick(milliseconds)
        self.tick += milliseconds // 4

    def end(self) -> Trace:
        """Lets the arm come to rest; whatever happened, it has broken no limit."""
        self.rig.device.tick(1500)
        self.rig.close()
        trace = read_trace(self.trace_file)
        assert broken_limits(trace, FRANKA) == []
        return trace


AnyRun = TypeVar("AnyRun", bound=Run)


@contextmanager
def ended(make: Callable[..., AnyRun]) -> Iterator[Callable[..., AnyRun]]:
    """Starts runs, and ends them all."""
    runs: list[AnyRun] = []

    def start(*arguments: object, **named: object) -> AnyRun:
        runs.append(make(*arguments, **named))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    with ended(partial(Run, tmp_path / "trace.csv")) as start:
        yield start


def test_chunks_are_joined_without_the_limiter_noticing(start: Callable[..., Run]) -> None:
    run = start()
    run.go(8000)
    counters = run.controller.counters
    assert len(counters.committed_ids) == counters.chunks >= 15
    assert (counters.late, counters.refused, counters.interventions) == (0, [], 0)
    assert max(counters.splice_acceleration) < 0.05
    assert counters.least_buffer_ms > 300


def test_the_first_request_says_that_the_arm_stands_still(start: Callable[..., Run]) -> None:
    run = start()
    run.go(100)
    first = run.planner.requests[0]
    assert first.step == 0 and len(first.prefix_rad) == 0 and first.mask.all()
    assert first.states_rad == pytest.approx(np.tile(HOME, (15, 1)), abs=1e-6)
    assert np.all(first.actions_rad == 0)


def test_history_and_prefix_are_what_was_and_will_be_executed(start: Callable[..., Run]) -> None:
    run = start()
    run.go(6000)
    request = run.planner.requests[-1]
    steps = np.arange(request.step - 15, request.step + len(request.prefix_rad) + 1)
    position = HOME + 0.1 * (1 - np.cos(0.25 * steps))[:, None]
    increments = np.diff(position, axis=0)
    first = 0.1 * -np.diff(np.cos(0.25 * np.arange(len(START_SHARES) + 1)))
    position -= first @ (1 - START_SHARES)  # what the soft start kept back
    assert request.states_rad == pytest.approx(position[:15], abs=5e-4)  # the measured arm lags by a tick
    assert request.actions_rad == pytest.approx(increments[:15], abs=2e-6)
    assert len(request.prefix_rad) == 1
    assert request.prefix_rad == pytest.approx(increments[15:], abs=2e-6)


def test_slower_inference_commits_a_longer_prefix(start: Callable[..., Run]) -> None:
    run = start(latency_us=lambda _: 320_000)
    run.go(8000)
    assert {len(request.prefix_rad) for request in run.planner.requests[1:]} == {4}
    assert run.controller.counters.late == 0
    assert run.controller.counters.interventions == 0


@pytest.mark.parametrize("latency_ms", [0, 50, 100, 200, 400])
def test_no_starvation_and_no_jump_at_any_latency_the_horizon_allows(
    start: Callable[..., Run], latency_ms: int
) -> None:
    draw = random.Random(latency_ms)
    run = start(latency_us=lambda _: round(latency_ms * draw.uniform(750, 1250)))
    run.go(12000)
    counters = run.controller.counters
    assert counters.least_buffer_ms > 200
    assert (counters.refused, counters.interventions) == ([], 0)
    assert counters.late <= 3
    if not counters.retimed:
        assert max(counters.splice_acceleration) < 0.05
    else:
        assert latency_ms == 400, "only there two late answers in a row leave too little of the plan"


@pytest.mark.parametrize("latency_ms", [600, 800, 1500, 3000])
def test_a_latency_beyond_the_horizon_slows_the_motion_down(start: Callable[..., Run], latency_ms: int) -> None:
    """Known before the start, it costs speed and nothing else: no stop, no jump, no late chunk."""
    run = start(latency_us=lambda _: 1000 * latency_ms)
    run.go(16000)
    counters = run.controller.counters
    assert (counters.refused, counters.interventions, counters.late) == ([], 0, 0)
    assert counters.least_buffer_ms > 300
    assert [change.spacing_us for change in counters.pace_changes] == [math.ceil(1000 * (latency_ms + 30) / 5.75)]
    assert slowest(run).why is Slow.LATENCY
    assert max(counters.splice_acceleration) < 0.05


def test_a_sudden_stall_slows_the_motion_down_and_it_comes_back(start: Callable[..., Run]) -> None:
    run = start(latency_us=lambda request: 1_000_000 if request == 6 else 40_000)
    run.go(30000)
    counters = run.controller.counters
    assert (counters.refused, counters.interventions, counters.late) == ([], 0, 1)
    spacings = [change.spacing_us for change in counters.pace_changes]
    assert max(spacings) >= 300_000 and spacings[-1] == 100_000
    assert counters.retimed >= 2 and counters.least_buffer_ms > 300


def test_a_stall_that_does_not_end_ends_in_a_controlled_stop(start: Callable[..., Run]) -> None:
    run = start(latency_us=lambda request: 60_000_000 if request == 6 else 40_000)
    with pytest.raises(SafetyStop, match="buffer empty"):
        run.go(30000)
    run.rig.device.tick(500)
    assert run.rig.device.state == DeviceState.HOLD
    assert run.controller.counters.interventions == 0
    assert slowest(run).spacing_us == 800_000 and slowest(run).why is Slow.LATE


def test_an_early_answer_waits_until_the_device_has_room(start: Callable[..., Run]) -> None:
    """A long prefix and a fast answer: the plan before it has not been spliced yet."""
    run = start(latency_us=lambda request: 550_000 if request in (0, 3) else 5_000)
    run.go(6000)
    assert run.controller.counters.refused == []
    assert max(len(request.prefix_rad) for request in run.planner.requests) == 6


def test_a_chunk_that_comes_too_late_is_dropped_and_the_next_one_expects_it(start: Callable[..., Run]) -> None:
    run = start(latency_us=lambda request: 250_000 if request == 6 else 40_000)
    run.go(8000)
    counters = run.controller.counters
    assert counters.late == 1
    assert counters.interventions == 0
    late = next(index for index, request in enumerate(run.planner.requests) if request.id == 6)
    assert len(run.planner.requests[late].prefix_rad) == 1
    assert len(run.planner.requests[late + 1].prefix_rad) == 3


def test_nan_ends_the_run_before_anything_moves(start: Callable[..., Run]) -> None:
    def broken(request: PlanRequest) -> np.ndarray:
        chunk = wave(request)
        chunk[7, 2] = np.nan
        return chunk

    run = start(script=broken)
    with pytest.raises(SafetyStop, match="not finite of joint 3 at knot 7: the policy gave nan"):
        run.go(500)
    run.rig.device.tick(1000)
    run.rig.device.flush()
    assert np.ptp(read_trace(run.trace_file).q) == np.ptp(read_trace(run.trace_file).q[0])


def test_nan_in_mid_run_stops_the_arm_within_its_limits(start: Callable[..., Run]) -> None:
    def breaks_later(request: PlanRequest) -> np.ndarray:
        return wave(request) * (np.inf if request.id == 5 else 1.0)

    run = start(script=breaks_later)
    with pytest.raises(SafetyStop, match="not finite"):
        run.go(8000)
    run.rig.client.stop()
    run.rig.device.tick(500)
    assert run.rig.device.state == DeviceState.HOLD


def test_a_policy_that_wants_too_much_is_refused_and_ends_the_run(start: Callable[..., Run]) -> None:
    run = start(script=lambda request: np.full((15, 7), 0.5))
    with pytest.raises(SafetyStop, match=r"5 chunks in a row were refused.*(velocity|acceleration|position) of joint"):
        run.go(5000)
    assert run.rig.device.state == DeviceState.ARMED


def test_one_refused_chunk_does_not_end_the_run(start: Callable[..., Run]) -> None:
    run = start(script=lambda request: wave(request) * (20 if request.id == 4 else 1))
    run.go(6000)
    assert len(run.controller.counters.refused) == 1
    assert run.controller.counters.interventions == 0


def test_a_stall_of_80_ms_is_invisible(start: Callable[..., Run]) -> None:
    run = start()
    run.go(3000)
    run.stall(80)
    run.go(3000)
    assert run.controller.counters.interventions == 0
    assert run.controller.counters.refused == []
    assert run.rig.device.state == DeviceState.STREAMING


def test_a_stall_of_2_s_ends_in_a_stop_that_stays(start: Callable[..., Run]) -> None:
    run = start()
    run.go(3000)
    run.stall(2000)
    with pytest.raises(SafetyStop, match=r"\(heartbeat lost\); the host was silent"):
        run.go(500)
    run.rig.device.tick(1000)
    assert run.rig.device.state == DeviceState.HOLD


def test_inference_that_stops_answering_starves_the_buffer_and_says_so(start: Callable[..., Run]) -> None:
    run = start(latency_us=lambda request: 10**9 if request > 5 else 40_000)
    with pytest.raises(SafetyStop, match=r"\(buffer empty\); no new chunk came in time"):
        run.go(10_000)


def test_a_failure_in_inference_is_told_in_its_own_words(start: Callable[..., Run]) -> None:
    run = start()
    answering(run, lambda request: request == 3, Outcome.FAILED, "lens fell off")
    with pytest.raises(SafetyStop, match="inference failed: lens fell off"):
        run.go(4000)


def answering(run: Run, chosen: Callable[[int], bool], outcome: Outcome, message: str) -> None:
    """Some of the policy's answers bring no chunk, but this outcome and its message."""
    original = run.planner.result

    def result() -> PlanResult | None:
        answer = original()
        if answer is None or not chosen(answer.id):
            return answer
        return PlanResult.untimed(answer.id, outcome, np.full((15, 7), np.nan), message)

    run.planner.result = result  # type: ignore[method-assign]


def slowest(run: Run) -> PaceChange:
    return max(run.controller.counters.pace_changes, key=lambda change: change.spacing_us)


def pausing(run: Run, paused: Callable[[int], bool]) -> None:
    """Some of the policy's answers become pauses."""
    answering(run, paused, Outcome.PAUSED, "camera 2 (file:x) is stale; fix")


def test_a_pause_that_ends_in_time_is_only_counted(start: Callable[..., Run]) -> None:
    run = start()
    pausing(run, lambda request: 4 <= request < 8 or request == 10)
    run.go(8000)
    counters = run.controller.counters
    assert counters.pauses.answers == 5
    assert counters.pauses.reasons == {"camera 2 (file:x) is stale; fix": 2}
    assert counters.pauses.reason is None
    asked = [request.step for request in run.planner.requests]
    assert asked[3:8] == list(range(asked[3], asked[3] + 5)), "each step asks again"
    assert 400_000 < counters.pauses.ended_us < 600_000
    assert run.rig.device.state == DeviceState.STREAMING
    assert (counters.late, counters.refused, counters.interventions) == (0, [], 0)


def test_a_pause_that_lasts_ends_in_a_stop_that_names_the_camera(start: Callable[..., Run]) -> None:
    run = start()
    pausing(run, lambda request: request >= 4)
    with pytest.raises(SafetyStop, match=r"\(buffer empty\); the policy was paused: camera 2 \(file:x\) is stale; fix"):
        run.go(8000)
    assert run.controller.counters.pauses.answers >= 5
    assert slowest(run).why is Slow.PAUSED, "not the inference, which answered in time"
    run.rig.device.tick(1000)
    assert run.rig.device.state == DeviceState.HOLD


def test_a_pause_before_the_first_motion_ends_the_run(start: Callable[..., Run]) -> None:
    run = start()
    pausing(run, lambda request: True)
    with pytest.raises(SafetyStop, match=r"paused before the arm moved: camera 2 \(file:x\) is stale"):
        run.go(8000)
    assert run.rig.device.state == DeviceState.ARMED
    assert 25 <= len(run.planner.requests) <= 51, "asks about once a step"


def test_the_age_of_the_frame_counts(start: Callable[..., Run]) -> None:
    run = start()
    original = run.planner.result

    def result() -> PlanResult | None:
        answer = original()
        if answer is None:
            return None
        sent_ns = run.planner.requests[-1].sent_ns
        age_ns = 30_000_000 if answer.id % 2 else -5_000_000  # captured before the request, or after it
        return replace(answer, captured_ns=sent_ns - age_ns)

    run.planner.result = result  # type: ignore[method-assign]
    run.go(3000)
    ages = run.controller.counters.frame_age_us
    assert len(ages) == run.controller.counters.chunks == len(run.controller.counters.latency_us)
    assert set(ages[::2]) == {30_000} and set(ages[1::2]) == {0}


def test_a_lost_commit_answer_is_asked_for_again(start: Callable[..., Run]) -> None:
    run = start()
    run.go(1000)
    device = run.rig.device
    original, dropped = device.read, []

    def lossy() -> bytes:
        data = original()
        if data and len(dropped) < 3 and run.rig.client.commit_pending:
            dropped.append(data)
            return b""
        return data

    device.read = lossy  # type: ignore[method-assign]
    run.go(5000)
    assert dropped
    assert run.controller.counters.interventions == 0
    assert run.rig.device.state == DeviceState.STREAMING
