"""Exports the shipped checkpoint in every precision; compares size, parity, closed-loop success and speed.

`python tools/compare_precisions.py --out runs/precision` writes `precisions.json` and prints a table. Speeds are taken
in turns within one run, on ONNX Runtime's CPU provider. BF16 is simulated there (operands and results rounded, products
in FP32), so its parity and success are real and its speed is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from edge.sim.demonstrations import main as record  # first: it chooses the GL backend before mujoco is imported
from edge.sim.evaluate import EvaluationSettings, evaluate

import numpy as np

from edge.bundle import MANIFEST, Bundle, load_bundle, sha256
from edge.engines import OnnxRuntimeEngine
from export.commands.export import main as edge_export
from export.engines.package import write_widened
from export.engines.precision import PRECISIONS

ROOT = Path(__file__).resolve().parents[1]
OBSERVATION_SEED = 4242
"""No training data and no evaluated scene draws from it."""
ROUNDS = 60


def widened(bundle: Bundle, out: Path) -> Path:
    """A BF16 bundle in the form that a CPU can run."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(bundle.path, out)
    for spec in bundle.manifest.engines.values():
        write_widened(bundle.file(spec.file), out / spec.file)
    files = {name: sha256(out / name) for name in bundle.manifest.files}
    (out / MANIFEST).write_text(dataclasses.replace(bundle.manifest, files=files, precision="fp32").to_json())
    return out


def speeds(bundles: dict[str, Path], threads: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of every engine, the precisions taking turns."""
    taken: dict[str, dict[str, float]] = {}
    for engine in ("history_encoder", "backbone", "action_decoder"):
        opened = {}
        for precision, path in bundles.items():
            bundle = load_bundle(path)
            spec = bundle.manifest.engines[engine]
            opened[precision] = OnnxRuntimeEngine(bundle.file(spec.file), spec, threads)
            for array in opened[precision].inputs.values():
                if array.dtype == np.float32:
                    array[:] = np.random.default_rng(0).standard_normal(array.shape)
            opened[precision].run()
        times: dict[str, list[float]] = {precision: [] for precision in opened}
        for _ in range(ROUNDS):
            for precision, ready in opened.items():
                started = time.perf_counter()
                ready.run()
                times[precision].append(1e3 * (time.perf_counter() - started))
        taken[engine] = {precision: statistics.median(found) for precision, found in times.items()}
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="threads per engine (default %(default)d)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    observations = args.out / "observations"
    if not (observations / "meta" / "info.json").is_file():
        record(["--episodes", "16", "--seed", str(OBSERVATION_SEED), "--out", str(observations)])
    report: dict[str, Any] = {}
    for precision in PRECISIONS:
        path = args.out / precision
        words = [str(ROOT / "checkpoints" / "reach.pt"), "-o", str(path), "--observations", str(observations)]
        if code := edge_export([*words, "--precision", precision]):
            return code
        driven = widened(load_bundle(path), args.out / "bf16-widened") if precision == "bf16" else path
        success = evaluate(EvaluationSettings(driven, "franka", args.episodes, threads=args.threads))
        verification = json.loads((path / "verification.json").read_text())
        report[precision] = {"verification": verification, "closed_loop": dataclasses.asdict(success)}
    taken = speeds({name: args.out / name for name in ("fp32", "int8")}, args.threads)
    for engine, found in taken.items():
        for precision, milliseconds in found.items():
            report[precision].setdefault("median_ms", {})[engine] = milliseconds
    (args.out / "precisions.json").write_text(json.dumps(report, indent=2) + "\n")
    for precision, found in report.items():
        verification, success = found["verification"], found["closed_loop"]
        worst = verification["agreement"]["whole_chunk"]
        print(
            f"{precision}: {sum(verification['size_bytes'].values()) / 1e6:.1f} MB, whole chunk cosine "
            f"{worst['cosine']:.6f} relative {worst['relative_rms']:.1e}, reached {success['succeeded']} of "
            f"{success['episodes']}, "
            + ", ".join(f"{engine} {value:.2f} ms" for engine, value in found.get("median_ms", {}).items())
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
