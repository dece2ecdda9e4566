"""What the link needs of a line, and how a line is opened by its URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol


class Transport(Protocol):
    """A byte stream in both directions. No call blocks; a broken line raises `LinkLost`."""

    def read(self) -> bytes:
        """Everything that has arrived since the last call, possibly nothing."""

    def write(self, data: bytes) -> None:
        """Sends `data`, keeping what the line does not take at once for the next call of either method."""

    def close(self) -> None:
        """Frees the line; a second call changes nothing."""


@dataclass(frozen=True)
class LineRate:
    """How fast a line is: `baud` of a serial line, else the rates of a CAN bus; no `data_bitrate` means classic CAN."""

    baud: int | None = None
    bitrate: int | None = None
    data_bitrate: int | None = None


class Line(Protocol):
    """A scheme of `--bridge`: a frozen dataclass of the options in its URL."""

    FORM: ClassVar[str]

    @property
    def rate(self) -> LineRate | None:
        """How fast it is; None where nothing limits it."""

    def open(self) -> Transport:
        """The line, ready for the first byte. Raises `PortError`."""
