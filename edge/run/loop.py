"""The part of a run in which the arm is armed: one loop over a static table of rates."""

from __future__ import annotations

import time
from contextlib import suppress

from edge.inference.source import InferenceHandle
from edge.realtime.scheduler import FixedStep, RateGroup, RateTable
from edge.run.commands import Command, CommandQueue
from edge.run.controller import Controller
from edge.run.display import Display
from edge.run.ending import End
from edge.run.home_trip import HomeTrip
from edge.run.motion import Motion
from edge.run.settings import RunSettings
from edge.run.supervision import Loss, Supervisor
from edge.run.take_over import Leader, TakeOver

SUPERVISION_S = 0.02
VIEW_S = 0.04
PROGRESS_S = 0.25
ENDING_US = 200_000
"""So long before its end, a plan that a policy leaves as its last one is let run out."""


class ControlLoop:
    """Runs until the time is over, the operator or the policy ends it, or it has to stop."""

    def __init__(
        self,
        controller: Controller,
        inference: InferenceHandle,
        commands: CommandQueue,
        settings: RunSettings,
        display: Display,
        spin_ns: int,
        leader: Leader | None = None,
    ) -> None:
        self.controller, self.settings, self.moved_s = controller, settings, 0.0
        self.schedule = FixedStep(round(1e9 / settings.rate_hz), time.monotonic_ns, time.sleep, spin_ns)
        self._inference, self._commands, self._display = inference, commands, display
        home = HomeTrip(controller, display.notify, display.tap)
        take_over = TakeOver(controller, leader, display.notify, display.tap)
        self._supervisor = Supervisor(
            controller, inference, commands, settings.on_loss, display.notify, home, take_over
        )
        self._has_ended = self._at_rest = False
        self._work = RateTable(
            RateGroup("control", 1, lambda now_ns, tick: controller.step(now_ns, tick + 1)),
            RateGroup("supervision", self._every(SUPERVISION_S), self._supervise),
            RateGroup("view", self._every(VIEW_S), self._show),
            RateGroup("progress", self._every(PROGRESS_S), self._show_progress),
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """What a chunk's times are of."""
        return self._inference.parts

    @property
    def losses(self) -> list[Loss]:
        """When and why inference was lost."""
        return self._supervisor.losses

    def run(self) -> End:
        """How it ended: "duration", "user" or "policy". Raises `SafetyStop` or `LinkLost`."""
        self.schedule.begin()
        began_ns = time.monotonic_ns()
        log, schedule, client = self._display.log, self.schedule, self.controller.client
        while self.moved_s < self.settings.duration_s and not self._at_rest and not self._stops():
            now_ns = schedule.wait()
            self.moved_s = (now_ns - began_ns) / 1e9
            if log is not None:
                log.loop(schedule)
            self._work.run(now_ns, schedule.ticks)
            client.keep_clock(now_ns, schedule.slack_s() - schedule.spin_ns / 1e9)
        return End("user" if self._stops() else "policy" if self._at_rest else "duration")

    def _stops(self) -> bool:
        return self._commands.pending(Command.STOP)

    def _every(self, period_s: float) -> int:
        return max(1, round(period_s * self.settings.rate_hz))

    def _supervise(self, now_ns: int, tick: int) -> None:
        if self._policy_ends(now_ns):
            return
        self._supervisor.step(now_ns, tick)
        if self._display.log is not None:
            self._display.log.beat(self._inference.beat())
            problem = self._display.log.check()
            if problem is not None and self._display.page is not None:
                self._display.page.note(problem)

    def _policy_ends(self, now_ns: int) -> bool:
        """Lets the plan of a policy that has ended run out; whether the arm has come to rest behind it."""
        controller = self.controller
        if controller.motion is Motion.RUNNING:
            now_us = controller.client.link.clock.device_us(now_ns)
            last = self._inference.ending and 0 < controller.timeline.buffered_us(now_us) < ENDING_US
            if last or self._inference.finished:
                controller.run_out("the policy has ended")
                self._has_ended = True
        self._at_rest = self._has_ended and controller.motion is Motion.HELD
        return self._at_rest

    def _show_progress(self, now_ns: int, tick: int) -> None:
        self._display.alive(self.controller.motion.value)
        if self._display.progress is not None:
            controller, timeline = self.controller, self.controller.timeline
            stretch = timeline.spacing_us(timeline.last) / timeline.step_us
            chunks = controller.counters.committed_ids.total
            with suppress(Exception):  # whoever shows it cannot end the run by failing to
                self._display.progress(self.moved_s, chunks, controller.last_state, stretch)

    def _show(self, now_ns: int, tick: int) -> None:
        if self._display.page is not None:
            self._display.page.publish(self.controller, self.schedule)
            self._display.page.pass_on(self._commands)
