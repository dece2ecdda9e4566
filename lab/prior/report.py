"""The table of the experiment, its verdicts and its plots."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.tables import fill_marks, markdown, number
from lab.prior.claims import (
    Judged,
    Results,
    best,
    by_variant,
    done_of,
    durations_of,
    judge,
    level,
    steps_below,
    steps_to,
)
from lab.prior.statistics import Interval, sample
from lab.prior.variants import BY_NAME, VARIANTS


def lines(document: dict[str, Any]) -> list[str]:
    """The Markdown of a document that `lab.prior.command` wrote."""
    results = by_variant(document["results"])
    judged = judge(results)
    return [
        *_scale_lines(document),
        "",
        *_data_lines(document),
        "",
        *_table(results),
        "",
        *_levels(results),
        *_missing(results, document["seeds"]),
        "",
        *_claims(judged),
    ]


def write_markdown(path: Path, document: dict[str, Any]) -> None:
    """Puts the tables between the marks of their scale. Raises `InputError` where there are none."""
    fill_marks(path, {f"prior {document['scale']['name']}": lines(document)})


def _scale_lines(document: dict[str, Any]) -> list[str]:
    """At which size the tables were made, and what it cost."""
    if document["quick"]:
        return ["**A smoke run: not worth quoting.**"]
    scale, found = document["scale"], document["results"]
    rows = [
        ["stage 0", f"{scale['pointing_steps']} steps of {scale['pointing_batch']} scenes, once for all runs"],
        ["stage 1", f"{scale['prior_steps']} steps of {scale['prior_batch']} windows"],
        ["stage 2", f"{scale['steps']} steps of {scale['batch']} windows"],
        ["error", f"every {scale['validate_every']} steps, on {scale['validation_windows']} windows"],
        ["success", f"{scale['episodes']} scenes, the same for all, judged at {_times(scale['durations_s'])}"],
        ["seeds", str(document["seeds"])],
    ]
    beside = "" if all(one["device"].startswith("CPU") for one in found) else " beside the GPU"
    for name, key, what in (
        ("training", "train_cpu_s", f"of one core{beside}"),
        ("playing", "play_cpu_s", "of one core"),
    ):
        spent = [one[key] for one in found if key in one]
        if spent:
            # the middle one: a run that was resumed tells of its last piece alone
            rows.append([f"{name}, of one run", f"{number(statistics.median(spent) / 60)} min {what}"])
    return [f"Scale: **{scale['name']}**. Another scale may judge otherwise.", "", *markdown(("", ""), rows)]


def _data_lines(document: dict[str, Any]) -> list[str]:
    about, found = document["data"], document["results"]
    sets = ", ".join(f"{name} {episodes} ({steps})" for name, (episodes, steps) in about["stage1"].items())
    rows = [["stage 1, episodes (steps)", sets]]
    for name in ("few", "many"):
        one = about[name]
        followed = ", ".join(f"{colour} {times}" for colour, times in one["followed"].items())
        rows.append([f"stage 2, {name}", f"{one['episodes']} episodes, {one['steps']} steps; followed: {followed}"])
    held_out = about["held_out"]
    rows.append(["held out", f"{held_out['episodes']} episodes, {held_out['steps']} steps"])
    devices = Counter(result["device"] for result in found)
    made = ", ".join(f"{device} ({count} runs)" for device, count in sorted(devices.items()))
    rows.append(["trained on", f"{made or '-'}; simulated data"])
    played = Counter(one["closed_loop"]["engines"] for one in found if "closed_loop" in one)
    if played:
        rows.append(
            ["played by", ", ".join(f"{engines} {count} policies" for engines, count in sorted(played.items()))]
        )
    return markdown(("", ""), rows)


HEAD = ("variant", "seeds", "first flow loss", "first gradient norm", "steps to the error",
    "steps to less than the baseline ever has", "error at the end", "mrad")  # fmt: skip


def _table(results: Results) -> list[str]:
    rows = []
    durations = durations_of([one for found in results.values() for one in found])
    for variant in VARIANTS:
        found = results.get(variant.name, [])
        if not found:
            continue
        baseline = _baseline(variant.name)
        wanted, least = level(results, baseline), best(results, baseline)
        rows.append(
            [
                variant.text,
                str(len(found)),
                _spread([one["initial_predict"] for one in found]),
                _spread([one["initial_gradient_norm"] for one in found]),
                _steps([steps_to(one, wanted) for one in found] if wanted is not None else []),
                _steps([steps_below(one, least) for one in found] if least is not None else []),
                _spread([one["final_error"] for one in found]),
                _spread([1000 * one["final_error_rad"] for one in found]),
                *(_done(found, at) for at in range(len(durations))),
            ]
        )
    return markdown((*HEAD, *(f"done at {time:g} s, by seed" for time in durations)), rows)


def _baseline(name: str) -> str:
    return "none-few" if BY_NAME[name].demonstrations == BY_NAME["none-few"].demonstrations else "none"


def _done(found: Sequence[dict[str, Any]], at: int) -> str:
    done = done_of(found, at)
    if not done.size:
        return "-"
    return f"{100 * done.mean():.0f} %: {', '.join(f'{row.sum():.0f}' for row in done)} of {done.shape[1]}"


def _times(durations: Sequence[float]) -> str:
    return " and ".join(f"{time:g} s" for time in durations)


def _spread(values: Sequence[float]) -> str:
    found = sample(values)
    return number(found.mean) if found.deviation is None else f"{number(found.mean)} ± {number(found.deviation, 2)}"


def _steps(steps: Sequence[int | None]) -> str:
    """Mean and deviation over the seeds that got there, and how many did not."""
    there = [float(one) for one in steps if one is not None]
    missing = len(steps) - len(there)
    text = _spread(there) if there else "never"
    return text + (f" ({missing} never)" if there and missing else "") if steps else "-"


def _levels(results: Results) -> list[str]:
    lines = []
    for baseline in ("none", "none-few"):
        wanted, least = level(results, baseline), best(results, baseline)
        if wanted is not None and least is not None:
            text = f'variants with as many demonstrations as "{BY_NAME[baseline].text}"'
            lines.append(f"{number(wanted)} (less than it ever has: {number(least)}) for {text}")
    return [f"The error that steps are counted to: {'; '.join(lines)}."] if lines else []


def _missing(results: Results, seeds: int) -> list[str]:
    """Runs that were asked for and are not there."""
    missing = [f"{one.text} ({seeds - len(results.get(one.name, []))})" for one in VARIANTS
        if len(results.get(one.name, [])) < seeds]  # fmt: skip
    return ["", f"**Not run** (runs missing): {', '.join(missing)}."] if missing else []


def _claims(judged: Sequence[Judged]) -> list[str]:
    rows = [[one.claim, one.paper, one.how, _interval(one.figure), _interval(one.both), f"**{one.verdict}**"]
        for one in judged if one.verdict != "not run"]  # fmt: skip
    head = ("claim", "paper", "measured by", "figure, 95 % over seeds", "over seeds and scenes", "here")
    table = markdown(head, rows)
    decided = {one.claim for one in judged if one.verdict != "not run"}
    open_claims = list(dict.fromkeys(one.claim for one in judged if one.claim not in decided))
    return [
        *table,
        *(["", f"**Not judged**, since runs are missing: {'; '.join(open_claims)}."] if open_claims else []),
    ]


def _interval(figure: Interval | None) -> str:
    if figure is None:
        return "-"
    return f"{figure.value:.2f} ({figure.low:.2f} to {figure.high:.2f})"
