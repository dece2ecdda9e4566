"""Counts in how many unseen scenes a bundle does what it is told: reach the named cube, or lift the named object.

`python -m bench.evaluate --bundle BUNDLE --episodes 50` runs the exported engines, the runtime and the firmware in
lockstep. Scenes come from seeds that no demonstration uses. The arm decides the task; `--expert` puts the scripted
expert of the lifting task in the place of the policy, as a test of everything that runs it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.cli.parser import complain
from edge.sim.scenes import TASKS, BenchVerdict, LiftScene, open_scene  # first: it chooses the GL backend

from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.bundle import Bundle, add_to_verification, load_bundle
from edge.errors import InputError, VlaEdgeError
from edge.policy.base import BundlePolicy, open_policy
from lab.experts.reach_expert import STEP_S
from lab.experts.expert_planner import EXPERT_SHAPE, ExpertPlanner
from edge.sim.lockstep import LockstepOutcome, LockstepSettings, run_lockstep, run_source

REPORT_EVERY = 10
"""Episodes between two lines for a log, where there is no terminal for a bar."""
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
    """All episodes and what they add up to. `checkpoint_sha256` is None for the expert."""

    arm: str
    task: str
    episodes: int
    succeeded: int
    success: float
    confidence_95: tuple[float, float]
    duration_s: float
    simulated_latency_ms: float
    checkpoint_sha256: str | None
    rows: list[EpisodeRow]
    simulated: bool = True

    def summary(self) -> dict[str, Any]:
        """Everything but the episodes, for a bundle's verification."""
        return {name: value for name, value in asdict(self).items() if name != "rows"} | {
            "interventions": sum(row.interventions for row in self.rows),
            "refused": sum(len(row.refused) for row in self.rows),
        }


@dataclass(frozen=True)
class EvaluationSettings:
    """`bundle` is None for the expert. `task` may be left to the arm; one it cannot do is refused."""

    bundle: Path | None
    arm: str
    episodes: int
    duration_s: float = 8.0
    latency_ms: float = 30.0
    threads: int = 0
    first_scene: int = FIRST_SCENE
    task: str | None = None


Opener = Callable[[Bundle, str, str, int], BundlePolicy]
"""(bundle, arm, task, threads) to a policy that is ready."""


def evaluate(settings: EvaluationSettings, bundle: Bundle | None = None, opener: Opener = open_policy) -> Evaluation:
    """Runs the episodes and returns the report. Raises `VlaEdgeError`.

    `bundle` and `opener` put a policy that was not exported in the place of the settings' bundle.
    """
    arm = load_arm(settings.arm)
    first = open_scene(arm, settings.first_scene)
    if settings.task not in (None, first.task):
        raise InputError(f"--task {settings.task}: the scene of '{arm.name}' is for '{first.task}'")
    player = _Player(settings, arm, bundle, opener)
    rows = []
    for episode in tqdm(range(settings.episodes), unit="episode", disable=None):
        rows.append(_row(player.play(episode)))
        if not sys.stderr.isatty() and (episode + 1) % REPORT_EVERY == 0:
            done = sum(row.verdict.success for row in rows)
            print(f"{episode + 1} of {settings.episodes} episodes, {done} succeeded", file=sys.stderr, flush=True)
    succeeded = sum(row.verdict.success for row in rows)
    return Evaluation(
        arm=settings.arm,
        task=first.task,
        episodes=settings.episodes,
        succeeded=succeeded,
        success=succeeded / settings.episodes,
        confidence_95=wilson(succeeded, settings.episodes),
        duration_s=settings.duration_s,
        simulated_latency_ms=settings.latency_ms,
        checkpoint_sha256=player.bundle.manifest.checkpoint_sha256 if player.bundle else None,
        rows=rows,
    )


class _Player:
    """Plays episodes with the policy of a bundle, or with the expert; engines are opened once for each instruction."""

    def __init__(self, settings: EvaluationSettings, arm: ArmProfile, bundle: Bundle | None, opener: Opener) -> None:
        self.settings, self.arm, self._open = settings, arm, opener
        self.bundle = bundle or (load_bundle(settings.bundle) if settings.bundle else None)
        self._policies: dict[str, BundlePolicy] = {}

    def play(self, episode: int) -> LockstepOutcome:
        settings, arm = self.settings, self.arm
        scene = open_scene(arm, settings.first_scene + episode)
        task = scene.instruction(episode)
        run = LockstepSettings(task, settings.duration_s, latency_ms=settings.latency_ms, seed=episode)
        if self.bundle is not None:
            if task not in self._policies:
                self._policies[task] = self._open(self.bundle, arm.name, task, settings.threads)
            return run_lockstep(self.bundle, arm, self._policies[task], scene, run)
        if not isinstance(scene, LiftScene):
            raise InputError(f"there is an expert for lifting only, and '{arm.name}' reaches; give a --bundle")
        return run_source(EXPERT_SHAPE, STEP_S, arm, scene, run, lambda device: ExpertPlanner(scene, task, device))


def _row(outcome: LockstepOutcome) -> EpisodeRow:
    counters = outcome.controller.counters
    assert outcome.verdict is not None  # the task names one object
    return EpisodeRow(
        verdict=outcome.verdict,
        stop=outcome.stop,
        chunks=len(counters.committed_ids),
        refused=counters.refused,
        interventions=counters.interventions,
        largest_splice_rad_s2=max(counters.splice_acceleration, default=0.0),
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluate", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="an exported policy")
    source.add_argument("--expert", action="store_true", help="the scripted expert in its place (lifting only)")
    parser.add_argument("--arm", default="franka", help="arm profile (default %(default)s)")
    parser.add_argument("--task", choices=TASKS, help="what the arm is to do; there is one task for each arm")
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
    parser.add_argument(
        "--record", action="store_true", help="add the figures to the bundle's verification.json as 'closed_loop'"
    )
    args = parser.parse_args(argv)
    if args.record and args.expert:
        parser.error("--record writes into a bundle, and the expert has none")
    settings = EvaluationSettings(
        args.bundle, args.arm, args.episodes, args.duration, args.latency_ms, args.threads, args.first_scene, args.task
    )
    try:
        report = evaluate(settings)
    except VlaEdgeError as error:
        complain("evaluate", error)
        return error.exit_code
    if args.json:
        args.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    if args.record and args.bundle:
        add_to_verification(load_bundle(args.bundle), "closed_loop", report.summary())
    low, high = report.confidence_95
    print(
        f"{report.task}: {report.succeeded} of {report.episodes}: {100 * report.success:.0f} % "
        f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %), "
        f"limiter {sum(row.interventions for row in report.rows)}, "
        f"refused {sum(len(row.refused) for row in report.rows)}, simulated"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
