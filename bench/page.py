"""One self-contained HTML page from measurements: no script, no font and no picture comes from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Any

from bench.plots import PLOTS, STATIC, STYLE
from bench.sections import lines_of, title_of
from bench.tables import percent

SMOKE_RUN = (
    '<div class="card warning"><b>Smoke run.</b> Made with --quick: it shows that everything works, '
    "and its figures are not worth quoting.</div>"
)


def page(documents: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    machine = documents[0]["machine"]
    anchors = [f"{document['benchmark']}-{index}" for index, document in enumerate(documents)]
    titles = [escape(title_of(document)) for document in documents]
    facts = {**_facts(machine), "cores busy when it began": ", ".join(map(_busy, documents))}
    others = {
        f"{document['benchmark']}: {name} is {document['machine'].get(name)}"
        for document in documents[1:]
        for name in ("cpu", "kernel", "commit", "dirty", "versions")
        if document["machine"].get(name) != machine.get(name)
    }
    return _filled(
        "report.html",
        style=STYLE,
        made=escape(f"{documents[0]['started']}, {machine['cpu']}"),
        links="".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in zip(anchors, titles)),
        quick=SMOKE_RUN if any(document["quick"] for document in documents) else "",
        facts="".join(f"<div><dt>{key}</dt><dd>{escape(str(fact))}</dd></div>" for key, fact in facts.items() if fact),
        differences="".join(f'<p class="warning">{escape(other)}</p>' for other in sorted(others)),
        sections="".join(map(_section, documents, anchors, titles)),
    )


def _filled(template: str, **parts: str) -> str:
    return Template((STATIC / template).read_text()).substitute(parts)


def _busy(document: dict[str, Any]) -> str:
    share = document["machine"].get("busy_share")
    return "unknown" if share is None else percent(share)


def _facts(machine: dict[str, Any]) -> dict[str, Any]:
    return {
        "processor": machine["cpu"],
        "cores": f"{machine['usable_cores']} of {machine['cores']}" + ", virtual machine" * bool(machine["hypervisor"]),
        "instructions": " ".join(machine["cpu_flags"]),
        "governor": ", ".join(machine["governor"] or ["unknown"]),
        "clock, MHz": ", ".join(map(str, machine["clock_mhz"]["now"] or ["unknown"])),
        "memory": machine["memory_bytes"] and f"{machine['memory_bytes'] / 1e9:.1f} GB",
        "GPU": machine["gpu"] or "none",
        "board": machine["board"],
        "kernel": machine["kernel"],
        "commit": (machine["commit"] or "not a checkout")[:12] + ", changed" * bool(machine["dirty"]),
        "Python": machine["python"],
        "libraries": ", ".join(f"{name} {version}" for name, version in machine["versions"].items()),
    }


def _section(document: dict[str, Any], anchor: str, title: str) -> str:
    figures = "".join(
        f'<figure class="card"><h3>{escape(name)}</h3>{svg}<figcaption>{escape(caption)}</figcaption></figure>'
        for name, svg, caption in PLOTS[document["benchmark"]](document)
        if svg
    )
    not_run = "".join(f"<li>{escape(item['what'])}: {escape(item['why'])}</li>" for item in document["not_run"])
    return _filled(
        "section.html",
        anchor=anchor,
        title=title,
        command=escape(" ".join(document["command"])),
        seconds=f"{document['seconds']:.0f}",
        figures=figures,
        not_run=not_run and f'<div class="card warning"><h3>Not run</h3><ul>{not_run}</ul></div>',
        tables=html_of(lines_of(document)),
        settings=escape(json.dumps(document["settings"])),
    )


def html_of(lines: Sequence[str]) -> str:
    """The Markdown that this package writes (tables, paragraphs, bold) as HTML."""
    out: list[str] = []
    in_table = False
    for line in lines:
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if in_table and set("".join(cells)) == {"-"} and len("".join(cells)) >= 3:
                continue
            tag = "td" if in_table else "th"
            row = "".join(f"<{tag}>{_inline(cell)}</{tag}>" for cell in cells)
            out.append("<table>" * (not in_table) + f"<tr>{row}</tr>")
        else:
            out += ["</table>"] * in_table + [f"<p>{_inline(line)}</p>"] * bool(line)
        in_table = line.startswith("|")
    return "".join(out) + "</table>" * in_table


def _inline(text: str) -> str:
    for index, part in enumerate(parts := escape(text).split("**")):
        if index % 2:
            parts[index] = f"<b>{part}</b>"
    return "".join(parts)
