"""Signals as commands of the operator, from the start of a command until the last of its outputs is on disk."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

from edge.run.commands import Command, CommandQueue
from firmware_bridge.children import STOP_SIGNALS

SIGNALS: dict[int, Command] = {
    **dict.fromkeys(STOP_SIGNALS, Command.STOP),
    signal.SIGUSR1: Command.START,
    signal.SIGUSR2: Command.PAUSE,
    signal.SIGRTMIN: Command.HOME,
    signal.SIGRTMIN + 1: Command.TAKE_OVER,
}


class Operator:
    """Who stops, pauses and starts a run: `commands`, also from signals for as long as the `with` lasts.

    Until `commit`, the first signal to stop also raises `KeyboardInterrupt`; one raise is enough, so what is cleaned up
    then is not interrupted by the next signal. Whatever others make of it on its way (ctypes, for one, wraps it), it
    leaves the `with` as a `KeyboardInterrupt`; one that was lost in a destructor is raised by the next signal, or by
    `commit`. Afterwards nothing is raised: whoever moves the arm takes the command.
    Signals arrive in the main thread alone; elsewhere there are none. With `to_the_end` they are ignored
    after the `with`, until the process has ended: it has nothing left to interrupt.
    """

    def __init__(self, to_the_end: bool = False) -> None:
        self._to_the_end = to_the_end
        self.commands = CommandQueue()
        self._interrupts, self._interrupted, self._listens, self._depth = True, False, False, 0
        self._before: dict[int, Any] = {}
        self._unraisable_before = sys.unraisablehook

    @property
    def stops(self) -> bool:
        """Whether the end of the run was requested."""
        return self.commands.pending(Command.STOP)

    def listen(self) -> None:
        """From now on signals other than those to stop are commands; before, they mean nothing."""
        self._listens = True

    def commit(self) -> None:
        """From now on a signal interrupts nothing. Raises `KeyboardInterrupt` when the stop has come already."""
        self._interrupts = False
        if self.stops:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        command = SIGNALS[number]
        if command is not Command.STOP:
            if self._listens:
                self.commands.put(command)
            return
        self.commands.put(command)
        if self._interrupts:
            self._interrupts, self._interrupted = False, True
            raise KeyboardInterrupt

    def _on_unraisable(self, lost: Any) -> None:
        """Of an interrupt that came into a destructor, which can't raise, Python would print a traceback."""
        if lost.exc_type is KeyboardInterrupt and self._interrupted:
            self._interrupts = True
        else:
            self._unraisable_before(lost)

    def __enter__(self) -> Operator:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS if not _nohup(number)}
            self._unraisable_before, sys.unraisablehook = sys.unraisablehook, self._on_unraisable
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth != 0:
            return
        self._interrupts = False
        if self._before:
            for number, handler in self._before.items():
                signal.signal(number, signal.SIG_IGN if self._to_the_end else handler)
            sys.unraisablehook = self._unraisable_before
            self._before = {}
        if self._interrupted and isinstance(error, Exception):
            raise KeyboardInterrupt from None


def _nohup(number: int) -> bool:
    """Whether the end of the terminal was ignored by whoever started this, and is to mean nothing."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
