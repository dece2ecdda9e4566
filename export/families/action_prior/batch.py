"""What a batch of training consists of, and what chance decides for it.

Everything here has one row per window. A batch is drawn whole and may then be computed in parts, one after another or
by several processes: each part sees the noise it would have seen in the whole, and divides by the whole's totals, so
the parts' losses and gradients add up to those of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch

from export.families.action_prior.config import PolicyConfig, PrefixPerturbation

Rows = TypeVar("Rows", "Window", "Draw")


def rows_of(batch: Rows, part: slice) -> Rows:
    """These rows of every tensor."""
    return type(batch)(**{field.name: getattr(batch, field.name)[part] for field in fields(batch)})


@dataclass(frozen=True)
class Window:
    """A batch of training windows around one step; floats are normalised.

    states (batch, horizon, state_slots), actions (batch, horizon, action_slots): what follows the step
    valid (batch, horizon): False past the end of an episode or instruction
    slots (batch, action_slots): the action slots this embodiment uses
    past_states, past_actions, past_mask: the history pairs before the step, (batch, history, ...)
    embodiment (batch,) int64
    given (batch,) int64: how many of the first actions nobody demonstrated; they are always committed
    """

    states: torch.Tensor
    actions: torch.Tensor
    valid: torch.Tensor
    slots: torch.Tensor
    past_states: torch.Tensor
    past_actions: torch.Tensor
    past_mask: torch.Tensor
    embodiment: torch.Tensor
    given: torch.Tensor


@dataclass(frozen=True)
class Draw:
    """What chance decides for a batch.

    noise        float (batch, horizon, action_slots)
    time         float (batch,), r of the actions that are not committed
    delay        int64 (batch,), how many actions are committed (training-time real-time chunking)
    with_history bool (batch,), whether the history token is there
    one_step     bool (batch,), which half of a batch learns the one step, in step distillation
    prefix_gain  float (batch,), what the committed prefix is multiplied by before the decoder sees it
    prefix_offset float (batch, horizon, action_slots), what is added to it then
    """

    noise: torch.Tensor
    time: torch.Tensor
    delay: torch.Tensor
    with_history: torch.Tensor
    one_step: torch.Tensor
    prefix_gain: torch.Tensor
    prefix_offset: torch.Tensor


@dataclass(frozen=True)
class Totals:
    """What means over the whole batch divide by: its windows, and the entries of its actions that count."""

    windows: int
    actions: torch.Tensor


@dataclass(frozen=True)
class NoisedChunk:
    """Where the decoder is asked for a velocity, and what the answer is compared with.

    x (batch, horizon, slots), r (batch, horizon), velocity (batch, horizon, slots); `counts` (batch, horizon, slots)
    is True where an error counts; `prefix` (batch, horizon, slots) is what the decoder is told of committed actions,
    and stands in x where `committed`
    """

    x: torch.Tensor
    r: torch.Tensor
    noise: torch.Tensor
    velocity: torch.Tensor
    committed: torch.Tensor
    prefix: torch.Tensor
    counts: torch.Tensor


def draw_batch(config: PolicyConfig, batch: int, seed: tuple[int, ...], device: torch.device) -> Draw:
    """Draws for a whole batch. The same seed draws the same on every device, in any number of parts."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((batch, config.horizon, config.action_slots), dtype=np.float32)
    time = rng.beta(*config.flow_time_beta, batch).astype(np.float32)
    delay = rng.integers(0, config.max_delay + 1, batch)
    without = batch if config.history_compressor == "none" else round(config.without_history * batch)
    place = np.arange(batch)  # rows are drawn at random, so the first ones are as good as any
    gain, offset = perturbed_prefixes(
        config.prefix_perturbation,
        *(torch.from_numpy(rng.random(batch, dtype=np.float32)) for _ in range(3)),
        *(torch.from_numpy(rng.standard_normal(noise[:, :n].shape, dtype=np.float32)) for n in (1, config.horizon)),
    )
    return Draw(
        noise=torch.from_numpy(noise).to(device),
        time=torch.from_numpy(time).to(device),
        delay=torch.from_numpy(delay).to(device),
        with_history=torch.from_numpy(place >= without).to(device),
        one_step=torch.from_numpy(place % 2 == 0).to(device),  # every other one, with history and without
        prefix_gain=gain.to(device),
        prefix_offset=offset.to(device),
    )


def perturbed_prefixes(
    how: PrefixPerturbation,
    chosen: torch.Tensor,
    gain: torch.Tensor,
    size: torch.Tensor,
    offset: torch.Tensor,
    noise: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Draw.prefix_gain` and `Draw.prefix_offset` from dice.

    chosen, gain, size (batch,) are even in [0, 1); offset (batch, 1, slots) and noise (batch, horizon, slots) normal.
    """
    perturbed, (low, high) = chosen < how.share, how.gain
    scale = (perturbed * how.offset * size)[:, None, None]
    return torch.where(perturbed, low + (high - low) * gain, 1.0), scale * (offset + how.step_noise * noise)


def noised_chunk(config: PolicyConfig, window: Window, draw: Draw) -> NoisedChunk:
    """`x_r = r a + (1 - r) noise`, target `a - noise`; committed actions are free of noise, perturbed as the draw says,
    carry r = 1 and do not count."""
    actions, horizon = window.actions, window.actions.shape[1]
    committed = _committed(window, draw)
    slots = torch.ones_like(window.slots) if config.loss_on_unused_slots else window.slots
    noise = draw.noise * slots[:, None]
    r = torch.where(committed, 1.0, draw.time[:, None].expand(-1, horizon))
    prefix = draw.prefix_gain[:, None, None] * actions + draw.prefix_offset * slots[:, None]
    return NoisedChunk(
        x=torch.where(committed[..., None], prefix, r[..., None] * actions + (1 - r[..., None]) * noise),
        r=r,
        noise=noise,
        velocity=actions - noise,
        committed=committed,
        prefix=prefix,
        counts=(window.valid & ~committed)[..., None] & slots[:, None],
    )


def totals(config: PolicyConfig, window: Window, draw: Draw) -> Totals:
    """The totals of a whole batch."""
    slots = torch.ones_like(window.slots) if config.loss_on_unused_slots else window.slots
    counting = (window.valid & ~_committed(window, draw)).sum(dim=1) * slots.sum(dim=1)
    return Totals(len(window.valid), counting.sum().clamp(min=1))


def _committed(window: Window, draw: Draw) -> torch.Tensor:
    horizon = window.actions.shape[1]
    count = torch.maximum(draw.delay, window.given)
    return (torch.arange(horizon, device=window.actions.device) < count[:, None]) & window.valid
