"""What latency costs: success, jerk and time to done, for four ways to join chunks, in simulation.

Same scenes, policy, control and firmware; the latency is injected on a simulated clock (lockstep), so every run is
decided by its seeds and not by this machine. All is judged from the device's own 1 kHz trace. The ways are described in
`bench/blending.py`: the committed prefix (ours), naive switching, temporal ensembling, synchronous execution.

The jump at a splice is the change of the commanded step there: how far the step of 100 ms after the splice differs from
the one before it, of the joint that differs most. Done is when the pointer is on the named cube and stays there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench import options
from bench.blending import BLENDINGS
from bench.closed_loop_tables import lines
from bench.document import Recording
from bench.episodes import FIRST_SCENE
from edge.arms import load_arm
from edge.bundle import Bundle, load_bundle
from edge.cli.parser import count
from edge.errors import InputError
from edge.log.trace import Trace, read_trace
from edge.plan.trajectory import FloatArray
from edge.policy.base import open_policy
from edge.run.proportion import wilson
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scene import TARGETS
from edge.sim.scenes import open_scene

ARM = "franka"
STEP_TICKS = 100
TICK_S = 1e-3
MOVES_RAD = 1e-3
"""A step in which a joint moves at least so far is motion."""
LOOK_TICKS = 20
"""How often the trace is asked whether the pointer is there."""
LATENCIES_MS = (0.0, 100.0, 200.0, 400.0)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a trained policy; random weights reach nothing")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="export this one for the while instead")
    parser.add_argument("--episodes", type=count, default=6, help="per row (default %(default)d)")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds per episode (default %(default)g)")
    parser.add_argument("--latencies", type=float, nargs="+", default=list(LATENCIES_MS), metavar="MS")
    parser.add_argument("--jitter", type=float, default=0.25, help="share by which each latency may differ")
    parser.add_argument("--joining", nargs="+", choices=list(BLENDINGS), default=list(BLENDINGS))
    parser.add_argument("--first-scene", type=int, default=FIRST_SCENE)
    parser.add_argument(
        "--jobs", type=count, default=len(os.sched_getaffinity(0)), help="processes (default: one per core)"
    )
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.quick:
        args.episodes, args.duration, args.latencies = 1, 2.0, [100.0]
    settings = {name: getattr(args, name) for name in ("episodes", "duration", "latencies", "jitter", "first_scene")}
    recording = Recording("closed-loop", settings | {"simulated": True}, args.quick)
    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-") as folder:
        bundle = load_bundle(args.bundle or _exported(args, Path(folder)))
        recording.used("policy", bundle)
        recording.body = {"rows": _rows(bundle, args)}
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


def _exported(args: argparse.Namespace, folder: Path) -> Path:
    if args.checkpoint is None:
        raise InputError("name a trained policy: --bundle DIR, or --checkpoint checkpoints/reach.pt")
    from bench.document import notify
    from bench.models import checkpoint_parts, make_bundle

    return make_bundle(checkpoint_parts(args.checkpoint), "fp32", folder / "bundle", args.seed, notify)


@dataclass(frozen=True)
class Episode:
    """One episode. `jumps` and `steps` in mrad, jerk in rad/s^3 of the fastest joint, `done_s` None if never."""

    reached: bool
    done_s: float | None
    jumps: FloatArray
    steps: FloatArray
    jerk_rms: float
    jerk_p99: float
    least_buffer_ms: float
    interventions: int
    refused: int
    stop: str | None


def _rows(bundle: Bundle, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per case. Episodes run side by side: they are lockstep, so what they find does not depend on it."""
    cases = [(name, latency) for latency in args.latencies for name in args.joining]
    settings = Settings(args.duration, args.jitter, args.seed, args.first_scene)
    spawned = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(args.jobs, spawned, _open, (str(bundle.path),)) as pool,
        tqdm(total=len(cases) * args.episodes, unit="episode", disable=None, leave=False) as bar,
    ):
        try:
            with _interrupts_ignored():  # the processes that start here ignore them for good: they are the parent's
                running = {
                    case: [pool.submit(_episode, *case, number_, settings) for number_ in range(args.episodes)]
                    for case in cases
                }
            for future in as_completed(future for futures in running.values() for future in futures):
                future.result()
                bar.update()
        except BrokenProcessPool:
            raise InputError(
                f"a process that runs episodes was killed; is there memory for --jobs {args.jobs}?"
            ) from None
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()  # or the pool would wait for the episodes that it began
            raise
    return [_row(*case, [future.result() for future in futures]) for case, futures in running.items()]


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Settings:
    """What all episodes share."""

    duration_s: float
    jitter: float
    seed: int
    first_scene: int


_opened: tuple[Bundle, dict[str, Any]] | None = None
"""The policy of this process, one per task."""


def _open(path: str) -> None:
    """Once in every process that runs episodes."""
    global _opened
    bundle = load_bundle(Path(path))
    _opened = bundle, {colour: open_policy(bundle, ARM, f"reach the {colour} cube", 1) for colour in TARGETS}


