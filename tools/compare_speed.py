"""Times the engines beside other ways to run the same policy, in turns within one run, on this CPU.

`python tools/compare_speed.py --json FILE` compares, for the shipped checkpoint:
  z'       eager torch, torch.compile, the FP32 engine, the INT8 engine
  chunk    a Python loop over eager torch, one over torch.compile, one over a plain ONNX decoder of one step, and the
           engines with every step in one graph, FP32 and INT8
`--preset paper --layers 4` takes the paper's widths with random weights and only so many layers of each stack, so that
all of them fit into memory beside each other. Times are medians; a ratio above 1 means that the engine is faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from edge.engines import OnnxRuntimeEngine
from export.engines.calibrate import calibrate
from export.engines.graphs import Graph, graph_of
from export.engines.observations import Sample, draw_samples
from export.engines.package import engine_spec
from export.engines.precision import to_int8
from export.engines.trace import OPSET, release, trace, write
from export.engines.verify import INPUTS, run_engine
from export.policy.checkpoint import load_checkpoint
from export.policy.config import PRESETS, PolicyConfig
from export.policy.flow import integrate
from export.policy.parts import PolicyParts, RandomParts

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[[], Any]


def sliced(config: PolicyConfig, layers: int) -> PolicyConfig:
    """The same widths with fewer layers, and a small table of tokens, which costs memory and no time."""
    return dataclasses.replace(
        config,
        vocabulary=1024,
        tied_image_tokens=(2, 3),
        vision=dataclasses.replace(config.vision, layers=layers, deepstack_layers=(0, 1, 2)),
        **{name: dataclasses.replace(getattr(config, name), layers=layers) for name in ("text", "encoder", "decoder")},
    )


def engine(graph: Graph, folder: Path, samples: list[Sample] | None, threads: int) -> OnnxRuntimeEngine:
    """The engine of a graph; INT8 where there are samples to calibrate on."""
    ranges = calibrate(graph, samples, lambda: None) if samples else None
    model = trace(graph)
    if ranges is not None:
        to_int8(model, ranges)
    folder.mkdir()
    write(model, folder / f"{graph.name}.onnx")
    release(model)
    spec = engine_spec(folder, graph.name)
    return OnnxRuntimeEngine(folder / spec.file, spec, threads)


def plain_step(decoder: torch.nn.Module, sample: Sample, path: Path, threads: int) -> Callable[..., torch.Tensor]:
    """What an exporter makes of the decoder as it stands: one step, with the time as an input."""
    r = torch.zeros(1, sample["noise"].shape[1])
    arguments = (sample["noise"], r, sample["z"])
    program = torch.onnx.export(decoder, arguments, input_names=["x", "r", "z"], opset_version=OPSET, dynamo=True)
    assert program is not None
    program.save(str(path), external_data=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def step(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        found = session.run(None, {"x": x.numpy(), "r": r.numpy(), "z": sample["z"].numpy()})
        return torch.from_numpy(found[0])

    return step


def backbone_runs(parts: PolicyParts, samples: list[Sample], folder: Path, threads: int) -> dict[str, Run]:
    inputs = [samples[0][name] for name in INPUTS["backbone"]]
    eager = parts.part("backbone")
    compiled = torch.compile(eager)
    fp32 = engine(graph_of("backbone", parts.part("backbone"), 1), folder / "b32", None, threads)
    int8 = engine(graph_of("backbone", parts.part("backbone"), 1), folder / "b8", samples, threads)
    return {
        "eager": lambda: eager(*inputs),
        "compiled": lambda: compiled(*inputs),
        "engine fp32": lambda: run_engine(fp32, samples[0]),
        "engine int8": lambda: run_engine(int8, samples[0]),
    }


def decoder_runs(parts: PolicyParts, samples: list[Sample], steps: int, folder: Path, threads: int) -> dict[str, Run]:
    sample = samples[0]
    rest = [sample[name] for name in ("noise", "prefix", "committed", "used")]
    eager = parts.part("decoder")
    compiled = torch.compile(eager)
    step = plain_step(parts.part("decoder"), sample, folder / "step.onnx", threads)
    fp32 = engine(graph_of("action_decoder", parts.part("decoder"), steps), folder / "d32", None, threads)
    int8 = engine(graph_of("action_decoder", parts.part("decoder"), steps), folder / "d8", samples, threads)
    return {
        "eager": lambda: integrate(lambda x, r: eager(x, r, sample["z"]), *rest, steps),
        "compiled": lambda: integrate(lambda x, r: compiled(x, r, sample["z"]), *rest, steps),
        "plain onnx step": lambda: integrate(step, *rest, steps),
        "engine fp32": lambda: run_engine(fp32, sample),
        "engine int8": lambda: run_engine(int8, sample),
    }


@torch.no_grad()
def medians(runs: dict[str, Run], rounds: int) -> dict[str, Any]:
    """Median and all times, ms. The first two of each are not counted: they compile and allocate."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 2):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if index >= 2:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: {"median_ms": statistics.median(found), "raw_ms": found} for name, found in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=sorted(PRESETS), help="random weights of this size (default: shipped)")
    parser.add_argument("--layers", type=int, help="only so many layers of each stack")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every time here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.preset:
        config = PRESETS[args.preset]()
        parts: PolicyParts = RandomParts(sliced(config, args.layers) if args.layers else config, 0)
    else:
        parts = load_checkpoint(ROOT / "checkpoints" / "reach.pt")
    config = parts.config
    samples = draw_samples(config, 4, 0)
    for sample in samples:
        sample["has_history"] = sample["mask"].any(dim=1)
        for name in ("history", "z"):
            sample[name] = torch.nn.functional.normalize(torch.randn(1, config.latent), dim=-1)
    report: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        "threads": args.threads,
        "size": {"preset": args.preset or "shipped checkpoint", "layers": args.layers},
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for what in ("z'", "chunk"):
            if what == "z'":
                runs = backbone_runs(parts, samples, folder, args.threads)
            else:
                runs = decoder_runs(parts, samples, config.flow_steps, folder, args.threads)
            report[what] = medians(runs, args.rounds)
            del runs
            ours = report[what]["engine fp32"]["median_ms"]
            for name, found in report[what].items():
                print(
                    f"{what:<6} {name:<16} {found['median_ms']:9.2f} ms, {found['median_ms'] / ours:6.2f} x engine fp32"
                )
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
