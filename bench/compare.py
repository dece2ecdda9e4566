"""Whether two runs of one benchmark agree within the noise that each of them states.

Times: the medians may differ by the sum of both runs' stated noise (half the interval's width plus the drift between
the quarters of a run). Ratios: their intervals must meet, widened by both noise floors. Exit 1 where they do not agree.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.document import read_document
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
    for one in found:
        print(one)
    return 0 if all(one.agrees for one in found) else 1


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[Difference]:
    """Every median and every ratio that both runs have."""
    others = {group["name"]: group for group in second.get("groups", [])}
    found = []
    for group in first.get("groups", []):
        other = others.get(group["name"])
        if other is None:
            continue
        for way, one in group["ways"].items():
            if way in other["ways"]:
                two = other["ways"][way]
                allowed = one["noise_share"] + two["noise_share"]
                found.append(Difference(f"{group['name']}, {way}, ms", one["p50_ms"], two["p50_ms"], allowed))
        for way, one in group["ratios"].items():
            if way in other["ratios"]:
                two = other["ratios"][way]
                allowed = _width(one) + _width(two) + _floor(group) + _floor(other)
                found.append(Difference(f"{group['name']}, {way}, ratio", one["median"], two["median"], allowed))
    return found


def _width(ratio: dict[str, float]) -> float:
    return (ratio["high"] - ratio["low"]) / 2 / ratio["median"]


def _floor(group: dict[str, Any]) -> float:
    """How far the baseline's ratio to itself may lie from one."""
    twin = group["noise_floor"]
    return max(abs(twin["low"] - 1), abs(twin["high"] - 1)) if twin else 0.0
