"""`edge-run`: drives an arm with a bundle."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from edge.arms import ArmProfile, load_arm
from edge.arms.bridge import SIMULATED, Bridge, behind, check_bridge, is_simulated, open_bridge
from edge.arms.drives import drive_url
from edge.bundle import Bundle, PolicyShape, load_bundle
from edge.cameras import on_bench
from edge.cli.progress import Progress
from edge.cli.run_options import parser
from edge.cli.to_home import to_home
from edge.errors import InputError, VlaEdgeError
from edge.inference.process import InferenceSettings
from edge.log.plot import plot_run
from edge.log.run_log import RunLog
from edge.policy.base import check_policy
from edge.realtime.rights import cpus_here
from edge.registry import missing
from edge.run.replay_table import replay_log
from edge.run.report import check_output, run_header, summarise, table, write_report
from edge.run.session import WORD_SIGNALS, RunOutcome, Session, SessionSettings
from edge.run.supervision import OnLoss
from edge.view.launch import LiveView
from firmware_bridge.errors import BridgeError
from firmware_bridge.transports import LineRate

CLEAR_LINE = "\r\x1b[K"
"""Wipes the progress line off a terminal, before a message takes its place."""


def main(argv: list[str] | None = None) -> int:
    root = parser()
    args = root.parse_args(argv)
    if not args.replay and not (args.arm and (args.bundle or args.to_home)):
        root.error("--arm and --bundle are required for a run, --arm for --to-home, or --replay FILE.mcap alone")
    for number in WORD_SIGNALS:  # a word before or after the run finds nobody, and must not end the process
        signal.signal(number, signal.SIG_IGN)
    try:
        if args.replay:
            return replay_log(args.replay)
        if args.to_home:
            return to_home(args)
        with RunLog(args.log) if args.log else nullcontext() as log:
            return _run(args, log)
    except (VlaEdgeError, BridgeError) as error:
        print(f"edge-run: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except KeyboardInterrupt:
        print("edge-run: stopped before the arm was armed; it has not moved", file=sys.stderr)
        return 0


def _check(args: argparse.Namespace, arm: ArmProfile, bundle: Bundle) -> None:
    """What can be known to be wrong before anything is started. Raises `VlaEdgeError`."""
    shape = bundle.manifest.policy
    check_policy(bundle, arm, args.task, args.threads, args.engine)
    if not 1 <= args.execute < shape.horizon:
        raise InputError(
            f"--execute {args.execute}: a chunk has {shape.horizon} steps, execute 1 to {shape.horizon - 1}"
        )
    check_output("--report", args.report)
    check_bridge(args.bridge, arm)
    if args.trace and args.bridge != SIMULATED and drive_url(args.bridge) is None:
        raise InputError("--trace comes from the simulated device or an adapter; give it to bridge-sim instead")


def _cameras(args: argparse.Namespace, shape: PolicyShape, bench: Any) -> tuple[str, ...]:
    """The URL of every camera of the bundle. Raises `InputError`."""
    cameras = tuple(args.camera) or (bench.camera_urls(shape.cameras) if bench else ())
    if len(cameras) != shape.cameras:
        raise InputError(
            f"this bundle sees through {shape.cameras} camera(s) and {len(cameras)} given; repeat --camera URL"
        )
    return tuple(on_bench(url, bench.folder) if bench else url for url in cameras)


def _settings(args: argparse.Namespace, cameras: tuple[str, ...], line: LineRate | None) -> SessionSettings:
    punctual = args.realtime == "auto"
    return SessionSettings(
        task=args.task,
        duration_s=args.duration,
        rate_hz=args.rate,
        execute_steps=args.execute,
        seed=args.seed,
        inference=InferenceSettings(
            bundle=str(args.bundle),
            arm=args.arm,
            task=args.task,
            cameras=cameras,
            seed=args.seed,
            threads=args.threads,
            inject_latency_ms=args.inject_latency_ms,
            cpus=cpus_here().others if punctual else (),
            engine=args.engine,
        ),
        line=line,
        on_loss=OnLoss(args.on_inference_loss),
        realtime=punctual,
        wait_for_start=args.wait,
    )


def _run(args: argparse.Namespace, log: RunLog | None) -> int:
    arm, bundle = load_arm(args.arm), load_bundle(args.bundle)
    shape = bundle.manifest.policy
    _check(args, arm, bundle)
    with ExitStack() as stack:
        bench = _open_bench(args, arm, stack)
        cameras = _cameras(args, shape, bench)
        bridge = _open_bridge(args, arm, bench)
        stack.callback(bridge.close)
        settings = _settings(args, cameras, bridge.rate)
        if log is not None:
            log.begin(run_header(bundle, arm, settings, {"bridge": args.bridge, "scene_seed": args.scene_seed}))
        view = _open_view(args, arm, bundle, stack)
        progress = Progress(args.duration)
        stack.callback(progress.close)
        session = Session(bundle, arm, bridge.transport, settings, _say, progress.show, view, log)
        stack.callback(session.close)
        outcome = session.run()
        verdict = bench.verdict(args.task) if bench else None
        extra: dict[str, Any] = {
            "arm": arm.name,
            "bridge": args.bridge,
            "simulated": is_simulated(args.bridge),
            "cameras": list(args.camera) or ["sim:"] * shape.cameras,
            "bundle": {"checkpoint_sha256": bundle.manifest.checkpoint_sha256, "precision": bundle.manifest.precision},
            "processes": session.pids() | ({"device": bridge.device.pid} if bridge.device else {}),
            "simulated_scene": verdict.to_plain() if verdict else None,
        }
        if bridge.statistics is not None:
            bridge.close()
            extra["adapter"] = bridge.statistics
        if log is not None:
            extra["log"] = log.summary()
    return _finish(args, arm, settings, outcome, extra, log)


def _finish(
    args: argparse.Namespace,
    arm: ArmProfile,
    settings: SessionSettings,
    outcome: RunOutcome,
    extra: dict[str, Any],
    log: RunLog | None,
) -> int:
    report = summarise(outcome, settings, extra)
    if log is not None:
        log.end(report)
    picture = args.report.with_suffix(".png")
    kind = "simulated" if extra["simulated"] else "real line"
    drawn = plot_run(picture, outcome.samples, arm, f"{arm.model} ({kind}): {settings.task}, seed {settings.seed}")
    write_report(args.report, report)
    print(table(report))
    print(f"\nwrote {args.report}" + (f" and {picture}" if drawn else "; no plot: pip install 'vla-edge[plot]'"))
    if log is not None:
        print(f"edge-run: {log.close() or f'wrote {log.path}; edge-run --replay {log.path} takes its decisions again'}")
    if outcome.ended == "safety stop":
        print(f"edge-run: safety stop: {outcome.error}", file=sys.stderr)
        return 1
    return 0


def _say(text: str) -> None:
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
        "step_ms": 1000 * bundle.embodiment(arm.embodiment).step_s,
    }
    view = LiveView(arm.dof, about, args.view_port)
    stack.callback(view.close)
    _say(f"live page: {view.url}")
    return view


def _open_bridge(args: argparse.Namespace, arm: ArmProfile, bench: Any) -> Bridge:
    """The arm that the URL names; with `sim:`, the one that stands on the bench."""
    if args.bridge == SIMULATED:
        return behind(bench.process)
    return open_bridge(args.bridge, arm, args.trace, bench.world_file if bench else None)


def _open_bench(args: argparse.Namespace, arm: ArmProfile, stack: ExitStack) -> Any:
    """The simulated arm and its scene; around an arm that a simulator drives elsewhere, the scene alone; or None."""
    elsewhere = args.bridge != SIMULATED
    looks = not args.camera or any(url.startswith("sim:") for url in args.camera)
    if elsewhere and not (looks and is_simulated(args.bridge)):
        return None
    try:
        from edge.sim.bench import DrawnBench, SimulatedBench
    except ImportError as error:
        raise InputError(missing("the simulated arm", error)) from None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vla-edge-"))
    if elsewhere:
        return DrawnBench(arm, args.scene_seed, Path(folder), task=args.task)
    bench = SimulatedBench(arm, args.scene_seed, Path(folder), args.trace, task=args.task)
    stack.callback(bench.close)
    return bench


if __name__ == "__main__":
    sys.exit(main())
