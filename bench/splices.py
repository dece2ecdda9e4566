"""How chunks of goals join: the largest jump at a splice, for policies like ACT and like SmolVLA, against latency.

The policies are simulated: each chunk is a smooth reference motion of an SO-101, wrong by an offset and a drift that
are drawn for the chunk, with noise on every goal. They know of no committed prefix. The rest is the product: control,
the stage from goals to knots, and the compiled firmware, on a simulated clock with injected latency. The ways to join:

- `goals to knots`: the product.
- `temporal ensembling`: the same, after each goal was averaged over all chunks in force.
- `naive switching`: knots on the goals themselves, from the step that is due. What it asks for at a splice is given
  beside what became of it, since host and firmware refuse most of it.

A jump is the change of the commanded step at a splice, of the joint that changes most, from the device's own 1 kHz
trace; a step is one of the policy's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench import options
from bench.closed_loop import jumps_and_steps
from bench.document import Recording, notify
from bench.goal_kinds import minimum_jerk
from bench.goals import exceeded
from bench.splices_tables import lines
from edge.arms import ArmProfile, load_arm
from edge.bundle import ChunkShape
from edge.cli.parser import count
from edge.inference.records import Outcome, Planner, PlannerStatus, PlanRequest, PlanResult
from edge.log.trace import read_trace
from edge.plan.ensemble import Ensemble
from edge.plan.trajectory import FloatArray, from_micro
from edge.run.controller import Controller
from edge.sim.lockstep import LockstepSettings, run_source
from edge.sim.scenes import open_scene

ARM = "so101"
LATENCIES_MS = (0.0, 50.0, 100.0, 200.0, 400.0)
REACH_DEG = np.array([35.0, 12.0, 12.0, 20.0, 35.0, 10.0])
"""Of the reference motion about the pose in which the scene begins."""
LEG_S = 1.5
"""From one pose of the reference to the next."""
IN_FORCE = 4
"""Chunks that are averaged at most."""


@dataclass(frozen=True)
class Style:
    """A policy: its rate, chunk and steps executed; the standard deviations of a chunk's offset, of its drift over the
    whole of it, and of every goal."""

    hz: float
    horizon: int
    execute: int
    offset_deg: float
    drift_deg: float
    noise_deg: float


STYLES = {
    "like ACT": Style(hz=30, horizon=100, execute=25, offset_deg=0.5, drift_deg=3.0, noise_deg=0.05),
    "like SmolVLA": Style(hz=30, horizon=50, execute=20, offset_deg=1.0, drift_deg=3.0, noise_deg=0.25),
}


class ReferencePolicy:
    """A `ChunkSource` whose chunks are wrong by what its style says."""

    def __init__(self, arm: ArmProfile, start_rad: FloatArray, style: Style, duration_s: float, seed: int) -> None:
        self._style, self._draw = style, np.random.default_rng(seed)
        steps = round(duration_s * style.hz) + 2 * style.horizon
        leg = round(LEG_S * style.hz)
        poses = np.radians(REACH_DEG) * np.random.default_rng(seed).uniform(-1, 1, (steps // leg + 2, arm.dof))
        poses = start_rad + np.vstack([np.zeros(arm.dof), poses])
        legs = [minimum_jerk(leg, 1 / style.hz, after - before, LEG_S) + before for before, after in pairwise(poses)]
        self._reference = np.clip(
            np.concatenate(legs), arm.operating.position_min_rad, arm.operating.position_max_rad
        )  # row i is due at the end of step i

    def answer(self, request: PlanRequest) -> PlanResult:
        style, joints = self._style, self._reference.shape[1]
        rows = np.minimum(request.step + np.arange(style.horizon), len(self._reference) - 1)
        first = request.step == 0
        offset = 0.0 if first else np.radians(style.offset_deg) * self._draw.standard_normal(joints)
        drift = np.radians(style.drift_deg) * self._draw.standard_normal(joints)
        along = np.linspace(0, 1, style.horizon)[:, None]
        noise = np.radians(style.noise_deg) * self._draw.standard_normal((style.horizon, joints))
        goals = self._reference[rows] + offset + drift * along + noise
        nothing = np.zeros((0, joints))
        return replace(PlanResult.untimed(request.id, Outcome.CHUNK, nothing), goals_rad=goals)


class Watched:
    """Passes goals on, and notes the change of the commanded step that knots on them would have made at the splice."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._pending: PlanRequest | None = None
        self.asked_rad: list[float] = []

    def attach(self, controller: Controller) -> None:
        self._controller = controller

    def request(self, request: PlanRequest) -> None:
        self._pending = request
        self._planner.request(request)

    def result(self) -> PlanResult | None:
        result, request, timeline = self._planner.result(), self._pending, self._controller.timeline
        if result is None or request is None or not len(result.goals_rad):
            return result
        splice = request.step + len(request.prefix_rad)
        goals = self._goals(request.step, result.goals_rad)
        if timeline.begun and splice:
            before, at = from_micro(timeline.q_urad(splice - 1)), from_micro(timeline.q_urad(splice))
            asked = goals[splice - request.step] - at - (at - before)
            self.asked_rad.append(float(np.abs(asked).max()))
        return self._joined(result, request, goals)

    def status(self) -> PlannerStatus | None:
        return self._planner.status()

    def _goals(self, step: int, goals_rad: FloatArray) -> FloatArray:
        return goals_rad

    def _joined(self, result: PlanResult, request: PlanRequest, goals_rad: FloatArray) -> PlanResult:
        return result


