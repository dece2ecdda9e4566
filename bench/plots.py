"""The plots of the report, drawn by matplotlib as SVG inside the page, in the page's colours."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from bench.harness import AGAIN, YARDSTICK
from bench.tables import number

STATIC = Path(__file__).parent / "static"
STYLE = (STATIC / "report.css").read_text()
COLOURS = dict(reversed(re.findall(r"--(\w+): (#\w+)", STYLE)))
"""The page's light palette by name. A plot is drawn in it, and refers to its names, so it follows the page's theme."""
MAIN, OTHER, NEUTRAL = (COLOURS[name] for name in ("c0", "c1", "c5"))
WIDTH_IN = 5.6
LATE_POINTS = 120
OURS = ("engine", "fp32", "int8", "bf16", "TensorRT")


Plot = tuple[str, str, str]
"""Title, SVG (empty where there is nothing to draw), caption."""


class Bar(NamedTuple):
    """A value, the interval around it, and how far its tail goes; None where there is none."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tail: float | None = None
    colour: str = MAIN

    @property
    def end(self) -> float:
        """The largest of the values that there are."""
        return max(self.value, self.high or 0.0, self.tail or 0.0)


@style.context(STATIC / "report.mplstyle")
def bars(rows: Sequence[Bar], unit: str, tail: str = "") -> str:
    """Horizontal bars from zero, each with its interval; a tick marks the tail."""
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return ""
    figure = Figure(figsize=(WIDTH_IN, 0.62 + 0.26 * len(rows)))
    axis = figure.subplots()
    axis.barh([row.label for row in rows], [row.value for row in rows], 0.6, color=[row.colour for row in rows])
    for y, row in enumerate(rows):
        if row.low is not None and row.high is not None:
            axis.plot([row.low, row.high], [y, y], color=COLOURS["ink"], linewidth=1.6)
        if row.tail is not None:
            axis.plot(row.tail, y, "|", color=COLOURS["soft"], markersize=12, markeredgewidth=1.8)
        text = number(row.value) if row.tail is None else f"{number(row.value)}, {tail} {number(row.tail)}"
        axis.annotate(text, (row.end, y), (6, 0), textcoords="offset points", va="center")
    axis.set(
        xlabel=unit + (f" (tick: {tail})" if tail else ""),
        xlim=(0, (1.36 if tail else 1.12) * max(row.end for row in rows) or 1.0),
    )
    axis.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()
    return svg(figure)


@style.context(STATIC / "report.mplstyle")
def curves(
    lines: dict[str, Any], x: str, y: str, top: float | None = None, log_x: bool = False, marker: str = ""
) -> str:
    """Lines by label over a common axis, each a sequence of points (x, y), with a legend below."""
    lines = {label: np.array(points) for label, points in lines.items() if len(points)}
    if not lines:
        return ""
    figure = Figure(figsize=(WIDTH_IN, 3.1))
    axis = figure.subplots()
    for label, points in lines.items():
        axis.plot(points[:, 0], points[:, 1], label=label, marker=marker, clip_on=not marker)
    axis.set(xlabel=x, ylabel=y, xscale="log" if log_x else "linear", ylim=(0, top and 1.02 * top))
    figure.legend(loc="outside lower left", ncols=min(len(lines), 3))
    return svg(figure)


