"""Whether the device's reports can be true, judged as chunks are: before anything is made of them.

A frame that is sound may still come from a device that is not: memory gone wrong, another program on the line, a clock
that jumps. The device holds itself to limits that the host knows, so a report beyond them is no motion of an arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge.arms import ArmProfile
from edge.errors import SafetyStop
from firmware_bridge.clock_sync import ClockSync
from firmware_bridge.codes import MICRO, TICK_US, DeviceState, StateFlag, StopReason
from firmware_bridge.constants import BUFFER_LOW_US, CHUNK_SLOTS
from firmware_bridge.messages import StateReport

DRIVEN = (DeviceState.ARMED, DeviceState.STREAMING, DeviceState.DECEL, DeviceState.HOLD)
STATES = frozenset(DeviceState) - {DeviceState.BOOT, DeviceState.SILENT}
"""In which a device with a session can be."""
REASONS = frozenset(StopReason)
FLAGS = int(sum(StateFlag))
ROUNDING_URAD = 2
SLACK_US = 2 * TICK_US
MEASURED_SLACK_US = 100_000
"""Measurements of a servo bus may be missing for 50 ms, and then catch up at once."""
AHEAD_US, BEHIND_US = 100_000, 2_000_000
"""How far a report may be from the host's estimate of the device's clock: ahead of it only by what a device that was
held up makes good, behind it while the clock of a slow device is being found out."""
MOST_DRIFT = 1e-3
"""Between two clocks that have not been compared for a while, as when a run waits for its start."""
HALF_U16, U16, U32 = 0x8000, 0xFFFF, 0xFFFFFFFF
FIX = "look for another program or device on the line, then check the device's power and firmware"


class ReportJudge:
    """Judges the reports of one device, each by itself and after the one before. Times come in from outside."""

    def __init__(self, arm: ArmProfile) -> None:
        limits = arm.limits
        self._low, self._high = _micro(limits.position_min_rad), _micro(limits.position_max_rad)
        self._following, self._speed_urad_s = _micro(arm.following_rad), _micro(limits.velocity_rad_s)
        self._units = arm.units
        self._last: tuple[StateReport, int] | None = None

    def check(self, report: StateReport, device_us: int, clock: ClockSync, now_ns: int, jumps: int = 0) -> None:
        """Takes a report that came at `now_ns`, with its time, unwrapped, the host's estimate of the device's clock,
        and how often the device's sequence numbers have jumped. Raises `SafetyStop`.
        """
        found = self._alone(report) or self._off_clock(device_us, clock, now_ns)
        if found is None and jumps:
            found = "the sequence numbers of its frames jump"
        if found is None and self._last is not None:
            found = self._after(*self._last, report, device_us)
        if found is not None:
            raise SafetyStop(f"the device reports what cannot be: {found}; {FIX}")
        self._last = (report, device_us)

    def _alone(self, report: StateReport) -> str | None:
        driven, flags = report.state in DRIVEN, report.flags
        low_buffer = report.state == DeviceState.STREAMING and 1000 * report.buffered_ms < BUFFER_LOW_US
        if flags & ~FLAGS or bool(flags & StateFlag.BUFFER_LOW) != low_buffer:
            return f"flags {flags:08b} with {report.buffered_ms} ms of motion ahead"
        if driven and not flags & StateFlag.FEEDBACK_OK:
            return f"{DeviceState(report.state).name} without a measured position"
        if report.free_slots >= CHUNK_SLOTS:
            return f"{report.free_slots} free slots of {CHUNK_SLOTS - 1}"
        return self._positions(report, driven)

    def _positions(self, report: StateReport, driven: bool) -> str | None:
        rows = zip(report.commanded_urad, report.measured_urad, self._low, self._high)
        for joint, (commanded, measured, low, high) in enumerate(rows):
            room = ROUNDING_URAD if driven else high - low  # an arm without drive may have been moved anywhere near
            if not low - room <= commanded <= high + room:
                return self._at(
                    joint, "commanded to", commanded, f"its range is {low * MICRO:.3f} to {high * MICRO:.3f}"
                )
            near, base = (self._following[joint] + self._most(joint, SLACK_US), commanded) if driven else (room, low)
            top = commanded if driven else high
            if report.flags & StateFlag.FEEDBACK_OK and not base - near <= measured <= top + near:
                where = f"commanded to {commanded * MICRO:.3f}" if driven else f"its range ends at {high * MICRO:.3f}"
                return self._at(joint, "measured at", measured, where)
        return None

    def _off_clock(self, device_us: int, clock: ClockSync, now_ns: int) -> str | None:
        ahead_us = device_us - clock.device_us(now_ns)
        drift_us = MOST_DRIFT * clock.age_us(now_ns)
        if ahead_us > AHEAD_US + drift_us or -ahead_us > BEHIND_US + drift_us:
            return f"a time {ahead_us * MICRO:+.1f} s off its own clock"
        return None

    def _after(self, last: StateReport, last_us: int, report: StateReport, device_us: int) -> str | None:
        passed_us = device_us - last_us
        if passed_us <= 0:
            return f"a clock that has gone from {last_us} to {device_us} us"
        if (report.interventions - last.interventions) & U32 > passed_us // TICK_US + 1:
            return f"{report.interventions} interventions after {last.interventions}"
        for name in ("refusals", "bad_frames"):
            before, now = getattr(last, name), getattr(report, name)
            if (now - before) & U16 >= HALF_U16:
                return f"{now} {name.replace('_', ' ')} after {before}"
        if last.state in DRIVEN and report.state in DRIVEN:
            return self._speed(last, report, passed_us)
        return None

    def _speed(self, last: StateReport, report: StateReport, passed_us: int) -> str | None:
        rows = (
            ("commanded", last.commanded_urad, report.commanded_urad, passed_us + SLACK_US),
            ("measured", last.measured_urad, report.measured_urad, passed_us + MEASURED_SLACK_US),
        )
        for name, before, now, within_us in rows:
            joint = self._too_fast(before, now, within_us)
            if joint is not None:
                came = (now[joint] - before[joint]) * MICRO
                return self._at(joint, f"{name} to have come {came:+.3f} in {passed_us / 1000:.0f} ms, to", now[joint])
        return None

    def _too_fast(self, before: Sequence[int], now: Sequence[int], within_us: int) -> int | None:
        for joint, (a, b) in enumerate(zip(before, now)):
            if abs(b - a) > self._most(joint, within_us):
                return joint
        return None

    def _most(self, joint: int, within_us: int) -> int:
        return self._speed_urad_s[joint] * within_us // 1_000_000 + ROUNDING_URAD

    def _at(self, joint: int, what: str, urad: int, beside: str = "") -> str:
        unit = self._units[joint]
        return f"joint {joint + 1} {what} {urad * MICRO:.3f} {unit}" + (f", {beside}" if beside else "")


def _micro(row: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(round(value / MICRO) for value in row)


def check_states(states: Iterable[tuple[int, int]]) -> None:
    """States and reasons of reports and events: such as a device with a session can have. Raises `SafetyStop`."""
    for state, reason in states:
        if state not in STATES or reason not in REASONS:
            raise SafetyStop(f"the device reports what cannot be: state {state} for reason {reason}; {FIX}")
