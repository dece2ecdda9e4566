"""Opens the line that a bridge URL names, as in `serial:/dev/ttyACM0?baud=1000000` or `can:socketcan:can0?fd=1`."""

from __future__ import annotations

from firmware_bridge.errors import PortError
from firmware_bridge.registry import Registry
from firmware_bridge.transports.base import Line, Transport

LINES: Registry[Line] = Registry(
    "vla_edge.lines",
    "line",
    {
        "serial": "firmware_bridge.transports.serial_port:SerialLine",
        "slcan": "firmware_bridge.transports.slcan:SlcanLine",
        "can": "firmware_bridge.transports.python_can:PythonCanLine",
        "net": "firmware_bridge.transports.network:NetworkLine",
    },
    PortError,
)


def open_transport(url: str) -> Transport:
    """Opens the line that a bridge URL names. Raises `PortError`."""
    return LINES.read(url).open()
