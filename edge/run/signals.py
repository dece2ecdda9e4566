"""Signals as commands of the operator, for as long as a run lasts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from edge.run.commands import Command

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
OPERATOR_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN)
SIGNALS: dict[int, Command] = {
    signal.SIGINT: Command.STOP,
    signal.SIGTERM: Command.STOP,
    signal.SIGUSR1: Command.START,
    signal.SIGUSR2: Command.PAUSE,
    signal.SIGRTMIN: Command.HOME,
}


@contextmanager
def handled(numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """These signals go to `handler` for a while; outside of the main thread, which alone may do that, they do not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
