"""The fault table: what goes wrong, how often, and what an observer of the device's own trace found.

`python -m edge.sim.faults --seeds 50` runs every kind of fault with as many seeds, in lockstep with the real firmware,
and exits 1 when the observer finds anything. The arm and its drive are simulated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.arms.stopping import stop_bounds
from edge.errors import VlaEdgeError
from edge.log.trace import Trace, violations
from edge.sim.fault_run import Bench, FaultRun, run_with_fault
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import MAGIC, TICK_US
from firmware_bridge.fault_proxy import Faults
from firmware_bridge.link import Link
from firmware_bridge.messages import SCHEMA_HASH, Clear, Disarm, Hello, Stop
from firmware_bridge.simulator import SimulatedFault

STOPPED = ("DECEL", "HOLD", "FAULT", "ESTOP")
TRACKING_LIMIT_RAD = 0.05
EXACT_RAD = 1e-9
ROUNDED_RAD = 0.5e-6 + EXACT_RAD
"""Half of the wire's microradian."""
DETECTED_MS = 2.0
"""A fault that the device sees in its own tick: the next one and the trace row after it."""
HEARTBEAT_MS = 101.0
"""The device's heartbeat limit (section 8 of PROTOCOL.md) and the tick that notices."""
BUFFER_MS = 1200.0
"""Longer than any chunk of the scripted host lasts."""

Strike = Callable[[Bench, int], None]


@dataclass(frozen=True)
class Expectation:
    """What must follow. `within_ms`: a stop that begins so soon after the onset; None: a stop may come or not."""

    within_ms: float | None = None
    undisturbed: bool = False


ANYTHING = Expectation()
UNDISTURBED = Expectation(undisturbed=True)


@dataclass(frozen=True)
class FaultKind:
    """A kind of fault: draws one from a generator, with what must follow from it."""

    name: str
    make: Callable[[Random], tuple[Strike, Expectation]]
    clock_jumps: bool = False


def on_the_line(make: Callable[[Random], Faults]) -> Callable[[Random], tuple[Strike, Expectation]]:
    def drawn(draw: Random) -> tuple[Strike, Expectation]:
        faults = make(draw)
        return at_onset(lambda bench: bench.take_over_line(faults)), ANYTHING

    return drawn


def at_onset(act: Callable[[Bench], None]) -> Strike:
    def strike(bench: Bench, since_ms: int) -> None:
        if since_ms == 0:
            act(bench)

    return strike


def always(act: Callable[[Bench], None], expected: Expectation) -> Callable[[Random], tuple[Strike, Expectation]]:
    return lambda draw: (at_onset(act), expected)


def _after_silence(duration_ms: int) -> Expectation:
    """A host that is silent for so long, from at most one heartbeat after its last one."""
    if duration_ms > HEARTBEAT_MS:
        return Expectation(within_ms=HEARTBEAT_MS)
    return UNDISTURBED if duration_ms < HEARTBEAT_MS - 15 else ANYTHING


def _stall(draw: Random) -> tuple[Strike, Expectation]:
    duration_ms = draw.choice((draw.randrange(10, 130), draw.randrange(130, 1200)))

    def strike(bench: Bench, since_ms: int) -> None:
        bench.alive = since_ms >= duration_ms

    return strike, _after_silence(duration_ms)


def _unplug(draw: Random) -> tuple[Strike, Expectation]:
    duration_ms = draw.choice((draw.randrange(10, 130), draw.randrange(130, 1200)))
    faults = Faults(disconnect_s=(0.0, duration_ms / 1000))
    expected = _after_silence(duration_ms)
    # A chunk that was lost may have been needed; heartbeats alone do not keep the arm moving.
    return at_onset(lambda bench: bench.take_over_line(faults)), ANYTHING if expected.undisturbed else expected


def _kill(bench: Bench) -> None:
    bench.alive = False


def _hang(bench: Bench) -> None:
    bench.loop_hangs = True


def _another_host(draw: Random) -> tuple[Strike, Expectation]:
    session = draw.randrange(1, 2**16)

    def strike(bench: Bench, since_ms: int) -> None:
        if since_ms % 7 == 0 and session != bench.client.link.session:
            link = Link(bench.line, bench.clock_ns, session)
            for message in (Hello(MAGIC, SCHEMA_HASH), Stop(), Disarm(), Clear()):
                link.send(message)

    return strike, UNDISTURBED


