"""Text for a person, from a process that moves an arm: it never raises, and waits no longer than it is told to."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO


def print_line(text: str, file: TextIO | None, wait_s: float = 0.0, end: str = "\n") -> None:
    """Writes a line to a stream. What nobody takes within `wait_s`, or what nobody reads any more, is lost."""
    if file is None:
        return
    try:
        if not _takes(file, wait_s):
            return
        encoding = file.encoding or "utf-8"
        file.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)
        file.flush()
    except (OSError, ValueError, LookupError):
        _leave(file)


def harmless(notify: Callable[[str], None]) -> Callable[[str], None]:
    """The same, for a drive: whoever shows its text cannot end a stop by failing to."""

    def shown(text: str) -> None:
        with suppress(Exception):
            notify(text)

    return shown


def _takes(file: TextIO, wait_s: float) -> bool:
    """Whether a write would not wait: a pipe that is full, and a terminal that was stopped, would hold up an arm."""
    try:
        descriptor = file.fileno()
    except (OSError, ValueError):  # a stream without a file behind it
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(1000 * wait_s))


def _leave(file: TextIO) -> None:
    """What is still in the stream's buffer goes nowhere, so that the end of the process does not fail over it."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, file.fileno())
        os.close(nowhere)
