"""The plots beside the table: validation error against steps, success with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from lab.prior.claims import Results, by_variant, done_of, durations_of, level
from lab.prior.statistics import two_levels
from lab.prior.variants import BY_NAME, FEW, VARIANTS

CURVES = ("none", "prior", "history", "decay-zero", "decay-never", "others")


def write_plots(folder: Path, document: dict[str, Any]) -> list[Path]:
    """Writes `prior-SCALE-error.png` and, where policies were played, `prior-SCALE-success.png`; returns what it
    wrote."""
    results, name = by_variant(document["results"]), f"prior-{document['scale']['name']}"
    folder.mkdir(parents=True, exist_ok=True)
    written = [_errors(results, folder / f"{name}-error.png")]
    durations = durations_of(document["results"])
    if durations:
        written.append(_success(results, durations, folder / f"{name}-success.png"))
    return written


def _errors(results: Results, path: Path) -> Path:
    """Mean over seeds and the range of them, and the error that steps are counted to; one panel for each amount of
    demonstrations that was run."""
    few = tuple(variant.name for variant in VARIANTS if variant.demonstrations == FEW)
    panels = [("many demonstrations", CURVES, "none"), ("few demonstrations", few, "none-few")]
    panels = [panel for panel in panels if any(name in results for name in panel[1])] or panels[:1]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.5 * len(panels), 4.6), sharey=True, squeeze=False)
    for axis, (title, names, baseline) in zip(axes[0], panels):
        wanted = level(results, baseline)
        if wanted is not None:
            axis.axhline(wanted, color="0.4", linestyle=":", label="the error that steps are counted to")
        for name in (name for name in names if name in results):
            curves = np.array([[error for _, error in one["curve"]] for one in results[name]])
            steps = [at for at, _ in results[name][0]["curve"]]
            (line,) = axis.plot(steps, curves.mean(axis=0), label=BY_NAME[name].text)
            axis.fill_between(steps, curves.min(axis=0), curves.max(axis=0), alpha=0.2, color=line.get_color())
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("steps of stage 2")
        axis.grid(alpha=0.3)
        if axis.lines:  # below, where no curve is
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
    axes[0][0].set_ylabel("validation error, normalised")
    return _saved(figure, path)


def _success(results: Results, durations: list[float], path: Path) -> Path:
    names = [variant.name for variant in reversed(VARIANTS) if done_of(results.get(variant.name, []), 0).size]
    figure, axis = plt.subplots(figsize=(7, 0.6 + 0.4 * len(names)))
    for at, time in enumerate(durations):
        found = [two_levels(done_of(results[name], at)) for name in names]
        values = 100 * np.array([[one.value, one.value - one.low, one.high - one.value] for one in found])
        rows = np.arange(len(names)) - 0.2 * at
        axis.errorbar(values[:, 0], rows, xerr=values[:, 1:].T, fmt="o", color=f"C{at}", capsize=3, label=f"{time:g} s")
    axis.legend(fontsize=8)
    axis.set_yticks(range(len(names)), [BY_NAME[name].text for name in names], fontsize=8)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_xlim(0, 100)
    axis.set_xlabel("success, %, 95 % over seeds and scenes")
    axis.grid(alpha=0.3)
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path
