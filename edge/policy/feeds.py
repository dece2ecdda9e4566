"""What fills the inputs of a policy's engines before each chunk: one function per kind of feed.

Buffers are the engines' own arrays, seen without their leading ones; each fill writes all of its buffer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.bundle import ArmSpec, Feed, Manifest
from edge.policy.axes import Axes
from edge.policy.base import PolicyInput
from edge.policy.prompt import Prompter

Buffer: TypeAlias = NDArray[Any]
Fill: TypeAlias = Callable[[PolicyInput, np.random.Generator], None]


@dataclass
class Surroundings:
    """What feeds are made with: the bundle's manifest, the arm's part of it, its axes, the task's prompts.

    `prompter` may be another one for the next chunk.
    """

    manifest: Manifest
    arm: ArmSpec
    axes: Axes
    prompter: Prompter | None


def filler(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill | None:
    """What fills a buffer for every chunk; None where it has been filled once and for all."""
    return MAKERS[feed.kind](feed, buffer, around)


def _frame(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    number = [camera.name for camera in around.manifest.cameras].index(feed.camera)
    into = buffer.reshape(buffer.shape[-4 if around.manifest.policy.observations > 1 else -3 :])

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        into[:] = observed.frames[number]

    return fill


def _frames(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(buffer.shape[-4:])

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        for one, frame in zip(into, observed.frames, strict=True):
            one[:] = frame

    return fill


def _state(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(around.manifest.policy.observations, buffer.shape[-1])

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        around.axes.write_states(into, observed.measured_rad)

    return fill


def _commanded(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(-1)

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        around.axes.write_states(into, observed.commanded_rad[0])

    return fill


def _state_history(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(buffer.shape[-2:])

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        around.axes.write_states(into, observed.states_rad, observed.mask)

    return fill


def _action_history(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(buffer.shape[-2:])

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        around.axes.write_increments(into, observed.actions_rad, observed.mask)

    return fill


def _history_mask(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(-1)

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        into[:] = observed.mask

    return fill


def _has_history(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        buffer[...] = observed.mask.any()

    return fill


def _text(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into, is_mask = buffer.reshape(-1), feed.kind == "token_mask"
    state = np.zeros((1, _state_columns(around)))

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        prompter = around.prompter
        assert prompter is not None, "the manifest has text where it has tokens"
        if not prompter.fixed:
            around.axes.write_states(state, observed.measured_rad[-1:])
        prompt = prompter.prompt(state[0])
        into[:] = prompt.mask if is_mask else prompt.tokens

    return fill


def _state_columns(around: Surroundings) -> int:
    text = around.manifest.text
    bins = text.state_bins if text is not None else None
    return len(bins.offset) if bins is not None else 1 + max(around.axes.states.columns)


def _normal(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    columns = list(around.axes.actions.columns)
    shape = (*buffer.shape[:-1], len(columns)) if feed.axes_only else buffer.shape

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        noise = feed.scale * draw.standard_normal(shape, dtype=np.float32)
        if feed.axes_only:
            buffer[:] = 0
            buffer[..., columns] = noise
        else:
            buffer[:] = noise

    return fill


def _committed_goals(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(buffer.shape[-2:])
    rows = _planned if around.manifest.policy.prefix == "guided" else _committed

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        around.axes.write_goals(into, observed, rows(observed, len(into)))

    return fill


def _committed_mask(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(-1)

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        into[:] = np.arange(len(into)) < len(observed.prefix_rad)

    return fill


def _prefix_weights(feed: Feed, buffer: Buffer, around: Surroundings) -> Fill:
    into = buffer.reshape(-1)

    def fill(observed: PolicyInput, draw: np.random.Generator) -> None:
        rows = len(into)
        into[:] = prefix_weights(rows, _committed(observed, rows), _planned(observed, rows), feed.decay)

    return fill


def prefix_weights(rows: int, committed: int, planned: int, decay: str) -> NDArray[np.float64]:
    """How much each of `rows` steps of a chunk is held to the plan in force: 1 for the `committed` ones, then falling
    to 0 at the end of the `planned` ones, linearly or as `w (e^w - 1) / (e - 1)` of that."""
    at = np.arange(rows)
    weights = np.clip((planned - at) / (planned - committed + 1), 0.0, 1.0)
    weights[:committed] = 1.0
    return weights * np.expm1(weights) / np.expm1(1.0) if decay == "exponential" else weights


def _committed(observed: PolicyInput, most: int) -> int:
    return min(len(observed.prefix_rad), most)


def _planned(observed: PolicyInput, most: int) -> int:
    return min(max(len(observed.commanded_rad) - 1, len(observed.prefix_rad)), most)


def _constant(feed: Feed, buffer: Buffer, around: Surroundings) -> None:
    buffer[...] = np.array(around.arm.constants[feed.name]).reshape(buffer.shape)


MAKERS: dict[str, Callable[[Feed, Buffer, Surroundings], Fill | None]] = {
    "frame": _frame,
    "frames": _frames,
    "state": _state,
    "commanded": _commanded,
    "state_history": _state_history,
    "action_history": _action_history,
    "history_mask": _history_mask,
    "has_history": _has_history,
    "tokens": _text,
    "token_mask": _text,
    "normal": _normal,
    "committed_goals": _committed_goals,
    "committed_mask": _committed_mask,
    "prefix_weights": _prefix_weights,
    "constant": _constant,
}
