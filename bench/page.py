"""One self-contained HTML page from measurements: no script, no font and no picture comes from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import AGAIN, YARDSTICK
from bench.sections import TITLES, lines_of
from bench.svg import Bar, Curve, bars, curves
from bench.tables import percent

STYLE = Path(__file__).parent / "static" / "report.css"
LATE_POINTS = 120


def page(documents: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    first = documents[0]
    links = "".join(
        f'<a href="#{document["benchmark"]}-{index}">{escape(title_of(document))}</a>'
        for index, document in enumerate(documents)
    )
    body = "".join(_section(document, index) for index, document in enumerate(documents))
    quick = (
        '<div class="card warning"><b>Smoke run.</b> Made with --quick: it shows that everything works, '
        "and its figures are not worth quoting.</div>"
        if any(document["quick"] for document in documents)
        else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>vla-edge: measurements</title><style>{STYLE.read_text()}</style></head><body><main>"
        f'<h1>vla-edge, measured</h1><p class="soft">{escape(first["started"])}, {escape(str(first["machine"]["cpu"]))}'
        f"</p><nav>{links}</nav>{quick}{_machines(documents)}{body}</main></body></html>\n"
    )


def title_of(document: dict[str, Any]) -> str:
    settings = document["settings"]
    size = settings.get("preset")
    layers = f", {settings['layers']} layers" if settings.get("layers") else ""
    return TITLES[document["benchmark"]] + (f" ({size} widths{layers})" if size else "")


def _busy(share: float | None) -> str:
    return "not told" if share is None else percent(share)


def _machines(documents: Sequence[dict[str, Any]]) -> str:
    """The machine of the first document, and whatever differs in the others."""
    machine = documents[0]["machine"]
    clocks = machine["clock_mhz"]
    facts = {
        "processor": machine["cpu"],
        "cores": f"{machine['usable_cores']} of {machine['cores']}"
        + (", virtual machine" if machine["hypervisor"] else ""),
        "instructions": " ".join(machine["cpu_flags"]) or None,
        "governor": ", ".join(machine["governor"]) if machine["governor"] else "not told",
        "clock, MHz": ", ".join(map(str, clocks["now"])) if clocks["now"] else "not told",
        "memory": f"{machine['memory_bytes'] / 1e9:.1f} GB" if machine["memory_bytes"] else None,
        "GPU": machine["gpu"] or "none",
        "board": machine["board"],
        "kernel": machine["kernel"],
        "cores busy when it began": ", ".join(_busy(document["machine"].get("busy_share")) for document in documents),
        "commit": f"{(machine['commit'] or 'not a checkout')[:12]}" + (", changed" if machine["dirty"] else ""),
        "Python": machine["python"],
        "libraries": ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
    }
    cells = "".join(f"<div><dt>{key}</dt><dd>{escape(str(value))}</dd></div>" for key, value in facts.items() if value)
    others = {
        f"{document['benchmark']}: {name} is {document['machine'].get(name)}"
        for document in documents[1:]
        for name in ("cpu", "kernel", "commit", "dirty", "versions")
        if document["machine"].get(name) != machine.get(name)
    }
    warning = "".join(f'<p class="warning">{escape(other)}</p>' for other in sorted(others))
    return f'<div class="card"><dl class="facts">{cells}</dl>{warning}</div>'


def _section(document: dict[str, Any], index: int) -> str:
    name = document["benchmark"]
    figures = "".join(
        f'<figure class="card"><h3>{escape(title)}</h3>{drawn}<figcaption>{escape(caption)}</figcaption></figure>'
        for title, drawn, caption in PLOTS[name](document)
        if drawn
    )
    left_out = "".join(f"<li>{escape(item['what'])}: {escape(item['why'])}</li>" for item in document["not_run"])
    left_out = f'<div class="card warning"><h3>Not run</h3><ul>{left_out}</ul></div>' if left_out else ""
    made = f"<code>{escape(' '.join(document['command']))}</code>, {document['seconds']:.0f} s"
    settings = escape(json.dumps(document["settings"]))
    return (
        f'<h2 id="{name}-{index}">{escape(title_of(document))}</h2><p class="soft">{made}</p>'
        f'<div class="grid">{figures}</div>{left_out}'
        f'<div class="card scroll">{html_of(lines_of(document))}</div>'
        f"<details><summary>settings</summary><code>{settings}</code></details>"
    )


def html_of(lines: Sequence[str]) -> str:
    """The Markdown that this package writes (tables, paragraphs, bold) as HTML."""
    out: list[str] = []
    in_table = False
    for line in lines:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if set("".join(cells)) <= {"-"} and len("".join(cells)) >= 3 and in_table:
                continue
            tag = "td" if in_table else "th"
            out.append(("" if in_table else "<table>") + "<tr>")
            out[-1] += "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells) + "</tr>"
            in_table = True
            continue
        if in_table:
            out.append("</table>")
            in_table = False
        if line:
            out.append(f"<p>{_inline(line)}</p>")
    return "".join(out) + ("</table>" if in_table else "")


def _inline(text: str) -> str:
    for index, part in enumerate(parts := escape(text).split("**")):
        if index % 2:
            parts[index] = f"<b>{part}</b>"
    return "".join(parts)


Plot = tuple[str, str, str]
"""Title, drawing, caption."""


def _latency(document: dict[str, Any]) -> list[Plot]:
    plots = []
    for group in document["groups"]:
        rows = [
            Bar(way, found["p50_ms"], found["p50_low_ms"], found["p50_high_ms"], found["p99_ms"], _shade(way))
            for way, found in group["ways"].items()
            if way not in (f"{group['baseline']} {AGAIN}", YARDSTICK)
        ]
        caption = f"Median with its 95 % interval; {rows and group['ways'][group['baseline']]['calls']} calls each."
        plots.append((group["name"], bars(rows, "ms", "p99"), caption))
    runs = (document.get("wire") or {}).get("runs", {})
    points = {label: run["observation_to_wire"]["raw_ns"] for label, run in runs.items() if run["observation_to_wire"]}
    lines = [Curve(label, share_below(np.array(raw) / 1e6)) for label, raw in points.items()]
    plots.append(("observation to wire", curves(lines, "ms", "share of chunks", top=1.0), document_boundary(document)))
    return plots


def document_boundary(document: dict[str, Any]) -> str:
    return str((document.get("wire") or {}).get("boundary", ""))


def _shade(way: str) -> int:
    return 0 if way.startswith(("engine", "fp32", "int8", "bf16", "TensorRT")) else 5


def share_below(values: Any) -> list[tuple[float, float]]:
    """The distribution of some values as a curve of few points."""
    shares = np.concatenate([np.linspace(0, 0.95, LATE_POINTS), 1 - np.geomspace(0.05, 1 / max(len(values), 20), 40)])
    return [(float(x), float(share)) for x, share in zip(np.quantile(values, shares), shares)]


def _loop(document: dict[str, Any]) -> list[Plot]:
    plots = []
    for case in document["cases"]:
        lines = [
            Curve(name, [(max(x, 1.0), y) for x, y in share_below(np.array(found["raw_late_us"]))])
            for name, found in case["loops"].items()
        ]
        title = f"{case['rate_hz']:g} Hz, {'inference beside it' if case['loaded'] else 'idle'}"
        drawn = curves(lines, "late by, us", "share of steps", True, 1.0)
        plots.append((title, drawn, "Against an unmoving grid: a loop that drifts leaves the plot to the right."))
    return plots


def _link(document: dict[str, Any]) -> list[Plot]:
    paced = [row for row in document["lines"] if row["paced_baud"]]
    loads = [Bar(row["name"], 100 * row["load_share"], colour=0) for row in paced]
    streams = [Bar(row["name"], 100 * row["stream_share"], colour=1) for row in paced]
    trips = [
        Bar(row["name"], c["p50_ms"], c["p50_low_ms"], c["p50_high_ms"], c["p99_ms"])
        for row in document["lines"]
        if (c := row["commit"])
    ]
    starved = [Bar(row["name"], 100 * row["stream"]["starved_share"], colour=1) for row in document["lines"]]
    return [
        ("A chunk's round trip", bars(trips, "ms", "p99"), document["boundary"]),
        ("Periods in which no set-point came", bars(starved, "%"), "Streaming at 1 kHz; with chunks, none matters."),
        ("Load of the line with chunks", bars(loads, "%"), "Everything a run sends; arithmetic, worst case."),
        ("Load of the line with set-points at 1 kHz", bars(streams, "%"), "The set-points alone."),
    ]


def _closed_loop(document: dict[str, Any]) -> list[Plot]:
    rows = document["rows"]
    names = list(dict.fromkeys(row["joining"] for row in rows))

    def of(value: Callable[[dict[str, Any]], float | None]) -> list[Curve]:
        return [
            Curve(
                name,
                [(row["latency_ms"], y) for row in rows if row["joining"] == name and (y := value(row)) is not None],
                True,
                index,
            )
            for index, name in enumerate(names)
        ]

    label = "latency, ms"
    note = "Simulated, the same scenes for all."
    done = of(lambda row: row["done_s"])
    return [
        ("Success", curves(of(lambda row: 100 * row["reached"] / row["episodes"]), label, "%", top=100.0), note),
        ("Time to done", curves(done, label, "s"), "Median of the episodes that succeeded; no point where none did."),
        ("Jerk while executing", curves(of(lambda row: row["jerk_p99"]), label, "rad/s³, p99"), note),
    ]


def _roofline(document: dict[str, Any]) -> list[Plot]:
    here = []
    for row in document["here"]:
        label = f"{row['engine'].split('_')[-1]} {row['bundle']}"
        measured = row["measured"]
        here.append(Bar(f"{label}, floor", row["floor_ms"], colour=5))
        here.append(Bar(f"{label}, predicted", row["predicted_ms"], colour=1))
        low, high = measured["p50_low_ms"], measured["p50_high_ms"]
        here.append(Bar(f"{label}, measured", measured["p50_ms"], low, high, colour=0))
    boards = [Bar(f"{row['board']} {row['precision']}", row["expected_ms"], colour=1) for row in document["boards"]]
    return [
        ("This machine: prediction beside measurement", bars(here, "ms"), "One run of each engine."),
        ("PREDICTION for boards, not measured: one chunk", bars(boards, "ms"), "All three engines, all flow steps."),
    ]


def _precisions(document: dict[str, Any]) -> list[Plot]:
    sizes = [
        Bar(name.upper(), sum(found["verification"]["size_bytes"].values()) / 1e6)
        for name, found in document["precisions"].items()
    ]
    return [("Size of the bundle", bars(sizes, "MB"), ""), *_latency({**document, "wire": None})[:-1]]


def _log(document: dict[str, Any]) -> list[Plot]:
    rows = [
        Bar(mode, found["late_us"]["p50"], tail=found["late_us"]["p99"]) for mode, found in document["alone"].items()
    ]
    return [("Lateness of a loop with a log", bars(rows, "us", "p99"), "")]


PLOTS: dict[str, Callable[[dict[str, Any]], list[Plot]]] = {
    "latency": _latency,
    "loop": _loop,
    "link": _link,
    "closed-loop": _closed_loop,
    "roofline": _roofline,
    "precisions": _precisions,
    "log": _log,
}
