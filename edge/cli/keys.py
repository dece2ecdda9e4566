"""Keys of an operator during a run, on a terminal or through a pipe: commands to the arm, and the verdict."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from types import TracebackType
from typing import Any

from edge.run.commands import Command, CommandQueue, Verdict

COMMANDS = {"p": Command.PAUSE, "c": Command.START, "t": Command.TAKE_OVER, "h": Command.HOME}
VERDICTS = {"s": Verdict.SUCCESS, "f": Verdict.FAIL, "d": Verdict.DISCARD}
"""These end the run as well."""
HELP = "keys: p pause, c go on, t take over, h home; s success, f fail, d discard end the episode"
POLL_S = 0.05
AT_ONCE = 64


class Keys:
    """Reads keys in a thread of its own for as long as the `with` lasts."""

    def __init__(self, commands: CommandQueue) -> None:
        self._commands, self._ended = commands, threading.Event()
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)
        self._before: Any = None
        self.open = True
        """Whether there is somebody who may press one."""

    def press(self, key: str) -> None:
        """What a key means."""
        if key in COMMANDS:
            self._commands.put(COMMANDS[key])
        elif key in VERDICTS:
            self._commands.judge(VERDICTS[key])

    def _read(self) -> None:
        stdin = sys.stdin.fileno()  # not through its buffer, in which keys that come together would wait unseen
        while not self._ended.is_set():
            if not select.select([stdin], [], [], POLL_S)[0]:
                continue
            keys = os.read(stdin, AT_ONCE)
            if not keys:  # the terminal has gone: the run is stopped by its signal
                self.open = False
                return
            for key in keys.decode(errors="replace").lower():
                self.press(key)

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


def ask(question: str) -> Verdict | None:
    """A verdict from the terminal; None where there is none, or at its end."""
    if not sys.stdin.isatty():
        return None
    while True:
        print(f"{question} [s success, f fail, d discard] ", end="", flush=True)
        line = sys.stdin.readline()
        if not line:
            return None
        if line.strip().lower() in VERDICTS:
            return VERDICTS[line.strip().lower()]
