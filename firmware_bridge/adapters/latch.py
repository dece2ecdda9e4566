"""The fault that an arm's adapter has seen, in a file: it outlives the process, until a person clears it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from firmware_bridge.codes import LATCHED, DeviceState, StopReason
from firmware_bridge.errors import BuildError
from firmware_bridge.native import own_folder

MOST_BYTES = 1000
MOST_WORDS = 300


@dataclass(frozen=True)
class Latched:
    """State and reason as the device reports them, `why` in the arm's own words, `when` by this computer's clock."""

    state: int
    reason: int
    why: str
    when: str

    def __str__(self) -> str:
        return f"latched since {self.when}" + (f": {self.why}" if self.why else "")


UNREADABLE = Latched(DeviceState.FAULT, StopReason.NONE, "what stood in the file of the latch cannot be read", "?")
"""What nobody can read is no reason to move."""


class LatchFile:
    """The record of one arm, at `path`. It is open from the start, so that `put` is one write. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self.found = _read(os.pread(self._file, MOST_BYTES, 0))
        """What an earlier process has left."""

    def put(self, state: int, reason: int, why: str) -> None:
        """Never raises: a full disk must not keep an arm from stopping."""
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        text = json.dumps(asdict(Latched(int(state), int(reason), why[:MOST_WORDS], when)), ensure_ascii=True)
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)

    def clear(self) -> None:
        """A person has cleared the fault."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)

    def close(self) -> None:
        os.close(self._file)


def open_latch(name: str, notify: Callable[[str], None]) -> LatchFile | None:
    """The record of the arm of this name; without a place for one, says so, and there is none."""
    try:
        folder = own_folder("XDG_STATE_HOME", ".local/state")
        return LatchFile(folder / f"{re.sub('[^A-Za-z0-9.-]', '_', name)[:100]}.latch")
    except (OSError, BuildError) as error:
        notify(f"a fault will be forgotten with this process, for there is no place to keep it: {error}")
        return None


def _read(data: bytes) -> Latched | None:
    if not data.strip():
        return None
    try:
        found = Latched(**json.loads(data))
    except (ValueError, TypeError):
        return UNREADABLE
    if found.state not in LATCHED or found.reason not in set(StopReason):
        return UNREADABLE
    words = "".join(letter if letter.isprintable() else "?" for letter in str(found.why))
    return Latched(found.state, found.reason, words[:MOST_WORDS], str(found.when)[:30])
