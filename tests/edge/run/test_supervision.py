"""Losing inference, pausing and resuming, against the real firmware on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge.errors import SafetyStop
from edge.inference.records import Phase, Planner, PlannerStatus
from edge.log.trace import read_trace
from edge.run.commands import Command, CommandQueue
from edge.run.motion import DeviceReport, Event, Motion, MotionMachine
from edge.run.supervision import OnLoss, Supervisor
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.simulator import SimulatedFault
from tests.edge.run.test_controller import Run, ScriptedPlanner, ended, pausing, wave

NEVER_US = 10**12


class ReadyPlanner(ScriptedPlanner):
    """Says after a while that it is warm."""

    ready = False

    def status(self) -> PlannerStatus | None:
        if not self.ready:
            return None
        self.ready = False
        return PlannerStatus(Phase.READY, 1, 50_000_000, 40_000_000, "")


class FakeInference:
    """A process that the test ends."""

    def __init__(self, run: Supervised) -> None:
        self.run = run
        self.why_gone: str | None = None
        self.restarts = 0

    def exit_reason(self) -> str | None:
        return self.why_gone

    def restart(self) -> Planner:
        self.restarts += 1
        self.why_gone = None
        return self.run.with_new_planner()


class Supervised(Run):
    """A controller on a rig, with its supervisor."""

    def __init__(self, trace: Path, on_loss: OnLoss = OnLoss.WAIT, **arguments: object) -> None:
        super().__init__(trace, may_starve=on_loss is OnLoss.WAIT, **arguments)  # type: ignore[arg-type]
        self.commands, self.inference, self.told = CommandQueue(), FakeInference(self), list[str]()
        self.supervisor = Supervisor(self.controller, self.inference, self.commands, on_loss, self.told.append)

    def with_new_planner(self) -> Planner:
        self.planner = ReadyPlanner(self.rig, wave, lambda _: 40_000)
        return self.planner

    def go(self, milliseconds: int, period_ms: int = 4) -> None:
        for index in range(milliseconds // period_ms):
            super().go(period_ms, period_ms)
            if index % 5 == 0:
                self.supervisor.step(self.rig.device.now_us * 1000, self.tick)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    with ended(partial(Supervised, tmp_path / "trace.csv")) as start:
        yield start


def moved_rad(run: Supervised, milliseconds: int) -> float:
    run.rig.device.flush()
    before = len(read_trace(run.trace_file).q)
    run.go(milliseconds)
    run.rig.device.flush()
    return float(np.ptp(read_trace(run.trace_file).q[before:], axis=0).max())


def test_a_killed_process_ends_the_plan_and_then_the_run(start: Callable[..., Supervised]) -> None:
    run = start(OnLoss.END)
    run.go(2020)
    executed_to = run.controller.timeline.last
    run.inference.why_gone = "the inference process ended by itself (killed by SIGKILL)"
    with pytest.raises(SafetyStop, match=r"killed by SIGKILL\); the arm has come to rest"):
        run.go(4000)
    assert run.controller.timeline.last == executed_to
    assert run.controller.timeline.step_at(run.controller.client.link.clock.device_us(run.rig.device.now_us * 1000))
    assert run.rig.device.state == DeviceState.HOLD
    assert run.controller.counters.interventions == 0


def test_a_hung_process_is_noticed_within_two_periods(start: Callable[..., Supervised]) -> None:
    run = start(OnLoss.END, latency_us=lambda request: NEVER_US if request == 4 else 40_000)
    with pytest.raises(SafetyStop, match=r"inference has not answered for 1\.\d s"):
        run.go(12000)
    requested_ns = next(request.sent_ns for request in run.planner.requests if request.id == 4)
    noticed_s = (run.supervisor.losses[0].at_ns - requested_ns) / 1e9
    replan_s = 0.5
    assert 2 * replan_s < noticed_s < 2 * replan_s + 0.03


def test_it_is_started_again_and_nothing_moves_until_it_is_told_to(start: Callable[..., Supervised]) -> None:
    run = start(OnLoss.WAIT)
    run.go(2020)
    run.inference.why_gone = "the inference process ended by itself (exit 1)"
    run.go(3000)
    assert run.controller.motion is Motion.HELD and run.rig.device.state == DeviceState.HOLD
    assert run.inference.restarts == 1
    run.commands.put(Command.START)
    run.go(1000)
    assert run.rig.device.state == DeviceState.HOLD, "inference is not ready: the word is not kept for later"
    assert isinstance(run.planner, ReadyPlanner)
    run.planner.ready = True
    assert moved_rad(run, 2000) == 0.0
    assert run.told[-2:] == ["inference is back", "the arm is at rest and waits for the start command"]
    run.commands.put(Command.START)
    assert moved_rad(run, 3000) > 0.05
    assert run.controller.motion is Motion.RUNNING
    assert run.controller.counters.interventions == 0
    assert len(run.supervisor.losses) == 1


def test_a_start_that_fails_is_tried_again_and_not_forever(start: Callable[..., Supervised]) -> None:
    run = start(OnLoss.WAIT)
    run.go(2020)
    run.inference.why_gone = "the inference process ended by itself (exit 1)"
    run.go(3000)
    for starts in (2, 3):
        run.inference.why_gone = f"killed for the {starts}. time"
        run.go(100)
        assert run.inference.restarts == starts
        assert run.rig.device.state == DeviceState.HOLD
    assert len(run.supervisor.losses) == 1, "the arm was at rest all the time"
    run.inference.why_gone = "killed for the last time"
    with pytest.raises(SafetyStop, match=r"not be started again in 3 attempts, the last: killed for the last time"):
        run.go(100)


def test_every_loss_has_its_own_attempts(start: Callable[..., Supervised]) -> None:
    run = start(OnLoss.WAIT)
    run.go(2020)
    for _ in range(4):
        run.inference.why_gone = "the inference process ended by itself (exit 1)"
        run.go(3000)
        assert isinstance(run.planner, ReadyPlanner)
        run.planner.ready = True
        run.go(100)
        run.commands.put(Command.START)
        run.go(2000)
        assert run.controller.motion is Motion.RUNNING
    assert run.inference.restarts == 4


def test_a_pause_is_a_controlled_stop_and_starts_again_on_a_word(start: Callable[..., Supervised]) -> None:
    run = start()
    run.go(2020)
    run.commands.put(Command.PAUSE)
    run.go(600)
    assert run.controller.motion is Motion.HELD
    assert moved_rad(run, 2000) == 0.0
    run.commands.put(Command.START)
    assert moved_rad(run, 3000) > 0.05
    first = next(request for request in run.planner.requests if request.sent_ns > 4.5e9)
    assert first.step == 0 and np.all(first.actions_rad == 0), "the history begins at rest again"


def test_a_pause_before_the_first_chunk(start: Callable[..., Supervised]) -> None:
    run = start(latency_us=lambda _: NEVER_US)
    run.go(100)
    run.commands.put(Command.PAUSE)
    run.go(600)
    assert run.controller.motion is Motion.HELD


def test_a_stop_at_rest_whose_tick_is_behind_its_message(start: Callable[..., Supervised]) -> None:
    """After a hold-up ticks are late: DECEL bears the time of the STOP, HOLD that of an earlier tick."""
    run = start(latency_us=lambda _: NEVER_US)
    run.go(100)
    device = run.rig.device
    device.write = lambda data, channel=0: device._library.ve_sim_receive(  # type: ignore[method-assign]
        device._sim, channel, data, len(data), device.now_us + 10_000
    )
    run.commands.put(Command.PAUSE)
    run.go(600)
    assert run.controller.motion is Motion.HELD


def test_inference_that_is_lost_before_the_first_chunk_ends_the_run(start: Callable[..., Supervised]) -> None:
    run = start(OnLoss.END, latency_us=lambda _: NEVER_US)
    run.go(100)
    run.inference.why_gone = "gone"
    with pytest.raises(SafetyStop, match="gone"):
        run.go(1000)


def test_a_plan_that_runs_out_leaves_the_arm_held_until_the_word(start: Callable[..., Supervised]) -> None:
    """As when a camera fails: inference is there, and gives no chunk."""
    run, blind = start(), [True]
    run.go(2020)
    pausing(run, lambda _: blind[0])
    run.go(3000)
    assert run.controller.motion is Motion.HELD and run.rig.device.state == DeviceState.HOLD
    assert run.told == ["the arm is at rest and waits for the start command"]
    blind[0] = False
    assert moved_rad(run, 1000) == 0.0
    run.commands.put(Command.START)
    assert moved_rad(run, 3000) > 0.05


def test_an_emergency_stop_overrides_all_else(start: Callable[..., Supervised]) -> None:
    run = start()
    run.go(2020)
    run.commands.put(Command.START)
    run.commands.put(Command.STOP)
    run.commands.put(Command.ESTOP)
    with pytest.raises(SafetyStop, match="emergency stop by the operator"):
        run.go(20)
    run.rig.device.tick(1000)
    assert run.rig.device.state == DeviceState.ESTOP


def test_a_watchdog_ends_the_run_also_while_it_is_held(start: Callable[..., Supervised]) -> None:
    run = start()
    run.go(2020)
    run.commands.put(Command.PAUSE)
    run.go(600)
    with pytest.raises(SafetyStop, match="feedback"):
        run.rig.device.fault(SimulatedFault.FEEDBACK_LOST, 1)
        run.go(1000)


MOVES = {DeviceState.ARMED, DeviceState.STREAMING}
STOPS = {DeviceState.DECEL, DeviceState.HOLD}
EXPECTED = {
    Motion.RUNNING: MOVES,
    Motion.ENDING: MOVES | STOPS,
    Motion.STOPPING: MOVES | STOPS,
    Motion.HELD: {DeviceState.HOLD},
    Motion.RESUMING: {DeviceState.HOLD, DeviceState.ARMED},
}
REACHED_BY: dict[Motion, tuple[Event | DeviceReport, ...]] = {
    Motion.RUNNING: (),
    Motion.ENDING: (Event.RUN_OUT,),
    Motion.STOPPING: (Event.PAUSE,),
    Motion.HELD: (Event.PAUSE, DeviceReport(DeviceState.HOLD, StopReason.HOST_STOP)),
    Motion.RESUMING: (Event.PAUSE, DeviceReport(DeviceState.HOLD, StopReason.HOST_STOP), Event.RESUME),
}


def machine_in(motion: Motion, may_starve: bool = False) -> MotionMachine:
    machine = MotionMachine(may_starve)
    for event in REACHED_BY[motion]:
        assert machine.update(event)
    assert machine.motion is motion
    return machine


@pytest.mark.parametrize("motion", Motion)
@pytest.mark.parametrize("state", [*DeviceState, 99])
@pytest.mark.parametrize("reason", [*StopReason, 99])
def test_every_report_is_either_expected_or_ends_the_run(motion: Motion, state: int, reason: int) -> None:
    machine = machine_in(motion)
    planned = reason in (StopReason.NONE, StopReason.BUFFER_EMPTY, StopReason.HOST_STOP)
    if state not in EXPECTED[motion] or (state in STOPS and not planned):
        with pytest.raises(SafetyStop):
            machine.update(DeviceReport(state, reason))
        assert machine.motion is motion
        return
    machine.update(DeviceReport(state, reason))
    if motion is Motion.RESUMING and state == DeviceState.ARMED:
        assert machine.motion is Motion.RUNNING
    elif motion in (Motion.ENDING, Motion.STOPPING) and state == DeviceState.HOLD:
        assert machine.motion is Motion.HELD
    else:
        assert machine.motion is motion


@pytest.mark.parametrize("motion", Motion)
@pytest.mark.parametrize("command", [Event.PAUSE, Event.RUN_OUT, Event.RESUME])
def test_a_command_acts_where_the_table_has_it_and_nowhere_else(motion: Motion, command: Event) -> None:
    acts = {
        (Motion.RUNNING, Event.PAUSE): Motion.STOPPING,
        (Motion.ENDING, Event.PAUSE): Motion.STOPPING,
        (Motion.RUNNING, Event.RUN_OUT): Motion.ENDING,
        (Motion.HELD, Event.RESUME): Motion.RESUMING,
    }
    machine = machine_in(motion)
    assert machine.update(command) is ((motion, command) in acts)
    assert machine.motion is acts.get((motion, command), motion)


@pytest.mark.parametrize("reason", StopReason)
def test_only_an_empty_buffer_may_be_forgiven(reason: StopReason) -> None:
    for state, after in ((DeviceState.DECEL, Motion.ENDING), (DeviceState.HOLD, Motion.HELD)):
        machine = machine_in(Motion.RUNNING, may_starve=True)
        if reason is StopReason.BUFFER_EMPTY:
            assert machine.update(DeviceReport(state, reason)) and machine.motion is after
        else:
            with pytest.raises(SafetyStop):
                machine.update(DeviceReport(state, reason))
