"""The tables of `edge-bench goals`, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.tables import markdown, number


def lines(body: dict[str, Any]) -> list[str]:
    """What became of the chunks, then the solvers."""
    rows = [_row(row) for row in body["rows"]]
    head: tuple[str, ...] = (
        "goals",
        "arm",
        "accepted",
        "as they are",
        "in times their time",
        "off rms, deg",
        "off max, deg",
    )
    head += ("p50 / p99, ms", "limiter, ticks")
    text = markdown(head, rows)
    p99 = max(row["ms"]["p99"] for row in body["rows"])
    text += ["", f"Slowest row: {number(p99)} ms at the 99th percentile. {_trouble(body['rows'])}"]
    if body["solvers"]:
        text += ["", *_solver_lines(body["solvers"])]
    return text


def _row(row: dict[str, Any]) -> list[str]:
    done = row["chunks"] - sum(row["refused"].values()) - sum(row["refused_by_device"].values())
    return [
        f"{row['kind']}, {row['hz']:g} Hz",
        row["arm"],
        f"{done} of {row['chunks']}",
        str(row["unchanged"]),
        *(_middle(row[name]) for name in ("slowed", "rms_deg", "max_deg")),
        f"{number(row['ms']['p50'])} / {number(row['ms']['p99'])}",
        str(row["limited_ticks"]),
    ]


def _middle(found: dict[str, float] | None) -> str:
    """The median, and the largest where it differs."""
    if found is None:
        return "-"
    median, largest = number(found["median"]), number(found["largest"])
    return median if median == largest else f"{median} (up to {largest})"


def _trouble(rows: list[dict[str, Any]]) -> str:
    refused = sum(sum(row["refused"].values()) for row in rows)
    by_device = sum(sum(row["refused_by_device"].values()) for row in rows)
    violated = sum(sum(row["violations"].values()) for row in rows)
    total = sum(row["chunks"] for row in rows)
    reasons = sorted({reason for row in rows for reason in (*row["refused"], *row["refused_by_device"])})
    listed = f" ({'; '.join(reasons)})" if reasons else ""
    return (
        f"Of {total} chunks the host refused {refused} and the firmware {by_device}{listed}; limits that the device's "
        f"trace violates: {violated}."
    )


def _solver_lines(rows: list[dict[str, Any]]) -> list[str]:
    head = (
        "program of one joint, 49 goals",
        "daqp p50 / p99, ms",
        "osqp p50 / p99, ms",
        "osqp off the optimum",
        "osqp beyond a limit",
    )
    return markdown(
        head,
        [
            [
                row["program"],
                *(f"{number(row['ms'][name]['p50'])} / {number(row['ms'][name]['p99'])}" for name in ("daqp", "osqp")),
                f"{100 * row['osqp_over']:.3f} %",
                f"{100 * row['osqp_beyond']:.3f} % of its range",
            ]
            for row in rows
        ],
    )
