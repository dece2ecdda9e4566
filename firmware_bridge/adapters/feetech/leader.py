"""A leader: an arm of the same servos that a hand moves, and that is only read. Where it is, another arm is to be.

Nothing is ever written to it, so the same port and servos may have been set up by anybody; its torque has to be off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from firmware_bridge.adapters.base import DriveError
from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus
from firmware_bridge.adapters.feetech.calibration import Calibration, JointSpan, Scale, scales
from firmware_bridge.adapters.feetech.servos import check_offset, find, name_of, position
from firmware_bridge.adapters.feetech.timing import question_s
from firmware_bridge.errors import LinkLost

LONGEST_DELAY_S = 508e-6
"""Before an answer, as a servo can be set to at most: nobody has set these."""
OLDEST_S = 0.1
"""Ours: a joint that has not told its position for this long, five readings at 50 Hz, leads nobody."""


@dataclass(frozen=True)
class LeaderPose:
    """Where the leader is, in the follower's units: joints in rad, the jaw as a share of its own travel from closed to
    open, as the follower has it. `at_ns` is when the oldest of the positions was asked for."""

    position_rad: tuple[float, ...]
    at_ns: int


class Leader:
    """The leader on `bus`, whose servos `calibration` describes; `spans` are the follower's. Raises `DriveError`.

    `read` asks for all positions once and takes a few milliseconds. An answer that is lost is stood in for by the last
    one. A joint that has been silent for `OLDEST_S`, and a line that is gone, raise `LinkLost`.
    """

    def __init__(
        self, bus: ServoBus, calibration: Calibration, spans: Sequence[JointSpan], clock_ns: Callable[[], int]
    ) -> None:
        self._bus, self._clock_ns = bus, clock_ns
        self._scales = scales(calibration, spans)
        self._spans = tuple(spans)
        self._names = {one.servo: f"the leader's {name_of(one.joint, one.servo)}" for one in calibration.servos}
        self._servos = tuple(self._names)
        self._count: dict[int, int] = {}
        self._told_ns: dict[int, int] = {}
        for one in calibration.servos:
            image = find(bus, one.joint, one.servo)
            check_offset(image, one)
            if image[reg.TORQUE_ENABLE]:
                raise DriveError(f"{self._names[one.servo]} holds its pose; a leader is moved by hand: let it go first")
            asked_ns = clock_ns()
            self._take(one.servo, position(bus, one.joint, one.servo), asked_ns)

    def read(self) -> LeaderPose:
        """Where it is now. Raises `LinkLost`."""
        asked_ns, size = self._clock_ns(), reg.PRESENT_POSITION.size
        request = packets.sync_read(self._servos, reg.PRESENT_POSITION.address, size)
        seconds = question_s(len(self._servos), size, delay_s=LONGEST_DELAY_S)
        for servo, answer in self._bus.query(request, self._servos, size, seconds).items():
            self._take(servo, reg.PRESENT_POSITION.unpack(answer.data), asked_ns)
        oldest = min(self._servos, key=lambda servo: self._told_ns[servo])
        silent_s = (asked_ns - self._told_ns[oldest]) / 1e9
        if silent_s > OLDEST_S:
            raise LinkLost(f"{self._names[oldest]} has been silent for {1000 * silent_s:.0f} ms")
        return LeaderPose(tuple(map(self._position_rad, self._scales, self._spans)), self._told_ns[oldest])

    def close(self) -> None:
        """Frees the port; the leader stays as it is."""
        self._bus.close()

    def _position_rad(self, scale: Scale, span: JointSpan) -> float:
        told = scale.rad(scale.unwrapped(self._count[scale.servo]))
        return min(max(told, span.stops_rad[0]), span.stops_rad[1]) if span.jaw else told

    def _take(self, servo: int, count: int, asked_ns: int) -> None:
        self._count[servo], self._told_ns[servo] = count, asked_ns


class Leaders:
    """Several leaders as one, for an arm that is made of as many."""

    def __init__(self, leaders: Sequence[Leader]) -> None:
        self._leaders = tuple(leaders)

    def read(self) -> LeaderPose:
        """Where they are, one behind the other, as of the oldest reading. Raises `LinkLost`."""
        poses = [leader.read() for leader in self._leaders]
        return LeaderPose(tuple(q for pose in poses for q in pose.position_rad), min(pose.at_ns for pose in poses))

    def close(self) -> None:
        for leader in self._leaders:
            leader.close()
