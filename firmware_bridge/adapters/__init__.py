"""Arms that speak their own protocol: the same core runs beside them, in a process of its own on a computer."""

from firmware_bridge.adapters.base import ArmDrive, DriveError, Measurement
from firmware_bridge.adapters.loop import Adapter
from firmware_bridge.adapters.terminal import Terminal

__all__ = ["Adapter", "ArmDrive", "DriveError", "Measurement", "Terminal"]
