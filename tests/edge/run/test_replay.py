"""Replay: a log of a run gives the same decisions again, and anything else is found and said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import edge.plan.splicer
import edge.plan.timeline
from edge.cli.run import main
from edge.inference.layout import pack_plain
from edge.inference.records import PlanRequest, PlanResult
from edge.log.records import Kind, Record, Step, decode
from edge.log.taps import tapped_planner
from edge.run.replay import Replay, Verdict
from edge.run.replay_table import exit_code
from firmware_bridge.errors import LinkLost
from firmware_bridge.framing import decode_frame, encode_frame
from firmware_bridge.messages import StateReport
from tests.edge.log.support import LoggedRun, write_log
from tests.edge.run.test_controller import ScriptedPlanner, wave


def replayed(records: list[Record]) -> Verdict:
    return Replay(iter(records)).run()


def decisions(records: list[Record]) -> list[dict]:
    return [decode(record.kind, record.body) for record in records if record.kind is Kind.DECISION]


def changed(records: list[Record], index: int, body: bytes) -> list[Record]:
    return [*records[:index], replace(records[index], body=body), *records[index + 1 :]]


def index_of(records: list[Record], kind: Kind, number: int) -> int:
    return [index for index, record in enumerate(records) if record.kind is kind][number]


@pytest.fixture
def start() -> Iterator[Callable[..., LoggedRun]]:
    runs: list[LoggedRun] = []

    def make(**arguments: object) -> LoggedRun:
        runs.append(LoggedRun(**arguments))  # type: ignore[arg-type]
        return runs[-1]

    yield make
    for run in runs:
        run.close()


def eventful(request: PlanRequest) -> np.ndarray:
    return wave(request) * (20 if request.id == 4 else 1)


@pytest.fixture(scope="module")
def log() -> Iterator[LoggedRun]:
    """8 s with a chunk that comes late, one that the host refuses and a commit whose answer is lost."""
    run = LoggedRun(eventful, lambda request: 250_000 if request == 7 else 40_000).go(1000)
    device = run.rig.device
    original, lost = device.read, []

    def lossy() -> bytes:
        data = original()
        if data and len(lost) < 3 and run.rig.client.commit_pending:
            lost.append(data)
            return b""
        return data

    device.read = lossy  # type: ignore[method-assign]
    run.go(7000).end()
    assert lost and run.stop is None
    yield run
    run.close()


def test_a_run_gives_the_same_decisions_again(log: LoggedRun) -> None:
    verdict = replayed(log.records)
    counters = log.controller.counters
    assert verdict.difference is None and verdict.missing == 0 and verdict.ended
    assert verdict.steps == 8000 // 4
    assert verdict.compared[Kind.REQUEST] == counters.requests >= 14
    assert verdict.compared[Kind.RESULT] == counters.chunks
    assert verdict.decisions["committed"] == len(counters.committed_ids) >= 12
    assert verdict.decisions["late"] == counters.late == 1
    assert verdict.decisions["refused"] == len(counters.refused) >= 1
    assert verdict.decisions["splice"] == len(counters.splice_acceleration)


def test_nothing_in_the_log_goes_uncompared(log: LoggedRun) -> None:
    compared = replayed(log.records).compared
    there = [record.kind for record in log.records if record.kind not in (Kind.HEADER, Kind.ENDED)]
    assert sum(compared.values()) == len(there)


def test_reasons_are_in_the_log(log: LoggedRun) -> None:
    found = decisions(log.records)
    late = next(decision for decision in found if decision["decision"] == "late")
    assert late["chunk"] == 7 and late["latency_us"] >= 250_000
    refusals = [decision["reason"] for decision in found if decision["decision"] == "refused"]
    assert refusals == log.controller.counters.refused
    assert any(reason.startswith("chunk 4 by the host: ") and "of joint" in reason for reason in refusals)
    jumps = [decision["acceleration_jump_rad_s2"] for decision in found if decision["decision"] == "splice"]
    assert jumps == log.controller.counters.splice_acceleration


def test_one_changed_measurement_is_found_at_its_sample(log: LoggedRun) -> None:
    records = log.records
    index = next(
        index
        for index, record in enumerate(records)
        if index > 3000 and record.kind is Kind.RECEIVED and record.body.count(0) == 1
        if isinstance(decode_frame(record.body[:-1]).message, StateReport)
    )
    frame = decode_frame(records[index].body[:-1])
    report = frame.message
    assert isinstance(report, StateReport)
    measured = (report.measured_urad[0], report.measured_urad[1] + 1, *report.measured_urad[2:])
    body = encode_frame(frame.session, frame.sequence, replace(report, measured_urad=measured))
    difference = replayed(changed(records, index, body)).difference
    assert difference is not None and difference.kind is Kind.SAMPLE
    assert difference.logged == f"measured_urad[1] {report.measured_urad[1]}"
    assert difference.replayed == f"measured_urad[1] {measured[1]}"
    assert difference.tick is not None and difference.at_s > 1


def test_one_changed_result_is_found_in_the_chunk_it_became(log: LoggedRun) -> None:
    records = log.records
    index = index_of(records, Kind.RESULT, 5)
    result = PlanResult.unpack(records[index].body)
    increments = result.increments_rad.copy()
    increments[9, 3] += 2e-6
    difference = replayed(changed(records, index, replace(result, increments_rad=increments).pack())).difference
    assert difference is not None and difference.kind is Kind.CHUNK
    assert difference.logged.startswith("q_urad[") and difference.logged != difference.replayed


def test_a_changed_time_is_found(log: LoggedRun) -> None:
    records = log.records
    index = next(i for i in range(index_of(records, Kind.RESULT, 6), 0, -1) if records[i].kind is Kind.STEP)
    step = decode(Kind.STEP, records[index].body)
    body = Step.body(step["now_ns"] - 300_000_000, step["loop_tick"])
    difference = replayed(changed(records, index, body)).difference
    assert difference is not None and difference.tick == step["loop_tick"]


def test_other_code_is_found(log: LoggedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.plan.timeline, "START_SHARES", np.array([0.3, 0.75]))
    difference = replayed(log.records).difference
    assert difference is not None and difference.kind is Kind.CHUNK
    assert difference.logged.startswith("q_urad[1][0] ")


def test_code_that_asks_at_another_time_is_found(log: LoggedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.plan.replanner, "PUNCTUAL", 0.001)
    difference = replayed(log.records).difference
    assert difference is not None
    assert difference.logged.startswith("request ")


def test_code_that_stops_where_the_run_did_not_is_found(log: LoggedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.plan.splicer, "MAX_REFUSALS", 1)
    difference = replayed(log.records).difference
    assert difference is not None
    assert difference.replayed.startswith("stop, reason 1 chunks in a row were refused")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_chunk_that_is_not_finite_stops_with_its_reason(start: Callable[..., LoggedRun], bad: float) -> None:
    run = start(script=lambda request: wave(request) * (bad if request.id == 3 else 1)).go(6000).end()
    assert run.stop is not None
    assert {"decision": "stop", "reason": run.stop} in decisions(run.records) and "not finite" in run.stop
    verdict = replayed(run.records)
    assert verdict.difference is None and verdict.decisions["stop"] == 1 and verdict.ended


def test_a_stop_by_the_device_is_replayed(start: Callable[..., LoggedRun]) -> None:
    run = start().go(2000)
    run.rig.device.tick(400)
    run.go(500).end()
    assert run.stop is not None and "heartbeat lost" in run.stop
    verdict = replayed(run.records)
    assert verdict.difference is None and verdict.decisions["stop"] == 1
    assert verdict.decisions["device event"] >= 1


def test_a_device_whose_clock_is_slow_is_replayed(start: Callable[..., LoggedRun]) -> None:
    """Clocks are then compared when its reports are late, which the log has to lead to again."""
    run = start().go(1000)
    run.rig.slow_down(0.5)
    run.go(3000).end()
    compared = sum(record.kind is Kind.MAPPING for record in run.records)
    assert compared > 15 and run.stop is None
    verdict = replayed(run.records)
    assert verdict.difference is None and verdict.ended


def test_a_line_that_breaks_is_replayed(start: Callable[..., LoggedRun]) -> None:
    run = start().go(2000)

    def broken() -> bytes:
        raise LinkLost("the port is gone")

    run.rig.device.read = broken  # type: ignore[method-assign]
    run.go(500)
    assert run.stop == "the port is gone"
    verdict = replayed(run.records)
    assert verdict.difference is None and verdict.decisions["stop"] == 1 and not verdict.ended


def test_the_replay_ends_at_a_gap_and_says_so(log: LoggedRun) -> None:
    records = log.records
    verdict = replayed([*records[:5000], *records[5003:]])
    assert verdict.missing == 3 and verdict.difference is None
    assert exit_code(verdict) == 2


def test_a_log_without_its_beginning_is_refused(log: LoggedRun, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    records = [replace(record, number=number) for number, record in enumerate(log.records[100:])]
    assert main(["--replay", str(write_log(tmp_path / "late.mcap", records))]) == 2
    assert "its beginning is missing" in capsys.readouterr().err


def test_a_log_that_calls_something_else_is_refused(
    log: LoggedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    records = log.records
    body = pack_plain({"command": "__init__", "arguments": []})
    path = write_log(tmp_path / "odd.mcap", changed(records, index_of(records, Kind.COMMAND, 1), body))
    assert main(["--replay", str(path)]) == 2
    assert "'__init__'" in capsys.readouterr().err


def test_the_command_prints_a_table_and_says_identical(
    log: LoggedRun, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["--replay", str(write_log(tmp_path / "run.mcap", log.records))]) == 0
    out = capsys.readouterr().out
    assert "2000 control steps" in out and "committed, 1 late" in out and "identical" in out and "truncated" not in out


def test_the_command_shows_the_first_difference(
    log: LoggedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = write_log(tmp_path / "run.mcap", log.records)
    monkeypatch.setattr(edge.plan.timeline, "START_SHARES", np.array([0.3, 0.75]))
    assert main(["--replay", str(path)]) == 1
    out = capsys.readouterr().out
    assert "DIFFERENT, first at " in out and "in chunk" in out and "q_urad[1][0]" in out


def test_a_stall_a_pause_and_a_lost_inference_are_replayed(start: Callable[..., LoggedRun]) -> None:
    """Retimed plans, words from the operator and the supervisor, and a planner that takes the place of another."""
    run = start(latency_us=lambda request: 900_000 if request == 5 else 40_000).go(6000)
    run.controller.pause()
    run.go(600)
    run.controller.resume()
    run.go(2000)
    run.controller.run_out("the inference process ended by itself (killed by SIGKILL)")
    run.go(3000)
    other = ScriptedPlanner(run.rig, wave, lambda _: 40_000)
    run.controller.plan_with(tapped_planner(other, run.rig.journal))
    run.controller.expect(50_000)
    run.controller.resume()
    run.go(2000).end()
    assert run.stop is None and run.controller.counters.retimed > 0 and len(other.requests) > 2
    verdict = replayed(run.records)
    assert verdict.difference is None and verdict.ended
    said = [body["word"] for body in (decode(r.kind, r.body) for r in run.records if r.kind is Kind.CONTROL_CALL)]
    assert said == ["pause", "resume", "run_out", "expect", "resume"]
    assert "pace" in {body["decision"] for body in decisions(run.records)}
    silent = [record for record in run.records if record.kind is not Kind.CONTROL_CALL]
    renumbered = [replace(record, number=number) for number, record in enumerate(silent)]
    assert replayed(renumbered).difference is not None, "the calls matter"