class Ensembling(Watched):
    """Control averages each goal over the chunks in force; so does what is noted."""

    def __init__(self, planner: Planner) -> None:
        super().__init__(planner)
        self._ensemble = Ensemble(IN_FORCE)

    def _goals(self, step: int, goals_rad: FloatArray) -> FloatArray:
        averaged = self._ensemble.with_newest(step, goals_rad)
        self._ensemble.joined(step, goals_rad)
        return averaged


class Naive(Watched):
    """Puts knots on the goals: increments from the committed position at the splice on, as they are. The first chunk,
    which begins at rest, goes the product's way."""

    def _joined(self, result: PlanResult, request: PlanRequest, goals_rad: FloatArray) -> PlanResult:
        timeline, delay = self._controller.timeline, len(request.prefix_rad)
        if not (timeline.begun and request.step + delay):
            return result
        at = from_micro(timeline.q_urad(request.step + delay))
        goals = goals_rad[: self._controller.shape.horizon]
        steps = np.diff(np.vstack([at, goals[delay:]]), axis=0)
        return replace(result, increments_rad=np.vstack([request.prefix_rad, steps]), goals_rad=np.zeros((0, len(at))))


ENSEMBLING = "temporal ensembling"
WAYS: dict[str, Callable[[Planner], Watched]] = {
    "goals to knots": Watched,
    ENSEMBLING: Ensembling,
    "naive switching": Naive,
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--episodes", type=count, default=3, help="per row (default %(default)d)")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of each (default %(default)g)")
    parser.add_argument("--latencies", type=float, nargs="+", default=list(LATENCIES_MS), metavar="MS")
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.quick:
        args.episodes, args.duration, args.latencies = 1, 4.0, args.latencies[2:3]
    settings = {name: getattr(args, name) for name in ("episodes", "duration", "latencies")} | {"simulated": True}
    recording = Recording("splices", settings, args.quick)
    rows = []
    for name, style in STYLES.items():
        for latency_ms in args.latencies:
            notify(f"splices: {name}, {latency_ms:g} ms")
            for way in WAYS:
                episodes = [
                    episode(style, way, latency_ms, args.duration, args.seed + number)
                    for number in range(args.episodes)
                ]
                rows.append({"policy": name, "latency_ms": latency_ms, "way": way, **summary(episodes)})
    recording.body = {"rows": rows}
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


@dataclass(frozen=True)
class Episode:
    """One episode; jumps and steps in rad."""

    asked_rad: list[float]
    jumps_rad: FloatArray
    steps_rad: FloatArray
    moved_s: float
    chunks: int
    refused: int
    late: int
    exceeded: list[str]
    stop: str | None


def episode(style: Style, way: str, latency_ms: float, duration_s: float, seed: int) -> Episode:
    """Plays one episode and judges its trace."""
    arm = load_arm(ARM)
    made: list[Watched] = []

    def joining(planner: Planner) -> Watched:
        made.append(WAYS[way](planner))
        return made[0]

    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-") as folder:
        path = Path(folder) / "trace.csv"
        settings = LockstepSettings(
            "", duration_s, style.execute, IN_FORCE if way == ENSEMBLING else 1, latency_ms, seed, path, 0.1, joining
        )
        scene = open_scene(arm, seed)
        outcome = run_source(
            ChunkShape(style.horizon, 0, style.horizon // 2, 1),
            1 / style.hz,
            arm,
            scene,
            settings,
            lambda device: ReferencePolicy(arm, np.array(scene.start[: arm.dof]), style, duration_s, seed),
        )
        trace = read_trace(path)
    jumps, steps = jumps_and_steps(trace, round(1000 / style.hz))
    counters = outcome.controller.counters
    return Episode(
        made[0].asked_rad,
        jumps,
        steps,
        float((np.abs(np.diff(trace.q, axis=0)).max(axis=1) > 0).sum() / 1000),
        counters.chunks,
        len(counters.refused),
        counters.late,
        exceeded(trace, arm),
        outcome.stop,
    )


def summary(episodes: list[Episode]) -> dict[str, Any]:
    """A row."""
    asked = [rad for one in episodes for rad in one.asked_rad]
    jumps, steps = (np.concatenate([getattr(one, name) for one in episodes]) for name in ("jumps_rad", "steps_rad"))
    return {
        "asked_mrad": 1000 * max(asked, default=0.0),
        "splices": len(jumps),
        "jump_mrad": 1000 * float(jumps.max(initial=0.0)),
        "step_mrad": 1000 * float(np.median(steps)) if len(steps) else None,
        "moved_s": sum(one.moved_s for one in episodes),
        "chunks": sum(one.chunks for one in episodes),
        "refused": sum(one.refused for one in episodes),
        "late": sum(one.late for one in episodes),
        "exceeded": sorted({text for one in episodes for text in one.exceeded}),
        "stopped": sum(one.stop is not None for one in episodes),
    }