def _episode(name: str, latency_ms: float, number_: int, shared: Settings) -> Episode:
    assert _opened is not None
    bundle, policies = _opened
    colour = list(TARGETS)[number_ % len(TARGETS)]
    task, scene = f"reach the {colour} cube", open_scene(load_arm(ARM), shared.first_scene + number_)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        settings = LockstepSettings(
            task,
            shared.duration_s,
            latency_ms=latency_ms,
            jitter=shared.jitter,
            seed=shared.seed + number_,
            trace=path,
            joining=BLENDINGS[name],
        )
        outcome = run_lockstep(bundle, load_arm(ARM), policies[colour], scene, settings)
        trace = read_trace(path)
    jumps, steps = jumps_and_steps(trace)
    jerk_rms, jerk_p99 = jerk(trace)
    counters = outcome.controller.counters
    return Episode(
        outcome.done,
        done_s(trace, lambda q: bool((verdict := scene.verdict(task, q[None])) and verdict.success)),
        1000 * jumps,
        1000 * steps,
        jerk_rms,
        jerk_p99,
        counters.least_buffer_ms,
        counters.interventions,
        len(counters.refused),
        outcome.stop,
    )


def jumps_and_steps(trace: Trace, step_ticks: int = STEP_TICKS) -> tuple[FloatArray, FloatArray]:
    """Changes of the commanded step at every splice, and lengths of the steps in motion, rad."""
    splices = np.flatnonzero((np.diff(trace.chunk) != 0) & (trace.chunk[:-1] != 0) & (trace.chunk[1:] != 0)) + 1
    splices = splices[(splices >= step_ticks) & (splices + step_ticks < len(trace.q))]
    before = trace.q[splices] - trace.q[splices - step_ticks]
    after = trace.q[splices + step_ticks] - trace.q[splices]
    moving = np.maximum(np.abs(before), np.abs(after)).max(axis=1, initial=0) >= MOVES_RAD
    steps = np.abs(trace.q[step_ticks:] - trace.q[:-step_ticks])[::step_ticks].max(axis=1)
    return np.abs(after - before).max(axis=1, initial=0)[moving], steps[steps >= MOVES_RAD]


def jerk(trace: Trace) -> tuple[float, float]:
    """Jerk of the joint with the most at each tick while the arm executes chunks and moves; the stop at the end is the
    device's own and does not count. Root mean square and 99th percentile."""
    change = np.abs(np.diff(trace.q, n=3, axis=0)).max(axis=1) / TICK_S**3
    executing = trace.state == "STREAMING"
    inside = executing[:-3] & executing[3:]
    values = change[inside & (np.abs(np.diff(trace.q, axis=0)[2:]).max(axis=1) > 0)]
    if not len(values):
        return 0.0, 0.0
    return float(np.sqrt(np.mean(values**2))), float(np.percentile(values, 99))


def done_s(trace: Trace, is_there: Any) -> float | None:
    """Time from the first motion until the pointer is there and stays; None when it is not there at the end."""
    moving = np.flatnonzero(np.abs(np.diff(trace.q, axis=0)).max(axis=1) > 0)
    if not len(moving):
        return None
    begin, since = int(moving[0]), None
    for row in range(len(trace.q) - 1, begin, -LOOK_TICKS):
        if not is_there(trace.q[row]):
            break
        since = row
    return None if since is None else (since - begin) * TICK_S


def _row(name: str, latency_ms: float, episodes: list[Episode]) -> dict[str, Any]:
    jumps = np.concatenate([episode.jumps for episode in episodes])
    steps = np.concatenate([episode.steps for episode in episodes])
    reached = sum(episode.reached for episode in episodes)
    times = [episode.done_s for episode in episodes if episode.done_s is not None]
    buffers = [episode.least_buffer_ms for episode in episodes if np.isfinite(episode.least_buffer_ms)]
    return {
        "joining": name,
        "latency_ms": latency_ms,
        "episodes": len(episodes),
        "reached": reached,
        "reached_95": [round(value, 3) for value in wilson(reached, len(episodes))],
        "done_s": float(np.median(times)) if times else None,
        "done_of": len(times),
        "jerk_rms": float(np.median([episode.jerk_rms for episode in episodes])),
        "jerk_p99": float(np.median([episode.jerk_p99 for episode in episodes])),
        "splices": len(jumps),
        "jump_mrad": _percentiles(jumps),
        "step_mrad": _percentiles(steps),
        "least_buffer_ms": min(buffers, default=None),
        "interventions": sum(episode.interventions for episode in episodes),
        "refused": sum(episode.refused for episode in episodes),
        "stopped": sum(episode.stop is not None for episode in episodes),
        "raw": [
            {"reached": e.reached, "done_s": e.done_s, "jerk_rms": e.jerk_rms, "jerk_p99": e.jerk_p99, "stop": e.stop}
            for e in episodes
        ],
    }


def _percentiles(values: FloatArray) -> dict[str, float] | None:
    """None where there was nothing to measure: every run stopped before its first splice."""
    if not len(values):
        return None
    return {f"p{percent}": float(np.percentile(values, percent)) for percent in (50, 95, 100)}
