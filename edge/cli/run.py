"""`edge-run`: drives an arm with a bundle."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from edge.arms import ArmProfile, available_arms, load_arm
from edge.bundle import TOKENIZER, Bundle, load_bundle
from edge.cameras import FORMS, on_bench
from edge.cli.progress import Progress
from edge.engines.opening import KINDS, built_engines
from edge.errors import InputError, VlaEdgeError
from edge.inference import InferenceSettings
from edge.instruction import tokenize
from edge.realtime import cpus_here
from edge.session import RunOutcome, Session, SessionSettings
from edge.supervision import OnLoss
from edge.telemetry.log import RunLog, run_header
from edge.telemetry.plot import plot_run
from edge.telemetry.replay_table import replay_log
from edge.telemetry.report import summarise, table, write_report
from edge.view.launch import LiveView
from firmware_bridge.errors import BridgeError
from firmware_bridge.transports import FORMS as BRIDGE_FORMS
from firmware_bridge.transports import BridgeUrl, open_transport

DEFAULT_TASK = "reach the red cube"
BRIDGE_HELP = f"sim: (default, simulated arm), {', '.join(BRIDGE_FORMS.values())}"


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-run",
        description="Runs a policy on an arm: inference and control in two processes, chunks executed by firmware.",
        epilog="Exit codes: 0 done, 1 safety stop, 2 bad input (the arm has not moved). "
        "Ctrl-C stops the arm under control and still writes the report; SIGUSR2 pauses it, SIGUSR1 starts it again. "
        "--replay FILE.mcap needs nothing else: exit 0 identical, 1 different, 2 not readable or records missing.",
    )
    add = root.add_argument
    add("--arm", metavar="NAME", help=f"arm profile: {', '.join(available_arms())}, or a .toml file")
    add("--bundle", type=Path, metavar="DIR", help="folder made by edge-export")
    add("--bridge", default="sim:", metavar="URL", help=BRIDGE_HELP)
    add(
        "--camera",
        action="append",
        default=[],
        metavar="URL",
        help="one per camera of the bundle: sim: (default with --bridge sim:), "
        f"{', '.join(form for scheme, form in FORMS.items() if scheme != 'sim')}",
    )
    add("--task", default=DEFAULT_TASK, metavar="TEXT", help="what to do, in words (default: '%(default)s')")
    add("--duration", type=_positive, default=20.0, metavar="S", help="seconds to run (default %(default)g)")
    add("--rate", type=_rate, default=250.0, metavar="HZ", help="control loop, 50 to 1000 (default %(default)g)")
    add(
        "--execute",
        type=int,
        default=5,
        metavar="N",
        help="steps executed of a chunk before the next is asked for (default %(default)d)",
    )
    add(
        "--engine",
        choices=KINDS,
        default="auto",
        help="what runs the graphs (default %(default)s: tensorrt where edge-build has made it, else onnxruntime)",
    )
    add("--threads", type=int, default=1, metavar="N", help="threads per engine (default %(default)d)")
    add("--seed", type=int, default=0, help="seed of the flow noise (default %(default)d)")
    add(
        "--inject-latency-ms",
        type=float,
        default=0.0,
        metavar="N",
        help="adds N ms to every inference, to see what happens",
    )
    add(
        "--report",
        type=Path,
        default=Path("run.json"),
        metavar="FILE.json",
        help="report (default %(default)s); the plot goes beside it as .png",
    )
    add(
        "--on-inference-loss",
        choices=[choice.value for choice in OnLoss],
        default=OnLoss.END.value,
        help="when inference ends or hangs, the arm executes what is committed and comes to rest; then end the run "
        "(default), or start inference again and wait for SIGUSR1 to go on",
    )
    add(
        "--realtime",
        choices=("auto", "off"),
        default="auto",
        help="ask the system for real-time priority, locked memory and a processor of the loop's own, and say what it "
        "refuses (default %(default)s)",
    )
    add("--view", action="store_true", help="serve a live page on 127.0.0.1 and print its address, which holds its key")
    add("--view-port", type=int, default=0, metavar="N", help="its port (default: any that is free)")
    add(
        "--wait",
        action="store_true",
        help="arm nothing until told to start: by the page's button, or by SIGUSR1",
    )
    add(
        "--log",
        type=Path,
        metavar="FILE.mcap",
        help="every input, frame and decision, written beside the loop, for Foxglove and --replay "
        "(needs the 'log' extra)",
    )
    add(
        "--replay",
        type=Path,
        metavar="FILE.mcap",
        help="no run: takes the decisions of a logged run again, on its inputs, and compares them bit by bit",
    )
    add("--trace", type=Path, metavar="FILE.csv", help="with sim: the device's own 1 kHz trace")
    add("--scene-seed", type=int, default=0, help="with sim: where the cubes stand (default %(default)d)")
    return root


def main(argv: list[str] | None = None) -> int:
    root = parser()
    args = root.parse_args(argv)
    if not args.replay and not (args.arm and args.bundle):
        root.error("--arm and --bundle are required for a run, or --replay FILE.mcap alone")
    try:
        if args.replay:
            return replay_log(args.replay)
        with RunLog(args.log) if args.log else nullcontext() as log:
            return _run(args, log)
    except (VlaEdgeError, BridgeError) as error:
        print(f"edge-run: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except KeyboardInterrupt:
        print("edge-run: stopped before the arm was armed; it has not moved", file=sys.stderr)
        return 0


def _run(args: argparse.Namespace, log: RunLog | None) -> int:
    arm = load_arm(args.arm)
    bundle = load_bundle(args.bundle)
    shape = bundle.manifest.policy
    if args.engine == "tensorrt":
        built_engines(bundle)
    bundle.embodiment(arm.embodiment)
    tokenize(args.task, bundle.file(TOKENIZER), shape.token_budget)
    if not 1 <= args.execute < shape.horizon:
        raise InputError(
            f"--execute {args.execute}: a chunk has {shape.horizon} steps, execute 1 to {shape.horizon - 1}"
        )
    if not args.report.parent.is_dir():
        raise InputError(f"--report {args.report}: there is no folder {args.report.parent}")
    simulated = args.bridge == "sim:"
    if args.trace and not simulated:
        raise InputError("--trace comes from the simulated device; give it to bridge-sim instead")
    with ExitStack() as stack:
        bench = _open_bench(args, arm, stack) if simulated else None
        cameras = tuple(args.camera) or ((bench.camera_url,) * shape.cameras if bench else ())
        cameras = tuple(on_bench(url, bench.folder) if bench else url for url in cameras)
        if len(cameras) != shape.cameras:
            raise InputError(
                f"this bundle sees through {shape.cameras} camera(s) and {len(cameras)} given; repeat --camera URL"
            )
        url = f"serial:{bench.process.port}" if bench else args.bridge
        settings = SessionSettings(
            task=args.task,
            duration_s=args.duration,
            rate_hz=args.rate,
            execute_steps=args.execute,
            seed=args.seed,
            inference=InferenceSettings(
                str(args.bundle),
                args.arm,
                args.task,
                cameras,
                args.seed,
                args.threads,
                args.inject_latency_ms,
                cpus_here().others if args.realtime == "auto" else (),
                args.engine,
            ),
            line=None if bench else BridgeUrl.parse(url).rate,
            on_loss=OnLoss(args.on_inference_loss),
            realtime=args.realtime == "auto",
            wait_for_start=args.wait,
        )
        if log is not None:
            log.begin(run_header(bundle, arm, settings, {"bridge": args.bridge, "scene_seed": args.scene_seed}))
        view = _open_view(args, arm, bundle, stack)
        progress = Progress(args.duration)
        stack.callback(progress.close)
        session = Session(bundle, arm, open_transport(url), settings, _say, progress.show, view, log)
        stack.callback(session.close)
        outcome = session.run()
        verdict = bench.verdict(args.task) if bench else None
        extra: dict[str, Any] = {
            "arm": arm.name,
            "bridge": args.bridge,
            "simulated": bench is not None,
            "cameras": list(args.camera) or ["sim:"] * shape.cameras,
            "bundle": {"checkpoint_sha256": bundle.manifest.checkpoint_sha256, "precision": bundle.manifest.precision},
            "processes": session.pids() | ({"device": bench.process.pid} if bench else {}),
            "simulated_scene": verdict.to_plain() if verdict else None,
        }
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
    drawn = plot_run(
        picture, outcome.samples, arm.joints, f"{arm.model} ({kind}): {settings.task}, seed {settings.seed}"
    )
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
    print(f"edge-run: {text}", flush=True)


def _open_view(args: argparse.Namespace, arm: ArmProfile, bundle: Bundle, stack: ExitStack) -> LiveView | None:
    if not args.view:
        return None
    about = {
        "arm": arm.model,
        "simulated": args.bridge == "sim:",
        "joints": arm.joints,
        "task": args.task,
        "bridge": args.bridge,
        "step_ms": 1000 * bundle.embodiment(arm.embodiment).step_s,
    }
    view = LiveView(arm.dof, about, args.view_port)
    stack.callback(view.close)
    _say(f"live page: {view.url}")
    return view


def _open_bench(args: argparse.Namespace, arm: ArmProfile, stack: ExitStack) -> Any:
    try:
        from edge.sim.bench import SimulatedBench
    except ImportError as error:
        raise InputError(
            f"the simulated arm needs the 'sim' extra ({error.name} is missing): pip install 'vla-edge[sim]'"
        ) from None
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vla-edge-"))
    bench = SimulatedBench(arm, args.scene_seed, Path(folder), args.trace)
    stack.callback(bench.close)
    return bench


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 50 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} Hz; the control loop runs at 50 to 1000 Hz")
    return value


if __name__ == "__main__":
    sys.exit(main())
