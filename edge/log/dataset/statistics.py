"""The statistics that LeRobot keeps with every episode and with the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.log.dataset.spec import FrameColumn

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
FRAMES_LOOKED_AT = 100
"""Images of an episode that count in its statistics, as many as LeRobot takes of a short one."""

Statistics = dict[str, NDArray[np.float64]]


def column_statistics(values: NDArray[Any]) -> Statistics:
    """Of a column (steps, width): each (width,), and "count" (1,)."""
    values = values.astype(np.float64)
    result = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([float(len(values))]),
    }
    marks = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {**result, **dict(zip(QUANTILES, marks))}


def frame_statistics(frames: FrameColumn) -> Statistics:
    """Of frames (steps, height, width, 3): each (3, 1, 1) in 0 to 1, over evenly spread frames and every fourth row."""
    looked_at = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), FRAMES_LOOKED_AT)).astype(int))
    rows = np.stack([frames[int(step)][::4] for step in looked_at])
    pixels = column_statistics(rows.reshape(-1, 3) / 255.0)
    shaped = {name: value.reshape(3, 1, 1) for name, value in pixels.items() if name != "count"}
    return {**shaped, "count": np.array([float(len(looked_at))])}


def merged(one: Statistics, other: Statistics) -> Statistics:
    """Statistics of both together. Mean and spread are exact; quantiles are averaged by weight, as LeRobot does."""
    n, m = float(one["count"][0]), float(other["count"][0])
    share = m / (n + m)
    apart = other["mean"] - one["mean"]
    variance = one["std"] ** 2 * (1 - share) + other["std"] ** 2 * share + apart**2 * share * (1 - share)
    result = {
        "min": np.minimum(one["min"], other["min"]),
        "max": np.maximum(one["max"], other["max"]),
        "mean": one["mean"] + apart * share,
        "std": np.sqrt(variance),
        "count": one["count"] + other["count"],
    }
    return {**result, **{name: one[name] * (1 - share) + other[name] * share for name in QUANTILES}}


def to_plain(statistics: Mapping[str, Statistics]) -> dict[str, dict[str, Any]]:
    """As JSON has them; a count is a whole number."""
    return {
        column: {name: [int(value[0])] if name == "count" else value.tolist() for name, value in of.items()}
        for column, of in statistics.items()
    }


def from_plain(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Statistics]:
    """Inverse of `to_plain`."""
    return {column: {name: np.array(value, float) for name, value in of.items()} for column, of in plain.items()}