def _late_tick(draw: Random) -> tuple[Strike, Expectation]:
    late_us = draw.randrange(2 * TICK_US + 100, 200 * TICK_US)

    def strike(bench: Bench, since_ms: int) -> None:
        bench.device.fault(SimulatedFault.TICK_ERROR_US, late_us if since_ms == 0 else 0)

    return strike, Expectation(within_ms=DETECTED_MS + late_us / 1000)


def _illegal_chunks(draw: Random) -> tuple[Strike, Expectation]:
    def spoil(chunk: KnotChunk) -> KnotChunk:
        q = [list(row) for row in chunk.q_urad]
        assert chunk.dq_urad_s is not None
        dq = [list(row) for row in chunk.dq_urad_s]
        knot, joint = draw.randrange(len(q)), draw.randrange(len(q[0]))
        way = draw.randrange(5)
        if way == 0:  # a jump that no splice and no segment allows
            q[knot][joint] += draw.choice((-1, 1)) * draw.randrange(300_000, 3_000_000)
        elif way == 1:
            q[knot][joint] = draw.choice((-(2**31), 2**31 - 1))
        elif way == 2:
            dq[knot][joint] = draw.choice((-1, 1)) * draw.randrange(6_000_000, 2**31 - 1)
        elif way == 3:  # due before it can be checked
            return replace(chunk, start_us=(chunk.start_us - draw.randrange(60_000, 10**9)) % 2**32)
        else:
            return replace(chunk, spacing_us=draw.choice((0, 1, 1999, 1_000_001, 2**32 - 1)))
        return replace(chunk, q_urad=tuple(map(tuple, q)), dq_urad_s=tuple(map(tuple, dq)))

    def act(bench: Bench) -> None:
        bench.spoil = spoil

    return at_onset(act), Expectation(within_ms=BUFFER_MS)


def _drive(fault: SimulatedFault, value: float) -> Callable[[Random], tuple[Strike, Expectation]]:
    return always(lambda bench: bench.device.fault(fault, value), Expectation(within_ms=DETECTED_MS))


KINDS = (
    FaultKind("bytes lost", on_the_line(lambda draw: Faults(byte_loss=10 ** draw.uniform(-4, -1)))),
    FaultKind("bits flipped", on_the_line(lambda draw: Faults(bit_flip=10 ** draw.uniform(-4, -1)))),
    FaultKind("frames lost", on_the_line(lambda draw: Faults(loss=draw.uniform(0.05, 0.9)))),
    FaultKind("frames sent twice", on_the_line(lambda draw: Faults(duplicate=draw.uniform(0.1, 1.0)))),
    FaultKind("frames out of order", on_the_line(lambda draw: Faults(reorder=draw.uniform(0.1, 1.0)))),
    FaultKind("frames cut short", on_the_line(lambda draw: Faults(truncate=draw.uniform(0.05, 0.9)))),
    FaultKind("garbage between frames", on_the_line(lambda draw: Faults(garbage=draw.uniform(0.05, 0.9)))),
    FaultKind(
        "late and uneven",
        on_the_line(lambda draw: Faults(delay_ms=draw.uniform(0, 80), jitter_ms=draw.uniform(0, 80))),
    ),
    FaultKind("16 ms batches", on_the_line(lambda draw: Faults(batch_ms=16, delay_ms=draw.uniform(0, 5)))),
    FaultKind("115200 baud", on_the_line(lambda draw: Faults(baud=115_200))),
    FaultKind("unplugged for a while", _unplug),
    FaultKind("host stalled", _stall),
    FaultKind("host killed", always(_kill, Expectation(within_ms=HEARTBEAT_MS))),
    FaultKind("control loop hangs", always(_hang, Expectation(within_ms=HEARTBEAT_MS))),
    FaultKind("illegal chunks", _illegal_chunks),
    FaultKind("another host", _another_host),
    FaultKind("no feedback", _drive(SimulatedFault.FEEDBACK_LOST, 1)),
    FaultKind("feedback NaN", _drive(SimulatedFault.FEEDBACK_NAN, 1)),
    FaultKind("encoder jumps", _drive(SimulatedFault.OFFSET_RAD, 0.2)),
    FaultKind("device tick late", _late_tick, clock_jumps=True),
    FaultKind("stop", always(lambda bench: void(bench.client.link.send(Stop())), Expectation(within_ms=DETECTED_MS))),
    FaultKind("emergency stop", always(lambda bench: bench.client.estop(), Expectation(within_ms=DETECTED_MS))),
)


