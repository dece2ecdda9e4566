"""A leader arm on simulated servos: read and never written, in the follower's units."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.arms.feetech import joint_spans, open_leader
from firmware_bridge.adapters import DriveError
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import Calibration
from firmware_bridge.adapters.feetech.leader import OLDEST_S, Leader
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus
from firmware_bridge.errors import LinkLost
from tests.bus_bench import SteppedClock
from tests.servo_bench import SO101, SOUND, SimulatedPort, calibration, servos_at
from tests.servo_process import ServoProcess
from tests.so101_shapes import GRIPPER, SHAPES, JawShape

POSE = (0.3, -0.9, 0.9, 0.8, -0.2, 0.5)


class Bench:
    def __init__(self, faults: LineFaults = SOUND, made: Calibration | None = None) -> None:
        self.clock = SteppedClock()
        self.made = made or calibration()
        self.servos = servos_at(POSE, self.made)
        self.bus = SimulatedBus(self.servos, faults, self.clock.ns)
        self.port = SimulatedPort(self.bus, self.clock)

    def open(self) -> Leader:
        bus = ServoBus(self.port, self.clock.now_ns, self.clock.wait)
        return Leader(bus, self.made, joint_spans(SO101), self.clock.now_ns)


def test_it_is_read_in_the_followers_units_and_never_written() -> None:
    bench = Bench()
    leader = bench.open()
    for _ in range(10):
        asked_ns = bench.clock.ns
        pose = leader.read()
        assert pose.position_rad == pytest.approx(POSE, abs=reg.RAD_PER_COUNT) and pose.at_ns == asked_ns
        bench.clock.sleep(0.02)
    leader.close()
    codes = {packet[4] for packet in bench.port.written}
    assert codes <= {0x02, 0x82}, "READ and SYNC_READ alone"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_its_jaw_is_a_share_of_its_own_travel(shape: JawShape) -> None:
    bench = Bench(made=shape.calibration())
    jaw, (closed_rad, open_rad) = bench.servos[GRIPPER], SO101.stops_rad[5]
    for share in (-0.01, 0.0, 0.5, 1.0):
        jaw.hand(shape.closed + share * (shape.opened - shape.closed) + shape.offset)
        leader = bench.open()
        told = (leader.read().position_rad[5] - closed_rad) / (open_rad - closed_rad)
        assert told == pytest.approx(max(0.0, share), abs=0.001)


def test_answers_that_are_lost_are_stood_in_for_and_told_by_their_age() -> None:
    bench = Bench()
    leader = bench.open()
    before_ns = leader.read().at_ns
    bench.servos[3].silent = True
    bench.clock.sleep(0.02)
    pose = leader.read()
    assert pose.position_rad == pytest.approx(POSE, abs=reg.RAD_PER_COUNT) and pose.at_ns == before_ns
    bench.clock.sleep(OLDEST_S)
    with pytest.raises(LinkLost, match=r"the leader's servo 3 \(elbow_flex\) has been silent for 1\d\d ms"):
        leader.read()


def test_a_port_that_is_pulled_out_is_a_lost_line() -> None:
    bench = Bench()
    leader = bench.open()
    bench.port.broken = True
    with pytest.raises(LinkLost, match="pulled out"):
        leader.read()


@pytest.mark.parametrize(
    ("register", "value", "message"),
    [
        (reg.TORQUE_ENABLE, 1, r"the leader's servo 2 \(shoulder_lift\) holds its pose; a leader is moved by hand"),
        (reg.HOMING_OFFSET, 5, "has homing offset 5 and the calibration -120"),
        (reg.MODEL, 1, "is model 1, not an STS3215"),
    ],
)
def test_what_cannot_lead_is_refused(register: reg.Register, value: int, message: str) -> None:
    bench = Bench()
    bench.servos[2][register] = value
    with pytest.raises(DriveError, match=message):
        bench.open()


def test_by_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servos = ServoProcess(tmp_path)
    try:
        leader = open_leader(servos.url, SO101)
        assert leader.read().position_rad == pytest.approx(SO101.home_rad, abs=0.01)
        leader.close()
        monkeypatch.chdir(tmp_path)
        lerobots = {
            one.joint: {
                "id": one.servo,
                "drive_mode": int(one.direction < 0),
                "homing_offset": one.homing_offset,
                "range_min": one.range_min,
                "range_max": one.range_max,
            }
            for one in calibration().servos
        }
        (tmp_path / "so101-leader-calibration.json").write_text(json.dumps(lerobots))
        again = open_leader(f"feetech:{servos.port}", SO101)
        assert again.read().position_rad == pytest.approx(SO101.home_rad, abs=0.01)
        again.close()
    finally:
        servos.close()
