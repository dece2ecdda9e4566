"""What an operator asks of a run, from wherever they ask it: a signal, the live page."""

from __future__ import annotations

from enum import IntEnum


class Command(IntEnum):
    """The more urgent, the higher."""

    NONE = 0
    START = 1
    HOME = 2
    """From rest, slowly to the home pose, and wait there."""
    PAUSE = 3
    STOP = 4
    """End the run, under control."""
    ESTOP = 5


class OperatorDesk:
    """Holds what has been asked for until the loop takes it. Asking is safe from any thread and any signal handler."""

    def __init__(self) -> None:
        self._asked = [False] * len(Command)

    def ask(self, command: Command) -> None:
        self._asked[command] = True

    def waits(self, command: Command) -> bool:
        """Whether a command has been asked for and not been taken."""
        return self._asked[command]

    def take(self) -> Command:
        """The most urgent command; it and all lesser ones are then done with."""
        for command in reversed(Command):
            if self._asked[command]:
                self._asked[: command + 1] = [False] * (command + 1)
                return command
        return Command.NONE
