"""The adapter's loop on a fake clock, with a drive that does as it is told and misbehaves on request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.log.trace import read_trace, violations
from firmware_bridge.adapters import Adapter, Measurement
from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.errors import HandshakeError
from firmware_bridge.hosted import HostedDevice
from tests.firmware_bridge.adapters.contract import Wire
from tests.support import FRANKA, HOME, Rig, states_in_order, swing

BRIDGED = 20


class FollowingDrive:
    """An arm that is where it was told to be one period ago. `periods` is used up by the next measurement."""

    def __init__(self) -> None:
        self.position = tuple(FRANKA.home_rad)
        self.on, self.ok, self.periods, self.cleared = False, True, 1, 0
        self.commanded: list[tuple[tuple[float, ...], bool]] = []

    def measure(self) -> Measurement:
        periods, self.periods = self.periods, 1
        return Measurement(self.position, self.ok, self.on, periods)

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        self.commanded.append((tuple(set_point_rad), enable))
        self.on = enable
        if enable:
            self.position = tuple(set_point_rad)

    def clear(self) -> None:
        self.cleared += 1
        self.ok = True

    def statistics(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass


class AdapterBench:
    """What the rig steps in place of a lockstep device: one measurement of the drive is one millisecond."""

    def __init__(self, trace: Path) -> None:
        self.drive, self.wire = FollowingDrive(), Wire()
        self.core = HostedDevice("franka", self.drive.position, trace)
        self.adapter = Adapter(self.core, self.drive, self.wire, lambda: self.now_us * 1000, BRIDGED)

    @property
    def now_us(self) -> int:
        return self.core.now_us

    @property
    def state(self) -> DeviceState:
        return self.core.state

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            self.adapter.step()

    def read(self) -> bytes:
        data, self.wire.to_host = self.wire.to_host, b""
        return data

    def write(self, data: bytes) -> None:
        self.wire.to_device += data

    def close(self) -> None:
        self.core.close()


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    return tmp_path / "trace.csv"


@pytest.fixture
def rig(trace_file: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(device=AdapterBench(trace_file))
    yield rig
    rig.close()
    gap = "a_gap" in request.node.name
    assert violations(read_trace(trace_file), FRANKA.limits, FRANKA.edges, clock_jumps=gap) == []


def streaming(rig: Rig) -> AdapterBench:
    rig.armed()
    assert rig.commit(swing(1, rig.device.now_us + 50_000)) is None
    rig.run(400)
    assert rig.device.state == DeviceState.STREAMING
    return rig.device


def test_a_chunk_is_executed_through_the_drive(rig: Rig) -> None:
    bench = streaming(rig)
    rig.run(1500)
    assert bench.state == DeviceState.HOLD and bench.drive.on
    assert np.ptp([q for q, _ in bench.drive.commanded], axis=0).min() > 0.1, "all joints have moved"
    assert bench.core.set_point_rad[0] == pytest.approx(HOME[0] + 0.2 * (1 - np.cos(2.0)), abs=0.02)


def test_the_drive_is_off_until_the_device_is_armed(rig: Rig) -> None:
    rig.device.tick(50)
    assert not any(enable for _, enable in rig.device.drive.commanded)


@pytest.mark.parametrize("lost", [1, 5, BRIDGED - 1])
def test_lost_periods_do_not_move_the_trajectory_in_time(rig: Rig, trace_file: Path, lost: int) -> None:
    bench = streaming(rig)
    before, commands = bench.now_us, len(bench.drive.commanded)
    bench.drive.periods = 1 + lost
    bench.tick()
    assert bench.now_us == before + 1000 * (1 + lost) and len(bench.drive.commanded) == commands + 1
    rig.run(200)
    assert bench.state == DeviceState.STREAMING and bench.adapter.lost_periods == lost
    bench.core.flush()
    assert (np.diff(read_trace(trace_file).tick_us) == 1000).all(), "the core ran for each of them"


def test_a_gap_that_no_arm_bridges_is_a_fault(rig: Rig) -> None:
    bench = streaming(rig)
    bench.drive.periods = BRIDGED + 1
    state = rig.state()
    assert (bench.state, state.reason) == (DeviceState.FAULT, StopReason.TICK_LATE)


def test_a_period_that_is_told_twice_is_answered_and_counts_once(rig: Rig) -> None:
    bench = streaming(rig)
    before, last = bench.now_us, bench.drive.commanded[-1]
    bench.drive.periods = 0
    bench.tick()
    assert bench.now_us == before and bench.drive.commanded[-1] == last


def test_the_arms_own_fault_stops_it_and_recovers_only_by_clear(rig: Rig) -> None:
    bench = streaming(rig)
    bench.drive.ok = False
    rig.run(500)
    assert bench.state == DeviceState.FAULT and not bench.drive.on
    rig.client = rig.new_client(8)
    rig.client.connect("franka", FRANKA.hash32, 7)
    with pytest.raises(HandshakeError, match="cause remains"):
        rig.client.clear()
    assert bench.drive.cleared == 0
    bench.drive.ok = True
    rig.run(20)
    rig.client.clear()
    assert bench.state == DeviceState.IDLE and bench.drive.cleared == 1


def test_leaving_brings_the_arm_to_rest_first(rig: Rig, trace_file: Path) -> None:
    bench = streaming(rig)
    assert not bench.adapter.may_leave
    bench.adapter.leave()
    waited_ms = 0
    while not bench.adapter.may_leave and waited_ms < 1000:
        rig.run(1)  # the host goes on sending heartbeats, which nobody hears
        waited_ms += 1
    assert 100 <= waited_ms < 600
    bench.core.flush()
    assert states_in_order(read_trace(trace_file))[-2:] == ["DECEL", "HOLD"]


def test_a_line_that_is_full_gets_no_more(rig: Rig) -> None:
    rig.armed()
    rig.device.tick(20)
    assert rig.device.read() != b"", "reports of the state"
    rig.device.wire.is_clear = False
    rig.device.tick(20)
    assert rig.device.read() == b""
    rig.device.wire.is_clear = True
    rig.device.tick(1)
    assert rig.device.read() != b"", "they have waited in the core"
