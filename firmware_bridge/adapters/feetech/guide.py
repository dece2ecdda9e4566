"""A calibration by hand: where the middle of each joint is, and how far it goes. The torque is off throughout."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import (
    MOST_OFFSET,
    Calibration,
    JointSpan,
    ServoCalibration,
    scales,
)
from firmware_bridge.adapters.feetech.registers import COUNTS, RAD_PER_COUNT
from firmware_bridge.adapters.feetech.servos import PROTECTIONS, find, need, position, put
from firmware_bridge.adapters.feetech.timing import question_s

MIDDLE = COUNTS // 2
END_SHARE = 0.1
"""Of a jaw's sweep: as near to an end as it has to be closed (ours)."""
JAW_RAD = math.radians(100)
"""Ours: less than any jaw travels (119 to 140 degrees; the handle of a leader 110), more than half of it."""


class Calibrator:
    """Step by step: `let_go`, `take_middle`, `look` again and again, `take_closed`, `finish`. Servo n is joint n of
    `spans`.

    `inverted` names joints whose counts grow against their positive sense. Every step raises `DriveError`.
    """

    def __init__(self, bus: ServoBus, arm: str, spans: Sequence[JointSpan], inverted: Collection[str]) -> None:
        self._bus, self._arm, self._spans, self._inverted = bus, arm, list(spans), set(inverted)
        self._servos = {number: span.name for number, span in enumerate(spans, start=1)}
        self._offset: dict[int, int] = {}
        self.lowest: dict[int, int] = {}
        self.highest: dict[int, int] = {}
        for servo, joint in self._servos.items():
            find(bus, joint, servo)

    @property
    def holding(self) -> list[str]:
        """Joints that hold their pose now: they will fall when they are let go."""
        return [joint for servo, joint in self._servos.items() if need(self._bus, joint, servo, reg.TORQUE_ENABLE)]

    def let_go(self) -> None:
        """Takes every servo's torque away."""
        for servo, joint in self._servos.items():
            put(self._bus, joint, servo, reg.TORQUE_ENABLE, 0)

    def take_middle(self) -> None:
        """Where the joints are now becomes the middle of a turn, so that no sweep passes from 4095 to 0."""
        for servo, joint in self._servos.items():
            put(self._bus, joint, servo, reg.LOCK, 0)
            phase = need(self._bus, joint, servo, reg.PHASE)
            put(self._bus, joint, servo, reg.PHASE, phase & ~reg.WHOLE_ANGLE)
            put(self._bus, joint, servo, reg.HOMING_OFFSET, 0)
            encoder = position(self._bus, joint, servo)
            self._offset[servo] = min(max(encoder - MIDDLE, -MOST_OFFSET), MOST_OFFSET)
            put(self._bus, joint, servo, reg.HOMING_OFFSET, self._offset[servo])
            self.lowest[servo] = self.highest[servo] = position(self._bus, joint, servo)

    def look(self) -> None:
        """Takes the positions now into the swept ranges; one that is missing is taken the next time."""
        register = reg.PRESENT_POSITION
        request = packets.sync_read(tuple(self._servos), register.address, register.size)
        seconds = question_s(len(self._servos), register.size, delay_s=508e-6)
        for servo, answer in self._bus.query(request, tuple(self._servos), register.size, seconds).items():
            count = register.unpack(answer.data)
            self.lowest[servo] = min(self.lowest[servo], count)
            self.highest[servo] = max(self.highest[servo], count)

    @property
    def missing(self) -> dict[str, tuple[float, float]]:
        """Joints not swept far enough yet: radians swept, and wanted."""
        swept = {servo: RAD_PER_COUNT * (self.highest[servo] - self.lowest[servo]) for servo in self._servos}
        wanted = [JAW_RAD if span.jaw else span.operating_rad[1] - span.operating_rad[0] for span in self._spans]
        rows = zip(self._servos.items(), wanted)
        return {joint: (swept[servo], need_rad) for (servo, joint), need_rad in rows if swept[servo] < need_rad}

    def take_closed(self) -> str:
        """Where the jaw is now is where it is closed: the end of its sweep that it is at says which way it opens. What
        is wrong, in words, where it is at neither; empty otherwise, and for an arm without a jaw."""
        for servo, span in zip(self._servos, self._spans):
            if not span.jaw:
                continue
            low, high = self.lowest[servo], self.highest[servo]
            share = (position(self._bus, span.name, servo) - low) / max(1, high - low)
            if END_SHARE < share < 1 - END_SHARE:
                return f"the jaw is at {share:.0%} of its sweep, at neither end; close it all the way"
            (self._inverted.add if share > 0.5 else self._inverted.discard)(span.name)
        return ""

    def finish(self) -> Calibration:
        """Writes ranges and protections into the servos and locks them; the calibration, to be written to a file."""
        calibration = Calibration(self._arm, tuple(self._calibrated(servo) for servo in self._servos))
        scales(calibration, self._spans)
        for one in calibration.servos:
            own = need(self._bus, one.joint, one.servo, reg.UNLOADING)
            for register, value in (
                (reg.POSITION_MIN, one.range_min),
                (reg.POSITION_MAX, one.range_max),
                (reg.MODE, reg.POSITION_MODE),
                (reg.RETURN_DELAY, 0),
                (reg.UNLOADING, own | PROTECTIONS),
                (reg.LOCK, 1),
            ):
                put(self._bus, one.joint, one.servo, register, value)
        return calibration

    def _calibrated(self, servo: int) -> ServoCalibration:
        joint = self._servos[servo]
        direction = -1 if joint in self._inverted else 1
        low, high = self.lowest[servo], self.highest[servo]
        if not low < high:
            raise DriveError(f"{joint} was not moved; sweep it from stop to stop")
        return ServoCalibration(joint, servo, direction, self._offset[servo], low, high)
