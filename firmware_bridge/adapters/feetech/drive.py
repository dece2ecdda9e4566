"""An SO-101 as the core sees it: one cycle of the servo bus is a few of the core's periods.

A cycle reads all positions, lets the core run, writes all goals, and asks one more question whose answer comes while
the next cycle is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from firmware_bridge.adapters.bus_drive import BusDrive
from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import BusCounters, ServoBus
from firmware_bridge.adapters.feetech.calibration import Calibration, JointSpan, scales
from firmware_bridge.adapters.feetech.health import HEALTH_AT, HEALTH_SIZE, Health, HealthWatch
from firmware_bridge.adapters.feetech.packets import Packet
from firmware_bridge.adapters.feetech.servos import ACCELERATION, LEROBOTS_GRIP, Grip, name_of, position, prepare
from firmware_bridge.adapters.feetech.timing import bus_cycle, question_s
from firmware_bridge.adapters.feetech.torque import TORQUE_AT, TORQUE_SIZE, TorqueState, TorqueSwitch

SERVOS = 6
FASTEST_COUNTS_S = 4000
"""A third above the servo's speed without load (3,072): a position that would need more is a damaged one."""
JITTER_COUNTS = 16
BEYOND_COUNTS = 57
"""5 degrees: a joint that rests on its stop may stand so far outside the sweep, and a jaw is told to press by 2.5
(ours). The goal itself stays within the sweep."""
STOP_COUNTS_S2 = ACCELERATION * reg.ACCELERATION_UNIT


