"""Ways to join chunks, side by side: the same scenes, policy and firmware, judged from the device's own 1 kHz trace.

- `committed prefix`: ours. The policy is told what will have been executed and continues from there.
- `naive switching`: the policy knows of no prefix; when its chunk arrives, its targets replace the old ones from the
  step that is due. Targets are positions: what was measured at the observation plus the chunk's increments.
- `temporal ensembling`: the same targets, each averaged over all chunks that name it, with weights exp(-0.01 i), the
  oldest chunk first (Zhao et al. 2023, arXiv:2304.13705).

The jump at a splice is the change of the commanded step there: how far the step of 100 ms after the splice differs from
the one before it, of the joint that differs most. It stands beside the length of a step in normal motion.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge.sim.scenes import open_scene  # first: it chooses the GL backend before mujoco is imported

import numpy as np
from tqdm import tqdm

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.control import Controller
from edge.inference import open_policy
from edge.planning import Planner, PlannerStatus, PlanRequest, PlanResult
from edge.sim.evaluate import FIRST_SCENE, wilson
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scene import TARGETS
from edge.telemetry.trace import Trace, read_trace
from edge.trajectory import MICRO, FloatArray

STEP_TICKS = 100
MOVES_RAD = 1e-3
"""A step in which a joint moves at least so far is motion."""
ENSEMBLE_DECAY = 0.01


class NaiveSwitching:
    """Hides the prefix from the policy and aims at positions."""

    controller: Controller

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._asked: PlanRequest | None = None
        self._measured = self._commanded = np.zeros(0)

    def request(self, request: PlanRequest) -> None:
        state, timeline = self.controller.last_state, self.controller.timeline
        assert state is not None
        self._asked = request
        self._measured = MICRO * np.array(state.measured_urad)
        self._commanded = MICRO * (timeline.q_urad(request.step) if timeline.begun else np.array(state.commanded_urad))
        self._planner.request(replace(request, prefix_rad=request.prefix_rad[:0]))

    def result(self) -> PlanResult | None:
        result, asked = self._planner.result(), self._asked
        if result is None or asked is None:
            return result
        delay = len(asked.prefix_rad)
        targets = self._targets(asked.step, self._measured + np.cumsum(result.increments_rad, axis=0))
        at_splice = self._commanded + asked.prefix_rad.sum(axis=0)
        increments = result.increments_rad.copy()
        increments[delay:] = np.diff(np.vstack([at_splice, targets[delay:]]), axis=0)
        return replace(result, increments_rad=increments)

    def status(self) -> PlannerStatus | None:
        return self._planner.status()

    def _targets(self, step: int, targets_rad: FloatArray) -> FloatArray:
        """Positions (horizon, J) to aim at after steps `step`, `step` + 1, ..."""
        return targets_rad


class TemporalEnsembling(NaiveSwitching):
    """Averages what all chunks say of a step."""

    def __init__(self, planner: Planner) -> None:
        super().__init__(planner)
        self._said: defaultdict[int, list[FloatArray]] = defaultdict(list)

    def _targets(self, step: int, targets_rad: FloatArray) -> FloatArray:
        averaged = []
        for index, target in enumerate(targets_rad):
            said = self._said[step + index]
            said.append(target)
            weights = np.exp(-ENSEMBLE_DECAY * np.arange(len(said)))
            averaged.append(np.average(said, axis=0, weights=weights))
        return np.array(averaged)


JOININGS: dict[str, Callable[[Planner], NaiveSwitching] | None] = {
    "committed prefix": None,
    "naive switching": NaiveSwitching,
    "temporal ensembling": TemporalEnsembling,
}


@dataclass(frozen=True)
class Row:
    """One way to join chunks at one latency, over all scenes. Jumps and steps in mrad."""

    joining: str
    latency_ms: float
    episodes: int
    reached: int
    reached_95: tuple[float, float]
    splices: int
    jump_p50: float | None
    jump_p95: float | None
    jump_max: float | None
    step_p50: float | None
    step_p95: float | None
    least_buffer_ms: float
    interventions: int
    refused: int
    stopped: int


def jumps_and_steps(trace: Trace) -> tuple[FloatArray, FloatArray]:
    """Changes of the commanded step at every splice, and lengths of the steps in motion, rad."""
    splices = np.flatnonzero((np.diff(trace.chunk) != 0) & (trace.chunk[:-1] != 0) & (trace.chunk[1:] != 0)) + 1
    splices = splices[(splices >= STEP_TICKS) & (splices + STEP_TICKS < len(trace.q))]
    before = trace.q[splices] - trace.q[splices - STEP_TICKS]
    after = trace.q[splices + STEP_TICKS] - trace.q[splices]
    moving = np.maximum(np.abs(before), np.abs(after)).max(axis=1) >= MOVES_RAD
    steps = np.abs(trace.q[STEP_TICKS:] - trace.q[:-STEP_TICKS])[::STEP_TICKS].max(axis=1)
    return np.abs(after - before).max(axis=1)[moving], steps[steps >= MOVES_RAD]


def percentile(values: FloatArray, percent: float) -> float | None:
    """None where there was nothing to measure: every run stopped before its first splice."""
    return round(float(np.percentile(values, percent)), 2) if len(values) else None


def measure(args: argparse.Namespace) -> list[Row]:
    """Runs every episode of every row."""
    bundle, arm = load_bundle(args.bundle), load_arm(args.arm)
    policies = {colour: open_policy(bundle, args.arm, f"reach the {colour} cube", 0) for colour in TARGETS}
    rows = []
    cases = [(name, latency) for latency in args.latencies for name in JOININGS]
    with tqdm(total=len(cases) * args.episodes, unit="episode", disable=None) as bar:
        for name, latency_ms in cases:
            jumps, steps, outcomes = [], [], []
            for episode in range(args.episodes):
                colour = list(TARGETS)[episode % len(TARGETS)]
                with tempfile.TemporaryDirectory() as folder:
                    settings = LockstepSettings(
                        f"reach the {colour} cube",
                        args.duration,
                        latency_ms=latency_ms,
                        jitter=args.jitter,
                        seed=episode,
                        trace=Path(folder) / "trace.csv",
                        joining=JOININGS[name],
                    )
                    scene = open_scene(arm, args.first_scene + episode)
                    outcomes.append(run_lockstep(bundle, arm, policies[colour], scene, settings))
                    found = jumps_and_steps(read_trace(Path(folder) / "trace.csv"))
                jumps.append(1000 * found[0])
                steps.append(1000 * found[1])
                bar.update()
            all_jumps, all_steps = np.concatenate(jumps), np.concatenate(steps)
            counters = [outcome.controller.counters for outcome in outcomes]
            reached = sum(bool(outcome.verdict and outcome.verdict.success) for outcome in outcomes)
            low, high = wilson(reached, args.episodes)
            rows.append(
                Row(
                    joining=name,
                    latency_ms=latency_ms,
                    episodes=args.episodes,
                    reached=reached,
                    reached_95=(round(low, 3), round(high, 3)),
                    splices=len(all_jumps),
                    jump_p50=percentile(all_jumps, 50),
                    jump_p95=percentile(all_jumps, 95),
                    jump_max=percentile(all_jumps, 100),
                    step_p50=percentile(all_steps, 50),
                    step_p95=percentile(all_steps, 95),
                    least_buffer_ms=min(counter.least_buffer_ms for counter in counters),
                    interventions=sum(counter.interventions for counter in counters),
                    refused=sum(len(counter.refused) for counter in counters),
                    stopped=sum(outcome.stop is not None for outcome in outcomes),
                )
            )
    return rows


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| latency | joining | reached | splices in motion | jump p50 / p95 / max, mrad | step p50 / p95, mrad "
        "| least buffer | limiter | refused | stopped |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.latency_ms:g} ms | {row.joining} | {row.reached} of {row.episodes} | {row.splices} "
        f"| {row.jump_p50} / {row.jump_p95} / {row.jump_max} | {row.step_p50} / {row.step_p95} "
        f"| {row.least_buffer_ms:g} ms | {row.interventions} | {row.refused} | {row.stopped} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--episodes", type=int, default=10, help="per row (default %(default)d)")
    parser.add_argument("--duration", type=float, default=6.0, help="seconds per episode (default %(default)g)")
    parser.add_argument("--latencies", type=float, nargs="+", default=[0, 50, 100, 200, 400], metavar="MS")
    parser.add_argument("--jitter", type=float, default=0.25, help="share by which each latency may differ")
    parser.add_argument("--first-scene", type=int, default=FIRST_SCENE)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = measure(args)
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
