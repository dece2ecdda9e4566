"""Reports that cannot be true end a run with the reason, whichever field says it; those of a sound device never do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from edge.errors import SafetyStop
from edge.log.recorder import Recorder
from edge.plan.replanner import ControlSettings
from edge.run.arm import ConnectedArm
from edge.run.controller import Controller
from edge.run.plausible import ReportJudge
from firmware_bridge.clock_sync import ClockSync
from firmware_bridge.codes import DeviceState
from firmware_bridge.framing import Frame, FrameReader, encode_frame
from firmware_bridge.link import LOST_AT_ONCE, OVERTAKEN_BY
from firmware_bridge.messages import StateReport
from firmware_bridge.simulator import LockstepDevice, SimulatedArm
from tests.edge.run.test_controller import LEAD_US, SHAPE, STEP_S, ScriptedPlanner, wave
from tests.support import FRANKA, Rig

Tamper = Callable[[Frame], list[Frame]]
NOTICED_MS = 40


class HostileLine(LockstepDevice):
    """The simulated device, behind a line on which somebody writes frames of his own: sound ones, of this session."""

    tamper: Tamper | None = None

    def __init__(self, arm: SimulatedArm) -> None:
        super().__init__(arm)
        self._reader = FrameReader()

    def read(self) -> bytes:
        data = super().read()
        if self.tamper is None:
            return data
        frames = [made for frame in self._reader.feed(data) for made in self.tamper(frame)]
        return b"".join(encode_frame(frame.session, frame.sequence, frame.message) for frame in frames)


class Run:
    """A controller in front of such a line, streaming."""

    def __init__(self) -> None:
        self.line = HostileLine(SimulatedArm(FRANKA.name, FRANKA.home_rad))
        self.rig = Rig(device=self.line).armed()
        planner = ScriptedPlanner(self.rig, wave, lambda _: 40_000)
        settings, recorder = ControlSettings(5, LEAD_US), Recorder(10_000, 7)
        self.controller = Controller(self.rig.client, planner, FRANKA, SHAPE, STEP_S, settings, recorder, 40_000)
        self.tick = 1
        self.go(1500)
        assert self.line.state == DeviceState.STREAMING

    def go(self, milliseconds: int) -> None:
        for _ in range(milliseconds // 2):
            self.tick += 1
            self.controller.step(self.rig.host_ns, self.tick)
            self.line.tick(2)

    def refused(self, tamper: Tamper) -> str:
        """The reason for which the run ends, which it must do soon."""
        self.line.tamper = tamper
        with pytest.raises(SafetyStop, match="reports what cannot be") as stop:
            self.go(NOTICED_MS)
        return str(stop.value)


@pytest.fixture
def run() -> Iterator[Run]:
    made = Run()
    yield made
    made.line.close()


def changed(change: Callable[[StateReport], StateReport], once: bool = False) -> Tamper:
    """Reports become others."""
    done = []

    def tamper(frame: Frame) -> list[Frame]:
        if not isinstance(frame.message, StateReport) or (once and done):
            return [frame]
        done.append(frame)
        return [replace(frame, message=change(frame.message))]

    return tamper


def moved(name: str, joint: int, by_urad: int) -> Callable[[StateReport], StateReport]:
    def change(report: StateReport) -> StateReport:
        row = list(getattr(report, name))
        row[joint] += by_urad
        return replace(report, **{name: tuple(row)})

    return change


def put(name: str, value: int) -> Callable[[StateReport], StateReport]:
    return lambda report: replace(report, **{name: value})


@pytest.mark.parametrize("joint", range(7))
@pytest.mark.parametrize("name", ["commanded_urad", "measured_urad"])
@pytest.mark.parametrize("by_urad", [2_000_000_000, -2_000_000_000, 400_000, -400_000, 2_400_000])
def test_a_position_out_of_range_or_a_jump(run: Run, name: str, joint: int, by_urad: int) -> None:
    """Also when it lasts for one report."""
    reason = run.refused(changed(moved(name, joint, by_urad), once=True))
    assert f"joint {joint + 1} " in reason


@pytest.mark.parametrize("joint", [0, 6])
def test_both_rows_that_jump_together(run: Run, joint: int) -> None:
    def jump(report: StateReport) -> StateReport:
        return moved("measured_urad", joint, 90_000)(moved("commanded_urad", joint, 90_000)(report))

    assert f"joint {joint + 1} commanded to have come" in run.refused(changed(jump))


FIELDS = {
    "a state that none can be in": put("state", 200),
    "a device that has begun anew": put("state", DeviceState.SILENT),
    "a reason that is none": put("reason", 99),
    "flags that do not exist": lambda report: replace(report, flags=report.flags | 8),
    "a buffer said to be low": lambda report: replace(report, flags=report.flags ^ 2),
    "motion without a measured position": lambda report: replace(report, flags=report.flags & ~4),
    "more free slots than there are": put("free_slots", 4),
    "counters that went up by too much": lambda report: replace(report, interventions=report.interventions + 1000),
    "a clock that stands still": put("device_us", 77),
    "a clock a second ahead": lambda report: replace(report, device_us=report.device_us + 1_000_000),
    "a clock that runs backwards": lambda report: replace(report, device_us=2**32 - report.device_us),
    "a clock half around": lambda report: replace(report, device_us=(report.device_us + 2**31) % 2**32),
}


@pytest.mark.parametrize("name", FIELDS)
def test_every_other_field(run: Run, name: str) -> None:
    assert len(run.refused(changed(FIELDS[name]))) < 300


@pytest.mark.parametrize("by", [OVERTAKEN_BY + 20, 20_000, -LOST_AT_ONCE - 200])
def test_sequence_numbers_that_jump(run: Run, by: int) -> None:
    assert "sequence" in run.refused(lambda frame: [replace(frame, sequence=(frame.sequence - by) & 0xFFFF)])


@pytest.mark.parametrize("seed", range(10))
def test_random_reports(run: Run, seed: int) -> None:
    """Every field drawn anew, among reports that are true."""
    draw = Random(seed)

    def tamper(frame: Frame) -> list[Frame]:
        if not isinstance(frame.message, StateReport):
            return [frame]
        codes = {"device_us": 32, "state": 8, "reason": 8, "flags": 8, "free_slots": 8, "chunk": 16}
        codes |= {"buffered_ms": 16, "interventions": 32, "refusals": 16, "bad_frames": 16}
        values = {name: draw.getrandbits(bits) for name, bits in codes.items()}
        rows = [tuple(draw.randrange(-(2**31), 2**31) for _ in range(7)) for _ in range(2)]
        forged = StateReport(**values, commanded_urad=rows[0], measured_urad=rows[1])
        return [frame, Frame(frame.session, (frame.sequence + 1) & 0xFFFF, forged)]

    run.line.tamper = tamper
    with pytest.raises(SafetyStop):
        run.go(NOTICED_MS)


def test_nothing_is_armed_where_an_arm_cannot_be() -> None:
    line = HostileLine(SimulatedArm(FRANKA.name, FRANKA.home_rad))
    rig = Rig(device=line)
    line.tick()
    connected = ConnectedArm.connect(FRANKA, rig.client)
    line.tamper = changed(moved("measured_urad", 2, 2_000_000_000))
    with pytest.raises(SafetyStop, match=r"joint 3 measured at 2000\.000 rad"):
        connected.switch_on()
    assert line.state == DeviceState.IDLE
    line.close()


def test_a_report_of_another_number_of_joints_is_a_bad_frame(run: Run) -> None:
    """0, 3, 6, 8 or 50 of them: counted and dropped; the true ones between them go on counting."""
    for joints in (0, 3, 6, 8, 50):
        before = run.rig.client.link.bad_frames

        def tamper(frame: Frame, joints: int = joints) -> list[Frame]:
            if not isinstance(frame.message, StateReport):
                return [frame]
            row = (0,) * joints
            forged = replace(frame.message, commanded_urad=row, measured_urad=row)
            return [replace(frame, message=forged), frame]

        run.line.tamper = tamper
        run.go(100)
        assert run.rig.client.link.bad_frames - before >= 9
    assert run.line.state == DeviceState.STREAMING


def test_a_line_on_which_only_such_reports_come_is_silent(run: Run) -> None:
    run.line.tamper = changed(lambda report: replace(report, commanded_urad=(0,) * 3, measured_urad=(0,) * 3))
    with pytest.raises(Exception, match="no state from the device"):
        run.go(200)


def test_a_sound_device_is_believed_through_all_its_states(tmp_path: Path, run: Run) -> None:
    run.controller.pause()
    run.go(600)
    run.controller.resume()
    run.go(2000)
    assert run.line.state == DeviceState.STREAMING
    run.go(12_000)


def test_fifty_copies_of_every_frame_change_nothing_and_the_stop_acts(run: Run) -> None:
    run.line.tamper = lambda frame: [frame] * 50
    run.go(3000)
    counters = run.controller.counters
    assert counters.chunks >= 4 and counters.refused.total == 0 and run.line.state == DeviceState.STREAMING
    run.controller.pause()
    run.go(600)
    assert run.line.state == DeviceState.HOLD and run.controller.motion.value == "held"
    run.rig.client.disarm()
    assert run.line.state == DeviceState.IDLE
    assert run.rig.client.link.skipped_frames > 10_000


@pytest.mark.parametrize("hours", [0, 1, 12])
@pytest.mark.parametrize("ppm", [100, -100])
def test_clocks_that_drift_while_a_run_waits_for_its_start_are_no_lie(hours: float, ppm: float) -> None:
    clock, report = ClockSync(), Rig().armed().state()
    clock.add(0, 1000, 0, 0)
    now_ns = round(3.6e12 * hours)
    device_us = round(clock.device_us(now_ns) + ppm * 1e-6 * now_ns / 1000)
    ReportJudge(FRANKA).check(report, device_us, clock, now_ns)
    with pytest.raises(SafetyStop, match="off its own clock"):
        ReportJudge(FRANKA).check(report, device_us + 200_000 + round(2e-3 * now_ns / 1000), clock, now_ns)
