"""The table of `edge-bench lerobot-speed`, as Markdown."""

from __future__ import annotations

from typing import Any

from bench.harness import AGAIN
from bench.tables import markdown, number, percent, spread

LEROBOT = "LeRobot"
INVERSE = {"median": "median", "low": "high", "high": "low"}
"""The ends of the interval of a ratio's inverse."""
HEAD = (
    "a chunk by",
    "median, ms",
    "p95, ms",
    "as fast as eager, times",
    "share of the roof",
    "from LeRobot's goals, of the range",
)


def lines(body: dict[str, Any]) -> list[str]:
    """One row per way, and the roof below."""
    group, roof = body["group"], body["roof"]
    twin = f"{group['baseline']} {AGAIN}"
    shown = [way for way in group["ways"] if way != twin and (way.startswith(LEROBOT) or way in body["floor_ms"])]
    peaks = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name.upper()}" for name, rate in roof["peak_ops_s"].items())
    least = ", ".join(
        f"{body['operations'][name] / 1e9:.3g} G operations in {number(floor)} ms at least in {name.upper()}"
        for name, floor in body["floor_ms"].items()
    )
    return [
        f"{group['boundary'].capitalize()}.",
        "",
        *markdown(HEAD, [_row(way, body) for way in shown]),
        "",
        f"The roof in the same rounds: {peaks}, {roof['stream_bytes_s'] / 1e9:.1f} GB/s. A chunk: {least}. "
        f"Eager against itself, pair by pair: {spread(group['noise_floor'])}.",
    ]


def _row(way: str, body: dict[str, Any]) -> list[str]:
    group, floors = body["group"], body["floor_ms"]
    found, ratio, off = group["ways"][way], group["ratios"].get(way), body["agreement_of_range"].get(way)
    median = {"median": found["p50_ms"], "low": found["p50_low_ms"], "high": found["p50_high_ms"]}
    floor_ms = floors.get(way, floors["fp32"])
    return [
        way if way.startswith(LEROBOT) else f"this project, {way.upper()}",
        spread(median),
        number(found["p95_ms"]),
        spread({name: 1 / ratio[of] for name, of in INVERSE.items()}) if ratio else "1",
        percent(floor_ms / found["p50_ms"]),
        "-" if off is None else f"{off:.1e}",
    ]
