"""Figures as lines: for the terminal, and as Markdown for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.harness import AGAIN
from edge.errors import InputError


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def fill_marks(path: Path, parts: Mapping[str, Sequence[str]]) -> None:
    """Puts lines between `<!-- edge-bench NAME -->` and `<!-- end NAME -->` of a page, NAME's first word at the end.

    Raises `InputError` where a mark is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    for name, lines in parts.items():
        opens, ends = f"<!-- edge-bench {name} -->\n", f"<!-- end {name.split()[0]} -->"
        before, found, rest = text.partition(opens)
        _, closed, after = rest.partition(ends)
        if not (found and closed):
            raise InputError(f"{path}: has no marks for {name}; add {opens.strip()} and {ends}")
        block = "\n".join(lines).rstrip()
        text = f"{before}{opens}\n{block}\n\n{ends}{after}"
    path.write_text(text, encoding="utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """Three digits that count, without an exponent; a dash for what was not measured."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e" in text else text


def spread(figures: dict[str, float], unit: str = "") -> str:
    """A median with its interval."""
    return f"{number(figures['median'])}{unit} ({number(figures['low'])} to {number(figures['high'])})"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def way_row(way: str, found: dict[str, Any], ratio: dict[str, float] | None) -> list[str]:
    """One way's line of a comparison."""
    median = {"median": found["p50_ms"], "low": found["p50_low_ms"], "high": found["p50_high_ms"]}
    cold = found["cold"]
    return [
        way,
        spread(median),
        *(number(found[f"{name}_ms"]) for name in ("p95", "p99", "p999", "max")),
        str(found["calls"]),
        f"{number(cold['open_ms'])} + {number(cold['first_call_ms'])}",
        spread(ratio) if ratio else "1",
        percent(found["noise_share"]),
    ]


WAY_HEAD = ("way", "median, ms", "p95", "p99", "p99.9", "max", "calls", "cold: open + first, ms", "ratio", "noise")


def group_lines(group: dict[str, Any]) -> list[str]:
    """A comparison, its boundary above it and its noise floor below."""
    twin = f"{group['baseline']} {AGAIN}"
    rows = [way_row(way, found, group["ratios"].get(way)) for way, found in group["ways"].items() if way != twin]
    lines = [f"**{group['name']}**: {group['boundary']}.", "", *markdown(WAY_HEAD, rows)]
    if group["noise_floor"]:
        lines += ["", f"The baseline against itself, pair by pair: {spread(group['noise_floor'])}."]
    return lines


def wire_lines(wire: dict[str, Any]) -> list[str]:
    """The runs with control and device."""
    if not wire:
        return []
    rows = []
    for label, run in wire["runs"].items():
        to_wire, to_chunk = run["observation_to_wire"], run["observation_to_chunk"]
        rows.append(
            [
                label,
                number(to_chunk["p50_ms"]) if to_chunk else "-",
                *(number(to_wire[f"{name}_ms"]) if to_wire else "-" for name in ("p50", "p99", "max")),
                str(to_wire["calls"]) if to_wire else "0",
                f"{number(run['replan_hz'])} Hz",
                f"{run['control_hz']:.1f} Hz",
                f"{run['chunks']['late']} of {run['chunks']['computed']}",
                f"{run['loop']['overruns']} of {run['loop']['ticks']}",
            ]
        )
    head: tuple[str, ...] = ("bundle", "to chunk p50, ms", "to wire p50", "p99", "max", "chunks", "replan", "control")
    head += ("chunks too late", "control periods missed")
    return [f"**observation to wire**: {wire['boundary']}.", "", *markdown(head, rows)]
