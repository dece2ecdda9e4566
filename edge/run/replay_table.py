"""`edge-run --replay`: reads a log, takes its decisions again and says in a few lines whether they are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge import __version__
from edge.log.mcap_log import LogReader, require_mcap
from edge.log.records import Kind, Record, decode
from edge.run.replay import Replay, Verdict
from firmware_bridge.reading import one_line

IDENTICAL, DIFFERENT, UNUSABLE = 0, 1, 2


def replay_log(path: Path) -> int:
    """Replays a log and prints the result; returns the exit code. Raises `LogError`."""
    require_mcap("--replay")
    reader = LogReader(path)
    header: dict[str, Any] = {}

    def watched() -> Any:
        for record in reader.records():
            _note_header(record, header)
            yield record

    verdict = Replay(watched()).run()
    print(table(header, verdict, reader))
    return exit_code(verdict)


def exit_code(verdict: Verdict) -> int:
    """0 identical, 1 different, 2 when too little could be compared."""
    if verdict.difference is not None:
        return DIFFERENT
    return UNUSABLE if verdict.missing or not verdict.compared else IDENTICAL


def table(header: dict[str, Any], verdict: Verdict, reader: LogReader) -> str:
    """What was compared, and where the first difference is."""
    compared, decisions = verdict.compared, verdict.decisions
    plans = [compared[kind] for kind in (Kind.REQUEST, Kind.RESULT, Kind.CHUNK)]
    rows = [
        ("log", _origin(header, reader)),
        ("replayed", f"{verdict.steps} control steps, {verdict.duration_s:.1f} s, by vla-edge {__version__}"),
        ("compared", f"{sum(compared.values())} records, {reader.checked} messages against their records"),
        ("  plans", f"{plans[0]} requested, {plans[1]} taken, {plans[2]} proposed"),
        ("  chunks", f"{decisions['committed']} committed, {decisions['late']} late, {decisions['refused']} refused"),
        ("  sent", f"{compared[Kind.SENT]} frames, byte by byte"),
        ("  stops", f"{decisions['stop']}"),
    ]
    if verdict.difference is None and not verdict.missing and (reader.truncated or not verdict.ended):
        rows.append(("truncated", "the log ends before its run did; compared up to there"))
    if verdict.missing:
        rows.append(
            ("gap", f"{verdict.missing} records are missing at {verdict.duration_s:.3f} s; the rest cannot be replayed")
        )
    rows += _conclusion(verdict)
    return "\n".join(f"{name:<12} {one_line(text)}" for name, text in rows)


def _conclusion(verdict: Verdict) -> list[tuple[str, str]]:
    difference = verdict.difference
    if difference is None:
        return [("verdict", "identical" if verdict.compared else "nothing to compare")]
    tick = f"tick {difference.tick}" if difference.tick is not None else "before the first tick"
    return [
        ("verdict", f"DIFFERENT, first at {difference.at_s:.3f} s, {tick}, in {difference.kind.name.lower()}"),
        ("  logged", difference.logged),
        ("  replayed", difference.replayed),
    ]


def _origin(header: dict[str, Any], reader: LogReader) -> str:
    if not header:
        return f"{reader.path}: no header"
    settings, arm = (dict(part) if isinstance(part := header.get(name), dict) else {} for name in ("settings", "arm"))
    by, task, seed = header.get("created_by"), settings.get("task"), settings.get("seed")
    return f"{reader.path}: {by}, {arm.get('name', '?')}, '{task}', seed {seed}"


def _note_header(record: Record, header: dict[str, Any]) -> None:
    if record.kind is Kind.HEADER:
        header.update(decode(record.kind, record.body))
