"""What the hardware allows, what is expected, and what is measured.

Operations and bytes are counted in the ONNX graphs. For this machine a roofline is measured (bandwidth, products by
size class, in FP32 and INT8), every engine's time is predicted from it and then measured, and the two stand side by
side. An engine whose weights do not fit the cache and that is further than --gate from its prediction is exit 1; others
are shown and not judged, since their time is mostly what a node costs at least. All of it is processor time, so
that what else the machine does meanwhile counts as little as possible; the time that passed stands beside it.

For Jetson boards the same count gives a PREDICTION, from data sheets and from what others reached on them; no Jetson
was measured. The method's own test is a published figure: GR00T N1.7's action model on AGX Orin.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from bench import options
from bench.boards import GROOT, REACHED, predicted_published
from bench.cpu_model import CpuRoof, is_cold, measure_roof, median_roof
from bench.document import Recording, notify
from bench.graph_cost import GraphCost, at_depth, count_file, in_precision, stacks
from bench.harness import Plan, Run, Timing, take_turns
from bench.latency import ENGINES, engine_opener
from bench.roof import Effort
from bench.roofline_tables import lines
from bench.tables import percent
from edge.bundle import Bundle, ChunkShape
from edge.engines.memory_plan import TARGETS

GATE = 0.25
PASSES = 2
LEAD_S = 0.020
"""What a chunk must reach the device early, and its transmission at 1 Mbaud, about."""
STEP_S = 0.1
PAPER_DEPTH = {"visual.blocks": 24, "layers": 28}
BOUNDARY = "processor time of one run, inputs copied in and outputs copied out, divided by the threads"


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)
    options.add_plan(parser)
    parser.add_argument("--gate", type=float, default=GATE, help="largest share of error here (default %(default)g)")
    parser.add_argument(
        "--no-gate", action="store_true", help="report without judging: for a machine that is not quiet"
    )
    parser.add_argument(
        "--depth", choices=("as-is", "paper"), help="count boards at the paper's depth (default: paper for --layers)"
    )
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    settings = {"threads": args.threads, "preset": args.preset, "layers": args.layers, "gate": args.gate}
    recording = Recording("roofline", settings, args.quick)
    passes, effort = (1, Effort(3, 0.02, args.threads)) if args.quick else (PASSES, Effort(3, 0.1, args.threads))
    plan = _part(options.plan_of(args), passes)
    with options.bundles(args, recording) as bundles:
        costs = {label: _costs(bundle) for label, bundle in bundles.items()}
        shape = next(iter(bundles.values())).manifest.shape
        everything = [cost for found in costs.values() for cost in found.values()]
        roofs, measured = [], _Measurements({name: {} for name in ENGINES})
        for number in range(passes):
            notify(f"pass {number + 1} of {passes}")
            roofs.append(_roof(everything, args, effort))
            measured.add(bundles, args, plan)
        roof = median_roof(roofs)
        here = [row for name in ENGINES for row in _rows(name, measured.engines[name], costs, roof, args, plan)]
    body = {
        "roof": roof.to_plain(),
        "here": here,
        "boards": _boards(next(iter(costs.values())), shape, args),
        "step_s": STEP_S,
        "lead_s": LEAD_S,
        "published": {
            **asdict(GROOT),
            "board_name": TARGETS[GROOT.board].name,
            "predicted_ms": predicted_published(GROOT),
        },
    }
    recording.body = body
    print("\n".join(lines(body)))
    options.finish(args, recording)
    off = [row for row in here if row["judged"] and not abs(row["error_share"]) <= args.gate]
    if off and not (args.quick or args.no_gate):
        names = ", ".join(f"{row['engine']} {row['bundle']} {percent(row['error_share'])}" for row in off)
        notify(f"more than {percent(args.gate)} off: {names}")
        return 1
    return 0


def _part(plan: Plan, passes: int) -> Plan:
    """One pass's share of a plan."""
    return Plan(-(-plan.calls // passes), plan.seconds / passes, -(-plan.warm_up // passes))


def _costs(bundle: Bundle) -> dict[str, GraphCost]:
    return {name: count_file(bundle.file(bundle.manifest.engines[name].file)) for name in ENGINES}


def _roof(costs: list[GraphCost], args: argparse.Namespace, effort: Effort) -> CpuRoof:
    notify("measuring the roof of this machine")
    with tqdm(unit="class", disable=None, leave=False) as bar:
        return measure_roof(costs, args.threads, effort, bar.update)


@dataclass
class _Measured:
    """One engine's processor times, and the times that passed, ms."""

    timing: Timing
    wall_ms: list[float]


@dataclass(frozen=True)
class _Measurements:
    """Every engine of every bundle. Its calls are made in several passes, the roof measured before each: minutes lie
    between them, and what a virtual machine's speed does in minutes is in the noise and in the roof."""

    engines: dict[str, dict[str, _Measured]]

    def add(self, bundles: dict[str, Bundle], args: argparse.Namespace, plan: Plan) -> None:
        """One pass."""
        for name in ENGINES:
            notify(f"measuring {name}")
            wall_ms: dict[str, list[float]] = {label: [] for label in bundles}
            openers = {
                label: _with_wall(engine_opener(bundle, name, args), wall_ms[label])
                for label, bundle in bundles.items()
            }
            timings = take_turns(openers, plan, clock_ns=lambda: time.process_time_ns() // args.threads, seed=args.seed)
            for label, timing in timings.items():
                one = self.engines[name].setdefault(label, _Measured(Timing(timing.open_ns, timing.first_ns), []))
                one.timing.warm_ns += timing.warm_ns
                one.wall_ms += wall_ms[label][-len(timing.warm_ns) :]


def _rows(
    name: str,
    measured: dict[str, _Measured],
    costs: dict[str, dict[str, GraphCost]],
    roof: CpuRoof,
    args: argparse.Namespace,
    plan: Plan,
) -> list[dict[str, Any]]:
    """One engine in every precision: prediction and measurement side by side."""
    rows = []
    for label, one in measured.items():
        cost, figures = costs[label][name], one.timing.to_plain(plan.warm_up, args.seed)
        floor_ms, predicted_ms = 1e3 * roof.floor_s(cost), 1e3 * roof.predicted_s(cost)
        rows.append(
            {
                "engine": name,
                "bundle": label,
                "operations": cost.operations,
                "weight_bytes": cost.weight_bytes,
                "moved_bytes": cost.moved_bytes,
                "floor_ms": floor_ms,
                "predicted_ms": predicted_ms,
                "share_of_products": roof.share_of_products(cost),
                "error_share": predicted_ms / figures["p50_ms"] - 1,
                "judged": is_cold(cost),
                "wall_p50_ms": statistics.median(one.wall_ms),
                "boundary": BOUNDARY,
                "measured": figures,
            }
        )
    return rows


def _with_wall(opener: Callable[[], Run], wall_ms: list[float]) -> Callable[[], Run]:
    """The same, noting the time that passed in each run."""

    def opened() -> Run:
        run = opener()

        def timed() -> object:
            began = time.perf_counter()
            result = run()
            wall_ms.append(1e3 * (time.perf_counter() - began))
            return result

        return timed

    return opened


def _boards(costs: dict[str, GraphCost], shape: ChunkShape, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Predictions for every board and precision, at the depth that was asked for."""
    deep = args.depth == "paper" or (args.depth is None and args.layers is not None and args.preset == "paper")
    if deep:
        costs = {name: _deepened(cost) for name, cost in costs.items()}
    rows = []
    for board in TARGETS:
        for precision in ("bf16", "int8"):
            rows.append(
                _board(board, precision, costs, shape) | {"depth": "of the paper" if deep else "as measured here"}
            )
    return rows


def _deepened(cost: GraphCost) -> GraphCost:
    return at_depth(cost, {stack: depth for stack, depth in PAPER_DEPTH.items() if stack in stacks(cost)})


def _board(board: str, precision: str, costs: dict[str, GraphCost], shape: ChunkShape) -> dict[str, Any]:
    from bench.boards import seconds

    engines, floor_s, expected_s = {}, 0.0, 0.0
    for name, cost in costs.items():
        lowered = in_precision(cost, precision)
        floor = seconds(board, lowered.operations, lowered.weight_bytes, precision)
        expected = sum(
            seconds(board, node.operations, node.weight_bytes + node.moved_bytes, node.precision, REACHED[board])
            for node in lowered.products()
        )
        engines[name] = {"floor_ms": 1e3 * floor, "expected_ms": 1e3 * expected}
        floor_s, expected_s = floor_s + floor, expected_s + expected
    return {
        "board": board,
        "name": TARGETS[board].name,
        "precision": precision,
        "weight_bytes_per_chunk": sum(in_precision(cost, precision).weight_bytes for cost in costs.values()),
        "engines": engines,
        "floor_ms": 1e3 * floor_s,
        "expected_ms": 1e3 * expected_s,
        **_consequences(expected_s, shape),
    }


def _consequences(chunk_s: float, shape: ChunkShape) -> dict[str, float | int | bool]:
    """What a chunk's time means for the loop: how often one can be had, and how far its splice lies ahead."""
    delay = math.ceil((chunk_s + LEAD_S) / STEP_S)
    return {
        "replan_hz": 1 / chunk_s,
        "delay_steps": delay,
        "max_delay": shape.max_delay,
        "fits": delay <= shape.max_delay,
        "shortest_step_ms": 1e3 * (chunk_s + LEAD_S) / shape.max_delay,
    }
