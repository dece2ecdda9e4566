"""What can go wrong on the bridge; every message is one line that names the fix."""

from __future__ import annotations

from firmware_bridge.reading import OneLine


class BridgeError(OneLine):
    """Base of all errors of the bridge."""


class PortError(BridgeError):
    """The port cannot be opened or used."""


class HandshakeError(BridgeError):
    """The device does not answer, is another one, or refuses to be set up."""


class Refused(HandshakeError):
    """The device has answered to a command, and does not carry it out; `refusal` is its reason on the wire."""

    def __init__(self, message: str, refusal: int) -> None:
        super().__init__(message)
        self.refusal = refusal


class LinkLost(BridgeError):
    """The line went silent or broke while in use."""


class BuildError(BridgeError):
    """The core is neither prebuilt for this machine nor can it be compiled here."""
