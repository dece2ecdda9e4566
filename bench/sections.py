"""The benchmarks as the report shows them: their titles, their order, and their tables as Markdown lines."""

from __future__ import annotations

import importlib
from typing import Any

from bench.tables import group_lines, percent, wire_lines

TITLES = {
    "latency": "Latency",
    "lerobot-speed": "Beside LeRobot",
    "roofline": "Roofline",
    "loop": "Control loop",
    "link": "Link",
    "closed-loop": "Closed loop",
    "goals": "From goals to knots",
    "splices": "Where chunks of goals join",
    "precisions": "Precisions",
    "log": "Log",
}
"""In the order of the report."""
BUSY_SHARE = 0.2
"""Of all cores: from here on a reader is told that something else ran."""
MODULES = {
    "lerobot-speed": "bench.lerobot_speed_tables",
    "roofline": "bench.roofline_tables",
    "loop": "bench.loop",
    "link": "bench.link_tables",
    "closed-loop": "bench.closed_loop_tables",
    "goals": "bench.goals_tables",
    "splices": "bench.splices_tables",
    "precisions": "bench.precision_tables",
    "log": "bench.log_cost",
}


def title_of(document: dict[str, Any]) -> str:
    """The measurement, and of what size where weights were made for it."""
    settings = document["settings"]
    layers = f", {settings['layers']} layers" if settings.get("layers") else ""
    size = f" ({settings['preset']} widths{layers})" if settings.get("preset") else ""
    return TITLES[document["benchmark"]] + size


def lines_of(document: dict[str, Any]) -> list[str]:
    """The tables of one measurement."""
    if document["benchmark"] == "latency":
        return _latency_lines(document)
    lines: list[str] = importlib.import_module(MODULES[document["benchmark"]]).lines(document)
    return lines


def _latency_lines(document: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for group in document["groups"]:
        lines += [*group_lines(group), ""]
    lines += wire_lines(document["wire"])
    if document["energy"]:
        source = document["energy"]["source"]
        for label, found in document["energy"].items():
            if isinstance(found, dict):
                lines += ["", f"Energy, {label}: {found['joules_per_chunk']:.3f} J a chunk at {found['watts']:.1f} W"]
                lines[-1] += f" ({source})."
    return lines


def summary_line(document: dict[str, Any]) -> str:
    """One line that says where the figures come from."""
    machine = document["machine"]
    commit = (machine["commit"] or "no commit")[:12] + (" with changes" if machine["dirty"] else "")
    busy = machine.get("busy_share") or 0.0
    noisy = f" The machine was busy when it began ({percent(busy)} of its cores)." if busy > BUSY_SHARE else ""
    quick = " **A smoke run: not worth quoting.**" if document["quick"] else ""
    return (
        f"`{' '.join(document['command'])}`, {document['started'][:10]}, {machine['cpu']}, "
        f"{machine['usable_cores']} cores, commit {commit}.{noisy}{quick}"
    )
