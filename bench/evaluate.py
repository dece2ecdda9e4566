"""Counts in how many unseen scenes a bundle does what it is told: reach the named cube, or lift the named object, or
a tray with two arms.

`python -m bench.evaluate --bundle BUNDLE --episodes 50` runs the exported engines, the runtime and the firmware in
lockstep. Scenes come from seeds that no demonstration uses. The arm decides the task; `--expert` puts the scripted
expert of a lifting task in the place of the policy, as a test of everything that runs it.

`--duration 8 20 60` judges one run after each of these times: reaching is one thing, staying another. `--push 30` moves
the arm itself by 5 cm at 30 s, towards its base, aside and down in turn, and leaves it to the policy to come back.
`--object 'red cube'` asks for one object in every scene: what a policy that takes no text was trained for.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.episodes import FIRST_SCENE, instruction
from bench.push import PUSH_M, PUSHES, pushing
from edge.arms import ArmProfile, load_arm
from edge.bundle import Bundle, add_to_verification, load_bundle
from edge.cli.parser import complain
from edge.errors import InputError, VlaEdgeError
from edge.policy.base import BundlePolicy, open_policy
from edge.run.proportion import wilson
from edge.sim.lockstep import LockstepOutcome, LockstepSettings, run_lockstep, run_source
from edge.sim.scenes import REACH, TASKS, BenchVerdict, ReachScene, Scene, open_scene
from edge.sim.stage import COLOURS
from lab.experts.expert_planner import EXPERT_SHAPE, ExpertPlanner
from lab.experts.reach_expert import STEP_S

REPORT_EVERY = 10
"""Episodes between two lines for a log, where there is no terminal for a bar."""


@dataclass(frozen=True)
class EpisodeRow:
    """One episode: how it ended, and what the runtime and the firmware had to say about its chunks."""

    verdict: BenchVerdict
    done_at: list[bool]
    """After each of the durations; after none of those that a safety stop came before."""
    stop: str | None
    chunks: int
    refused: list[str]
    interventions: int
    splices_rad_s2: list[float]
    """The jump in acceleration at every splice."""


@dataclass(frozen=True)
class Count:
    """In how many episodes the task was done after so long, with its 95 % interval."""

    duration_s: float
    succeeded: int
    confidence_95: tuple[float, float]


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
    counts: list[Count]
    push_s: float | None
    target: str | None
    simulated_latency_ms: float
    checkpoint_sha256: str | None
    rows: list[EpisodeRow]
    simulated: bool = True

    def summary(self) -> dict[str, Any]:
        """Everything but the episodes, for a bundle's verification."""
        return {name: value for name, value in asdict(self).items() if name != "rows"} | {
            "interventions": sum(row.interventions for row in self.rows),
            "refused": sum(len(row.refused) for row in self.rows),
            "largest_splice_rad_s2": self.splices(),
        }

    def splices(self) -> dict[str, float]:
        """Median and 95 % of the largest jump in acceleration at a splice of every episode."""
        p50, p95 = np.percentile([max(row.splices_rad_s2, default=0.0) for row in self.rows], [50, 95])
        return {"p50": float(p50), "p95": float(p95)}


