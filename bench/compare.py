"""Whether two runs of one benchmark agree within the noise that each of them states.

Times are counted in yardsticks, a fixed piece of work that both runs did in every round, or in ms where there is none:
the medians may differ by the sum of both runs' stated noise (half the interval's width plus the drift between the
quarters of a run). Ratios: their intervals must meet, widened by both noise floors. What runs on a simulated clock must
be the same. Exit 1 where they do not agree. How fast the machine was, by the yardstick, is reported and not judged.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.document import read_document
from bench.harness import YARDSTICK, summary
from bench.machine import same_machine
from bench.tables import number, percent
from edge.errors import InputError


@dataclass(frozen=True)
class Difference:
    """One figure in both runs, how far apart it is as a share, and how far it may be."""

    what: str
    first: float
    second: float
    allowed_share: float

    @property
    def share(self) -> float:
        return abs(self.first - self.second) / max(min(self.first, self.second), 1e-12)

    @property
    def agrees(self) -> bool:
        return self.share <= self.allowed_share

    def __str__(self) -> str:
        word = "agrees" if self.agrees else "DIFFERS"
        return (
            f"{word:<8} {self.what}: {number(self.first)} and {number(self.second)}, "
            f"{percent(self.share)} apart, {percent(self.allowed_share)} stated"
        )


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, metavar="A.json")
    parser.add_argument("second", type=Path, metavar="B.json")


def run(args: argparse.Namespace) -> int:
    first, second = read_document(args.first), read_document(args.second)
    if first["benchmark"] != second["benchmark"]:
        raise InputError(f"a run of '{first['benchmark']}' and one of '{second['benchmark']}' cannot be compared")
    for difference in same_machine(first["machine"], second["machine"]):
        print(f"not the same machine: {difference}")
    found = differences(first, second)
    if not found:
        raise InputError("the two runs have no timed figure in common")
    for line in (*speeds(first, second), *found):
        print(line)
    return 0 if all(one.agrees for one in found) else 1


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """Every median and every ratio that both runs have."""
    found = _simulated(first, second)
    others = medians(second)
    for what, (one, noise) in medians(first).items():
        if what in others:
            two, its_noise = others[what]
            found.append(Difference(what, one, two, noise + its_noise))
    groups = {group["name"]: group for group in second.get("groups", [])}
    for group in first.get("groups", []):
        other = groups.get(group["name"], {"ratios": {}})
        for way, ratio in group["ratios"].items():
            if way in other["ratios"] and way != YARDSTICK:
                its_ratio = other["ratios"][way]
                allowed = _width(ratio) + _width(its_ratio) + _floor(group) + _floor(other)
                found.append(
                    Difference(f"{group['name']}, {way}, ratio", ratio["median"], its_ratio["median"], allowed)
                )
    return found


def _simulated(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """The closed loop: decided by its seeds, so two runs of the same code differ in nothing."""
    if first["benchmark"] != "closed-loop":
        return []
    others = {(row["joining"], row["latency_ms"]): row for row in second["rows"]}
    found = []
    for row in first["rows"]:
        other = others.get((row["joining"], row["latency_ms"]))
        if other is not None:
            what = f"{row['joining']}, {row['latency_ms']:g} ms"
            found.append(Difference(f"{what}, reached", row["reached"], other["reached"], 0.0))
            found.append(Difference(f"{what}, jerk, rad/s^3", row["jerk_rms"], other["jerk_rms"], 0.0))
    return found


def speeds(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """How many times as fast the machine was in the second run, where both have a yardstick."""
    yards = [
        {group["name"]: group["ways"].get(YARDSTICK) for group in run.get("groups", [])} for run in (first, second)
    ]
    both = [name for name, yard in yards[0].items() if yard and yards[1].get(name)]
    return [
        f"{name}: the machine was {yards[0][name]['p50_ms'] / yards[1][name]['p50_ms']:.2f} x as fast in the second run"
        for name in both
    ]


def _times(group: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Median and stated noise of every way of a comparison: in yardsticks, round by round, or in ms."""
    ways = dict(group["ways"])
    yard = ways.pop(YARDSTICK, None)
    if yard is None:
        return {f"{group['name']}, {way}, ms": _middle(found, "ms") for way, found in ways.items()}
    per_round = np.array(yard["raw_ns"], dtype=np.float64)
    return {
        f"{group['name']}, {way}, yardsticks": _middle(
            summary(np.array(found["raw_ns"]) / per_round, 0, "yards"), "yards"
        )
        for way, found in ways.items()
    }


def _wire(what: str, found: dict[str, Any], yard: dict[str, Any] | None) -> dict[str, tuple[float, float]]:
    """It takes no turns: counted in the yardsticks of just before and just after it, whose noise is added."""
    middle_ms, noise = _middle(found, "ms")
    if yard is None:
        return {f"{what}, ms": (middle_ms, noise)}
    yard_ms, its_noise = _middle(yard, "ms")
    return {f"{what}, yardsticks": (middle_ms / yard_ms, noise + its_noise)}


def _middle(found: dict[str, Any], unit: str) -> tuple[float, float]:
    return found[f"p50_{unit}"], found["noise_share"]


def medians(document: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Every median time of a document, and the noise it states, by what it is of and in which unit."""
    times = {what: time for group in document.get("groups", []) for what, time in _times(group).items()}
    for label, run_ in (document.get("wire") or {}).get("runs", {}).items():
        if run_["observation_to_wire"]:
            times |= _wire(f"observation to wire, {label}", run_["observation_to_wire"], run_.get(YARDSTICK))
    for row in document.get("here", []):
        times[f"{row['engine']} {row['bundle']}, processor ms"] = _middle(row["measured"], "ms")
    for line in document.get("lines", []):
        if line["commit"]:
            times[f"chunk over {line['name']}, ms"] = _middle(line["commit"], "ms")
    return times


def _width(ratio: dict[str, float]) -> float:
    return (ratio["high"] - ratio["low"]) / 2 / ratio["median"]


def _floor(group: dict[str, Any]) -> float:
    """How far the baseline's ratio to itself may lie from one."""
    twin = group["noise_floor"]
    return max(abs(twin["low"] - 1), abs(twin["high"] - 1)) if twin else 0.0
