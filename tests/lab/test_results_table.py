"""The tables of docs/notebook/results.md are those of its raw files, and a second computation finds the same figures.

The computation here shares no code with `lab.prior`: it reads the raw results and the text of the table alone.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.prior.report import lines
from tests.lab.test_prior import document, result

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook"
PAGE = (NOTEBOOK / "results.md").read_text(encoding="utf-8")
RAW = sorted(NOTEBOOK.glob("prior-*.json"))
STUDENT = {2: 12.706205, 3: 4.302653}
"""97.5 % quantiles of Student's t, by the number of pairs."""
BOOTSTRAP_ABS = 0.025
"""Two bootstraps of other dice differ by this much at most, in the share of scenes."""


def made_up() -> dict[str, Any]:
    """All variants at three seeds, with scenes that are easy or hard for every one of them."""
    rng, results = np.random.default_rng(5), []
    shares = {"none": 0.2, "prior": 0.5, "history": 0.55, "decay-never": 0.7, "actions": 0.1, "none-few": 0.2}
    for name, share in {**shares, "prior-few": 0.3}.items():
        hard = np.random.default_rng(6).normal(0.0, 0.2, 50)
        for seed in range(3):
            likely = share + hard + rng.normal(0.0, 0.05)
            done = ["".join(str(int(one)) for one in rng.random(50) < likely - 0.05 * late) for late in range(2)]
            error = 0.3 / (1 + share) * math.exp(rng.normal(0.0, 0.05))
            played = {"engines": "exported", "episodes": 50, "durations_s": [5.0, 10.0], "done": done}
            first = {"initial_predict": 3 - 2 * share + 0.1 * seed, "initial_gradient_norm": 15 - share * seed}
            results.append(result(name, seed, error=error, closed_loop=played, **first))
    return document(results)


DOCUMENTS = {"made up": made_up(), **{path.name: json.loads(path.read_text(encoding="utf-8")) for path in RAW}}


class Second:
    """Figures of a document, by the words of the table."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.runs = {(one["variant"]["name"], one["seed"]): one for one in raw["results"]}

    def of(self, how: str) -> tuple[tuple[float, float, float], tuple[float, float, float] | None]:
        """What a row says it is measured by: the figure with Student's interval, and the one of both levels."""
        if found := re.fullmatch(r"success at (\S+) s, (\S+) minus (\S+)", how):
            return self.difference(self.gain(found[2], found[3], float(found[1])))
        if found := re.fullmatch(r"gain at (\S+) s with few demonstrations minus gain with many", how):
            at_s = float(found[1])
            return self.difference(self.gain("prior-few", "none-few", at_s) - self.gain("prior", "none", at_s))
        name, over, under = re.fullmatch(r"(.+), (\S+) over (\S+)", how).groups()  # type: ignore[union-attr]
        pairs = [(self.value(name, over, seed), self.value(name, under, seed)) for seed in self.seeds(over, under)]
        logs = np.array([math.log(a) - math.log(b) for a, b in pairs])
        half = STUDENT[len(logs)] * logs.std(ddof=1) / math.sqrt(len(logs))
        return tuple(math.exp(logs.mean() + sign * half) for sign in (0, -1, 1)), None  # type: ignore[return-value]

    def seeds(self, *names: str) -> list[int]:
        known = {seed for _, seed in self.runs}
        return [seed for seed in sorted(known) if all((name, seed) in self.runs for name in names)]

    def gain(self, better: str, worse: str, at_s: float) -> np.ndarray:
        def done(name: str, seed: int) -> list[int]:
            played = self.runs[name, seed]["closed_loop"]
            return [int(digit) for digit in played["done"][played["durations_s"].index(at_s)]]

        seeds = self.seeds(better, worse)
        return np.array([np.subtract(done(better, seed), done(worse, seed)) for seed in seeds], dtype=float)

    @staticmethod
    def difference(gains: np.ndarray) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Student's interval, and a bootstrap by weights: how often each seed and each scene is drawn."""
        seeds, scenes = gains.shape
        by_seed = gains.mean(axis=1)
        half = STUDENT[seeds] * by_seed.std(ddof=1) / math.sqrt(seeds)
        rng = np.random.default_rng(1)
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), 20_000) / seeds
        of_scenes = rng.multinomial(scenes, np.full(scenes, 1 / scenes), 20_000) / scenes
        means = np.sort(np.einsum("ds,sn,dn->d", of_seeds, gains, of_scenes))
        mean = float(gains.mean())
        return (mean, mean - half, mean + half), (mean, float(means[500]), float(means[19_500]))

    def may_be_judged(self, how: str) -> bool:
        """Whether there are three seeds, and no baseline of a difference of gains fails in every scene of one."""
        if not how.startswith("gain"):
            return len(self.seeds(*how.split(", ")[1].split(" minus "))) >= 3
        at_s, baselines = float(how.split()[2]), ("none-few", "none")
        seeds = self.seeds("prior-few", "prior", *baselines)
        played = [self.runs[name, seed]["closed_loop"] for name in baselines for seed in seeds]
        return len(seeds) >= 3 and all("1" in one["done"][one["durations_s"].index(at_s)] for one in played)

    def value(self, what: str, name: str, seed: int) -> float:
        run = self.runs[name, seed]
        if what in (named := {"error at the end": "final_error", "first flow loss": "initial_predict",
                              "first gradient norm": "initial_gradient_norm"}):  # fmt: skip
            return float(run[named[what]])
        kind, baseline = re.fullmatch(r"steps to (the error of|less than) (\S+?)(?: ever has)?", what).groups()  # type: ignore[union-attr]
        curves = [one["curve"] for (variant, _), one in self.runs.items() if variant == baseline]
        if kind == "less than":
            bound = min(error for curve in curves for _, error in curve)
            there = [steps for steps, error in run["curve"] if error < bound]
        else:
            bound = max(curve[-1][1] for curve in curves)
            there = [steps for steps, error in run["curve"] if error <= bound]
        return float(there[0] if there else run["scale"]["steps"])


