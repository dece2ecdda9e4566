"""The tables of the link, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.tables import markdown, number, percent


def lines(body: dict[str, Any]) -> list[str]:
    """The tables, as Markdown."""
    head: tuple[str, ...] = (
        "line",
        "chunk on the line, ms",
        "round trip p50, ms",
        "p99",
        "max",
        "load with chunks",
        "load with set-points",
    )
    head += ("chunks sent again", "set-points: starved periods", "delay p50 / p99, ms")
    rows = []
    for row in body["lines"]:
        commit, streamed = row["commit"], row["stream"]
        rows.append(
            [
                row["name"],
                number(row["chunk_transmission_ms"]) if row["paced_baud"] else "-",
                *(number(commit[f"{name}_ms"]) if commit else "not run" for name in ("p50", "p99", "max")),
                percent(row["load_share"]) if row["paced_baud"] else "-",
                percent(row["stream_share"]) if row["paced_baud"] else "-",
                f"{row['resent']} of {commit['calls']}" if commit else "-",
                percent(streamed["starved_share"]),
                f"{number(streamed['delay_p50_ms'])} / {number(streamed['delay_p99_ms'])}",
            ]
        )
    sizes = ", ".join(f"{name} {size} B" for name, size in body["chunk_sizes"].items())
    text = [f"A chunk of {body['knots']} knots x {body['joints']} joints: {sizes}.", ""]
    text += markdown(head, rows)
    last = body["lines"][0].get("after_last_byte")
    if last:
        text += ["", f"From the last byte written to the acknowledgement, no rate: p50 {number(last['p50_ms'])} ms, "]
        text[-1] += f"p99 {number(last['p99_ms'])} ms."
    if "clock" in body:
        clock = [
            [f"line that delivers {name}", *(number(found[f"{key}_us"]) for key in ("p50", "p99", "max"))]
            for name, found in body["clock"].items()
        ]
        text += ["", *markdown(("error of the device's time on the host, us", "p50", "p99", "max"), clock)]
    return text
