"""An SO-101 as the core sees it: one cycle of the servo bus is a few of the core's periods.

A cycle reads all positions, lets the core run, writes all goals, and asks one more question whose answer comes while
the next cycle is waited for. What is lost on the line is counted and bridged; nothing on the line ends the loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from firmware_bridge.adapters.base import Measurement
from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import BusCounters, ServoBus
from firmware_bridge.adapters.feetech.calibration import Calibration, JointSpan, scales
from firmware_bridge.adapters.feetech.health import HEALTH_AT, HEALTH_SIZE, Health, HealthWatch
from firmware_bridge.adapters.feetech.packets import Packet
from firmware_bridge.adapters.feetech.servos import ACCELERATION, LEROBOTS_GRIP, Grip, name_of, position, prepare
from firmware_bridge.adapters.feetech.timing import bus_cycle, question_s
from firmware_bridge.adapters.feetech.torque import TORQUE_AT, TORQUE_SIZE, TorqueState, TorqueSwitch
from firmware_bridge.errors import BridgeError, LinkLost
from firmware_bridge.printing import harmless

SERVOS = 6
CYCLE_PERIODS = bus_cycle(SERVOS).period_ms
BRIDGED_PERIODS = 50
"""Ours: at the operating speed of 2 rad/s an arm is then 0.1 rad behind, within what the core lets a joint lag."""
OLDEST_S = 0.05
"""Ours: a servo that has not told its position for this long, ten cycles, cannot be relied on."""
FASTEST_COUNTS_S = 4000
"""A third above the servo's speed without load (3,072): a position that would need more is a damaged one."""
JITTER_COUNTS = 16
BEYOND_COUNTS = 57
"""5 degrees: a joint that rests on its stop may stand so far outside the sweep, and a jaw is told to press by 2.5
(ours). The goal itself stays within the sweep."""
STOP_COUNTS_S2 = ACCELERATION * reg.ACCELERATION_UNIT
RECONNECT_S = 1.0
SERVE_S = 0.0005
MS_NS = 1_000_000