@dataclass(frozen=True)
class EvaluationSettings:
    """`bundle` is None for the expert. `task` may be left to the arm; one it cannot do is refused.

    `durations_s` ascend: every episode runs for the last, and is judged after each. `push_s` is when the arm is pushed.
    """

    bundle: Path | None
    arm: str
    episodes: int
    durations_s: tuple[float, ...] = (8.0,)
    latency_ms: float = 30.0
    threads: int = 0
    first_scene: int = FIRST_SCENE
    task: str | None = None
    push_s: float | None = None
    target: str | None = None
    """The one object that is asked for; None asks for each in turn."""


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
    if list(settings.durations_s) != sorted(settings.durations_s):
        raise InputError("--duration: give the times in ascending order")
    if settings.push_s is not None and first.task != REACH:
        raise InputError(f"--push: only an arm that reaches is pushed, and '{arm.name}' lifts")
    instruction(first, 0, settings.target)
    player = _Player(settings, arm, bundle, opener)
    if player.bundle is not None and not player.bundle.manifest.follows_text and settings.target is None:
        raise InputError("this policy takes no instruction: name the object that it was trained for with --object")
    rows = []
    for episode in tqdm(range(settings.episodes), unit="episode", disable=None):
        rows.append(player.play(episode))
        if not sys.stderr.isatty() and (episode + 1) % REPORT_EVERY == 0:
            done = sum(row.done_at[-1] for row in rows)
            print(f"{episode + 1} of {settings.episodes} episodes, {done} succeeded", file=sys.stderr, flush=True)
    succeeded = sum(row.done_at[-1] for row in rows)
    return Evaluation(
        arm=settings.arm,
        task=first.task,
        episodes=settings.episodes,
        succeeded=succeeded,
        success=succeeded / settings.episodes,
        confidence_95=wilson(succeeded, settings.episodes),
        duration_s=settings.durations_s[-1],
        counts=[
            Count(duration, done := sum(row.done_at[at] for row in rows), wilson(done, settings.episodes))
            for at, duration in enumerate(settings.durations_s)
        ],
        push_s=settings.push_s,
        target=settings.target,
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

    def play(self, episode: int) -> EpisodeRow:
        scene = open_scene(self.arm, self.settings.first_scene + episode)
        task = instruction(scene, episode, self.settings.target)
        return self._row(scene, self._outcome(scene, episode, task), task)

    def _outcome(self, scene: Scene, episode: int, task: str) -> LockstepOutcome:
        settings, arm = self.settings, self.arm
        joining = None
        if settings.push_s is not None and isinstance(scene, ReachScene):
            joining = pushing(scene, settings.push_s, list(PUSHES)[episode // len(COLOURS) % len(PUSHES)])
        run = LockstepSettings(
            task, settings.durations_s[-1], latency_ms=settings.latency_ms, seed=episode, joining=joining
        )
        if self.bundle is not None:
            if task not in self._policies:
                self._policies[task] = self._open(self.bundle, arm.name, task, settings.threads)
            run = replace(run, execute_steps=self.bundle.manifest.policy.execute)
            return run_lockstep(self.bundle, arm, self._policies[task], scene, run)
        return run_source(EXPERT_SHAPE, STEP_S, arm, scene, run, lambda device: ExpertPlanner(scene, task, device))

    def _row(self, scene: Scene, outcome: LockstepOutcome, task: str) -> EpisodeRow:
        counters, track = outcome.controller.counters, outcome.track
        assert outcome.verdict is not None  # the task names one object
        done_at = []
        for duration in self.settings.durations_s[:-1]:
            watched = (track.time_s <= duration + 1e-6) & (track.time_s >= duration - scene.watch_s - 1e-6)
            if track.time_s[-1] < duration:  # it was stopped before
                done_at.append(False)
                continue
            found = scene.verdict(task, track.world[watched])
            done_at.append(found is not None and found.success)
        return EpisodeRow(
            verdict=outcome.verdict,
            done_at=[*done_at, outcome.done],
            stop=outcome.stop,
            chunks=len(counters.committed_ids),
            refused=list(counters.refused),
            interventions=counters.interventions,
            splices_rad_s2=list(counters.splice_acceleration),
        )


def lines(report: Evaluation) -> list[str]:
    """The report for a person: success after each duration, how long it lasted, what the runtime had to say."""
    found = []
    done = f"{report.task} the {report.target}" if report.target else report.task
    for count in report.counts:
        low, high = count.confidence_95
        found.append(
            f"{done}: {count.succeeded} of {report.episodes} after {count.duration_s:g} s: "
            f"{100 * count.succeeded / report.episodes:.0f} % "
            f"(95 % interval {100 * low:.0f} to {100 * high:.0f} %), simulated"
        )
    if report.push_s is not None:
        found.append(f"pushed by {100 * PUSH_M:g} cm at {report.push_s:g} s, {', '.join(PUSHES)} in turn")
    holds = [row.verdict.hold for row in report.rows if row.verdict.hold and row.verdict.hold.worst_m is not None]
    if holds:
        first, worst = ([getattr(hold, name) for hold in holds] for name in ("reached_s", "worst_m"))
        found.append(
            f"first done after {np.median(first):.1f} s (median), {sum(hold.held_s > 0 for hold in holds)} of "
            f"{len(holds)} of these at the end too; worst since: "
            + ", ".join(f"{1000 * value:.0f}" for value in np.percentile(worst, [50, 90, 100]))
            + " mm (50, 90, 100 %)"
        )
    splices = report.splices()
    found.append(
        f"largest jump at a splice {splices['p50']:.2f} rad/s^2 (median), {splices['p95']:.2f} (95 %), "
        f"limiter {sum(row.interventions for row in report.rows)}, "
        f"refused {sum(len(row.refused) for row in report.rows)}, "
        f"safety stops {sum(row.stop is not None for row in report.rows)}"
    )
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.evaluate", description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bundle", type=Path, help="an exported policy")
    source.add_argument("--expert", action="store_true", help="the scripted expert in its place (lifting only)")
    parser.add_argument("--arm", default="franka", help="arm profile (default %(default)s)")
    parser.add_argument("--task", choices=TASKS, help="what the arm is to do; there is one task for each arm")
    parser.add_argument(
        "--object", metavar="NAME", help="ask for this one in every scene, e.g. 'red cube': for a policy without text"
    )
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument(
        "--duration", type=float, nargs="+", default=[8.0], metavar="S",
        help="seconds per episode, or several at which it is judged (default 8)")  # fmt: skip
    parser.add_argument("--push", type=float, metavar="S", help="push the arm by 5 cm after so many seconds (reaching)")
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
        args.bundle,
        args.arm,
        args.episodes,
        tuple(args.duration),
        args.latency_ms,
        args.threads,
        args.first_scene,
        args.task,
        args.push,
        args.object,
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
    print("\n".join(lines(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
