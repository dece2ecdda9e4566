"""From goals to knots: what becomes of chunks as other people's policies give them, and what it takes.

Each kind on every arm and at every rate: chunks are made into knots by the stage that a run uses, sent to the compiled
firmware, executed whole on a simulated clock, and judged from the device's own 1 kHz trace. The time is that of the
processor, of one thread, from goals to checked knots, the best of five. Then two solvers on programs of single joints.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import options
from bench.document import Recording, notify
from bench.goal_kinds import KINDS, STEPS, Situation, minimum_jerk
from bench.goals_tables import lines
from edge.arms import ArmProfile, available_arms, load_arm
from edge.cli.parser import count
from edge.errors import InputError
from edge.log.trace import Trace, read_trace, violations
from edge.plan.checks import ChunkRefusal
from edge.plan.nearest import JointBounds, JointStart, Program
from edge.plan.shaping import GoalShaper
from edge.plan.trajectory import Knots
from edge.run.arm import ConnectedArm
from firmware_bridge.client import DeviceClient, KnotChunk, refusal_text
from firmware_bridge.link import Link
from firmware_bridge.simulator import LockstepDevice, SimulatedArm

RATES_HZ = (30.0, 50.0)
LEAST_HZ, MOST_HZ = 1.0, 100.0
SESSION = 1
START_MS = 60
"""From the first chunk's COMMIT to its knot 0."""
HEARTBEAT_MS = 10
REPEATS = 5
"""Of which the fastest counts: other work on the machine slows a thread down, and is not the stage's."""
PROGRAMS = 200
SOLVED = (("white noise of 0.25 degree", 50.0, 0.25, 30.0, 1.2), ("60 degrees in 0.7 s", 30.0, 0.02, 60.0, 0.7))
"""Programs for two solvers: rate in Hz, noise and swing in degrees, time of the swing in s."""
OSQP = {"verbose": False, "eps_abs": 1e-5, "eps_rel": 1e-5, "max_iter": 20_000}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chunks", type=count, default=40, help="of each kind, arm and rate (default %(default)d)")
    parser.add_argument("--arms", nargs="+", default=available_arms(), metavar="ARM", help="(default: all)")
    parser.add_argument("--rates", type=float, nargs="+", default=list(RATES_HZ), metavar="HZ")
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    for hz in args.rates:
        if not LEAST_HZ <= hz <= MOST_HZ:
            raise InputError(f"--rates {hz:g}: give rates from {LEAST_HZ:g} to {MOST_HZ:g} Hz")
    if args.quick:
        args.chunks, args.rates = 2, args.rates[:1]
    settings = {"chunks": args.chunks, "arms": args.arms, "rates_hz": args.rates, "simulated": True}
    recording = Recording("goals", settings, args.quick)
    rows = []
    for name in args.arms:
        notify(f"goals: {name}")
        arm = load_arm(name)
        shaper = GoalShaper(arm)
        for hz in args.rates:
            rows += [_row(kind, shaper, arm, hz, args.chunks, args.seed) for kind in KINDS]
    recording.body = {"rows": rows, "solvers": _solvers(recording, args.seed, 5 if args.quick else PROGRAMS)}
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