class FeetechDrive:
    """The arm on the bus that `open_bus` opens, again after the line was lost. Raises `DriveError` at connect.

    A fault of a servo is told to the core until it has taken the drive away, and again when it wants it on; it stays
    until `clear`. Silence is told as long as it lasts. What a servo tells counts as a fault when it is told twice in a
    row: a damaged packet passes its checksum once in a while. `sleep(seconds)` waits for the next cycle.
    """

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
        self._open_bus, self._calibration, self._grip = open_bus, calibration, grip
        self._notify, self._clock_ns, self._sleep = harmless(notify), clock_ns, sleep
        self._scales = scales(calibration, spans)
        self._gripper = next((span.name for span in spans if span.jaw), "")
        self._names = {one.servo: name_of(one.joint, one.servo) for one in calibration.servos}
        self._jaw = next((one.servo for one in calibration.servos if one.joint == self._gripper), None)
        self._servos = tuple(self._names)
        self._scale_of = {scale.servo: scale for scale in self._scales}
        self._period_ns = CYCLE_PERIODS * MS_NS
        self._bus: ServoBus | None = None
        self._before = BusCounters()
        self._health: dict[int, HealthWatch] = {}
        self._torque = TorqueSwitch(self._names, ACCELERATION, clock_ns())
        self._more: tuple[int, ...] = ()  # whom the second question asks: everybody for the torque, or one for all
        self._fault, self._untold = "", False
        self._suspected: dict[str, str] = {}
        self._requested = dict.fromkeys(self._servos, 0)
        self._answered = dict.fromkeys(self._servos, 0)
        self._implausible = 0
        self._cycles = 0
        self._retry_ns = 0
        self._count: dict[int, int] = {}
        self._heard_ns: dict[int, int] = {}
        self._silent = False
        self._serve: Callable[[], None] = lambda: None
        self._due_ns = 0
        self._reported_ns: int | None = None
        self._connect(may_hold=False)

    # What the core's loop calls --------------------------------------------------------------------------------------

    @property
    def position_rad(self) -> tuple[float, ...]:
        """As last measured."""
        return tuple(scale.rad(self._count[scale.servo]) for scale in self._scales)

    def while_waiting(self, serve: Callable[[], None]) -> None:
        self._serve = serve

    def measure(self) -> Measurement:
        stamp_ns = self._wait_for_cycle()
        periods = 1 if self._reported_ns is None else (stamp_ns - self._reported_ns) // MS_NS
        self._reported_ns = stamp_ns
        try:
            if self._bus is None:
                self._try_again()
            else:
                self._query_positions(self._bus)
        except LinkLost as lost:
            self._lose(lost)
        now_ns = self._clock_ns()
        ok = self._all_are_heard(now_ns) and not self._untold
        return Measurement(self.position_rad, ok, self._torque.is_on, periods, (now_ns - stamp_ns) // 1000)

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        if not enable:
            self._untold = False  # the core has heard of it: it took the drive away
        elif self._fault and not self._torque.wanted:
            self._untold, enable = True, False
        self._torque.want(enable, self._clock_ns())
        if self._bus is None:
            return
        before = self._goals(set_point_rad, velocity_rad_s) if enable else b""
        try:
            self._query_more(self._bus, before + self._torque.packet(self._count))
        except LinkLost as lost:
            self._lose(lost)

    def clear(self) -> None:
        self._fault, self._untold = "", False
        self._suspected.clear()

    def statistics(self) -> dict[str, float]:
        shares = [self._answered[servo] / max(1, self._requested[servo]) for servo in self._servos]
        counters = self._bus.counters if self._bus is not None else self._before
        watches = [watch for watch in self._health.values() if watch.last is not None]
        return {
            "success_rate_least": min(shares),
            "cycles": self._cycles,
            "answers_missing": counters.requested - counters.answered,
            "packets_corrupted": counters.corrupted,
            "positions_implausible": self._implausible,
            "echoes": counters.echoes,
            "temperature_most_c": max((watch.hottest_c for watch in watches), default=0),
            "answers_late": counters.late,
            "grip_torque_most_nm": round(reg.STALL_NM * self._grip.torque, 2),
            "grip_overloads": sum(watch.overloads for servo, watch in self._health.items() if servo == self._jaw),
            "voltage_least_v": round(min((watch.lowest_v for watch in watches), default=0.0), 1),
        }

    def close(self) -> None:
        """Takes the torque away: an SO-101 has no brakes, and sinks."""
        bus, self._bus = self._bus, None
        if bus is None:
            return
        try:
            bus.collect()
            for servo, name in self._names.items():
                if not bus.write(servo, reg.TORQUE_ENABLE, 0):
                    self._notify(f"{name} does not let go; switch the arm's power off")
        except LinkLost as lost:
            self._notify(f"{lost}; the servos hold their last goals: switch the arm's power off")
        bus.port.close()

    # Inside ----------------------------------------------------------------------------------------------------------

    def _connect(self, may_hold: bool) -> None:
        bus = self._open_bus()
        bus.counters = self._before
        try:
            supplies = prepare(bus, self._calibration, may_hold, self._gripper, self._grip)
            for one in self._calibration.servos:
                told = position(bus, one.joint, one.servo)
                self._count[one.servo] = self._scale_of[one.servo].unwrapped(told)
                self._heard_ns[one.servo] = self._clock_ns()
        except BridgeError:
            bus.port.close()
            raise
        self._health = {
            one.servo: HealthWatch(
                self._names[one.servo], supply.allowed, self._grip.limits if one.joint == self._gripper else None
            )
            for one, supply in zip(self._calibration.servos, supplies)
        }
        self._bus, self._more = bus, ()

    def _wait_for_cycle(self) -> int:
        """Waits until a cycle is due; returns when it was due. One that is more than a cycle late is left out."""
        if self._bus is not None:
            try:
                self._collect_more(self._bus)
            except LinkLost as lost:
                self._lose(lost)
        if self._reported_ns is None:  # the loop begins; until now nobody has listened
            self._due_ns = self._clock_ns()
            self._heard_ns = dict.fromkeys(self._servos, self._due_ns)
        self._due_ns += max(0, self._clock_ns() - self._due_ns) // self._period_ns * self._period_ns
        while (left_ns := self._due_ns - self._clock_ns()) > 0:
            self._serve()
            self._sleep(min(left_ns / 1e9, SERVE_S))
        due_ns = self._due_ns
        self._due_ns += self._period_ns
        self._cycles += 1
        return due_ns

    def _query_positions(self, bus: ServoBus) -> None:
        size, address = reg.PRESENT_POSITION.size, reg.PRESENT_POSITION.address
        request = packets.sync_read(self._servos, address, size)
        answers = bus.query(request, self._servos, size, question_s(len(self._servos), size))
        now_ns = self._clock_ns()
        for servo in self._servos:
            self._requested[servo] += 1
            if servo in answers:
                self._answered[servo] += 1
                self._take_position(servo, answers[servo], now_ns)

    def _take_position(self, servo: int, answer: Packet, now_ns: int) -> None:
        count = self._scale_of[servo].unwrapped(reg.PRESENT_POSITION.unpack(answer.data))
        reach = FASTEST_COUNTS_S * (now_ns - self._heard_ns[servo]) / 1e9 + JITTER_COUNTS
        if abs(count - self._count[servo]) > reach:
            self._implausible += 1
            return
        self._count[servo], self._heard_ns[servo] = count, now_ns
        self._suspect(f"status {servo}", self._health[servo].error_byte(answer.code))

    def _all_are_heard(self, now_ns: int) -> bool:
        """Whether what is known of every position is young enough. No fault that stays: it ends when they are heard."""
        oldest_ns = now_ns - min(self._heard_ns.values())
        silent = self._bus is None or oldest_ns > OLDEST_S * 1e9
        if silent and not self._silent:
            servo = min(self._heard_ns, key=lambda servo: self._heard_ns[servo])
            self._notify(f"{self._names[servo]} has been silent for {oldest_ns / 1e6:.0f} ms; check the cables")
        self._silent = silent
        return not silent

    def _query_more(self, bus: ServoBus, before: bytes) -> None:
        """The cycle's second question: the torque of all while it is being switched, else all of one servo in turn."""
        if self._torque.settled:
            self._more, size = (self._servos[self._cycles % len(self._servos)],), HEALTH_SIZE
            request = packets.read(self._more[0], HEALTH_AT, size)
        else:
            self._more, size = self._servos, TORQUE_SIZE
            request = packets.sync_read(self._servos, TORQUE_AT, size)
        bus.begin(request, self._more, size, question_s(len(self._more), size), before)

    def _collect_more(self, bus: ServoBus) -> None:
        queried, self._more = self._more, ()
        if not queried:
            return  # nothing was requested: the core has not answered the last measurement
        answers, now_ns = bus.collect(), self._clock_ns()
        for servo, answer in answers.items():
            self._torque.learn(servo, TorqueState.unpack(answer.data))
            if len(queried) == 1:
                self._suspect(f"health {servo}", self._health[servo].judge(Health.unpack(answer.data), now_ns))
        self._suspect("torque", self._torque.fault(now_ns))

    def _goals(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> bytes:
        """All goals in one packet; nothing, and a fault, where a set-point is no number."""
        if not all(math.isfinite(value) for value in (*set_point_rad, *velocity_rad_s)):
            self._break("a set-point is not finite; the servos keep their last goals")
            return b""
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

    def _break(self, why: str) -> None:
        if not self._fault:
            self._notify(why)
            self._fault, self._untold = why, True

    def _lose(self, lost: LinkLost) -> None:
        if self._bus is not None:
            self._before = self._bus.counters
            self._bus.port.close()
        self._bus = None
        self._retry_ns = self._clock_ns() + round(RECONNECT_S * 1e9)
        self._silent = True
        self._notify(f"{lost}; the servos hold their last goals")

    def _try_again(self) -> None:
        if self._clock_ns() < self._retry_ns:
            return
        self._retry_ns = self._clock_ns() + round(RECONNECT_S * 1e9)
        try:
            self._connect(may_hold=True)
            self._notify("the servos answer again")
        except BridgeError:
            self._bus = None


def stop_counts(velocity_counts_s: float) -> float:
    """How far a servo of this velocity moves until it stands, in counts, with the velocity's sign.

    A servo plans its own stop at every goal that it gets, at the acceleration of register 41. Told where the joint is
    to be now, it would trail behind by this; so it is told where a stop from there would end. That is nearer than the
    end of a stop of the core, which brakes less hard and keeps within the joint's limits.
    """
    return velocity_counts_s * abs(velocity_counts_s) / (2 * STOP_COUNTS_S2)
