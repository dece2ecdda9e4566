"""A child of a run that reads something for it, and says in JSON, a line each, that it does or why it does not."""

from __future__ import annotations

import json
import select
import signal
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar

from edge.errors import InputError
from firmware_bridge.children import end, ended_on_error, start_module

END_TIMEOUT_S = 5.0
H = TypeVar("H", bound="Helper")


class Helper:
    """The process, for a `with`. It prints `{"ready": true}` once, and `{"error": WHY}` when it ends by itself.

    Raises `InputError` when it cannot do its work; `silent` is then said of one that says nothing.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], descriptors: Sequence[int], ready_s: float, silent: str
    ) -> None:
        self._why = ""
        self._process = start_module(
            module,
            arguments,
            end=signal.SIGTERM,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        with ended_on_error(self._process):
            if not select.select([self._process.stdout], [], [], ready_s)[0]:
                raise InputError(silent)
            told = json.loads(self._process.stdout.readline() or '{"error": "it ended"}')
            if "error" in told:
                raise InputError(told["error"])

    def lost(self) -> str | None:
        """Why it has ended; None while it is at work."""
        if not self._why and self._process.poll() is not None:
            assert self._process.stdout is not None
            said = self._process.stdout.readline()
            self._why = str(json.loads(said)["error"]) if said else "its process has ended"
        return self._why or None

    def close(self) -> None:
        """Ends the process."""
        end(self._process, END_TIMEOUT_S)

    def __enter__(self: H) -> H:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
