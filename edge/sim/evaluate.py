"""Counts in how many unseen scenes a bundle reaches the cube it is told to reach.

`python -m edge.sim.evaluate --bundle BUNDLE --episodes 50` runs the exported engines, the runtime and the firmware in
lockstep. Scenes come from seeds that no demonstration uses.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.sim.bench import BenchVerdict, Scene  # first: it chooses the GL backend before mujoco is imported

from tqdm import tqdm

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.errors import VlaEdgeError
from edge.inference import open_policy
from edge.sim.lockstep import LockstepOutcome, LockstepSettings, run_lockstep
from edge.sim.scene import TARGETS

FIRST_SCENE = 2_000_000
"""Unless told otherwise, scenes are `FIRST_SCENE`, `FIRST_SCENE` + 1, ...; no demonstration draws from these seeds."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % confidence interval of a proportion (Wilson, 1927)."""
    z, p = 1.96, successes / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return (centre - half) / (1 + z * z / trials), (centre + half) / (1 + z * z / trials)


@dataclass(frozen=True)
class EpisodeRow:
    """One episode: how it ended, and what the runtime and the firmware had to say about its chunks."""

    verdict: BenchVerdict
    stop: str | None
    chunks: int
    refused: list[str]
    interventions: int
    largest_splice_rad_s2: float


@dataclass(frozen=True)
class Evaluation:
    """All episodes and what they add up to."""

    arm: str
    episodes: int
    reached: int
    success: float
    confidence_95: tuple[float, float]
    duration_s: float
    simulated_latency_ms: float
    checkpoint_sha256: str
    rows: list[EpisodeRow]
    simulated: bool = True


def evaluate(
    bundle_path: Path,
    arm_name: str,
    episodes: int,
    duration_s: float,
    latency_ms: float,
    threads: int,
    first_scene: int = FIRST_SCENE,
) -> Evaluation:
    """Runs the episodes and returns the report."""
    bundle, arm = load_bundle(bundle_path), load_arm(arm_name)
    colours = list(TARGETS)
    policies = {colour: open_policy(bundle, arm_name, f"reach the {colour} cube", threads) for colour in colours}
    rows = []
    for episode in tqdm(range(episodes), unit="episode", disable=None):
        colour = colours[episode % len(colours)]
        settings = LockstepSettings(f"reach the {colour} cube", duration_s, latency_ms=latency_ms, seed=episode)
        outcome = run_lockstep(bundle, arm, policies[colour], Scene(first_scene + episode), settings)
        rows.append(_row(outcome))
    reached = sum(row.verdict.reached for row in rows)
    return Evaluation(
        arm=arm_name,
        episodes=episodes,
        reached=reached,
        success=reached / episodes,
        confidence_95=wilson(reached, episodes),
        duration_s=duration_s,
        simulated_latency_ms=latency_ms,
        checkpoint_sha256=bundle.manifest.checkpoint_sha256,
        rows=rows,
    )


def _row(outcome: LockstepOutcome) -> EpisodeRow:
    counters = outcome.controller.counters
    assert outcome.verdict is not None  # the task names one cube
    return EpisodeRow(
        verdict=outcome.verdict,
        stop=outcome.stop,
        chunks=len(counters.committed_ids),
        refused=counters.refused,
        interventions=counters.interventions,
        largest_splice_rad_s2=max(counters.splice_acceleration, default=0.0),
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge.sim.evaluate", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--duration", type=float, default=8.0, help="seconds per episode (default %(default)g)")
    parser.add_argument(
        "--latency-ms", type=float, default=30.0, help="simulated inference latency (default %(default)g)"
    )
    parser.add_argument("--threads", type=int, default=0, help="threads per engine; 0 lets the library choose")
    parser.add_argument(
        "--first-scene", type=int, default=FIRST_SCENE, help="seed of the first scene (default %(default)d)"
    )
    parser.add_argument("--json", type=Path, help="write the report here as well")
    args = parser.parse_args(argv)
    try:
        report = evaluate(
            args.bundle, args.arm, args.episodes, args.duration, args.latency_ms, args.threads, args.first_scene
        )
    except VlaEdgeError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        args.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    low, high = report.confidence_95
    print(
        f"reached {report.reached} of {report.episodes}: {100 * report.success:.0f} % "
        f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %), simulated"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
