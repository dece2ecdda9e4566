"""The table of `edge-bench splices`, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.tables import markdown, number


def lines(body: dict[str, Any]) -> list[str]:
    """One row per policy, latency and way."""
    head: tuple[str, ...] = ("policy", "latency", "joining", "asked for, mrad", "largest jump, mrad", "one step, mrad")
    head += ("splices", "chunks refused", "in motion, s", "stopped")
    return markdown(head, [_row(row) for row in body["rows"]])


def _row(row: dict[str, Any]) -> list[str]:
    return [
        row["policy"],
        f"{row['latency_ms']:g} ms",
        row["way"],
        number(row["asked_mrad"] or None),
        number(row["jump_mrad"]) if row["splices"] else "-",
        number(row["step_mrad"]),
        str(row["splices"]),
        f"{row['refused']} of {row['chunks']}",
        number(row["moved_s"]),
        str(row["stopped"]),
    ]
