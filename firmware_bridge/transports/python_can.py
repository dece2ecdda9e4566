"""CAN through python-can: socketcan, gs_usb, PCAN, Kvaser, its virtual bus, and the rest, by python-can's own names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from firmware_bridge.errors import LinkLost, PortError
from firmware_bridge.registry import missing
from firmware_bridge.transports.can_stream import CanFrame, CanLine, CanTransport


@dataclass(frozen=True)
class PythonCanLine(CanLine):
    """A bus by python-can's names of interface and channel, with a colon between them in `target`."""

    FORM: ClassVar[str] = "can:INTERFACE:CHANNEL?bitrate=N&data_bitrate=N&fd=1&node=N"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(self.target.partition(":")):
            raise ValueError("a bus has an interface and a channel")

    def open(self) -> CanTransport:
        interface, _, channel = self.target.partition(":")
        return self.transport(PythonCanBus(interface, channel, self.bitrate, self.rate.data_bitrate))


class PythonCanBus:
    """A `CanBus` of python-can."""

    def __init__(self, interface: str, channel: str, bitrate: int, data_bitrate: int | None) -> None:
        try:
            import can
        except ImportError as error:
            raise PortError(missing("a line can:", error)) from None
        options = {"bitrate": bitrate}
        if data_bitrate is not None:
            options |= {"fd": True, "data_bitrate": data_bitrate}
        try:
            self._bus = can.Bus(channel=channel, interface=interface, **options)
        except (can.CanError, OSError, ValueError, NotImplementedError) as error:
            raise PortError(f"can:{interface}:{channel}: cannot be opened: {_one_line(error)}") from None
        self._name = f"can:{interface}:{channel}"
        self._message, self._error = can.Message, can.CanError

    def send(self, frame: CanFrame) -> bool:
        message = self._message(
            arbitration_id=frame.id,
            data=frame.data,
            is_extended_id=False,
            is_fd=frame.fd,
            bitrate_switch=frame.fd,
        )
        try:
            self._bus.send(message, timeout=0)
        except self._error:  # the controller's queue is full (ENOBUFS); a bus that is off shows by its silence
            return False
        return True

    def receive(self) -> list[CanFrame]:
        frames = []
        try:
            while (message := self._bus.recv(timeout=0)) is not None:
                if not (message.is_extended_id or message.is_remote_frame or message.is_error_frame):
                    frames.append(CanFrame(message.arbitration_id, bytes(message.data), message.is_fd))
        except (self._error, OSError) as error:
            raise LinkLost(f"{self._name}: {_one_line(error)}; check cable, bit rate and termination") from None
        return frames

    def close(self) -> None:
        self._bus.shutdown()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
