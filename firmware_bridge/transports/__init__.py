"""Byte transports under the link. All are non-blocking: a control loop calls them."""

from firmware_bridge.transports.base import Transport
from firmware_bridge.transports.serial_port import SerialTransport
from firmware_bridge.transports.url import open_transport

__all__ = ["SerialTransport", "Transport", "open_transport"]