def _row(kind: str, shaper: GoalShaper, arm: ArmProfile, hz: float, chunks: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    took_ms, shaped, refusals = [], [], Counter[str]()
    device_refused, excess, interventions = Counter[str](), Counter[str](), 0
    KINDS[kind](shaper, arm, hz, np.random.default_rng(seed))
    for _ in range(chunks):
        at = KINDS[kind](shaper, arm, hz, draw)
        repeated_ms = []
        for _ in range(REPEATS):
            began_ns = time.thread_time_ns()
            chunk = shaper.shape(at.timeline, at.splice, at.goals_rad, at.spacing_us)
            repeated_ms.append((time.thread_time_ns() - began_ns) / 1e6)
        took_ms.append(min(repeated_ms))
        if isinstance(chunk, ChunkRefusal):
            refusals[str(chunk)] += 1
            continue
        shaped.append(chunk)
        refused, trace = executed(arm, at, chunk.knots)
        device_refused.update(refused)
        excess.update(exceeded(trace, arm))
        interventions += int(trace.limited.sum())
    gripper = np.isin(np.arange(arm.dof), arm.grippers)
    return {
        "kind": kind,
        "arm": arm.name,
        "hz": hz,
        "chunks": chunks,
        "refused": dict(refusals),
        "refused_by_device": dict(device_refused),
        "violations": dict(excess),
        "limited_ticks": interventions,
        "unchanged": sum(not chunk.changed for chunk in shaped),
        "slowed": _middle([chunk.slowed for chunk in shaped]),
        "rms_deg": _middle([float(np.degrees(chunk.deviation.rms_rad[~gripper].max())) for chunk in shaped]),
        "max_deg": _middle([float(np.degrees(chunk.deviation.max_rad[~gripper].max())) for chunk in shaped]),
        "ms": {f"p{percent}": float(np.percentile(took_ms, percent)) for percent in (50, 99)},
        "raw_ms": took_ms,
    }


def exceeded(trace: Trace, arm: ArmProfile) -> list[str]:
    """Limits that a trace violates: the operating ones where chunks are executed; the device's own stop at the end of
    the last one keeps to the compiled ones."""
    streaming, found = np.flatnonzero(trace.state == "STREAMING"), violations(trace, arm.limits, arm.edges)
    if streaming.size:
        plan = trace.part(slice(int(streaming[0]), int(streaming[-1]) + 1))
        found += violations(plan, arm.operating, arm.edges)
    return found


def _middle(values: Sequence[float]) -> dict[str, float] | None:
    return {"median": float(np.median(values)), "largest": max(values)} if values else None


def executed(arm: ArmProfile, at: Situation, knots: Knots) -> tuple[list[str], Trace]:
    """What the compiled firmware refused, and its trace of all that is committed and `knots`, from home to the end."""
    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-") as folder:
        path = Path(folder) / "trace.csv"
        device = LockstepDevice(SimulatedArm(arm.name, arm.home_rad, trace=path))
        client = DeviceClient(
            Link(device, lambda: 1000 * device.now_us, SESSION), lambda seconds: device.tick(math.ceil(1000 * seconds))
        )
        device.tick()
        ConnectedArm.connect(arm, client).switch_on()
        offset_us = device.now_us + 1000 * START_MS - at.timeline.due_us(0)
        refused, beat = [], 1
        for number, plan in enumerate((*(chunk.knots for chunk in at.committed), knots), start=1):
            client.send_chunk(
                KnotChunk(
                    number,
                    at.timeline.due_us(plan.first) + offset_us,
                    plan.spacing_us,
                    *(tuple(map(tuple, rows.tolist())) for rows in (plan.q_urad, plan.dq_urad_s)),
                )
            )
            device.tick(2)
            inbox = client.poll(1000 * device.now_us)
            refused += [refusal_text(nak) for _, nak in inbox.refused]
        end_us = at.timeline.due_us(knots.first) + (knots.last - knots.first) * knots.spacing_us + offset_us
        while device.now_us < end_us + 500_000:
            beat += 1
            client.heartbeat(beat)
            device.tick(HEARTBEAT_MS)
        device.close()
        return refused, read_trace(path)


def _solvers(recording: Recording, seed: int, programs: int) -> list[dict[str, Any]]:
    """Programs of single joints: by daqp, as in a run, and by osqp, which is set up once and only updated."""
    try:
        import osqp
        from scipy import sparse
    except ImportError:
        recording.leave_out("osqp beside daqp", "not installed: pip install osqp")
        return []
    bounds, start, steps = JointBounds(-1.8, 1.8, 2.0, 10.0, 2000.0, 0.05), JointStart(0.0, 0.0, 0.0), STEPS - 1
    rows = []
    for label, hz, noise_deg, swing_deg, duration_s in SOLVED:
        draw = np.random.default_rng(seed)
        swing = minimum_jerk(steps, 1 / hz, np.radians([swing_deg]), duration_s)[:, 0]
        noises = np.radians(noise_deg) * draw.standard_normal((programs, steps))
        other: osqp.OSQP | None = None
        took_ms: dict[str, list[float]] = {"daqp": [], "osqp": []}
        over, beyond = [], []
        for noise in noises:
            program = Program(swing + noise, start, bounds, 1 / hz)
            matrix = sparse.vstack([sparse.eye(steps), program.rows], format="csc")
            if other is None:
                other = osqp.OSQP()
                other.setup(
                    sparse.eye(steps, format="csc"), -program.wanted, matrix, program.least, program.most, **OSQP
                )
            began_ns = time.thread_time_ns()
            best = program.nearest(bounded=False)
            took_ms["daqp"].append((time.thread_time_ns() - began_ns) / 1e6)
            began_ns = time.thread_time_ns()
            other.update(q=-program.wanted, l=program.least, u=program.most)
            x = other.solve(raise_error=False).x
            took_ms["osqp"].append((time.thread_time_ns() - began_ns) / 1e6)
            assert best is not None
            over.append(float(np.sqrt(np.square(x - program.wanted).mean()) / best.share - 1))
            excess = np.maximum(matrix @ x - program.most, program.least - matrix @ x)
            beyond.append(float((excess / (program.most - program.least)).max()))
        rows.append(
            {
                "program": f"{label}, {hz:g} Hz",
                "programs": programs,
                "ms": {name: {f"p{p}": float(np.percentile(ms, p)) for p in (50, 99)} for name, ms in took_ms.items()},
                "osqp_over": max(over),
                "osqp_beyond": max(beyond),
            }
        )
    return rows
