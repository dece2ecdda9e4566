"""Episodes of a policy one after the other, each with a log and a verdict, for `edge-record` and `edge-evaluate`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.arms import load_arm
from edge.arms.bridge import is_simulated
from edge.bundle import Bundle
from edge.cli.keys import HELP, Keys, ask
from edge.cli.progress import Progress
from edge.log.run_log import RunLog
from edge.run.display import Display
from edge.run.front import DEFAULT, end_log, open_arm
from edge.run.policies import runnable
from edge.run.settings import RunSettings
from edge.run.signals import Operator
from edge.run.take_over import Leader

Print = Callable[[str], None]


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


def run_episode(
    bundle: Bundle,
    args: argparse.Namespace,
    task: str,
    number: int,
    log: Path,
    say: Print,
    leader: Leader | None = None,
) -> Episode:
    """Home, the task, and the verdict: the operator's by key, else the simulator's, else the one asked for.

    Raises `VlaEdgeError` or `BridgeError` before anything moves.
    """
    operator = Operator()
    run = RunSettings(
        args.arm,
        task=task,
        seed=args.seed + number,
        duration_s=args.duration,
        engine=args.engine,
        realtime=args.realtime == "auto",
    )
    made = runnable(bundle, load_arm(args.arm), run, DEFAULT)
    say(f"episode {number}: '{task}', at most {args.duration:g} s; {HELP}")
    with ExitStack() as stack:
        stack.enter_context(operator)
        recording = stack.enter_context(RunLog(log))
        arm = stack.enter_context(
            open_arm(args.arm, args.bridge, task=task, scene_seed=args.scene_seed + number, cameras=args.camera)
        )
        if not is_simulated(args.bridge):
            arm.move_to(arm.profile.home_rad, "home")
        keys = stack.enter_context(Keys(operator.commands))
        progress = stack.enter_context(closing(Progress(args.duration)))
        display = Display(say, progress.show, None, recording)
        outcome = arm.run_opened(made, run, None, display, operator, leader)
        end_log(display, outcome)
    judged = outcome.report.get("simulated_scene")
    stopped = outcome.ended == "user" and keys.verdict is None
    verdict = keys.verdict or ("unknown" if stopped else None)
    if verdict is None and judged is not None:
        verdict = "success" if judged["success"] else "fail"
    return Episode(number, log, outcome.report, verdict or ask(f"episode {number}: how did it go?"), stopped)
