"""Lines and buses under the link. All are non-blocking: a control loop calls them."""

from firmware_bridge.transports.base import Line, LineRate, Transport
from firmware_bridge.transports.lines import LINES, open_transport
from firmware_bridge.transports.loopback import LoopbackTransport
from firmware_bridge.transports.serial_port import SerialTransport

__all__ = ["LINES", "Line", "LineRate", "LoopbackTransport", "SerialTransport", "Transport", "open_transport"]
