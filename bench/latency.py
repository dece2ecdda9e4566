"""How long the policy takes: each engine, an observation to its chunk, an observation to the last byte on the wire.

Engines are timed from inputs in the caller's arrays to outputs in arrays of the caller's own, beside eager torch,
torch.compile and a plain ONNX decoder of one step where there is a checkpoint (or random weights) to make them from.
"Observation to chunk" begins when the frames are requested and ends with joint increments in radians: reading and
shaping the pictures is counted. "Observation to wire" is a run of its own with two processes, the control loop and the
simulated device behind a pseudo-terminal: it begins when control asks and ends when the last byte of the commit has
been written. How often a chunk is made (the replan rate) and how often control decides (the control rate) are reported
apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import options
from bench.document import Recording, notify
from bench.energy import find_meter
from bench.harness import YARDSTICK, Plan, Run, Timing, group, open_yardstick, take_turns, yardstick_ns
from bench.policy_run import BOUNDARY as CHUNK_BOUNDARY
from bench.policy_run import Runner, chunk_run
from bench.tables import group_lines, wire_lines
from bench.wire import WIRE_BOUNDARY, wire_run
from edge.bundle import Bundle
from edge.engines import DEFAULT_ENGINE, EngineError, engine_choices, open_engines
from edge.engines.gpu import present_gpu
from edge.engines.onnxruntime_engine import OnnxRuntimeEngine
from edge.engines.opening import BUILT_ENGINES
from firmware_bridge.errors import BridgeError

ENGINES = ("history_encoder", "backbone", "action_decoder")
ENGINE_BOUNDARY = (
    "inputs in arrays of the caller's, to outputs copied into arrays of the caller's; one process, no camera"
)
WIRE_RUN_S = 20.0
ENERGY_S = 10.0


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)
    options.add_plan(parser)
    parser.add_argument(
        "--engine",
        nargs="+",
        choices=engine_choices(),
        default=[DEFAULT_ENGINE],
        help="what whole observations run on (default: onnxruntime); tensorrt takes what edge-build has built",
    )
    parser.add_argument("--without-torch", action="store_true", help="our engines alone")
    parser.add_argument("--without-wire", action="store_true", help="leave out the runs with control and device")
    parser.add_argument(
        "--wire-seconds", type=float, default=WIRE_RUN_S, help="length of each of those runs (default %(default)g)"
    )
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    settings = {"threads": args.threads, "preset": args.preset, "layers": args.layers, "seed": args.seed}
    recording, plan = Recording("latency", settings, args.quick), options.plan_of(args)
    with options.bundles(args, recording) as bundles, tempfile.TemporaryDirectory() as scratch:
        groups = [engine_group(name, bundles, args, plan, recording, Path(scratch)) for name in ENGINES]
        groups.append(chunk_group(bundles, args, plan))
        recording.body = {"groups": groups, "energy": energy(bundles, args, recording)}
        if present_gpu() is None:
            recording.leave_out("TensorRT engines", "no GPU")
        recording.body["wire"] = wires(bundles, args, recording)
    for lines in (*map(group_lines, groups), wire_lines(recording.body["wire"])):
        print("\n".join(lines) + "\n")
    options.finish(args, recording)
    return 0


def engine_group(
    name: str, bundles: dict[str, Bundle], args: argparse.Namespace, plan: Plan, recording: Recording, scratch: Path
) -> dict[str, Any]:
    """One engine in every precision, and other ways to run it."""
    openers: dict[str, Callable[[], Run]] = {
        f"engine {label}": engine_opener(bundle, name, args) for label, bundle in bundles.items()
    }
    openers |= _tensorrt(bundles, name, args, recording)
    baseline = "engine fp32" if "engine fp32" in openers else next(iter(openers))
    openers |= _torch(name, args, recording, scratch)
    notify(f"{name}: {', '.join(openers)}")
    return group(name, ENGINE_BOUNDARY, _timed(openers, plan, baseline, args.seed), plan, args.seed, baseline)


def _timed(openers: dict[str, Callable[[], Run]], plan: Plan, baseline: str, seed: int) -> Any:
    with tqdm(unit="round", disable=None, leave=False) as bar:
        every = {**openers, YARDSTICK: open_yardstick}
        return take_turns(every, plan, baseline, step=bar.update, seed=seed)


def _filled(engine: Any, seed: int) -> Run:
    """An engine that gets drawn inputs copied in and its outputs copied out."""
    draw = np.random.default_rng(seed)
    given = {name: _drawn(array, draw) for name, array in engine.inputs.items()}

    def run() -> object:
        for name, array in engine.inputs.items():
            array[:] = given[name]
        engine.run()
        return {name: array.copy() for name, array in engine.outputs.items()}

    return run


def _drawn(array: Any, draw: np.random.Generator) -> Any:
    if array.dtype == np.float32:
        return draw.standard_normal(array.shape, dtype=np.float32)
    if array.dtype == np.uint8:
        return draw.integers(0, 256, array.shape, dtype=np.uint8)
    return np.ones_like(array)  # masks that count everything, the first rows of the tables


def engine_opener(bundle: Bundle, name: str, args: argparse.Namespace) -> Callable[[], Run]:
    spec = bundle.manifest.engines[name]
    return lambda: _filled(OnnxRuntimeEngine(bundle.file(spec.file), spec, args.threads), args.seed)


def _tensorrt(
    bundles: dict[str, Bundle], name: str, args: argparse.Namespace, recording: Recording
) -> dict[str, Callable[[], Run]]:
    if present_gpu() is None:
        return {}
    ways: dict[str, Callable[[], Run]] = {}
    for label, bundle in bundles.items():
        try:
            engines = open_engines(bundle, BUILT_ENGINES, args.threads)
        except EngineError as error:
            recording.leave_out(f"TensorRT engines, {label}", str(error))
            continue
        ways[f"TensorRT {label}"] = partial(_filled, engines[name], args.seed)
    return ways


def _torch(name: str, args: argparse.Namespace, recording: Recording, scratch: Path) -> dict[str, Callable[[], Run]]:
    """The ways that need torch, where there is something to make them from."""
    first = name == ENGINES[0]
    if args.without_torch or (args.bundle and not args.checkpoint and not args.preset):
        why = (
            "asked to leave it out" if args.without_torch else "a bundle holds no torch modules; add --checkpoint FILE"
        )
        if first:
            recording.leave_out("eager torch, torch.compile, plain ONNX step", why)
        return {}
    from bench.models import samples_of
    from bench.torch_ways import torch_ways, whole_sample

    if args.quick and first:
        recording.leave_out("torch.compile", "compiling takes a minute, too long for a smoke run")
    parts = options.parts_of(args)
    sample = whole_sample(parts, samples_of(parts, 1, args.seed)[0], args.seed)
    return torch_ways(name, parts, sample, scratch, args.threads, compiled=not args.quick)


def _runners(bundles: dict[str, Bundle], args: argparse.Namespace) -> dict[str, tuple[Bundle, Runner]]:
    """Every bundle on every engine that was asked for, by label."""
    found = {}
    for kind in args.engine:
        for label, bundle in bundles.items():
            name = label if kind == DEFAULT_ENGINE else f"{label} {kind}"
            found[name] = bundle, Runner(args.arm, args.task, kind, args.threads, args.seed)
    return found


def chunk_group(bundles: dict[str, Bundle], args: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    """Observation to chunk with every bundle, in turns."""
    openers: dict[str, Callable[[], Run]] = {
        label: partial(chunk_run, bundle, how) for label, (bundle, how) in _runners(bundles, args).items()
    }
    baseline = "fp32" if "fp32" in openers else next(iter(openers))
    notify("observation to chunk")
    return group(
        "observation to chunk", CHUNK_BOUNDARY, _timed(openers, plan, baseline, args.seed), plan, args.seed, baseline
    )


def energy(bundles: dict[str, Bundle], args: argparse.Namespace, recording: Recording) -> dict[str, Any] | None:
    """Joules per chunk with every bundle, one chunk after the other without a pause."""
    meter, what = find_meter()
    if meter is None:
        recording.leave_out("energy", what)
        return None
    found = {}
    for label, (bundle, how) in _runners(bundles, args).items():
        infer, chunks = chunk_run(bundle, how), 0
        infer()
        meter.begin()
        began_s = time.monotonic()
        while time.monotonic() - began_s < (1.0 if args.quick else ENERGY_S):
            infer()
            chunks += 1
        seconds, joules = time.monotonic() - began_s, meter.joules()
        found[label] = {"chunks": chunks, "joules_per_chunk": joules / chunks, "watts": joules / seconds}
    return {
        "source": meter.source,
        "boundary": "chunks without a pause, nothing subtracted for the idle machine",
        **found,
    }


def wires(bundles: dict[str, Bundle], args: argparse.Namespace, recording: Recording) -> dict[str, Any]:
    """Observation to wire with every bundle."""
    if args.without_wire:
        recording.leave_out("observation to wire", "asked to leave it out")
        return {}
    found: dict[str, Any] = {"boundary": WIRE_BOUNDARY, "runs": {}}
    for label, (bundle, how) in _runners(bundles, args).items():
        if not options.drives(bundle):
            recording.leave_out(f"observation to wire, {label}", "its engines are outside an export's gates")
            continue
        notify(f"observation to wire, {label}")
        seconds = 4.0 if args.quick else args.wire_seconds
        try:
            before_ns = yardstick_ns()
            found["runs"][label] = done = wire_run(bundle, how, seconds)
            done[YARDSTICK] = Timing(warm_ns=before_ns + yardstick_ns()).to_plain(1, args.seed)
            if done["stop"]:
                recording.leave_out(f"the rest of observation to wire, {label}", f"the run ended: {done['stop']}")
        except BridgeError as error:
            recording.leave_out(f"observation to wire, {label}", str(error))
    return found
