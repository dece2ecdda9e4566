"""What the link needs of a line."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """A byte stream in both directions. No call blocks; a broken line raises `LinkLost`."""

    def read(self) -> bytes:
        """Everything that has arrived since the last call, possibly nothing."""

    def write(self, data: bytes) -> None:
        """Sends `data`, keeping what the line does not take at once for the next call of either method."""

    def close(self) -> None:
        """Frees the line."""
