"""A device of the core in memory, on an arm that no profile has; its inputs, clock and drive are the test's."""

from __future__ import annotations

import ctypes
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from firmware_bridge import messages as wire
from firmware_bridge.codes import MAGIC, MAX_JOINTS, DeviceState, Refusal
from firmware_bridge.framing import FrameReader, encode_frame
from tests.firmware_core import TRANSMIT_SIZE, Device, Edges, Inputs, Limits, Outputs, Profile, Row, core, fresh

MICRO = 1e-6
SESSION, FIRMWARE_HASH, PROFILE_HASH = 0x4321, 0xDEADBEEF, 0xC0FFEE11
START_US = 3_000_000_000
POSITION, VELOCITY, ACCELERATION, JERK, FOLLOWING = 3.0, 2.0, 10.0, 5000.0, 0.15
M = TypeVar("M", bound=wire.Message)


def row(values: float | Sequence[float], joints: int) -> ctypes.Array[ctypes.c_double]:
    """A row, with NaN for the joints that the arm does not have."""
    given = [values] * joints if isinstance(values, float) else list(values)
    return Row(*given, *([math.nan] * (MAX_JOINTS - len(given))))


@dataclass
class Bench:
    """A device in memory that held something else before, on a clock and with a drive under the test's control."""

    joints: int = 7
    q: Sequence[float] = ()
    limits: Limits | None = None
    following: Sequence[float] = ()
    edges: Edges | None = None
    now_us: int = START_US
    feedback_ok: bool = True
    drive_is_on: bool = False
    measured: list[float] | None = None
    lag: Sequence[float] = ()
    loop_tick: int = 1
    sequence: int = 0
    session: int = SESSION
    reader: FrameReader = field(default_factory=FrameReader)

    def __post_init__(self) -> None:
        self.library, self.device, self.outputs = core(), fresh(Device), fresh(Outputs)
        size = self.joints
        rows = (-POSITION, POSITION, VELOCITY, ACCELERATION, JERK)
        limits = self.limits or Limits(*(row(value, size) for value in rows))
        following = row(self.following or FOLLOWING, size)
        edges = self.edges or Edges(*(row(value, size) for value in (math.nan, 0.0, math.nan, math.nan)))
        self.profile = Profile(b"sixteen-letters!", size, PROFILE_HASH, limits, following, edges)
        q = row(self.q or [0.0] * size, size)
        self.library.ve_device_init(self.at, ctypes.byref(self.profile), FIRMWARE_HASH, ctypes.byref(q))

    @property
    def at(self) -> int:
        return ctypes.addressof(self.device)

    @property
    def state(self) -> DeviceState:
        return DeviceState(self.device.state)

    def tick(self, count: int = 1, step_us: int = 1000) -> None:
        """Periods in which the drive is where it was told to be, `lag` behind it, or where `measured` says."""
        lag = self.lag or [0.0] * self.joints
        for _ in range(count):
            self.now_us += step_us
            measured = self.measured or [joint.q - behind for joint, behind in zip(self.device.joint, lag)]
            inputs = Inputs(self.now_us, row(measured, self.joints), self.feedback_ok, self.drive_is_on)
            self.library.ve_device_tick(self.at, ctypes.byref(inputs), ctypes.byref(self.outputs))

    def replies(self) -> list[wire.Message]:
        buffer = (ctypes.c_uint8 * TRANSMIT_SIZE)()
        count = self.library.ve_device_transmit(self.at, buffer, TRANSMIT_SIZE)
        frames = self.reader.feed(bytes(buffer[:count]))
        assert self.reader.bad_frames == 0
        return [frame.message for frame in frames]

    def send(self, message: wire.Message, channel: int = 0) -> list[wire.Message]:
        """What comes back at once."""
        self.replies()
        self.sequence += 1
        receive, at = self.library.ve_device_receive, self.at
        for byte in encode_frame(self.session, self.sequence, message):
            receive(at, channel, byte, self.now_us)
        return self.replies()

    def refusal(self, message: wire.Message) -> tuple[Refusal, int] | None:
        """Reason and joint of the refusal; None when there was none."""
        naks = [reply for reply in self.send(message) if isinstance(reply, wire.Nak)]
        return (Refusal(naks[0].refusal), naks[0].joint) if naks else None

    def heartbeat(self) -> None:
        self.loop_tick += 1
        assert self.send(wire.Heartbeat(self.loop_tick)) == []

    def idle(self) -> Bench:
        self.tick()
        self.send(wire.Hello(MAGIC, wire.SCHEMA_HASH))
        self.tick()
        self.heartbeat()
        assert self.state == DeviceState.IDLE
        return self

    def arm(self) -> Bench:
        pose = tuple(round(value / MICRO) for value in self.device.inputs.measured[: self.joints])
        assert self.refusal(wire.Arm(pose)) is None
        assert self.state == DeviceState.ARMED
        return self

    def run(self, milliseconds: int) -> None:
        for index in range(milliseconds):
            if index % 20 == 0:
                self.heartbeat()
            self.tick()

    def commit(self, chunk: int, start_us: int, spacing_us: int = 100_000, last_dq: Sequence[int] = ()) -> wire.Commit:
        """Stages two knots at zero, the second with these velocities; returns the commit to send."""
        zeros = (0,) * self.joints
        values = zeros * 3 + (tuple(last_dq) or zeros)
        assert self.send(wire.Chunk(chunk, 0, 2, values)) == []
        crc = zlib.crc32(struct.pack(f"<{len(values)}i", *values))
        return wire.Commit(chunk, 2, 1, start_us & 0xFFFFFFFF, spacing_us, crc)

    def report(self) -> wire.StateReport:
        """The state report of the next tick, which is made to be one with a report."""
        self.replies()
        self.device.ticks = 0
        self.tick()
        (report,) = one_of(wire.StateReport, self.replies())
        return report


def one_of(kind: type[M], replies: list[wire.Message]) -> list[M]:
    return [reply for reply in replies if isinstance(reply, kind)]


def only(joint: int, value: int, joints: int = 7) -> tuple[int, ...]:
    return tuple(value if index == joint else 0 for index in range(joints))
