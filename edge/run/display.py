"""Where a run shows itself: status lines, progress, the live page, the log. No call waits."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from edge.inference.film import FrameOutlets, NewestFrames
from edge.inference.records import Planner
from edge.log.records import Journal
from edge.log.run_log import RunLog
from edge.log.taps import tapped_planner
from edge.realtime.scheduler import FixedStep
from edge.run.commands import CommandQueue
from edge.run.controller import Controller
from edge.run.health import Health
from firmware_bridge.messages import StateReport


class LivePage(Protocol):
    """What shows a run while it goes on. No call waits."""

    def publish(self, controller: Controller, loop: FixedStep | None) -> None:
        """Shows the run as it is now."""

    def publish_report(self, report: StateReport, device_us: int) -> None:
        """Shows the device before anything moves; `device_us` is its time, unwrapped."""

    def note(self, text: str) -> None:
        """Shows a line until the next one."""

    @property
    def frames(self) -> NewestFrames | None:
        """Where the newest frame of each camera goes; None where it shows none."""

    def pass_on(self, commands: CommandQueue) -> None:
        """Takes presses of buttons to the commands."""


class ProgressLine(Protocol):
    """Shows how far a run has come; never waits."""

    def __call__(self, seconds: float, chunks: int, state: StateReport | None, stretch: float) -> None: ...


@dataclass(frozen=True)
class Display:
    """The default is silent but for `logging`. `line` is called only while the arm is at rest."""

    line: Callable[[str], None] = logging.getLogger("edge").info
    progress: ProgressLine | None = None
    page: LivePage | None = None
    log: RunLog | None = None
    health: Health | None = None

    def alive(self, state: str) -> None:
        """Tells the supervisor, where there is one, that the run goes on."""
        if self.health is not None:
            self.health.alive(state, time.monotonic_ns())

    @property
    def journal(self) -> Journal | None:
        return self.log.journal if self.log is not None else None

    @property
    def outlets(self) -> FrameOutlets:
        """Where the frames go to."""
        log = self.log.frames if self.log is not None else None
        return FrameOutlets(log, self.page.frames if self.page is not None else None)

    def notify(self, text: str) -> None:
        """A status line. Whoever shows it cannot end the run by failing to."""
        with suppress(Exception):
            self.line(text)
        if self.log is not None:
            self.log.message(text)
        if self.page is not None:
            self.page.note(text)

    def tap(self, planner: Planner) -> Planner:
        """The planner, recorded where there is a log."""
        return tapped_planner(planner, self.journal)