class FeetechDrive(BusDrive[ServoBus]):
    """The servos of an arm. Raises `DriveError` at connect.

    What a servo tells counts as a fault when it is told twice in a row: a damaged packet passes its checksum once in a
    while.
    """

    CYCLE_PERIODS: ClassVar[int] = bus_cycle(SERVOS).period_ms
    WHEN_LOST: ClassVar[str] = "the servos hold their last goals"
    WHEN_LEFT: ClassVar[str] = f"{WHEN_LOST}: switch the arm's power off"
    WHEN_BACK: ClassVar[str] = "the servos answer again"

    def __init__(
        self,
        open_bus: Callable[[], ServoBus],
        calibration: Calibration,
        spans: Sequence[JointSpan],
        notify: Callable[[str], None],
        clock_ns: Callable[[], int],
        sleep: Callable[[float], None],
        grip: Grip = LEROBOTS_GRIP,
    ) -> None:
        names = {one.servo: name_of(one.joint, one.servo) for one in calibration.servos}
        super().__init__(open_bus, names, notify, clock_ns, sleep)
        self._calibration, self._grip = calibration, grip
        self._scales = scales(calibration, spans)
        self._gripper = next((span.name for span in spans if span.jaw), "")
        self._jaw = next((one.servo for one in calibration.servos if one.joint == self._gripper), None)
        self._servos = tuple(names)
        self._scale_of = {scale.servo: scale for scale in self._scales}
        self._counters = BusCounters()
        self._health: dict[int, HealthWatch] = {}
        self._torque = TorqueSwitch(names, ACCELERATION, clock_ns())
        self._more: tuple[int, ...] = ()  # whom the second question asks: everybody for the torque, or one for all
        self._suspected: dict[str, str] = {}
        self._count: dict[int, int] = {}
        self._connect(may_hold=False)

    @property
    def position_rad(self) -> tuple[float, ...]:
        return tuple(scale.rad(self._count[scale.servo]) for scale in self._scales)

    def clear(self) -> None:
        super().clear()
        self._suspected.clear()

    def statistics(self) -> dict[str, float]:
        counters = self._counters
        watches = [watch for watch in self._health.values() if watch.last is not None]
        return super().statistics() | {
            "answers_missing": counters.requested - counters.answered,
            "packets_corrupted": counters.corrupted,
            "echoes": counters.echoes,
            "temperature_most_c": max((watch.hottest_c for watch in watches), default=0),
            "answers_late": counters.late,
            "grip_torque_most_nm": round(reg.STALL_NM * self._grip.torque, 2),
            "grip_overloads": sum(watch.overloads for servo, watch in self._health.items() if servo == self._jaw),
            "voltage_least_v": round(min((watch.lowest_v for watch in watches), default=0.0), 1),
        }

    def _let_go(self, bus: ServoBus) -> None:
        bus.collect()
        for servo, name in self._names.items():
            if not bus.write(servo, reg.TORQUE_ENABLE, 0):
                self._notify(f"{name} does not let go; switch the arm's power off")

    def _prepare(self, bus: ServoBus, may_hold: bool) -> None:
        bus.counters = self._counters
        supplies = prepare(bus, self._calibration, may_hold, self._gripper, self._grip)
        for one in self._calibration.servos:
            told = position(bus, one.joint, one.servo)
            self._count[one.servo] = self._scale_of[one.servo].unwrapped(told)
            self._heard_ns[one.servo] = self._clock_ns()
        self._health = {
            one.servo: HealthWatch(
                self._names[one.servo], supply.allowed, self._grip.limits if one.joint == self._gripper else None
            )
            for one, supply in zip(self._calibration.servos, supplies)
        }
        self._more = ()

    @property
    def _is_on(self) -> bool:
        return self._torque.is_on

    def _switch(self, now_ns: int) -> None:
        self._torque.want(self._wanted, now_ns)

    def _before_waiting(self, bus: ServoBus) -> None:
        queried, self._more = self._more, ()
        if not queried:
            return  # nothing was requested: the core has not answered the last measurement
        answers, now_ns = bus.collect(), self._clock_ns()
        for servo, answer in answers.items():
            self._torque.learn(servo, TorqueState.unpack(answer.data))
            if len(queried) == 1:
                self._suspect(f"health {servo}", self._health[servo].judge(Health.unpack(answer.data), now_ns))
        self._suspect("torque", self._torque.fault(now_ns))

    def _query(self, bus: ServoBus) -> None:
        size, address = reg.PRESENT_POSITION.size, reg.PRESENT_POSITION.address
        request = packets.sync_read(self._servos, address, size)
        bus.collect()
        bus.begin(request, self._servos, size, question_s(len(self._servos), size))

    def _take(self, bus: ServoBus) -> None:
        answers, now_ns = bus.collect(), self._clock_ns()
        for servo in self._servos:
            self._asked[servo] += 1
            if servo in answers:
                self._answered[servo] += 1
                self._take_position(servo, answers[servo], now_ns)

    def _take_position(self, servo: int, answer: Packet, now_ns: int) -> None:
        count = self._scale_of[servo].unwrapped(reg.PRESENT_POSITION.unpack(answer.data))
        moved = abs(count - self._count[servo])
        if self._is_plausible(servo, moved, FASTEST_COUNTS_S, JITTER_COUNTS, now_ns):
            self._count[servo] = count
            self._suspect(f"status {servo}", self._health[servo].error_byte(answer.code))

    def _tell(self, bus: ServoBus, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> None:
        """The goals, and the cycle's second question: the torque of all while it is being switched, else all of one
        servo in turn."""
        before = self._goals(set_point_rad, velocity_rad_s) if self._wanted else b""
        before += self._torque.packet(self._count)
        if self._torque.settled:
            self._more, size = (self._servos[self._cycles % len(self._servos)],), HEALTH_SIZE
            request = packets.read(self._more[0], HEALTH_AT, size)
        else:
            self._more, size = self._servos, TORQUE_SIZE
            request = packets.sync_read(self._servos, TORQUE_AT, size)
        bus.begin(request, self._more, size, question_s(len(self._more), size), before)

    def _goals(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> bytes:
        """All goals in one packet."""
        goals = {}
        for scale, q, dq in zip(self._scales, set_point_rad, velocity_rad_s):
            count = scale.count(q)
            if not scale.count_min - BEYOND_COUNTS <= count <= scale.count_max + BEYOND_COUNTS:
                self._break(f"{self._names[scale.servo]} was to leave its calibrated range; tighten [operating]")
            goal = round(count + stop_counts(scale.direction * dq / scale.rad_per_count))
            goals[scale.servo] = reg.GOAL_POSITION.pack(min(max(goal, scale.count_min), scale.count_max))
        return packets.sync_write(reg.GOAL_POSITION.address, goals)

    def _suspect(self, source: str, why: str) -> None:
        """A fault that `source` tells now; it counts when it was told the last time as well."""
        if why and source in self._suspected:
            self._break(why)
        if why:
            self._suspected[source] = why
        else:
            self._suspected.pop(source, None)


def stop_counts(velocity_counts_s: float) -> float:
    """How far a servo of this velocity moves until it stands, in counts, with the velocity's sign.

    A servo plans its own stop at every goal that it gets, at the acceleration of register 41. Told where the joint is
    to be now, it would trail behind by this; so it is told where a stop from there would end. That is nearer than the
    end of a stop of the core, which brakes less hard and keeps within the joint's limits.
    """
    return velocity_counts_s * abs(velocity_counts_s) / (2 * STOP_COUNTS_S2)
