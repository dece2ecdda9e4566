"""`edge-run`: drives an arm with a bundle."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack, nullcontext

from edge.arms import ArmProfile, load_arm
from edge.arms.bridge import is_simulated
from edge.bundle import Bundle, load_bundle
from edge.cli.parser import complain
from edge.cli.progress import Progress
from edge.cli.run_options import parser
from edge.cli.to_home import to_home
from edge.errors import VlaEdgeError
from edge.log.plot import plot_run
from edge.log.run_log import RunLog
from edge.run.display import Display
from edge.run.front import run_policy
from edge.run.outcome import RunOutcome
from edge.run.replay_table import replay_log
from edge.run.report import check_output, table, write_report
from edge.run.signals import OPERATOR_SIGNALS
from edge.run.supervision import OnLoss
from edge.view.launch import LiveView
from firmware_bridge.errors import BridgeError

SETTINGS = {
    "task": "task",
    "duration": "duration_s",
    "rate": "rate_hz",
    "execute": "execute_steps",
    "seed": "seed",
    "engine": "engine",
    "threads": "threads",
    "inject_latency_ms": "inject_latency_ms",
    "wait": "wait_for_start",
}
"""Options that are fields of `RunSettings` as they are."""
CLEAR_LINE = "\r\x1b[K"
"""Wipes the progress line off a terminal, before a message takes its place."""


def main(argv: list[str] | None = None) -> int:
    root = parser()
    args = root.parse_args(argv)
    if not args.replay and not (args.arm and (args.bundle or args.to_home)):
        root.error("--arm and --bundle are required for a run, --arm for --to-home, or --replay FILE.mcap alone")
    for number in OPERATOR_SIGNALS:  # outside of a run they are ignored, and do not end the process
        signal.signal(number, signal.SIG_IGN)
    try:
        if args.replay:
            return replay_log(args.replay)
        if args.to_home:
            return to_home(args)
        with RunLog(args.log) if args.log else nullcontext() as log:
            return _run(args, log)
    except (VlaEdgeError, BridgeError) as error:
        complain("edge-run", error)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except KeyboardInterrupt:
        print("edge-run: stopped before the arm was armed; it has not moved", file=sys.stderr)
        return 0


def _run(args: argparse.Namespace, log: RunLog | None) -> int:
    check_output("--report", args.report)
    arm, bundle = load_arm(args.arm), load_bundle(args.bundle)
    with ExitStack() as stack:
        view = _open_view(args, arm, bundle, stack)
        progress = Progress(args.duration)
        stack.callback(progress.close)
        outcome = run_policy(
            bundle,
            args.arm,
            args.bridge,
            scene_seed=args.scene_seed,
            cameras=args.camera,
            trace=args.trace,
            display=Display(_print, progress.show, view, log),
            **{field: getattr(args, option) for option, field in SETTINGS.items()},
            on_loss=OnLoss(args.on_inference_loss),
            realtime=args.realtime == "auto",
        )
    return _finish(args, arm, outcome, log)


def _finish(args: argparse.Namespace, arm: ArmProfile, outcome: RunOutcome, log: RunLog | None) -> int:
    picture = args.report.with_suffix(".png")
    kind = "simulated" if outcome.report["simulated"] else "real line"
    drawn = plot_run(picture, outcome.samples, arm, f"{arm.model} ({kind}): {args.task}, seed {args.seed}")
    write_report(args.report, outcome.report)
    print(table(outcome.report))
    print(f"\nwrote {args.report}" + (f" and {picture}" if drawn else "; no plot: pip install 'vla-edge[plot]'"))
    if log is not None:
        print(f"edge-run: {log.close() or f'wrote {log.path}; edge-run --replay {log.path} takes its decisions again'}")
    if outcome.ended == "safety stop":
        print(f"edge-run: safety stop: {outcome.error}", file=sys.stderr)
        return 1
    return 0


def _print(text: str) -> None:
    print(f"{CLEAR_LINE if sys.stdout.isatty() else ''}edge-run: {text}", flush=True)


def _open_view(args: argparse.Namespace, arm: ArmProfile, bundle: Bundle, stack: ExitStack) -> LiveView | None:
    if not args.view:
        return None
    about = {
        "arm": arm.model,
        "simulated": is_simulated(args.bridge),
        "joints": arm.joints,
        "units": arm.units,
        "task": args.task,
        "bridge": args.bridge,
        "parts": list(bundle.manifest.engines),
        "step_ms": 1000 * bundle.arm(arm.embodiment, arm.joints).step_s,
    }
    view = LiveView(arm.dof, about, args.view_port)
    stack.callback(view.close)
    _print(f"live page: {view.url}")
    return view


if __name__ == "__main__":
    sys.exit(main())
