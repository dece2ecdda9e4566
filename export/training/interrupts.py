"""Ctrl-C, SIGTERM and a terminal that is closed end a run after the step it is in, not in the middle of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """A run was asked to stop, and did so after `steps` steps, which are saved."""

    def __init__(self, steps: int) -> None:
        super().__init__(f"stopped after step {steps}, which is saved; give the same command again to go on")
        self.steps = steps


class Interrupts:
    """`requested` becomes True with the first signal. A second Ctrl-C ends the process at once, if it is alone."""

    def __init__(self, alone: bool) -> None:
        self.requested, self._alone = False, alone

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and self._alone:  # torchrun passes on what the terminal has sent already
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def interrupts(alone: bool) -> Iterator[Interrupts]:
    """Watches for both signals; what handled them before does again after."""
    watch = Interrupts(alone)
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield watch
        return
    wanted = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, watch.handle) for number in wanted}  # under nohup the end means nothing
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
