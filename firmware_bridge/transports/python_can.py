"""CAN through python-can: socketcan, gs_usb, PCAN, Kvaser, its virtual bus, and the rest, by python-can's own names."""

from __future__ import annotations

from firmware_bridge.errors import LinkLost, PortError
from firmware_bridge.transports.can_stream import CanFrame


class PythonCanBus:
    """A `CanBus` of python-can."""

    def __init__(self, interface: str, channel: str, bitrate: int, data_bitrate: int | None) -> None:
        try:
            import can
        except ImportError:
            raise PortError("can: needs python-can: pip install 'vla-edge[can]'") from None
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
