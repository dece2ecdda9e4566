"""What an NVIDIA GPU makes of bundles: one command, at most --limit-s seconds, and nothing claimed that has not run.

For each bundle: every engine on ONNX Runtime's CUDA provider against FP32 torch and the CPU's engines, on the
observations that the bundle brings; the whole policy, engine after engine, against the same on the CPU; whether the
buffers of its links stay in the GPU's memory; every engine replayed as a CUDA graph, with inputs that differ from those
it was recorded with; how long each takes; and where edge-build has made them, TensorRT's engines. A line is "passed",
"failed", "measured", or "not run" with the reason.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bench import options
from bench.document import Recording, notify
from edge.bundle import Bundle, EngineSpec, GraphSpec, load_bundle
from edge.engines import DEFAULT_ENGINE, Engine, EngineError, OnnxRuntimeEngine, open_engines
from edge.engines.gpu import present_gpu
from edge.engines.onnxruntime_engine import PROVIDERS, open_session
from edge.engines.opening import BUILT_ENGINES
from edge.engines.parity import GPU_FP32, check_engine, reference_samples

LIMIT_S = 480.0
CALLS, ENOUGH_S = 200, 5.0
WARM_UP = 10
PASSED, FAILED, MEASURED, NOT_RUN = "passed", "failed", "measured", "not run"
NO_GPU = "no NVIDIA GPU here, or its driver is not loaded"
NO_PROVIDER = "this onnxruntime has no CUDAExecutionProvider; pip install onnxruntime-gpu in its place"
ON_GPU, PROVIDER, DEVICE = "onnxruntime-gpu", "cuda", "cuda"
Values = Mapping[str, NDArray[Any]]
Found = tuple[str, dict[str, Any]]
"""State and figures."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="made by edge-export; may be repeated",
    )
    parser.add_argument("--limit-s", type=float, default=LIMIT_S, metavar="S", help="(default %(default)g)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU's engines (default %(default)d)")
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    bundles = [load_bundle(path) for path in args.bundle]
    recording = Recording("gpu", {"limit_s": args.limit_s, "threads": args.threads}, args.quick)
    gpu = present_gpu()
    checks = Checks(recording, time.monotonic() + args.limit_s, missing(), args.threads, 5 if args.quick else CALLS)
    for path, bundle in zip(args.bundle, bundles):
        recording.used(path.name, bundle)
        checks.of_bundle(path.name, bundle)
    recording.body = {"gpu": None if gpu is None else gpu.__dict__, "rows": checks.rows}
    states = [row["state"] for row in checks.rows]
    print(f"GPU: {'none' if gpu is None else f'{gpu.name}, SM {gpu.sm}'}")
    for row in checks.rows:
        print(f"{row['state']:<9} {row['bundle']}: {row['what']}{row['said']}")
    print(", ".join(f"{states.count(state)} {state}" for state in (PASSED, FAILED, MEASURED, NOT_RUN)))
    options.finish(args, recording)
    return 1 if FAILED in states else 0


def missing() -> str | None:
    """Why nothing can run on a GPU; None when it can."""
    if present_gpu() is None:
        return NO_GPU
    return None if PROVIDERS[PROVIDER] in onnxruntime.get_available_providers() else NO_PROVIDER


