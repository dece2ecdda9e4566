"""The fixed order of the backbone's tokens, and their three-dimensional rotary positions.

Soft prompt, then every image between vision-start and vision-end, then the instruction padded to its budget, the
history token and the query token. Because the order never changes, positions are constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from export.families.action_prior.config import PolicyConfig


@dataclass(frozen=True)
class PromptLayout:
    """Where each part of the prompt stands; all indices count tokens from 0."""

    length: int
    images: tuple[slice, ...]
    instruction: slice
    history: int
    query: int
    positions: torch.Tensor
    """Temporal, height and width position of every token, int64, shape (3, length), as Qwen3-VL numbers them."""

    def with_budget(self, tokens: int) -> PromptLayout:
        """The layout without the last columns of the instruction; what follows it keeps its positions."""
        full = self.instruction.stop - self.instruction.start
        if tokens == full:
            return self
        if tokens > full:
            raise ValueError(f"{tokens} columns of instruction, and the layout has {full}")
        end, left_out = self.instruction.start + tokens, full - tokens
        return PromptLayout(
            length=self.length - left_out,
            images=self.images,
            instruction=slice(self.instruction.start, end),
            history=self.history - left_out,
            query=self.query - left_out,
            positions=torch.cat([self.positions[:, :end], self.positions[:, self.instruction.stop :]], dim=1),
        )


def prompt_layout(config: PolicyConfig) -> PromptLayout:
    """The layout for one configuration."""
    side = config.vision.patch_px * config.vision.merge
    rows, columns = config.image_px[0] // side, config.image_px[1] // side
    columns_of: list[torch.Tensor] = []
    images: list[slice] = []
    next_position, length = 0, 0

    def text(count: int) -> None:
        nonlocal next_position, length
        columns_of.append(torch.arange(next_position, next_position + count).expand(3, count))
        next_position, length = next_position + count, length + count

    text(config.soft_prompt_tokens)
    for _ in range(config.cameras):
        text(1)
        grid = torch.stack(
            [
                torch.zeros(rows * columns, dtype=torch.int64),
                torch.arange(rows).repeat_interleave(columns),
                torch.arange(columns).repeat(rows),
            ]
        )
        columns_of.append(grid + next_position)
        images.append(slice(length, length + rows * columns))
        next_position, length = next_position + max(rows, columns), length + rows * columns
        text(1)
    start = length
    text(config.token_budget)
    text(2)
    return PromptLayout(
        length=length,
        images=tuple(images),
        instruction=slice(start, start + config.token_budget),
        history=length - 2,
        query=length - 1,
        positions=torch.cat(columns_of, dim=1),
    )
