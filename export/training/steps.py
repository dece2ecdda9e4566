"""From the rows of a recording to the steps of the policy: units, increments, a slower rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from export.training.lerobot import DatasetInfo, Rows
from export.training.mapping import EmbodimentMapping, Group

Values = NDArray[np.float64]


def step_rows(rows: Rows, stride: int) -> NDArray[np.int64]:
    """The rows at which a policy step begins: every `stride`-th of an episode, where a whole step follows."""
    lengths = np.array([episode["length"] for episode in rows.described])
    last = np.repeat(lengths, lengths) - stride
    return np.flatnonzero((rows.frame % stride == 0) & (rows.frame <= last))


def states_of(info: DatasetInfo, rows: Rows, mapping: EmbodimentMapping, begin: NDArray[np.int64]) -> Values:
    """(steps, state slots in use), as measured when a step begins."""
    parts = []
    for group in mapping.states:
        values = rows.columns[group.column][begin][:, group.indices(info, mapping.file)].astype(np.float64)
        parts.append(values * group.scale + group.offset)
    return np.concatenate(parts, axis=1)


def actions_of(
    info: DatasetInfo, rows: Rows, mapping: EmbodimentMapping, begin: NDArray[np.int64], stride: int
) -> Values:
    """(steps, action slots in use), what the frames of a step add up to."""
    parts = [_action(info, rows, mapping, group, begin, stride) for group in mapping.actions]
    return np.concatenate(parts, axis=1)


def _action(
    info: DatasetInfo,
    rows: Rows,
    mapping: EmbodimentMapping,
    group: Group,
    begin: NDArray[np.int64],
    stride: int,
) -> Values:
    values = rows.columns[group.column][:, group.indices(info, mapping.file)].astype(np.float64)
    last = values[begin + stride - 1]
    if group.kind == "hold":
        return last * group.scale + group.offset
    if group.kind == "position":
        first = rows.frame[begin] == 0
        earlier = values[np.maximum(begin - 1, 0)]
        start = values[begin]
        if group.before is not None:
            start = rows.columns[group.before[0]][begin][:, group.indices_before(info, mapping.file)].astype(np.float64)
        return (last - np.where(first[:, None], start, earlier)) * group.scale
    added = values[begin[:, None] + np.arange(stride)].sum(axis=1)
    per_frame = 1 / info.fps if group.kind == "rate" else 1.0
    return added * per_frame * group.scale