@dataclass
class Checks:
    """What was found, row by row; nothing begins after `deadline_s` of the monotonic clock."""

    recording: Recording
    deadline_s: float
    missing: str | None
    threads: int
    calls: int

    def __post_init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def of_bundle(self, label: str, bundle: Bundle) -> None:
        graph, given = bundle.manifest.graph, given_of(bundle)
        for name in graph.engines:
            self._one(label, f"{name}, CUDA, agrees", partial(self.agreement, bundle, name))
        self._one(label, "whole policy, CUDA, agrees with the CPU", partial(self.whole, bundle, given))
        self._one(label, "links stay in the GPU's memory", partial(self.links, bundle))
        for name, spec in graph.engines.items():
            self._one(label, f"{name}, CUDA graph, agrees", partial(self.cuda_graph, bundle, name, spec))
        self._one(label, "whole policy, CPU and CUDA, time", partial(self.times, bundle, given, ON_GPU))
        built = partial(self.times, bundle, given, BUILT_ENGINES)
        self._one(label, "whole policy, CPU and TensorRT, time and agreement", built, missing=self._no_tensorrt(bundle))

    def _one(self, label: str, what: str, work: Callable[[], Found], missing: str | None = None) -> None:
        why = missing or self.missing
        if why is None and time.monotonic() > self.deadline_s:
            why = "the time limit had passed; raise --limit-s"
        state, figures = NOT_RUN, dict[str, Any]()
        if why is None:
            notify(f"{label}: {what}")
            try:
                state, figures = work()
            except EngineError as error:
                state, why = FAILED, str(error)
            except Unavailable as error:
                why = str(error)
        if state == NOT_RUN:
            self.recording.not_run.append({"what": f"{label}: {what}", "why": why or ""})
        said = "".join(f"; {key} {value}" for key, value in figures.items() if not isinstance(value, dict | list))
        row = {"bundle": label, "what": what, "state": state, "figures": figures, "said": f": {why}" if why else said}
        self.rows.append(row)

    def agreement(self, bundle: Bundle, name: str) -> Found:
        spec = bundle.manifest.engines[name]
        there = OnnxRuntimeEngine(bundle.file(spec.file), spec, self.threads, PROVIDER)
        found = check_engine(bundle, name, there, OnnxRuntimeEngine(bundle.file(spec.file), spec, self.threads))
        return PASSED if found["passed"] else FAILED, {"on": found["engine"], "worst": found["worst"]}

    def whole(self, bundle: Bundle, given: Values) -> Found:
        graph = bundle.manifest.graph
        here, there = (
            chained(open_engines(bundle, kind, self.threads), graph, given) for kind in (DEFAULT_ENGINE, ON_GPU)
        )
        return compared(here(), there())

    def links(self, bundle: Bundle) -> Found:
        graph, engines = bundle.manifest.graph, open_engines(bundle, ON_GPU, self.threads)
        if not graph.links:
            raise Unavailable("one engine, so no links")
        places = {f"{source} to {target}": link_place(engines, source, target) for source, target in graph.links}
        wanted = {place for link, place in places.items() if link.split(" to ")[0] != graph.result}
        return PASSED if wanted <= {DEVICE} else FAILED, {"places": places, "links": len(places)}

    def cuda_graph(self, bundle: Bundle, name: str, spec: EngineSpec) -> Found:
        samples = [inputs for inputs, _ in reference_samples(bundle, name)]
        replayed = CudaGraphEngine(bundle.file(spec.file), spec, samples[0])
        plain = OnnxRuntimeEngine(bundle.file(spec.file), spec, self.threads, PROVIDER)
        worst = 0.0
        for sample in samples[1:] or samples:
            for port, array in plain.inputs.items():
                array[:] = sample[port]
            plain.run()
            for port, array in replayed.run(sample).items():
                worst = float(np.maximum(worst, relative_rms(plain.outputs[port], array)))  # keeps a NaN
        took = timed(replayed.replay, self.calls)
        figures = {"relative_rms": f"{worst:.1e}", "samples": len(samples), "p50_ms": took["p50"], "ms": took}
        return PASSED if worst <= GPU_FP32["relative_rms"] else FAILED, figures

    def times(self, bundle: Bundle, given: Values, kind: str) -> Found:
        graph = bundle.manifest.graph
        here, there = (chained(open_engines(bundle, one, self.threads), graph, given) for one in (DEFAULT_ENGINE, kind))
        state, figures = compared(here(), there())
        milliseconds = {"cpu": timed(here, self.calls), kind: timed(there, self.calls)}
        figures |= {f"{name} p50_ms": one["p50"] for name, one in milliseconds.items()} | {"ms": milliseconds}
        return FAILED if state == FAILED else MEASURED, figures

    def _no_tensorrt(self, bundle: Bundle) -> str | None:
        if self.missing == NO_GPU:
            return NO_GPU
        try:
            open_engines(bundle, BUILT_ENGINES, self.threads)
        except EngineError as error:
            return str(error)
        return None


class Unavailable(Exception):
    """Something that this bundle or library does not have; the reason."""


