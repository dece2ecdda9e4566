"""What the traffic of one arm takes of its line, before anything is armed.

Worst cases throughout: the longest frames, the most stuff bits. On a serial line the two directions are apart; on CAN
they share the bus.
"""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.codes import CRC_SIZE, HEADER, MAX_PAYLOAD, TICK_US
from firmware_bridge.constants import HOST_LOAD_LIMIT, STATE_EVERY_TICKS
from firmware_bridge.errors import PortError
from firmware_bridge.messages import Ack, Chunk, Commit, Heartbeat, StateReport, TimeReply, TimeRequest
from firmware_bridge.transports.base import LineRate
from firmware_bridge.transports.can_stream import CLASSIC_SIZE, FD_SIZES

BITS_PER_BYTE = 10
"""Start bit, eight data bits, stop bit."""
STATE_HZ = 1_000_000 // (TICK_US * STATE_EVERY_TICKS)
CLOCK_HZ = 1


def frame_size(payload: int) -> int:
    """Bytes on the line of a frame with `payload` bytes, at most: COBS adds a byte, and one more per 254."""
    body = HEADER.size + payload + CRC_SIZE
    return body + 1 + body // 254 + 1


def chunk_frames(knots: int, joints: int) -> list[int]:
    """Payload bytes of the frames that carry a chunk with velocities, its commit last."""
    row = 8 * joints
    per_frame = (MAX_PAYLOAD - Chunk.size(0)) // row
    counts = [min(per_frame, knots - first) for first in range(0, knots, per_frame)]
    return [Chunk.size(0) + row * count for count in counts] + [Commit.size(0)]


def classic_bits(data: int) -> int:
    """Bits of a classic CAN frame with an 11-bit id and the space behind it, stuff bits at their most.

    ISO 11898-1; Davis et al., "Controller Area Network (CAN) schedulability analysis", 2007.
    """
    return 47 + 8 * data + (34 + 8 * data - 1) // 4


@dataclass(frozen=True)
class CanShare:
    """What an arm's own frames take of a classic bus: how many of 8 bytes a second, by what they are."""

    frames_hz: dict[str, float]
    bitrate: int

    @property
    def share(self) -> float:
        """Of the bus's time, stuff bits at their most."""
        return sum(self.frames_hz.values()) * classic_bits(CLASSIC_SIZE) / self.bitrate

    def check(self) -> None:
        """Raises `PortError` with the arithmetic when it is too much."""
        if self.share > HOST_LOAD_LIMIT:
            raise PortError(
                f"the bus would be {100 * self.share:.0f} % busy (limit {100 * HOST_LOAD_LIMIT:.0f} %): "
                f"{' and '.join(self.frames_hz)} at {self.bitrate} bit/s; raise the bit rate of all on the bus, or put "
                "less on it"
            )


def fd_seconds(data: int, bitrate: int, data_bitrate: int) -> float:
    """Seconds of a CAN FD frame with an 11-bit id and bit rate switch, stuff bits at their most (ISO 11898-1:2015)."""
    arbitration = 17 + 17 // 4 + 13  # start to BRS, stuffed; then CRC delimiter to the space between frames
    crc, fixed_stuff = (17, 5) if data <= 16 else (21, 6)
    fast = 5 + 8 * data + (5 + 8 * data) // 4 + 4 + crc + fixed_stuff  # ESI and DLC, data, stuff count, CRC
    return arbitration / bitrate + fast / data_bitrate


def wire_seconds(size: int, rate: LineRate) -> float:
    """How long a frame of `size` bytes occupies the line, and the serial line to an SLCAN adapter if that is slower."""
    if rate.bitrate is None:
        assert rate.baud is not None
        return size * BITS_PER_BYTE / rate.baud
    fd = rate.data_bitrate is not None
    longest = FD_SIZES[-1] if fd else CLASSIC_SIZE
    parts = [min(longest, size - first) for first in range(0, size, longest)]
    if rate.data_bitrate is not None:
        parts = [next(known for known in FD_SIZES if known >= part) for part in parts]
        seconds = sum(fd_seconds(part, rate.bitrate, rate.data_bitrate) for part in parts)
    else:
        seconds = sum(classic_bits(part) for part in parts) / rate.bitrate
    text = sum(6 + 2 * part for part in parts)
    return max(seconds, text * BITS_PER_BYTE / rate.baud) if rate.baud else seconds


@dataclass(frozen=True)
class BusLoad:
    """Shares of the line's time, by kind of traffic; `chunk_s` is how long one chunk takes to cross."""

    outward: dict[str, float]
    inward: dict[str, float]
    shared: bool
    chunk_s: float

    @property
    def share(self) -> float:
        """Of the busier direction, or of both where they share the line."""
        out, back = sum(self.outward.values()), sum(self.inward.values())
        return out + back if self.shared else max(out, back)

    def __str__(self) -> str:
        parts = {**self.outward, **self.inward}
        return ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts.items() if share >= 0.0005)

    def check(self) -> None:
        """Raises `PortError` with the arithmetic when the traffic does not fit."""
        if self.share > HOST_LOAD_LIMIT:
            raise PortError(
                f"the line would be {100 * self.share:.0f} % busy (limit {100 * HOST_LOAD_LIMIT:.0f} %): {self}; "
                "raise the line's rate, or raise --execute"
            )


def bus_load(rate: LineRate, joints: int, knots: int, chunk_every_s: float, heartbeat_hz: float) -> BusLoad:
    """The load of chunks of `knots` knots every `chunk_every_s` seconds, heartbeats, reports and clock exchanges."""

    def share(per_second: float, *payloads: int) -> float:
        return per_second * sum(wire_seconds(frame_size(payload), rate) for payload in payloads)

    frames = chunk_frames(knots, joints)
    return BusLoad(
        outward={
            f"chunks of {knots} knots x {joints} joints every {chunk_every_s:g} s": share(1 / chunk_every_s, *frames),
            f"heartbeat at {heartbeat_hz:g} Hz": share(heartbeat_hz, Heartbeat.size(0)),
            "clock requests": share(CLOCK_HZ, TimeRequest.size(0)),
        },
        inward={
            f"state at {STATE_HZ} Hz": share(STATE_HZ, StateReport.size(joints)),
            "acknowledgements": share(1 / chunk_every_s, Ack.size(0)),
            "clock replies": share(CLOCK_HZ, TimeReply.size(0)),
        },
        shared=rate.bitrate is not None,
        chunk_s=sum(wire_seconds(frame_size(payload), rate) for payload in frames),
    )