def void(_: object) -> None:
    """Drops a result."""


# The observer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What the observer found in one run. Times in milliseconds; None where the device did not stop."""

    stopped: bool
    reaction_ms: float | None
    standstill_ms: float | None
    chunks_executed: int
    committed: int
    refused: int
    bad_frames: int
    wrong: tuple[str, ...]


def longest_stop_s(arm: ArmProfile) -> float:
    """The longest a stop may take from the speeds of a run."""
    return max(bound.time_s for bound in stop_bounds(arm, arm.operating))


def judge(run: FaultRun, arm: ArmProfile, expected: Expectation, clock_jumps: bool) -> Finding:
    """Reads the trace, and compares it with limits, with the chunks that were sent, and with the expectation."""
    trace = run.trace
    rows = np.flatnonzero(np.isin(trace.state, STOPPED))
    stop = int(rows[0]) if rows.size else None
    wrong = violations(trace.part(slice(stop)), arm.operating, None, clock_jumps)
    wrong += violations(trace, arm.limits, arm.edges, clock_jumps)
    wrong += unexplained(trace, run.chunks)
    reaction = standstill = None
    if stop is not None:
        moved = np.flatnonzero(np.any(np.diff(trace.q, axis=0) != 0.0, axis=1)) + 1
        last = int(moved[-1]) if moved.size else 0
        standstill = max(0, last - stop + 1) * TICK_US / 1000
        reaction = float(trace.tick_us[stop] - run.onset_us) / 1000
        if standstill > 1000 * longest_stop_s(arm):
            wrong.append(f"standstill only after {standstill:.0f} ms")
        if not np.all(np.isin(trace.state[stop:], STOPPED)):
            wrong.append("left a stop by itself")
    if expected.within_ms is not None and (reaction is None or reaction > expected.within_ms):
        wrong.append(f"stop after {reaction} ms, not within {expected.within_ms:.0f} ms")
    if expected.undisturbed and stop is not None:
        wrong.append("stopped for nothing")
    executed = len(set(trace.chunk.tolist()) - {0})
    return Finding(
        stop is not None, reaction, standstill, executed, run.committed, run.refused, run.bad_frames, tuple(wrong)
    )


def unexplained(trace: Trace, chunks: dict[int, KnotChunk]) -> list[str]:
    """Motion that no whole chunk accounts for.

    While streaming, every set-point stands on the chunk in force, and a chunk takes over exactly at its first knot. In
    every other state but a stop, nothing moves; an arm whose drive was off is armed on the microradian next to it.
    """
    streaming = trace.state == "STREAMING"
    for identity in sorted(set(trace.chunk[streaming].tolist())):
        rows = np.flatnonzero(streaming & (trace.chunk == identity))
        if identity not in chunks:
            return [f"executed chunk {identity}, which nobody sent so"]
        first = int(rows[0])
        since_us = (trace.tick_us[rows] - chunks[identity].start_us).astype(np.int64)
        if since_us[0] >= trace.tick_us[first] - trace.tick_us[first - 1]:
            return [f"chunk {identity} taken up in its middle, {since_us[0]} us after its start"]
        if np.any(np.diff(rows) != 1):
            return [f"chunk {identity} left and taken up again"]
        away = np.abs(trace.q[rows] - hermite(chunks[identity], since_us)).max(axis=1)
        if np.any(away > np.where(trace.limited[rows] == 1, TRACKING_LIMIT_RAD, EXACT_RAD)):
            return [f"chunk {identity} not followed: {away.max():.2e} rad away"]
    still = ~np.isin(trace.state, ("STREAMING", "DECEL", "FAULT", "ESTOP"))
    armed = (trace.state[:-1] == "IDLE") & (trace.state[1:] == "ARMED")
    allowed_rad = np.where(armed, ROUNDED_RAD, 0.0)[:, None]
    if np.any((np.abs(np.diff(trace.q, axis=0)) > allowed_rad)[still[1:]]):
        return ["moved in a state that holds still"]
    return []