class CudaGraphEngine:
    """One engine as ONNX Runtime records it for the CUDA provider: buffers that never move, one launch.

    The first run of a session records, all others replay; inputs are written into the buffers in between.
    """

    def __init__(self, path: Path, spec: EngineSpec, first: Values) -> None:
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = 3
        self._session = open_session(path, session_options, PROVIDER, {"enable_cuda_graph": "1"})
        self._binding = self._session.io_binding()
        value = onnxruntime.OrtValue
        self._given = {t.name: value.ortvalue_from_numpy(first[t.name], DEVICE, 0) for t in spec.inputs}
        self._made = {
            t.name: value.ortvalue_from_shape_and_type(t.shape, np.dtype(t.dtype).type, DEVICE, 0) for t in spec.outputs
        }
        for name, held in self._given.items():
            self._binding.bind_ortvalue_input(name, held)
        for name, held in self._made.items():
            self._binding.bind_ortvalue_output(name, held)
        try:
            self.replay()
        except Exception as error:  # the library's own exceptions share no base but Exception
            raise Unavailable(f"ONNX Runtime cannot record it: {str(error)[:160]}") from None

    def replay(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def run(self, inputs: Values) -> dict[str, NDArray[Any]]:
        for name, held in self._given.items():
            held.update_inplace(np.ascontiguousarray(inputs[name]))
        self.replay()
        return {name: held.numpy() for name, held in self._made.items()}


def given_of(bundle: Bundle) -> dict[str, NDArray[Any]]:
    """What the first of the bundle's observations gives to the ports that no link fills."""
    linked = {target for _, target in bundle.manifest.graph.links}
    found: dict[str, NDArray[Any]] = {}
    for name in bundle.manifest.engines:
        inputs, _ = reference_samples(bundle, name)[0]
        found |= {f"{name}.{port}": array for port, array in inputs.items() if f"{name}.{port}" not in linked}
    return found


def chained(engines: Mapping[str, Engine], graph: GraphSpec, given: Values) -> Callable[[], NDArray[Any]]:
    """The engines one after the other, from inputs in the host's memory to the result there."""
    maker, _, output = graph.result.partition(".")
    links = [(*source.partition(".")[::2], *target.partition(".")[::2]) for source, target in graph.links]

    def work() -> NDArray[Any]:
        for name in graph.engines:
            for made_by, port, taken_by, into in links:
                if taken_by == name and into in engines[name].inputs:
                    source, target = engines[made_by].outputs[port], engines[name].inputs[into]
                    if not np.shares_memory(source, target):
                        target[...] = source
            for port, array in engines[name].inputs.items():
                if f"{name}.{port}" in given:
                    array[...] = given[f"{name}.{port}"]
            engines[name].run()
        return engines[maker].outputs[output].copy()

    return work


def link_place(engines: Mapping[str, Engine], source: str, target: str) -> str:
    """Where the one buffer of a link is; "copied" where there are two."""
    (maker, _, output), (taker, _, taken) = source.partition("."), target.partition(".")
    ends = engines[maker], engines[taker]
    if not all(isinstance(end, OnnxRuntimeEngine) for end in ends):
        return "copied"
    places = {ends[0].place(output), ends[1].place(taken)}  # type: ignore[attr-defined]
    shared = output not in ends[0].outputs or ends[0].outputs[output] is ends[1].inputs.get(taken)
    return places.pop() if len(places) == 1 and shared else "copied"


def compared(here: NDArray[Any], there: NDArray[Any]) -> Found:
    apart = relative_rms(here, there)
    return PASSED if apart <= GPU_FP32["relative_rms"] else FAILED, {"relative_rms": f"{apart:.1e}"}


def relative_rms(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    """NaN, which passes no gate, where either is not finite."""
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    size = float(np.sqrt(np.mean(a**2)))
    apart = float(np.sqrt(np.mean((a - b) ** 2)))
    return apart / size if size > 0 else apart


def timed(work: Callable[[], object], calls: int) -> dict[str, float]:
    """Milliseconds of `calls` calls, or of as many as `ENOUGH_S` allow."""
    for _ in range(min(WARM_UP, calls)):
        work()
    took: list[float] = []
    until_s = time.monotonic() + ENOUGH_S
    while len(took) < calls and time.monotonic() < until_s:
        began_ns = time.perf_counter_ns()
        work()
        took.append((time.perf_counter_ns() - began_ns) / 1e6)
    return {f"p{at}": round(float(np.percentile(took, at)), 4) for at in (50, 99)} | {"calls": float(len(took))}
