"""The table of the closed loop, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.tables import markdown, number


def lines(body: dict[str, Any]) -> list[str]:
    """The table, as Markdown."""
    head: tuple[str, ...] = ("latency", "joining", "reached (95 %)", "done, s", "jerk RMS / p99, rad/s³")
    head += (
        "jump at a splice p50 / p95 / max, mrad",
        "step p50, mrad",
        "least buffer",
        "limiter",
        "refused",
        "stopped",
    )
    rows = []
    for row in body["rows"]:
        low, high = row["reached_95"]
        jump, step = row["jump_mrad"], row["step_mrad"]
        rows.append(
            [
                f"{row['latency_ms']:g} ms",
                row["joining"],
                f"{row['reached']} of {row['episodes']} ({100 * low:.0f} to {100 * high:.0f})",
                number(row["done_s"]),
                f"{number(row['jerk_rms'])} / {number(row['jerk_p99'])}",
                " / ".join(number(jump[key]) for key in ("p50", "p95", "p100")) if jump else "-",
                number(step["p50"]) if step else "-",
                f"{number(row['least_buffer_ms'])} ms",
                *(str(row[key]) for key in ("interventions", "refused", "stopped")),
            ]
        )
    return markdown(head, rows)
