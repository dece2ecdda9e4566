"""The half-duplex bus on a stepped clock: what is lost is counted, and nothing is waited for beyond its deadline."""

from __future__ import annotations

import pytest

from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import GRACE_S, ServoBus
from firmware_bridge.adapters.feetech.simulated_bus import LineFaults, SimulatedBus
from firmware_bridge.adapters.feetech.timing import BusCycle, bus_cycle, question_s
from tests.bus_bench import SteppedClock
from tests.servo_bench import SO101, SimulatedPort, servos_at

ALL = tuple(range(1, 7))
POSITION = packets.sync_read(ALL, reg.PRESENT_POSITION.address, 2)


class Line:
    def __init__(self, faults: LineFaults) -> None:
        self.clock = SteppedClock()
        self.servos = servos_at(SO101.home_rad)
        for servo in self.servos.values():
            servo[reg.RETURN_DELAY] = 0
        self.port = SimulatedPort(SimulatedBus(self.servos, faults, self.clock.ns), self.clock)
        self.bus = ServoBus(self.port, self.clock.now_ns, self.clock.wait)

    def positions(self) -> dict[int, int]:
        answers = self.bus.query(POSITION, ALL, 2, question_s(6, 2))
        return {servo: reg.PRESENT_POSITION.unpack(answer.data) for servo, answer in answers.items()}


@pytest.fixture
def line() -> Line:
    return Line(LineFaults())


def test_all_answer_in_the_time_that_the_arithmetic_gives(line: Line) -> None:
    began_ns = line.clock.ns
    positions = line.positions()
    assert positions == {number: round(servo.position) for number, servo in line.servos.items()}
    took_s = (line.clock.ns - began_ns) / 1e9
    assert question_s(6, 2) <= took_s < question_s(6, 2) + 0.0002, "the clock's steps are 50 us"


def test_the_arithmetic_of_a_cycle() -> None:
    cycle = bus_cycle(6)
    # 8 + 6 bytes out, 6 x 8 back, at 10 us each, and six servos that wait for 100 us
    assert cycle.read_positions_s == pytest.approx(0.62e-3 + 0.6e-3)
    assert cycle.write_goals_s == pytest.approx(26e-5)
    assert cycle.query_more_s == pytest.approx(45e-5 + 0.1e-3)
    assert cycle.total_s == pytest.approx(4.03e-3) and cycle.period_ms == 5
    assert cycle.limit_hz > 200
    assert str(cycle) == "positions 1.22 + goals 0.26 + one more question 0.55 + USB 2.00 = 4.03 ms"


def test_a_slower_bus_is_asked_less_often() -> None:
    assert bus_cycle(6, baud=115_200).period_ms == 16
    assert bus_cycle(6, usb_s=16e-3).period_ms == 38, "an FTDI adapter with its latency timer as delivered"
    assert BusCycle(1e-3, 0, 0, 0).period_ms == 5, "no faster than it is wanted"


def test_a_silent_servo_costs_its_deadline_and_the_others_are_heard(line: Line) -> None:
    line.servos[3].silent = True
    began_ns = line.clock.ns
    assert sorted(line.positions()) == [1, 2, 4, 5, 6]
    assert (line.clock.ns - began_ns) / 1e9 == pytest.approx(question_s(6, 2) + GRACE_S, abs=1e-4)
    assert (line.bus.counters.requested, line.bus.counters.answered) == (6, 5)


def test_an_echo_is_no_answer() -> None:
    line = Line(LineFaults(echo=True))
    assert sorted(line.positions()) == list(ALL)
    assert line.bus.counters.echoes == 1 and line.bus.counters.foreign == 0
    assert line.bus.read(2, reg.MODEL) == reg.MODEL_NUMBER


def test_damaged_packets_are_counted_and_left_out() -> None:
    line = Line(LineFaults(corrupted=0.1, dropped=0.1, seed=4))
    heard = [len(line.positions()) for _ in range(200)]
    truth = {number: round(servo.position) for number, servo in line.servos.items()}
    assert all(truth[servo] == count for servo, count in line.positions().items())
    assert 3 < sum(heard) / len(heard) < 5, "a fifth of the questions, and a fifth of the answers to the others"
    assert line.bus.counters.corrupted > 50


def test_a_question_that_got_lost_is_asked_again_where_there_is_time() -> None:
    line = Line(LineFaults(dropped=0.3, seed=1))
    assert all(line.bus.read(servo, reg.MODEL) == reg.MODEL_NUMBER for servo in ALL)
    assert line.bus.write(2, reg.ACCELERATION, 17) and line.servos[2][reg.ACCELERATION] == 17


def test_nobody_there(line: Line) -> None:
    assert not line.bus.find(9) and line.bus.read(9, reg.MODEL) is None and not line.bus.write(9, reg.LOCK, 0)


def test_an_answer_that_comes_after_its_deadline_belongs_to_nobody(line: Line) -> None:
    request = packets.read(1, reg.PRESENT_POSITION.address, 2)
    line.bus.begin(request, (1,), 2, takes_s=-GRACE_S)
    assert line.bus.collect() == {}
    line.clock.sleep(0.01)
    ask = packets.read(2, 3, 2)
    assert line.bus.query(ask, (2,), 2, 1e-3) == {}, "the line is not quiet: this question is left out"
    assert line.bus.query(ask, (2,), 2, 1e-3)[2].data == reg.MODEL.pack(reg.MODEL_NUMBER)
    assert (line.bus.counters.foreign, line.bus.counters.late) == (0, 1)