def svg(figure: Figure) -> str:
    """A figure as SVG text for the inside of a page; its colours are the page's variables."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = re.sub(r' (xmlns(:xlink)?|width|height)="[^"]*"', "", text[text.index("<svg") :], count=4)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return text


def share_below(values: Any) -> Any:
    """The distribution of some values as a curve of few points, shape (points, 2)."""
    shares = np.concatenate([np.linspace(0, 0.95, LATE_POINTS), 1 - np.geomspace(0.05, 1 / max(len(values), 20), 40)])
    return np.column_stack([np.quantile(values, shares), shares])


def _latency(document: dict[str, Any]) -> list[Plot]:
    plots = []
    for group in document["groups"]:
        unlike = {
            way: found for way, found in group["ways"].items() if way not in (f"{group['baseline']} {AGAIN}", YARDSTICK)
        }
        rows = [_timed(way, found, MAIN if way.startswith(OURS) else NEUTRAL) for way, found in unlike.items()]
        caption = f"Median with its 95 % interval; {group['ways'][group['baseline']]['calls']} calls each."
        plots.append((group["name"], bars(rows, "median, ms", "p99"), caption))
    wire = document.get("wire") or {"runs": {}, "boundary": ""}
    found = {label: run["observation_to_wire"] for label, run in wire["runs"].items() if run["observation_to_wire"]}
    lines = {label: share_below(np.array(times["raw_ns"]) / 1e6) for label, times in found.items()}
    drawn = curves(lines, "time from observation to wire, ms", "share of chunks", 1.0)
    return [*plots, ("observation to wire", drawn, wire["boundary"])]


def _timed(label: str, found: dict[str, Any], colour: str = MAIN) -> Bar:
    p50, low, high, p99 = (found[f"{name}_ms"] for name in ("p50", "p50_low", "p50_high", "p99"))
    return Bar(label, p50, low, high, p99, colour)


def _loop(document: dict[str, Any]) -> list[Plot]:
    plots = []
    for case in document["cases"]:
        late = {name: share_below(np.maximum(found["raw_late_us"], 1.0)) for name, found in case["loops"].items()}
        title = f"{case['rate_hz']:g} Hz, {'inference beside it' if case['loaded'] else 'idle'}"
        drawn = curves(late, "late by, us", "share of steps", 1.0, log_x=True)
        plots.append((title, drawn, "Against an unmoving grid: a loop that drifts leaves the plot to the right."))
    return plots


def _link(document: dict[str, Any]) -> list[Plot]:
    lines = document["lines"]
    paced = [row for row in lines if row["paced_baud"]]
    loads = [Bar(row["name"], 100 * row["load_share"]) for row in paced]
    streams = [Bar(row["name"], 100 * row["stream_share"], colour=OTHER) for row in paced]
    trips = [_timed(row["name"], row["commit"]) for row in lines if row["commit"]]
    starved = [Bar(row["name"], 100 * row["stream"]["starved_share"], colour=OTHER) for row in lines]
    chunks, points = "Everything a run sends; arithmetic, worst case.", "Streaming at 1 kHz; with chunks, none matters."
    return [
        ("A chunk's round trip", bars(trips, "median, ms", "p99"), document["boundary"]),
        ("Periods in which no set-point came", bars(starved, "% of periods"), points),
        ("Load of the line with chunks", bars(loads, "% of the line"), chunks),
        ("Load of the line with set-points at 1 kHz", bars(streams, "% of the line"), "The set-points alone."),
    ]


def _closed_loop(document: dict[str, Any]) -> list[Plot]:
    def drawn(value: Callable[[dict[str, Any]], float | None], label: str, top: float | None = None) -> str:
        lines: dict[str, list[Any]] = {row["joining"]: [] for row in document["rows"]}
        for row in document["rows"]:
            lines[row["joining"]] += [(row["latency_ms"], y) for y in [value(row)] if y is not None]
        return curves(lines, "latency, ms", label, top, marker="o")

    note, median = (
        "Simulated, the same scenes for all.",
        "Median of the episodes that succeeded; no point where none did.",
    )
    return [
        ("Success", drawn(lambda row: 100 * row["reached"] / row["episodes"], "success, %", 100.0), note),
        ("Time to done", drawn(lambda row: row["done_s"], "time to done, s"), median),
        ("Jerk while executing", drawn(lambda row: row["jerk_p99"], "jerk, 99th percentile, rad/s³"), note),
    ]


def _roofline(document: dict[str, Any]) -> list[Plot]:
    here = []
    for row in document["here"]:
        label, measured = f"{row['engine'].split('_')[-1]} {row['bundle']}", row["measured"]
        here.append(Bar(f"{label}, floor", row["floor_ms"], colour=NEUTRAL))
        here.append(Bar(f"{label}, predicted", row["predicted_ms"], colour=OTHER))
        here.append(Bar(f"{label}, measured", *(measured[f"{name}_ms"] for name in ("p50", "p50_low", "p50_high"))))
    boards = [Bar(f"{row['board']} {row['precision']}", row["expected_ms"], colour=OTHER) for row in document["boards"]]
    title = "PREDICTION for boards, not measured: one chunk"
    return [
        ("This machine: prediction beside measurement", bars(here, "median, ms"), "One run of each engine."),
        (title, bars(boards, "ms"), "All three engines, all flow steps."),
    ]


def _precisions(document: dict[str, Any]) -> list[Plot]:
    found = {name: one["verification"]["size_bytes"] for name, one in document["precisions"].items()}
    sizes = [Bar(name.upper(), sum(size.values()) / 1e6) for name, size in found.items()]
    return [("Size of the bundle", bars(sizes, "MB"), ""), *_latency({**document, "wire": None})[:-1]]


def _log(document: dict[str, Any]) -> list[Plot]:
    late = {mode: found["late_us"] for mode, found in document["alone"].items()}
    rows = [Bar(mode, found["p50"], tail=found["p99"]) for mode, found in late.items()]
    return [("Lateness of a loop with a log", bars(rows, "median, us", "p99"), "")]


PLOTS: dict[str, Callable[[dict[str, Any]], list[Plot]]] = {
    "latency": _latency,
    "loop": _loop,
    "link": _link,
    "closed-loop": _closed_loop,
    "roofline": _roofline,
    "precisions": _precisions,
    "log": _log,
}
