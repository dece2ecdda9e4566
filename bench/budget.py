"""Holds the ratios of a measurement to a budget.

A ratio whose whole 95 % interval is on the wrong side of its bound is missed: exit 1. What was not measured is named.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.document import read_document
from bench.tables import spread
from edge.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10, as JetPack 6 has it
    import tomli as tomllib

BUDGET = Path(__file__).parent / "budget.toml"
FIELDS = {"group", "way", "baseline", "why", "least", "most"}


@dataclass(frozen=True)
class Bound:
    """What one ratio must be at least, or at most."""

    group: str
    way: str
    baseline: str
    why: str
    least: float | None = None
    most: float | None = None

    def misses(self, ratio: dict[str, float]) -> bool:
        """Whether the interval lies wholly on the wrong side. A ratio that is no number is a miss."""
        low, high = ratio["low"], ratio["high"]
        above = self.least is None or high >= self.least
        below = self.most is None or low <= self.most
        return not (above and below)

    def __str__(self) -> str:
        bound = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{self.group}: {self.way} to {self.baseline}, {bound}"


@dataclass(frozen=True)
class Verdict:
    """One bound against a measurement; `ratio` is None where it was not measured."""

    bound: Bound
    ratio: dict[str, float] | None

    @property
    def missed(self) -> bool:
        return self.ratio is not None and self.bound.misses(self.ratio)

    def __str__(self) -> str:
        if self.ratio is None:
            return f"not measured  {self.bound}"
        word = "MISSED" if self.missed else "kept"
        return f"{word:<13} {self.bound}: {spread(self.ratio)}" + (f" ({self.bound.why})" if self.missed else "")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="+", metavar="FILE.json", help="written by edge-bench latency --json")
    parser.add_argument("--budget", type=Path, default=BUDGET, metavar="FILE.toml", help="default: bench/budget.toml")


def run(args: argparse.Namespace) -> int:
    bounds = read_budget(args.budget)
    documents = [read_document(path) for path in args.file]
    verdicts = judge(bounds, [group for document in documents for group in document.get("groups", [])])
    for verdict in verdicts:
        print(verdict)
    if all(verdict.ratio is None for verdict in verdicts):
        raise InputError("none of the budget's ratios was measured; give the JSON of edge-bench latency")
    return 1 if any(verdict.missed for verdict in verdicts) else 0


def read_budget(path: Path) -> list[Bound]:
    """Reads a budget. Raises `InputError` for one that cannot be meant."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8")).get("ratio", [])
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    bounds = []
    for entry in entries:
        if not entry.keys() <= FIELDS or ("least" in entry) == ("most" in entry):
            raise InputError(f"{path}: {entry}: a ratio has group, way, baseline, why, and either least or most")
        try:
            bounds.append(Bound(**entry))
        except TypeError as error:
            raise InputError(f"{path}: {entry}: {str(error).replace('Bound.__init__() ', '')}") from None
    if not bounds:
        raise InputError(f"{path}: holds no ratio")
    return bounds


def judge(bounds: list[Bound], groups: list[dict[str, Any]]) -> list[Verdict]:
    """Every bound against every group that measured it."""
    verdicts = []
    for bound in bounds:
        found = [
            group["ratios"][bound.way]
            for group in groups
            if group["name"] == bound.group and group["baseline"] == bound.baseline and bound.way in group["ratios"]
        ]
        verdicts += [Verdict(bound, ratio) for ratio in found] or [Verdict(bound, None)]
    return verdicts