def hermite(chunk: KnotChunk, since_us: NDArray[np.int64]) -> NDArray[np.float64]:
    """The chunk's cubic Hermite interpolant at times since its start, (n, J) rad; its last knot after its end."""
    assert chunk.dq_urad_s is not None
    q, dq = 1e-6 * np.array(chunk.q_urad), 1e-6 * np.array(chunk.dq_urad_s)
    h = 1e-6 * chunk.spacing_us
    at = np.minimum(since_us // chunk.spacing_us, len(q) - 2)
    u = np.minimum((since_us - at * chunk.spacing_us) / chunk.spacing_us, 1.0)[:, None]
    interpolated: NDArray[np.float64] = (
        (1 + 2 * u) * (1 - u) ** 2 * q[at]
        + u * (1 - u) ** 2 * h * dq[at]
        + u**2 * (3 - 2 * u) * q[at + 1]
        - u**2 * (1 - u) * h * dq[at + 1]
    )
    return interpolated


# The table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One kind of fault over all its seeds; the times are the largest."""

    fault: str
    runs: int
    stopped: int
    reaction_ms: float | None
    standstill_ms: float | None
    chunks_executed: int
    refused: int
    bad_frames: int
    wrong: tuple[str, ...]


def one_run(kind: FaultKind, seed: int, arm: ArmProfile) -> Finding:
    """Draws the fault of this kind and seed, runs it and judges it."""
    draw = Random(f"{kind.name} {seed}")
    strike, expected = kind.make(draw)
    with tempfile.TemporaryDirectory() as folder:
        run = run_with_fault(arm, seed, draw, strike, Path(folder) / "trace.csv")
    return judge(run, arm, expected, kind.clock_jumps)


def row_of(kind: FaultKind, findings: list[Finding], seeds: range) -> Row:
    def worst(values: list[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    return Row(
        fault=kind.name,
        runs=len(findings),
        stopped=sum(finding.stopped for finding in findings),
        reaction_ms=worst([finding.reaction_ms for finding in findings]),
        standstill_ms=worst([finding.standstill_ms for finding in findings]),
        chunks_executed=sum(finding.chunks_executed for finding in findings),
        refused=sum(finding.refused for finding in findings),
        bad_frames=sum(finding.bad_frames for finding in findings),
        wrong=tuple(f"seed {seed}: {text}" for seed, finding in zip(seeds, findings) for text in finding.wrong),
    )


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    head = ["fault", "runs", "stopped", "worst reaction ms", "worst standstill ms"]
    head += ["chunks executed", "refused", "damaged frames", "findings"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        times = ["-" if value is None else f"{value:.0f}" for value in (row.reaction_ms, row.standstill_ms)]
        cells = (row.fault, row.runs, row.stopped, *times, row.chunks_executed, row.refused, row.bad_frames)
        lines.append("| " + " | ".join(str(cell) for cell in (*cells, len(row.wrong))) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge.sim.faults", description=__doc__)
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--seeds", type=int, default=50, help="runs per kind of fault (default %(default)s)")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", help="only the kinds of fault whose name contains this")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    args = parser.parse_args(argv)
    kinds = [kind for kind in KINDS if args.only is None or args.only in kind.name]
    if not kinds or args.seeds < 1:
        names = ", ".join(kind.name for kind in KINDS)
        print(f"faults: nothing to run; the kinds of fault are: {names}", file=sys.stderr)
        return 2
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    try:
        arm = load_arm(args.arm)
        rows = []
        with tqdm(total=len(kinds) * len(seeds), unit="run", disable=None) as bar:
            for kind in kinds:
                findings = []
                for seed in seeds:
                    findings.append(one_run(kind, seed, arm))
                    bar.update()
                rows.append(row_of(kind, findings, seeds))
    except VlaEdgeError as error:
        print(f"faults: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        args.json.write_text(json.dumps({"arm": args.arm, "simulated": True, "rows": [asdict(row) for row in rows]}))
    print(table(rows))
    wrong = [f"{row.fault}, {text}" for row in rows for text in row.wrong]
    for text in wrong:
        print(text)
    bound_ms = 1000 * longest_stop_s(arm)
    print(f"\n{arm.name}, simulated; seeds {seeds.start} to {seeds.stop - 1}; a stop may take {bound_ms:.0f} ms")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
