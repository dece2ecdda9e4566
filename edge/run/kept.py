"""Figures of a run in bounded room, however long it lasts."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
MOST = 10_000
"""Entries kept: an hour and a half of chunks at two a second."""


class Kept(list[T]):
    """The newest of what was appended, `MOST` to begin with and half as many at least; `total` counts all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def append(self, entry: T) -> None:
        if len(self) >= MOST:
            del self[: MOST // 2]
        super().append(entry)
        self.total += 1
