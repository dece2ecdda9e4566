"""`edge-run`: drives an arm with a bundle."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path

from edge.arms import ArmProfile, load_arm
from edge.bundle import Bundle, load_bundle
from edge.cli.clear import clear_fault
from edge.cli.live_page import open_page
from edge.cli.parser import PATIENCE_S, complain, refused_by_system
from edge.cli.progress import Progress
from edge.cli.robot_file import read_options
from edge.cli.run_options import DURATION_S, LONGEST_S, parser
from edge.cli.to_home import to_home
from edge.doors.leading import FOLLOWS, FRAME_PX, LeaderProcess, LeadingRun, leading_cameras
from edge.doors.view.finished import write_run_page
from edge.errors import InputError, VlaEdgeError
from edge.log.live import DEFAULT_PORTS, Viewer, check_live
from edge.log.plot import plot_run
from edge.log.rerun_view import import_rerun, write_recording
from edge.log.run_log import RunLog
from edge.run.display import Display
from edge.run.ending import SAFETY_STOP
from edge.run.front import run_policy
from edge.run.health import Health
from edge.run.outcome import RunOutcome
from edge.run.outputs import Kind, check_outputs
from edge.run.recompute import recompute_log
from edge.run.replay_table import replay_log
from edge.run.report import picture_of, table, write_report
from edge.run.scratch import scratch_folder
from edge.run.signals import Operator
from edge.run.supervision import OnLoss
from firmware_bridge.errors import BridgeError
from firmware_bridge.printing import print_line

SETTINGS = {
    "task": "task",
    "duration": "duration_s",
    "rate": "rate_hz",
    "execute": "execute_steps",
    "ensemble": "ensemble",
    "seed": "seed",
    "engine": "engine",
    "threads": "threads",
    "inject_latency_ms": "inject_latency_ms",
    "wait": "wait_for_start",
    "approach": "approach",
}
"""Options that are fields of `RunSettings` as they are."""
CLEAR_LINE = "\r\x1b[K"
"""Wipes the progress line off a terminal, before a message takes its place."""


def main(argv: list[str] | None = None) -> int:
    root = parser()
    try:
        args = read_options(root, sys.argv[1:] if argv is None else argv)
    except InputError as error:
        complain("edge-run", error)
        return error.exit_code
    if args.duration is None:
        args.duration = LONGEST_S if args.leader else DURATION_S
    if (args.recompute or args.html or args.rrd) and not args.replay:
        root.error("--recompute, --html and --rrd go with --replay FILE.mcap")
    runs = args.bundle or args.policy or args.leader or args.to_home or args.clear
    if not args.replay and not (args.arm and runs):
        root.error(
            "--arm and --bundle, --policy or --leader are required for a run, --arm for --to-home or --clear, or "
            "--replay FILE.mcap alone"
        )
    try:
        with Operator(to_the_end=argv is None) as operator:
            if args.replay:
                return _replay(args)
            if args.clear:
                return clear_fault(args)
            _check_outputs(args)
            return to_home(args, operator) if args.to_home else _run(args, operator)
    except (VlaEdgeError, BridgeError) as error:
        complain("edge-run", error)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except OSError as error:
        complain("edge-run", refused_by_system(error))
        return 2
    except KeyboardInterrupt:
        complain("edge-run", "stopped before the arm was armed; it has not moved")
        return 0


def _replay(args: argparse.Namespace) -> int:
    """The decisions again, and with --recompute the chunks too."""
    if args.recompute and args.bundle is None:
        raise InputError("--recompute computes the chunks again; give the bundle of that run with --bundle")
    bundle = load_bundle(args.bundle, trust=args.trust) if args.recompute else None
    pages: dict[str, tuple[Path, Kind]] = {"--html": (args.html, "page")} if args.html else {}
    if args.rrd:
        import_rerun("--rrd")
        pages["--rrd"] = args.rrd, "recording"
    check_outputs(pages, [args.replay], args.overwrite)
    code = replay_log(args.replay)
    if args.html:
        write_run_page(args.replay, args.html)
        print(f"\nwrote {args.html}, {args.html.stat().st_size / 1e6:.1f} MB")
    if args.rrd:
        shown = write_recording(args.replay, args.rrd)
        print(f"\nwrote {args.rrd}, {shown} messages; rerun {args.rrd} shows them")
    if bundle is not None:
        code = max(code, recompute_log(args.replay, bundle, args.engine, args.threads, args.arm))
    return code


def _check_outputs(args: argparse.Namespace) -> None:
    outputs: dict[str, tuple[Path, Kind]] = {}
    if args.to_home:
        if args.log or args.live:
            raise InputError("--log, --live: the move home keeps no log; leave them out")
    else:
        outputs["--report"] = args.report, "report"
        if not args.no_plot:
            outputs["the plot beside --report,"] = picture_of(args.report), "picture"
    for option, path in (("--log", args.log), ("--trace", args.trace)):
        if path is not None:
            outputs[option] = path, "recording"
    named = [
        args.arm,
        *(part for url in (args.bridge, *args.camera, args.leader or "") for part in re.split("[:?&=]", url)),
    ]
    inputs = [Path(name) for name in named if name] + [path for path in (args.bundle, args.trust) if path]
    check_outputs(outputs, inputs, args.overwrite)


def _run(args: argparse.Namespace, operator: Operator) -> int:
    with _open_log(args) or nullcontext() as log:
        arm = load_arm(args.arm)
        with ExitStack() as stack:
            policy: Bundle | LeadingRun
            if args.leader:
                policy = _leader(args, arm, stack)
            else:
                policy = _bundle(args, arm, stack)
                args.task = policy.task(args.task)
            view = open_page(args, arm, policy, args.task, stack, _print) if args.view else None
            progress = Progress(args.duration)
            stack.callback(progress.close)
            outcome = run_policy(
                policy,
                args.arm,
                args.bridge,
                scene_seed=None if args.leader else args.scene_seed,
                cameras=args.camera,
                trace=args.trace,
                display=Display(_print, progress.show, view, log, Health(os.environ.get("NOTIFY_SOCKET", ""))),
                operator=operator,
                **{field: getattr(args, option) for option, field in SETTINGS.items()},
                on_loss=OnLoss(args.on_inference_loss),
                realtime=args.realtime == "auto",
            )
        return _finish(args, arm, outcome, log)


def _open_log(args: argparse.Namespace) -> RunLog | None:
    live = Viewer(args.live, args.live_port or DEFAULT_PORTS[args.live]) if args.live else None
    if live is not None:
        check_live(live)
    elif not args.log:
        return None
    return RunLog(args.log, overwrite=args.overwrite, live=live, kept=args.log_frames)


def _leader(args: argparse.Namespace, arm: ArmProfile, stack: ExitStack) -> LeadingRun:
    """A run that follows a leader arm. Raises `VlaEdgeError` or `BridgeError`."""
    if args.bundle is not None or args.policy is not None:
        raise InputError("--leader is in the place of a policy: leave --bundle and --policy out")
    args.task = args.task or ""
    specs = leading_cameras(args.camera, FRAME_PX) if args.camera else ()
    led = stack.enter_context(LeaderProcess(arm, args.arm, args.leader))
    _print(FOLLOWS.format(arm.name))
    return led.run(args.bridge, specs)


def _bundle(args: argparse.Namespace, arm: ArmProfile, stack: ExitStack) -> Bundle:
    """The bundle given, or that of a server, which is asked what it is. Raises `VlaEdgeError`."""
    if args.policy is None:
        # Of a store: the one that is in use now, to the end of the run.
        return load_bundle(args.bundle.resolve(), trust=args.trust)
    if args.bundle is not None:
        raise InputError("--bundle and --policy: choose one")
    if args.trust is not None:
        raise InputError("--trust is for a --bundle; a server is known by its address (openpis://) and its key file")
    from edge.policy.remote import ServerAddress, describe_server, read_spec

    folder = stack.enter_context(scratch_folder())
    address = ServerAddress(args.policy, args.policy_timeout, args.policy_key_file)
    spec = read_spec(args.policy_spec) if args.policy_spec else None
    return describe_server(address, arm, args.task or "", folder / "server", spec)


def _finish(args: argparse.Namespace, arm: ArmProfile, outcome: RunOutcome, log: RunLog | None) -> int:
    """The table, the report, the plot, the log: each whatever became of the one before."""
    print_line(table(outcome.report), sys.stdout, PATIENCE_S)
    problems = _write_report(args, arm, outcome)
    if log is not None:
        problem = log.close()
        if problem is None and log.path is not None:
            _print(f"wrote {log.path}; edge-run --replay {log.path} takes its decisions again", PATIENCE_S)
        elif problem is not None and problem != outcome.error:
            problems.append(problem)
    for problem in problems:
        complain("edge-run", problem)
    if outcome.ended == SAFETY_STOP:
        complain("edge-run", f"safety stop: {outcome.error}")
    return 1 if problems or outcome.ended == SAFETY_STOP else 0


def _write_report(args: argparse.Namespace, arm: ArmProfile, outcome: RunOutcome) -> list[str]:
    """What went wrong with the report and the plot, in one line each."""
    problems, written, missing = [], [], ""
    try:
        write_report(args.report, outcome.report)
        written.append(str(args.report))
    except OSError as error:
        problems.append(f"--report {args.report}: {error.strerror}; the run's figures are in the table alone")
    picture, kind = picture_of(args.report), "simulated" if outcome.report["simulated"] else "real line"
    if not args.no_plot:
        try:
            missing = plot_run(picture, outcome.samples, arm, f"{arm.model} ({kind}): {args.task}, seed {args.seed}")
            written += [] if missing else [str(picture)]
        except OSError as error:
            problems.append(f"{picture}: {error.strerror}; there is no plot")
    if written:
        told = f"; no plot: {missing}" if missing else ""
        print_line(f"\nwrote {' and '.join(written)}{told}", sys.stdout, PATIENCE_S)
    return problems


def _print(text: str, wait_s: float = 0.0) -> None:
    print_line(f"{CLEAR_LINE if sys.stdout.isatty() else ''}edge-run: {text}", sys.stdout, wait_s)


if __name__ == "__main__":
    sys.exit(main())