def claims_of(text: list[str]) -> list[tuple[str, ...]]:
    """The rows of the table of claims: measured by, over seeds, over both, verdict."""
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text if line.startswith("| ")]
    return [row[2:] for row in rows if len(row) == 6 and row[0] != "claim"]


def numbers(cell: str) -> tuple[float, ...]:
    return tuple(float(one) for one in re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", cell).groups())  # type: ignore[union-attr]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_second_computation_finds_the_same_figures_and_verdicts(name: str) -> None:
    second, judged = Second(DOCUMENTS[name]), claims_of(lines(DOCUMENTS[name]))
    assert judged or name != "made up"
    for how, over_seeds, both, said in judged:
        if over_seeds == "-":
            assert said == "**unclear**"
            continue
        student, bootstrap = second.of(how)
        assert numbers(over_seeds) == pytest.approx(student, abs=0.0051 + 1e-3 * max(student)), how
        bound = 0.0 if bootstrap else 0.5 if how.startswith("steps") else 1.0
        intervals = [student]
        if bootstrap is not None:
            assert numbers(both) == pytest.approx(bootstrap, abs=BOOTSTRAP_ABS), how
            intervals.append(bootstrap)
        if any(abs(end - bound) < BOOTSTRAP_ABS for one in intervals for end in one[1:]):
            continue  # too near to the bound for other dice
        above = {1 if low > bound else -1 if high < bound else 0 for _, low, high in intervals}
        side = above.pop() if len(above) == 1 else 0
        if bootstrap and not second.may_be_judged(how):
            side = 0
        wanted = {0: "unclear", 1: "seen", -1: "not seen"}[side if bootstrap else -side]
        assert said == f"**{wanted}**", how


def test_both_kinds_of_figures_and_all_verdicts_are_among_the_made_up_ones() -> None:
    judged = claims_of(lines(DOCUMENTS["made up"]))
    assert {row[3] for row in judged} == {"**seen**", "**not seen**", "**unclear**"}
    for kind in ("success at 10 s", "gain at", "error at the end", "first", "steps to the", "steps to less"):
        assert any(row[0].startswith(kind) for row in judged), kind


def test_the_tables_of_the_page_are_those_of_the_raw_files() -> None:
    blocks = dict(re.findall(r"<!-- edge-bench prior (\w+) -->\n(.*?)<!-- end prior -->", PAGE, re.DOTALL))
    named = {document["scale"]["name"]: document for name, document in DOCUMENTS.items() if name != "made up"}
    assert {scale for scale, block in blocks.items() if block.strip()} == set(named)
    for scale, raw in named.items():
        assert blocks[scale].strip() == "\n".join(lines(raw)).strip()
