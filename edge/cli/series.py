"""Episodes one after the other, each with a log and a verdict, for `edge-record` and `edge-evaluate`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from edge.arms import load_arm
from edge.arms.bridge import is_simulated
from edge.bundle import Bundle, load_bundle
from edge.cli.keys import HELP, Keys, ask
from edge.cli.live_page import open_page
from edge.cli.progress import Progress
from edge.doors.leading import FOLLOWS, FRAME_PX, LeaderProcess, leading_cameras
from edge.errors import InputError
from edge.log.run_log import RunLog
from edge.run.commands import Command
from edge.run.display import Display
from edge.run.front import DEFAULT, end_log, open_arm
from edge.run.policies import runnable
from edge.run.settings import RunSettings
from edge.run.signals import Operator

Print = Callable[[str], None]
POLL_S = 0.05


@dataclass(frozen=True)
class Episode:
    """One that is over: its log, its report, and how it ended: "success", "fail", "discard" or "unknown"."""

    number: int
    log: Path
    report: dict[str, Any]
    verdict: str
    stopped: bool
    """Whether the operator ended the series with it."""


def add_series(add: Callable[..., Any]) -> None:
    """The options of a series."""
    add("--bundle", type=Path, metavar="DIR", help="the policy: a folder made by edge-export")
    add("--episodes", type=int, default=1, metavar="N", help="how many (default %(default)d)")
    add("--duration", type=float, default=20.0, metavar="S", help="seconds of each at most (default %(default)g)")
    add("--camera", action="append", default=[], metavar="[NAME=]URL", help="as for edge-run")
    add("--seed", type=int, default=0, help="of the first episode's noise; each next one has one more")
    add("--scene-seed", type=int, default=0, help="with a simulated arm: where its objects stand, likewise")
    add("--engine", default="auto", help="what runs the graphs (default %(default)s)")
    add("--realtime", choices=("auto", "off"), default="auto", help="as for edge-run (default %(default)s)")
    add("--view", action="store_true", help="serve the live page, with buttons for all that the keys do")
    add("--view-port", type=int, default=0, metavar="N", help="its port (default: any that is free)")
    add("--yes", action="store_true", help="begin each episode, and move a real arm home, without waiting for key c")


class Series:
    """What the episodes share: the policy or the leader arm that leads, one to take over with, and the live page.

    For a `with`. A bundle runs where one is given, and a leader is then there to take over with; without one it leads.
    Raises `VlaEdgeError`.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        task: str | None,
        say: Print,
        leader: str | None = None,
        frame_px: tuple[int, int] = FRAME_PX,
    ) -> None:
        self._args, self._say = args, say
        self._arm = load_arm(args.arm)
        self._bundle: Bundle | None = load_bundle(args.bundle) if args.bundle is not None else None
        if self._bundle is not None and task is None and self._bundle.manifest.follows_text:
            raise InputError("this policy follows an instruction; give one with --task TEXT")
        self.task = task or ""
        self._specs = leading_cameras(args.camera, frame_px) if self._bundle is None else ()
        self._real = not is_simulated(args.bridge)
        self._leader_url, self._leader = leader, None if leader is None else self._read(leader)
        with ExitStack() as stack:
            stack.callback(self._let_go)
            if leader is not None:
                say("the leader is read" if self._bundle is not None else FOLLOWS.format(self._arm.name))
            self._page = None
            if args.view:
                shown = self._bundle or self._led()
                offers = {"leader": self._bundle is not None and leader is not None, "verdicts": True}
                self._page = open_page(args, self._arm, shown, self.task, stack, say, **offers)
            self._opened = stack.pop_all()

    def run(self, number: int, log: Path) -> Episode:
        """Home, the task, and the verdict: the operator's by key or page, else the simulator's, else as asked for.

        Raises `VlaEdgeError` or `BridgeError` before anything moves, `KeyboardInterrupt` before it has begun.
        """
        args, operator = self._args, Operator()
        if self._leader is not None and self._leader.lost() is not None:  # in the episode before
            self._let_go()
            self._leader = self._read(str(self._leader_url))
        run = RunSettings(
            args.arm,
            task=self.task,
            seed=args.seed + number,
            duration_s=args.duration,
            engine=args.engine,
            realtime=args.realtime == "auto",
        )
        made = runnable(self._bundle or self._led(), self._arm, run, DEFAULT)
        leader = self._leader.pose if self._leader is not None and self._bundle is not None else None
        self._say(f"episode {number}: '{self.task}', at most {args.duration:g} s; {HELP}")
        with ExitStack() as stack:
            stack.enter_context(operator)
            keys = stack.enter_context(Keys(operator.commands))
            self._begin(number, keys, operator)
            recording = stack.enter_context(RunLog(log))
            arm = stack.enter_context(
                open_arm(
                    args.arm,
                    args.bridge,
                    task=self.task,
                    scene_seed=args.scene_seed + number,
                    cameras=args.camera,
                )
            )
            if self._real:
                arm.move_to(arm.profile.home_rad, "home")
            progress = stack.enter_context(closing(Progress(args.duration)))
            display = Display(self._say, progress.show, self._page, recording)
            outcome = arm.run_opened(made, run, None, display, operator, leader)
            end_log(display, outcome)
        judged, given = outcome.report.get("simulated_scene"), operator.commands.verdict
        stopped = outcome.ended == "user" and given is None
        if given is None and not stopped and judged is None:
            given = ask(f"episode {number}: how did it go?")
        verdict = given.value if given is not None else "unknown"
        if given is None and not stopped and judged is not None:
            verdict = "success" if judged["success"] else "fail"
        return Episode(number, log, outcome.report, verdict, stopped)

    def _read(self, url: str) -> LeaderProcess:
        return LeaderProcess(self._arm, self._args.arm, url)

    def _let_go(self) -> None:
        if self._leader is not None:
            self._leader.close()

    def _led(self) -> Any:
        assert self._leader is not None  # without a bundle there is one
        return self._leader.run(self._args.bridge, self._specs)

    def _begin(self, number: int, keys: Keys, operator: Operator) -> None:
        """Waits until somebody says that the scene is set, wherever a person sets it."""
        asks = not self._args.yes and (self._real or self._bundle is None)
        first = "the arm goes slowly home, then it begins" if self._real else "it begins"
        text = f"episode {number}: set the scene, then press c (or Start on the page): {first}" if asks else ""
        if self._page is not None:
            self._page.begin(text)
        if asks:
            self._say(text)
        while asks:
            if self._page is not None:
                self._page.pass_on(operator.commands)
            elif not keys.open:
                raise InputError("nobody is there to press c; give a terminal, --view, or --yes once the scene is set")
            command = operator.commands.take()
            if command is Command.START:
                break
            if command >= Command.STOP and operator.commands.verdict is None:
                raise KeyboardInterrupt
            operator.commands.verdict = None  # of an episode that has not begun
            time.sleep(POLL_S)

    def __enter__(self) -> Series:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
