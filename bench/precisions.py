"""The shipped checkpoint in FP32, BF16 and INT8: size, agreement with torch, closed-loop success, and speed.

INT8 is calibrated on demonstrations that are recorded first. Speeds are taken in turns on ONNX Runtime's CPU provider.
BF16 is simulated there (operands and results rounded, products in FP32), so its agreement and success are real and its
speed is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from bench import options
from bench.document import Recording
from bench.evaluate import EvaluationSettings, evaluate
from bench.harness import Plan, group, take_turns
from bench.latency import ENGINE_BOUNDARY, ENGINES, engine_opener
from bench.precision_tables import lines
from edge.bundle import MANIFEST, Bundle, add_to_verification, load_bundle, sha256
from edge.cli.parser import count
from export.commands.export import main as edge_export
from export.engines.package import write_widened
from export.engines.precision import PRECISIONS
from lab.experts.demonstrations import main as record

ROOT = Path(__file__).resolve().parents[1]
OBSERVATION_SEED = 4242
"""No training data and no evaluated scene draws from it."""


def widened(bundle: Bundle, out: Path) -> Path:
    """A BF16 bundle in the form that a CPU can run."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(bundle.path, out)
    for spec in bundle.manifest.engines.values():
        write_widened(bundle.file(spec.file), out / spec.file)
    files = {name: sha256(out / name) for name in bundle.manifest.files}
    policy = dataclasses.replace(bundle.manifest.policy, precision="fp32")
    (out / MANIFEST).write_text(dataclasses.replace(bundle.manifest, files=files, policy=policy).to_json())
    return out


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/precision"), metavar="DIR", help="bundles (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "reach.pt", metavar="FILE")
    parser.add_argument("--episodes", type=count, default=50)
    parser.add_argument("--threads", type=count, default=1, help="per engine (default %(default)d)")
    options.add_plan(parser)
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.quick:
        args.episodes = 2
    recording, plan = Recording("precisions", {"episodes": args.episodes}, args.quick), options.plan_of(args)
    args.out.mkdir(parents=True, exist_ok=True)
    observations = args.out / "observations"
    if not (observations / "meta" / "info.json").is_file():
        record(["--episodes", "4" if args.quick else "16", "--seed", str(OBSERVATION_SEED), "--out", str(observations)])
    rows: dict[str, Any] = {}
    for precision in PRECISIONS:
        path = args.out / precision
        arguments = [
            str(args.checkpoint),
            "-o",
            str(path),
            "--observations",
            str(observations),
            "--precision",
            precision,
        ]
        if code := edge_export(arguments):
            return code
        recording.used(precision, load_bundle(path))
        driven = widened(load_bundle(path), args.out / "bf16-widened") if precision == "bf16" else path
        success = evaluate(EvaluationSettings(driven, "franka", args.episodes, threads=args.threads))
        add_to_verification(load_bundle(path), "closed_loop", success.summary())
        verification = json.loads((path / "verification.json").read_text())
        rows[precision] = {"verification": verification, "closed_loop": dataclasses.asdict(success)}
    bundles = {name: load_bundle(args.out / name) for name in ("fp32", "int8")}
    recording.leave_out("speed of BF16", "ONNX Runtime's CPU provider has no BF16 products; it is simulated there")
    groups = [_speeds(name, bundles, args, plan) for name in ENGINES]
    recording.body = {"precisions": rows, "groups": groups}
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


def _speeds(name: str, bundles: dict[str, Bundle], args: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    openers = {label: engine_opener(bundle, name, args) for label, bundle in bundles.items()}
    return group(name, ENGINE_BOUNDARY, take_turns(openers, plan, "fp32", seed=args.seed), plan, args.seed, "fp32")
