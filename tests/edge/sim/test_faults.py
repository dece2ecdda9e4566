"""The fault table finds nothing wrong with the device, and its observer does find what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from edge.log.trace import Trace
from edge.sim.fault_run import FaultRun, run_with_fault
from edge.sim.faults import ANYTHING, KINDS, UNDISTURBED, Expectation, FaultKind, judge, main, one_run
from tests.support import FRANKA


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_fault_breaks_a_limit_tears_a_chunk_or_delays_a_stop(kind: FaultKind) -> None:
    for seed in range(3):
        assert one_run(kind, seed, FRANKA).wrong == (), f"seed {seed}"


def test_a_slow_answer_is_still_an_answer() -> None:
    """16 ms batches make a round trip longer than the retry; host and device must not disagree on what is in force."""
    kind = next(kind for kind in KINDS if kind.name == "16 ms batches")
    found = [one_run(kind, seed, FRANKA) for seed in range(5)]
    assert sum(finding.refused for finding in found) == 0
    assert all(finding.committed >= finding.chunks_executed >= 10 for finding in found)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> FaultRun:
    """A run whose host is killed: it streams, decelerates and holds."""

    def kill(bench: object, since_ms: int) -> None:
        bench.alive = False  # type: ignore[attr-defined]

    return run_with_fault(FRANKA, 1, Random(1), kill, tmp_path_factory.mktemp("faults") / "trace.csv")


def changed(run: FaultRun, change: Callable[[Trace], None]) -> FaultRun:
    trace = Trace(*(np.copy(column) for column in run.trace.__dict__.values()))
    change(trace)
    return replace(run, trace=trace)


def first(trace: Trace, state: str) -> int:
    return int(np.flatnonzero(trace.state == state)[0])


def test_the_observer_accepts_what_is_right(stopped: FaultRun) -> None:
    found = judge(stopped, FRANKA, Expectation(within_ms=101), False)
    assert found.wrong == () and found.stopped and found.chunks_executed >= 3


def move_one_joint(trace: Trace) -> None:
    trace.q[first(trace, "STREAMING") + 100, 3] += 1e-8


def jump(trace: Trace) -> None:
    trace.q[first(trace, "STREAMING") + 100, 3] += 1e-3


def move_while_holding(trace: Trace) -> None:
    trace.q[first(trace, "HOLD") + 10 :] += 1e-7


def arm_elsewhere(trace: Trace) -> None:
    trace.q[: first(trace, "ARMED")] -= 1e-6


def stream_again(trace: Trace) -> None:
    trace.state[-1] = "STREAMING"
    trace.chunk[-1] = trace.chunk[first(trace, "DECEL") - 1]


def begin_late(trace: Trace) -> None:
    start = first(trace, "STREAMING")
    trace.state[start : start + 5] = "ARMED"
    trace.chunk[start : start + 5] = 0


def stop_slowly(trace: Trace) -> None:
    trace.state[first(trace, "DECEL") - 400 : first(trace, "DECEL")] = "DECEL"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (move_one_joint, "not followed"),
        (jump, "jerk of joint 4"),
        (move_while_holding, "moved in a state that holds still"),
        (arm_elsewhere, "moved in a state that holds still"),
        (stream_again, "left a stop by itself"),
        (begin_late, "taken up in its middle"),
        (stop_slowly, "standstill only after"),
    ],
)
def test_the_observer_sees_what_is_wrong(stopped: FaultRun, change: Callable[[Trace], None], message: str) -> None:
    assert message in " ".join(judge(changed(stopped, change), FRANKA, ANYTHING, False).wrong)


def test_the_observer_misses_no_chunk_that_nobody_sent(stopped: FaultRun) -> None:
    chunks = dict(stopped.chunks)
    del chunks[2]
    found = judge(replace(stopped, chunks=chunks), FRANKA, ANYTHING, False)
    assert found.wrong == ("executed chunk 2, which nobody sent so",)


def test_a_stop_that_comes_late_or_for_nothing_is_a_finding(stopped: FaultRun) -> None:
    assert "not within 50 ms" in " ".join(judge(stopped, FRANKA, Expectation(within_ms=50), False).wrong)
    assert judge(stopped, FRANKA, UNDISTURBED, False).wrong == ("stopped for nothing",)


def test_the_command_prints_a_table_and_refuses_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--seeds", "1", "--only", "host killed", "--json", str(tmp_path / "rows.json")]) == 0
    assert "| host killed | 1 | 1 |" in capsys.readouterr().out
    assert main(["--only", "flood"]) == 2
    assert "the kinds of fault are: bytes lost" in capsys.readouterr().err
