"""`edge-run`: drives an arm with a bundle."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edge.arms import ArmProfile, available_arms, load_arm
from edge.bundle import TOKENIZER, Bundle, load_bundle
from edge.engines.opening import KINDS, built_engines
from edge.errors import InputError, VlaEdgeError
from edge.inference import InferenceSettings
from edge.instruction import tokenize
from edge.session import RunOutcome, Session, SessionSettings
from edge.telemetry.plot import plot_run
from edge.telemetry.report import summarise, table, write_report
from firmware_bridge.errors import BridgeError
from firmware_bridge.transports import FORMS, BridgeUrl, open_transport

DEFAULT_TASK = "reach the red cube"
BRIDGE_HELP = f"sim: (default, simulated arm), {', '.join(FORMS.values())}"


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-run",
        description="Runs a policy on an arm: inference and control in two processes, chunks executed by firmware.",
        epilog="Exit codes: 0 done, 1 safety stop, 2 bad input (the arm has not moved). "
        "Ctrl-C stops the arm under control and still writes the report.",
    )
    add = root.add_argument
    add("--arm", required=True, metavar="NAME", help=f"arm profile: {', '.join(available_arms())}, or a .toml file")
    add("--bundle", type=Path, required=True, metavar="DIR", help="folder made by edge-export")
    add("--bridge", default="sim:", metavar="URL", help=BRIDGE_HELP)
    add(
        "--camera",
        action="append",
        default=[],
        metavar="URL",
        help="one per camera of the bundle: sim: (default with --bridge sim:) or pattern:",
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
    add("--trace", type=Path, metavar="FILE.csv", help="with sim: the device's own 1 kHz trace")
    add("--scene-seed", type=int, default=0, help="with sim: where the cubes stand (default %(default)d)")
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        return _run(args)
    except (VlaEdgeError, BridgeError) as error:
        print(f"edge-run: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except KeyboardInterrupt:
        print("edge-run: stopped before the arm was armed; it has not moved", file=sys.stderr)
        return 0


def _run(args: argparse.Namespace) -> int:
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
        cameras = tuple(bench.camera_url if url == "sim:" and bench else url for url in cameras)
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
                args.engine,
            ),
            line=None if bench else BridgeUrl.parse(url).rate,
        )
        session = Session(
            bundle, arm, open_transport(url), settings, lambda text: print(f"edge-run: {text}", flush=True)
        )
        stack.callback(session.close)
        with _Progress(session, args.duration):
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
    return _finish(args, arm, bundle, settings, outcome, extra)


def _finish(
    args: argparse.Namespace,
    arm: ArmProfile,
    bundle: Bundle,
    settings: SessionSettings,
    outcome: RunOutcome,
    extra: dict[str, Any],
) -> int:
    report = summarise(outcome, settings, extra)
    picture = args.report.with_suffix(".png")
    kind = "simulated" if extra["simulated"] else "real line"
    drawn = plot_run(
        picture, outcome.samples, arm.joints, f"{arm.model} ({kind}): {settings.task}, seed {settings.seed}"
    )
    write_report(args.report, report)
    print(table(report))
    print(f"\nwrote {args.report}" + (f" and {picture}" if drawn else "; no plot: pip install 'vla-edge[plot]'"))
    if outcome.ended == "safety stop":
        print(f"edge-run: safety stop: {outcome.error}", file=sys.stderr)
        return 1
    return 0


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


class _Progress:
    """A bar drawn by a thread of its own: the control loop prints nothing."""

    def __init__(self, session: Session, duration_s: float) -> None:
        self._session, self._duration_s = session, duration_s
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._draw, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _draw(self) -> None:
        while not self._done.wait(0.1):
            if self._session.progress_s > 0:
                break
        else:
            return
        layout = "{l_bar}{bar}| {n:.1f}/{total:.1f} s"
        with tqdm(total=self._duration_s, bar_format=layout, desc="edge-run", disable=None, leave=False) as bar:
            while not self._done.wait(0.25):
                bar.n = min(self._session.progress_s, self._duration_s)
                bar.refresh()


if __name__ == "__main__":
    sys.exit(main())
