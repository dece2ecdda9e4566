"""A network line that loses, delays and repeats datagrams, for as long as asked, with the real firmware behind it.

`python -m edge.sim.network_run --minutes 10` streams chunks over it on a simulated clock, judges the device's trace as
the fault table does, and exits 1 when there is a finding. Host, datagrams, listener and firmware are the real ones; the
network, the arm and its drive are simulated.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from tqdm import tqdm

from edge.arms import ArmProfile, load_arm
from edge.errors import VlaEdgeError
from edge.log.trace import read_trace
from edge.run.report import percentiles
from edge.sim.fault_run import Bench, FaultRun
from edge.sim.faults import UNDISTURBED, judge
from firmware_bridge.errors import BridgeError
from firmware_bridge.fault_proxy import Faults, FaultyNetwork
from firmware_bridge.simulator import LockstepDevice, SimulatedArm
from firmware_bridge.transports.datagrams import Counts

RUN_S = 60.0
"""Of one seed; long enough for all the first clock exchanges to have left the estimate's window."""
FAULTS = Faults(loss=0.01, jitter_ms=5.0, duplicate=0.01)


@dataclass(frozen=True)
class NetworkRun:
    """What one run left. `commit_ms` is from sending a chunk to its acknowledgement, for each that was accepted."""

    run: FaultRun
    commit_ms: tuple[float, ...]
    resent: int
    arrived: tuple[Counts, Counts]
    """At the device, and at the host."""
    wrong: tuple[str, ...]


def run_over_network(arm: ArmProfile, seed: int, duration_s: float, faults: Faults = FAULTS) -> NetworkRun:
    """One run: handshake, arming and motion, all of it over the network."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.csv"
        device = LockstepDevice(SimulatedArm(arm.name, arm.home_rad, trace=trace))
        try:
            bench = Bench(arm, device, Random(seed), seed, over=FaultyNetwork)
            assert isinstance(bench.line, FaultyNetwork)
            bench.take_over_line(faults)
            bench.arm_device()
            begun_us = device.now_us
            while device.now_us - begun_us < 1e6 * duration_s:
                bench.step((device.now_us - begun_us) // 1000)
                bench.client.keep_clock(bench.clock_ns(), slack_s=1.0)
        finally:
            device.close()
        counts = (bench.line.device.end.counts, bench.line.host.end.counts)
        run = FaultRun(read_trace(trace), 0, bench.chunks, bench.committed, bench.refused, bench.client.link.bad_frames)
    wrong = judge(run, arm, UNDISTURBED, clock_jumps=False).wrong
    return NetworkRun(run, tuple(bench.commit_ms), bench.client.resent, counts, wrong)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m edge.sim.network_run", description=__doc__)
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--minutes", type=int, default=10, help="one seed each (default %(default)s)")
    parser.add_argument("--loss", type=float, default=FAULTS.loss, help="of datagrams (default %(default)s)")
    parser.add_argument("--jitter-ms", type=float, default=FAULTS.jitter_ms, help="each way (default %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args(argv)
    if args.minutes < 1 or not 0 <= args.loss < 1 or not 0 <= args.jitter_ms <= 1000:
        print("network_run: --minutes from 1, --loss below 1, --jitter-ms from 0 to 1000", file=sys.stderr)
        return 2
    faults = replace(FAULTS, loss=args.loss, jitter_ms=args.jitter_ms)
    try:
        arm = load_arm(args.arm)
        runs = [run_over_network(arm, seed, RUN_S, faults) for seed in tqdm(range(args.minutes), disable=None)]
    except (VlaEdgeError, BridgeError) as error:
        print(f"network_run: {error}", file=sys.stderr)
        return 1
    figures = {
        "arm": arm.name,
        "simulated": True,
        "minutes": args.minutes,
        "loss": faults.loss,
        "jitter_ms": faults.jitter_ms,
        "chunks_sent": sum(len(run.run.chunks) for run in runs),
        "chunks_committed": sum(run.run.committed for run in runs),
        "chunks_refused": sum(run.run.refused for run in runs),
        "chunks_resent": sum(run.resent for run in runs),
        "commit_ms": percentiles([value for run in runs for value in run.commit_ms]),
        "datagrams": sum(counts.passed for run in runs for counts in run.arrived),
        "datagrams_replayed": sum(counts.replayed for run in runs for counts in run.arrived),
        "findings": [f"seed {seed}: {text}" for seed, run in enumerate(runs) for text in run.wrong],
    }
    if args.json:
        args.json.write_text(json.dumps(figures))
    print(json.dumps(figures, indent=1))
    return 1 if figures["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
