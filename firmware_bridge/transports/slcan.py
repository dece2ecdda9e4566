"""CAN through a serial adapter that speaks SLCAN (Lawicel's ASCII protocol), classic and FD.

SLCAN has no checksum: a damaged character passes as another frame. The CRC of the frames inside protects the arm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from firmware_bridge.errors import PortError
from firmware_bridge.transports.base import LineRate
from firmware_bridge.transports.can_stream import CLASSIC_SIZE, FD_SIZES, CanFrame, CanLine, CanTransport
from firmware_bridge.transports.serial_port import DEFAULT_BAUD, SerialTransport
from firmware_bridge.url import option

BITRATES = {10_000: "S0", 20_000: "S1", 50_000: "S2", 100_000: "S3", 125_000: "S4", 250_000: "S5", 500_000: "S6"}
BITRATES |= {750_000: "S7", 1_000_000: "S8"}
DATA_BITRATES = {1_000_000: "Y1", 2_000_000: "Y2", 4_000_000: "Y4", 5_000_000: "Y5", 8_000_000: "Y8"}
"""The FD commands are those of CANable's firmware, which python-can and others follow."""
MAX_LINE = 1 + 3 + 1 + 2 * FD_SIZES[-1]
DLC_DIGITS = "0123456789ABCDEF"


@dataclass(frozen=True)
class SlcanLine(CanLine):
    """A bus behind the serial adapter at the port `target`."""

    FORM: ClassVar[str] = "slcan:PATH?bitrate=N&data_bitrate=N&fd=1&node=N&baud=N"
    baud: int = option(DEFAULT_BAUD, least=1)

    @property
    def rate(self) -> LineRate:
        return replace(super().rate, baud=self.baud)

    def open(self) -> CanTransport:
        port, rate = SerialTransport(self.target, self.baud), self.rate
        try:
            return self.transport(SlcanBus(port, self.bitrate, rate.data_bitrate))
        except PortError:
            port.close()
            raise


def encode(frame: CanFrame) -> bytes:
    """One line, its carriage return included: `t` classic, `b` FD with the faster data phase."""
    if frame.fd:
        return f"b{frame.id:03X}{DLC_DIGITS[FD_SIZES.index(len(frame.data))]}{frame.data.hex().upper()}\r".encode()
    return f"t{frame.id:03X}{len(frame.data)}{frame.data.hex().upper()}\r".encode()


def decode(line: bytes) -> CanFrame | None:
    """The data frame of a line without its carriage return; None for anything else, damaged lines included."""
    if len(line) < 5 or line[:1] not in (b"t", b"d", b"b"):
        return None
    fd = line[:1] != b"t"
    try:
        identity, dlc, data = int(line[1:4], 16), int(line[4:5], 16), bytes.fromhex(line[5:].decode("ascii"))
    except ValueError:
        return None
    if identity > 0x7FF or len(line) != 5 + 2 * len(data) or len(data) != FD_SIZES[dlc]:
        return None
    return CanFrame(identity, data, fd) if fd or len(data) <= CLASSIC_SIZE else None


class SlcanBus:
    """A `CanBus` behind a serial adapter."""

    def __init__(self, port: SerialTransport, bitrate: int, data_bitrate: int | None) -> None:
        self._port = port
        self._pending = bytearray()
        self.bad_lines = 0
        self._open = True
        for rate, known in ((bitrate, BITRATES), (data_bitrate, DATA_BITRATES)):
            if rate is not None and rate not in known:
                raise PortError(f"SLCAN has no code for {rate} bit/s; choose one of {', '.join(map(str, known))}")
        setup = ["", "C", BITRATES[bitrate]] + ([DATA_BITRATES[data_bitrate]] if data_bitrate else []) + ["O"]
        port.write("\r".join(setup).encode() + b"\r")  # the empty line ends whatever an earlier host left unfinished

    def send(self, frame: CanFrame) -> bool:
        self._port.write(encode(frame))
        return True

    def receive(self) -> list[CanFrame]:
        # An adapter ends a refused command with a bell instead of a carriage return.
        *lines, rest = self._port.read().replace(b"\a", b"\r").split(b"\r")
        frames = []
        for part in lines:
            line = bytes(self._pending + part)
            self._pending.clear()
            frame = decode(line)
            if frame is not None:
                frames.append(frame)
            elif line[:1] in (b"t", b"d", b"b"):
                self.bad_lines += 1
        self._pending += rest
        if len(self._pending) > MAX_LINE:
            del self._pending[:-MAX_LINE]  # stays too long to be a frame
        return frames

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            self._port.write(b"C\r")
        finally:
            self._port.close()
