"""The tables of the roofline, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.tables import markdown, number, percent


def lines(body: dict[str, Any]) -> list[str]:
    """The tables, as Markdown."""
    roof = body["roof"]
    head = ("engine", "operations", "weights read", "floor, ms", "predicted, ms", "measured, ms", "error", "passed, ms")
    rows = [
        [
            f"{row['engine']} {row['bundle']}",
            f"{number(row['operations'] / 1e9)} G",
            f"{number(row['weight_bytes'] / 1e6)} MB",
            number(row["floor_ms"]),
            number(row["predicted_ms"]),
            f"{number(row['measured']['p50_ms'])} ({number(row['measured']['p50_low_ms'])} to "
            f"{number(row['measured']['p50_high_ms'])})",
            percent(row["error_share"]) + ("" if row["judged"] else ", not judged"),
            number(row["wall_p50_ms"]),
        ]
        for row in body["here"]
    ]
    published = body["published"]
    return [
        f"**This machine**: {number(roof['stream_bytes_s'] / 1e9)} GB/s read, products of 1024 x 1024 at "
        f"{number(roof['peak_ops_s']['fp32'] / 1e9)} GFLOP/s (FP32) and "
        f"{number(roof['peak_ops_s']['int8'] / 1e9)} GOP/s (INT8), {roof['threads']} thread(s).",
        "",
        *markdown(head, rows),
        "",
        f"**Prediction, not measured**: depth {body['boards'][0]['depth']}, "
        f"steps of {1000 * body['step_s']:g} ms, {1000 * body['lead_s']:g} ms of lead.",
        "",
        *board_lines(body["boards"]),
        "",
        f"**The method on a published figure**: {published['what']}, {published['board_name']}: predicted "
        f"{published['predicted_ms']:.2f} ms, its authors' floor {published['floor_ms']:g} ms, measured by them "
        f"{published['measured_ms']:g} ms.",
    ]


def board_lines(boards: list[dict[str, Any]]) -> list[str]:
    names = list(boards[0]["engines"])
    head = ("board", "precision", *names, "chunk, ms (floor)", "replan", "delay, steps", "shortest step, ms")
    rows = [
        [
            row["name"],
            row["precision"],
            *(number(row["engines"][name]["expected_ms"]) for name in names),
            f"{number(row['expected_ms'])} ({number(row['floor_ms'])})",
            f"{number(row['replan_hz'])} Hz",
            f"{row['delay_steps']} of {row['max_delay']}" + ("" if row["fits"] else ", too many"),
            number(row["shortest_step_ms"]),
        ]
        for row in boards
    ]
    return markdown(head, rows)
