"""Chunks over a network that loses, delays and repeats: nothing broken, nothing torn, nothing stopped for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from edge.sim.fault_run import run_with_fault
from edge.sim.faults import KINDS, FaultKind, judge
from edge.sim.network_run import FAULTS, RUN_S, NetworkRun, main, run_over_network
from firmware_bridge.fault_proxy import FaultyNetwork
from tests.support import FRANKA

MOST_P99_MS = 120.0
"""Four times the first retry, in the simulated clock's time: of what was accepted, 1 % may have needed so long."""


def check(run: NetworkRun, duration_s: float) -> None:
    device, host = run.arrived
    assert run.wrong == ()
    assert run.run.committed >= 0.95 * len(run.run.chunks) >= 0.95 * 4.5 * duration_s
    assert float(np.percentile(run.commit_ms, 99)) < MOST_P99_MS
    assert device.replayed > 0 and host.replayed > 0 and device.forged == host.forged == 0


def test_twenty_seconds_at_one_percent_loss_and_5_ms_jitter() -> None:
    check(run_over_network(FRANKA, 3, 20.0), 20.0)


def test_every_start_succeeds() -> None:
    """ARM overtakes its heartbeat every other time, or one of them or the answer is lost: the run was refused."""
    for seed in range(12):
        run = run_over_network(FRANKA, seed, 1.0, replace(FAULTS, loss=0.05))
        assert run.wrong == () and run.run.committed > 0, f"seed {seed}"


@pytest.mark.slow(reason="the ten minutes that `make network` runs: 30 s of computing")
def test_ten_minutes() -> None:
    for seed in range(10):
        check(run_over_network(FRANKA, seed, RUN_S), RUN_S)


STRIKES = ("frames lost", "frames out of order", "late and uneven", "unplugged for a while", "host killed")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name in STRIKES], ids=lambda kind: kind.name)
def test_faults_of_the_table_on_a_network(kind: FaultKind, tmp_path: Path) -> None:
    """The stop does not depend on the network: the far side's watchdog makes it."""
    for seed in range(3):
        draw = Random(f"{kind.name} {seed}")
        strike, expected = kind.make(draw)
        run = run_with_fault(FRANKA, seed, draw, strike, tmp_path / "trace.csv", FaultyNetwork)
        assert judge(run, FRANKA, expected, kind.clock_jumps).wrong == (), f"seed {seed}"


def test_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--minutes", "0"], ["--loss", "1"], ["--jitter-ms", "-1"]):
        assert main(wrong) == 2
        assert "--loss below 1" in capsys.readouterr().err
