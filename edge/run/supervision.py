"""Watches over inference, and carries out the operator's commands.

Inference that ends, or that has not answered for two of the periods in which it should, is lost: the arm executes what
is committed and comes to rest. Then the run ends, or inference is started again and the run waits for the operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from edge.errors import SafetyStop
from edge.inference.records import Phase
from edge.inference.source import InferenceHandle
from edge.run.commands import Command, CommandQueue
from edge.run.controller import Controller
from edge.run.home_trip import HomeTrip
from edge.run.motion import Motion
from edge.run.take_over import TakeOver

LOST_PERIODS = 2
MOST_STARTS = 3
"""Attempts to start inference again after one loss; what fails as often as that will not work the next time."""


class OnLoss(str, Enum):
    """What becomes of a run whose inference is lost, once the arm is at rest."""

    END = "end"
    WAIT = "wait"


@dataclass(frozen=True)
class Loss:
    """Inference was lost: when, in ns of the host's clock, and why."""

    at_ns: int
    reason: str


class Supervisor:
    """Takes decisions at a lower rate than control; `notify` is called only while the arm is at rest."""

    def __init__(
        self,
        controller: Controller,
        inference: InferenceHandle,
        commands: CommandQueue,
        on_loss: OnLoss,
        notify: Callable[[str], None],
        home: HomeTrip | None = None,
        take_over: TakeOver | None = None,
    ) -> None:
        self.controller, self.inference, self.commands, self.on_loss = controller, inference, commands, on_loss
        self.home = home or HomeTrip(controller, notify)
        self.take_over = take_over or TakeOver(controller, None, notify)
        self.losses: list[Loss] = []
        self._notify = notify
        self._lost: Loss | None = None
        self._starts = 0
        self._reported_held = False

    def step(self, now_ns: int, tick: int) -> None:
        """Raises `SafetyStop` when the run has to end."""
        self._take_command()
        self.home.step()
        self.take_over.step()
        if self._lost is None:
            self._watch(now_ns)
        elif self.controller.motion is Motion.HELD:
            self._recover(self._lost)
        self._report_held()

    def _take_command(self) -> None:
        if self.commands.pending(Command.STOP) and not self.commands.pending(Command.ESTOP):
            return  # ends the run; the loop sees to it
        command = self.commands.take()
        if command is Command.ESTOP:
            self.controller.client.estop()
            raise SafetyStop("emergency stop by the operator")
        if command is Command.PAUSE:
            self.controller.pause()
        elif command is Command.START and self._lost is None:
            self.controller.resume()
        elif command is Command.HOME and self._lost is None:
            self.home.begin()
        elif command is Command.TAKE_OVER and self._lost is None:
            self.take_over.begin()

    def _watch(self, now_ns: int) -> None:
        reason = self.inference.exit_reason() or self._hung(now_ns)
        if reason is not None:
            self._lost = Loss(now_ns, reason)
            self.losses.append(self._lost)
            self._starts = 0
            self.controller.run_out(reason)

    def _hung(self, now_ns: int) -> str | None:
        waited_us = self.controller.replanner.waited_us(now_ns)
        if waited_us <= LOST_PERIODS * self.controller.replanner.period_us:
            return None
        return f"inference has not answered for {waited_us / 1e6:.1f} s"

    def _recover(self, lost: Loss) -> None:
        if self.on_loss is OnLoss.END:
            raise SafetyStop(f"{lost.reason}; the arm has come to rest")
        if self._starts == 0:
            self._start_again(lost.reason)
            return
        exit_reason = self.inference.exit_reason()
        status = self.controller.planner.status()
        if exit_reason is not None or (status is not None and status.phase is Phase.FAILED):
            why = exit_reason or (status.message if status else "")
            if self._starts == MOST_STARTS:
                raise SafetyStop(f"inference could not be started again in {MOST_STARTS} attempts, the last: {why}")
            self._start_again(why)
        elif status is not None and status.phase is Phase.READY:
            self.controller.expect(status.warm_ns // 1000)
            self._lost = None
            self._notify("inference is back")

    def _start_again(self, why: str) -> None:
        self._notify(f"{why}; the arm is at rest, starting inference again")
        self.controller.plan_with(self.inference.restart())
        self._starts += 1

    def _report_held(self) -> None:
        if self.controller.motion is Motion.RUNNING:
            self._reported_held = False
        elif self.controller.motion is Motion.HELD and self._lost is None and not self._reported_held:
            self._reported_held = True
            self._notify(f"the arm is at rest and waits for the start command{self.take_over.offer}")
