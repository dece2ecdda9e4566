"""Plots as SVG text: inside the page, in its colours, without a library and without a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.tables import number

WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 520, 26, 172, 60, 8, 34
HEIGHT = 264
COLOURS = 6


@dataclass(frozen=True)
class Bar:
    """One bar: a middle value, the interval around it, and how far its tail goes; None where there is none."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    tail: float | None = None
    colour: int = 0


@dataclass(frozen=True)
class Curve:
    """One line of a plot, points in order of x."""

    label: str
    points: Sequence[tuple[float, float]]
    dots: bool = False
    colour: int | None = None


def colour(index: int) -> str:
    return f"var(--c{index % COLOURS})"


def bars(rows: Sequence[Bar], unit: str, tail: str = "") -> str:
    """Horizontal bars from zero, each with its interval; a tick marks the tail."""
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return ""
    most = max(max(row.value, row.high or 0.0, row.tail or 0.0) for row in rows) or 1.0
    height = TOP + ROW * len(rows) + BOTTOM
    span = WIDTH - LEFT - RIGHT

    def x(value: float) -> float:
        return LEFT + span * value / most

    parts = _grid([(x(tick), tick) for tick in ticks(0.0, most)], height, unit + (f", tick: {tail}" if tail else ""))
    for index, row in enumerate(rows):
        y = TOP + ROW * index
        middle = y + ROW / 2
        parts.append(f'<text x="{LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(row.label)}</text>')
        width = max(1.0, x(row.value) - LEFT)
        parts.append(
            f'<rect x="{LEFT}" y="{y + 5}" width="{width:.1f}" height="{ROW - 10}" rx="2" '
            f'fill="{colour(row.colour)}" opacity="0.85"/>'
        )
        if row.low is not None and row.high is not None:
            parts.append(_line(x(row.low), middle, x(row.high), middle, 'stroke="var(--ink)" stroke-width="2"'))
        if row.tail is not None:
            parts.append(_line(x(row.tail), y + 5, x(row.tail), y + ROW - 5, 'stroke="var(--soft)" stroke-width="2"'))
        end = x(max(row.value, row.high or 0.0, row.tail or 0.0))
        parts.append(f'<text x="{end + 6:.1f}" y="{middle + 4:.1f}">{number(row.value)}</text>')
    return _svg(height, parts)


def curves(lines: Sequence[Curve], x_label: str, y_label: str, log_x: bool = False, top: float | None = None) -> str:
    """Lines over a common axis, with a legend. On a logarithmic axis points at or below zero stand at its left end."""
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    xs = [x for line in lines for x, _ in line.points if x > 0 or not log_x]
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    single, high = high <= low, high if high > low else low + 1.0
    most = top or max(y for line in lines for _, y in line.points) or 1.0
    left, right, bottom = 56, 16, 56
    span, rise = WIDTH - left - right, HEIGHT - TOP - bottom

    def x(value: float) -> float:
        linear = (value - low) / (high - low)
        return left + span * (math.log(max(value, low) / low) / math.log(high / low) if log_x else linear)

    def y(value: float) -> float:
        return TOP + rise * (1 - value / most)

    parts = []
    for tick in ticks(0.0, most):
        parts.append(_line(left, y(tick), WIDTH - right, y(tick), 'class="rule"'))
        parts.append(f'<text class="soft" x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in [low] if single else decades(low, high) if log_x else ticks(low, high):
        parts.append(_line(x(tick), TOP, x(tick), TOP + rise, 'class="rule"'))
        parts.append(
            f'<text class="soft" x="{x(tick):.1f}" y="{TOP + rise + 16}" text-anchor="middle">{number(tick)}</text>'
        )
    for index, line in enumerate(lines):
        shade = colour(index if line.colour is None else line.colour)
        path = " ".join(f"{x(a):.1f},{y(min(b, most)):.1f}" for a, b in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{shade}" stroke-width="2"/>')
        if line.dots:
            parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5" fill="{shade}"/>' for a, b in line.points]
    parts.append(
        f'<text class="soft" x="{WIDTH - right}" y="{TOP + rise + 32}" text-anchor="end">{escape(x_label)}</text>'
    )
    legend = "".join(
        f'<tspan fill="{colour(index if line.colour is None else line.colour)}" dx="10">&#9632; {escape(line.label)}'
        "</tspan>"
        for index, line in enumerate(lines)
    )
    parts.append(f'<text x="{left - 40}" y="{HEIGHT - 4}">{legend}</text>')
    parts.append(f'<text class="soft" x="{left + 4}" y="{TOP + 12}">{escape(y_label)}</text>')
    return _svg(HEIGHT, parts)


def ticks(low: float, high: float) -> list[float]:
    """Round values that divide a range into about five parts."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (factor * step) <= 6)
    first = math.ceil(low / step)
    return [step * index for index in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten inside a range."""
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _grid(marks: Sequence[tuple[float, float]], height: int, label: str) -> list[str]:
    parts = []
    for at, tick in marks:
        parts.append(_line(at, TOP, at, height - BOTTOM + 4, 'class="rule"'))
        parts.append(
            f'<text class="soft" x="{at:.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>'
        )
    parts.append(
        f'<text class="soft" x="{LEFT - 8}" y="{height - BOTTOM + 18}" text-anchor="end">{escape(label)}</text>'
    )
    return parts


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _svg(height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">' + "".join(parts) + "</svg>"
