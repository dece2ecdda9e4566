"""`tunnel:PATH`: a serial line through something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from firmware_bridge.transports import LineRate, SerialTransport, Transport


@dataclass(frozen=True)
class TunnelLine:
    FORM: ClassVar[str] = "tunnel:PATH"
    target: str

    @property
    def rate(self) -> LineRate | None:
        return None

    def open(self) -> Transport:
        return SerialTransport(self.target)
