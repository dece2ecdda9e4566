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
    found = []
    others = medians(second)
    for what, (one, noise) in medians(first).items():
        if what in others:
            two, its_noise = others[what]
            found.append(Difference(what, one, two, noise + its_noise))
    groups = {group["name"]: group for group in second.get("groups", [])}
    for group in first.get("groups", []):
        other = groups.get(group["name"])
        for way, ratio in group["ratios"].items() if other else ():
            if way in other["ratios"]:
                its_ratio = other["ratios"][way]
                allowed = _width(ratio) + _width(its_ratio) + _floor(group) + _floor(other)
                found.append(
                    Difference(f"{group['name']}, {way}, ratio", ratio["median"], its_ratio["median"], allowed)
                )
    return found


def medians(document: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Every median time of a document in ms, and the noise it states, by what it is of."""
    summaries: dict[str, dict[str, Any]] = {}
    for group in document.get("groups", []):
        summaries |= {f"{group['name']}, {way}, ms": found for way, found in group["ways"].items()}
    for label, run_ in (document.get("wire") or {}).get("runs", {}).items():
        if run_["observation_to_wire"]:
            summaries[f"observation to wire, {label}, ms"] = run_["observation_to_wire"]
    for row in document.get("here", []):
        summaries[f"{row['engine']} {row['bundle']}, processor ms"] = row["measured"]
    for line in document.get("lines", []):
        if line["commit"]:
            summaries[f"chunk over {line['name']}, ms"] = line["commit"]
    return {what: (found["p50_ms"], found["noise_share"]) for what, found in summaries.items()}


def _width(ratio: dict[str, float]) -> float:
    return (ratio["high"] - ratio["low"]) / 2 / ratio["median"]


def _floor(group: dict[str, Any]) -> float:
    """How far the baseline's ratio to itself may lie from one."""
    twin = group["noise_floor"]
    return max(abs(twin["low"] - 1), abs(twin["high"] - 1)) if twin else 0.0
