"""Keys of an operator during a run, on a terminal or as lines of a pipe: commands to the arm, and the verdict."""

from __future__ import annotations

import select
import sys
import termios
import threading
import tty
from types import TracebackType
from typing import Any

from edge.run.commands import Command, CommandQueue

COMMANDS = {"p": Command.PAUSE, "c": Command.START, "t": Command.TAKE_OVER, "h": Command.HOME}
VERDICTS = {"s": "success", "f": "fail", "d": "discard"}
"""These end the run as well."""
HELP = "keys: p pause, c go on, t take over, h home; s success, f fail, d discard end the episode"
POLL_S = 0.05


class Keys:
    """Reads keys in a thread of its own for as long as the `with` lasts; `verdict` is the last one given."""

    def __init__(self, commands: CommandQueue) -> None:
        self.verdict: str | None = None
        self._commands, self._ended = commands, threading.Event()
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)
        self._before: Any = None

    def press(self, key: str) -> None:
        """What a key means."""
        if key in COMMANDS:
            self._commands.put(COMMANDS[key])
        elif key in VERDICTS:
            self.verdict = VERDICTS[key]
            self._commands.put(Command.STOP)

    def _read(self) -> None:
        while not self._ended.is_set():
            if not select.select([sys.stdin], [], [], POLL_S)[0]:
                continue
            key = sys.stdin.read(1)
            if not key:  # the terminal has gone: the run is stopped by its signal
                return
            self.press(key.lower())

    def __enter__(self) -> Keys:
        if sys.stdin.isatty():
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(1.0)
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)


def ask(question: str) -> str:
    """One of `VERDICTS` from the terminal; "unknown" where there is none, or at its end."""
    if not sys.stdin.isatty():
        return "unknown"
    while True:
        print(f"{question} [s success, f fail, d discard] ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return "unknown"
        if line.strip().lower() in VERDICTS:
            return VERDICTS[line.strip().lower()]
