"""The commands of an operator to a run, wherever they come from: a signal, a key, the live page."""

from __future__ import annotations

from enum import Enum, IntEnum


class Command(IntEnum):
    """The more urgent, the higher."""

    NONE = 0
    START = 1
    CLEAR = 2
    """Leave FAULT or ESTOP, before anything is armed."""
    HOME = 3
    """From rest, slowly to the home pose, and wait there."""
    TAKE_OVER = 4
    """From rest, a leader arm leads in the policy's place, until a pause."""
    PAUSE = 5
    STOP = 6
    """End the run, under control."""
    ESTOP = 7


class Verdict(Enum):
    """How an operator says that an episode went; saying it ends the episode."""

    SUCCESS = "success"
    FAIL = "fail"
    DISCARD = "discard"


class CommandQueue:
    """Holds commands until the loop takes them. `put` is safe from any thread and any signal handler."""

    def __init__(self) -> None:
        self._waiting = [False] * len(Command)
        self.verdict: Verdict | None = None
        """The last one given."""

    def judge(self, verdict: Verdict) -> None:
        """Keeps a verdict, and ends the run."""
        self.verdict = verdict
        self.put(Command.STOP)

    def put(self, command: Command) -> None:
        self._waiting[command] = True

    def pending(self, command: Command) -> bool:
        """Whether a command has been put and not been taken."""
        return self._waiting[command]

    def take(self) -> Command:
        """The most urgent command; it and all lesser ones are then done with."""
        for command in reversed(Command):
            if self._waiting[command]:
                self._waiting[: command + 1] = [False] * (command + 1)
                return command
        return Command.NONE
