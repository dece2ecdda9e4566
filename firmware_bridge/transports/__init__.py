"""Lines and buses under the link. All are non-blocking: a control loop calls them."""

from firmware_bridge.transports.base import Transport
from firmware_bridge.transports.loopback import LoopbackTransport
from firmware_bridge.transports.serial_port import SerialTransport
from firmware_bridge.transports.url import FORMS, BridgeUrl, LineRate, open_transport

__all__ = ["FORMS", "BridgeUrl", "LineRate", "LoopbackTransport", "SerialTransport", "Transport", "open_transport"]
