"""The flow from noise to actions in Euler steps, with real-time chunking's guidance.

Guidance (Black et al., Real-Time Execution of Action Chunking Flow Policies, 2025) pulls a chunk towards the goals that
are committed. LeRobot takes its gradient of an expression in which the network's velocity is a constant, so that the
gradient is one and the guidance is arithmetic.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from export.families.vla.source import Source

MAX_GUIDANCE = 10.0
"""LeRobot's, where a folder says nothing else."""


def flow_times(steps: int) -> list[float]:
    """From 1, noise, down to one step before 0, actions."""
    return [1.0 + step * (-1.0 / steps) for step in range(steps)]


def time_embedding(time: float, width: int, periods: tuple[float, float]) -> torch.Tensor:
    """Sine and cosine of a flow time at periods in geometric order, FP32 (1, width)."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64)
    period = periods[0] * (periods[1] / periods[0]) ** fraction
    angle = torch.tensor(time, dtype=torch.float32) * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()])[None].float()


def guidance(time: float, most: float) -> float:
    """How strongly the chunk is pulled at a flow time."""
    done = 1.0 - time
    if done <= 0.0:
        return most
    return min(most, (1 - done) / done * ((1 - done) ** 2 + done**2) / (1 - done) ** 2)


class FlowStep(nn.Module):
    """The first Euler step of a flow; `unroll` makes the others of it.

    A subclass has `begin`, `prepare`, `velocity` and `step`, and a table of constants for every step.
    """

    def __init__(self, tables: list[torch.Tensor], normalise: nn.Module, restore: nn.Module) -> None:
        """tables  of each step (rows, width)

        normalise, restore  of actions in the robot's units, to the flow's and back
        """
        super().__init__()
        self.steps = len(tables)
        self.normalise, self.restore = normalise, restore
        self.noisy = nn.Buffer(torch.stack(tables))

    def begin(self, noise: torch.Tensor, goals: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The state before the first step, (1, rows, width)."""
        return noise[None]

    def prepare(self, *linked: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What depends neither on the state nor on the time."""
        raise NotImplementedError

    def velocity(self, x: torch.Tensor, prepared: tuple[torch.Tensor, ...], row: torch.Tensor) -> torch.Tensor:
        """The field at x (1, rows, width); row (rows, width) of a step."""
        raise NotImplementedError

    def step(
        self,
        x: torch.Tensor,
        goals: torch.Tensor,
        weights: torch.Tensor,
        prepared: tuple[torch.Tensor, ...],
        row: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The state after a step, and the velocity."""
        raise NotImplementedError

    def forward(
        self, noise: torch.Tensor, prefix: torch.Tensor, prefix_weights: torch.Tensor, *linked: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """The state after the step, its velocity, the state before, and the chunk that the state after stands for.

        noise (rows, width); prefix (horizon, axes) in the robot's units; prefix_weights (horizon,); last the row
        """
        goals, weights = self.held(noise, prefix, prefix_weights)
        x = self.begin(noise, goals, weights)
        after, velocity = self.step(x, goals, weights, self.prepare(*linked[:-1]), linked[-1])
        return after, velocity, x, self.finish(after, prefix)

    def held(
        self, noise: torch.Tensor, prefix: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Committed goals and their weights as the flow sees them: what the robot does not have is zero."""
        behind, more = (size - known for size, known in zip(noise.shape, prefix.shape))
        pad = nn.functional.pad
        return pad(self.normalise(prefix), (0, more, 0, behind))[None], pad(weights, (0, behind)) if behind else weights

    def finish(self, x: torch.Tensor, prefix: torch.Tensor) -> torch.Tensor:
        """Actions (horizon, axes) in the robot's units."""
        return self.restore(x[0, : prefix.shape[0], : prefix.shape[1]])


class GuidedStep(FlowStep):
    """A step of a flow from time 1 down to 0, pulled towards committed goals."""

    def __init__(
        self, tables: list[torch.Tensor], most_guidance: float, normalise: nn.Module, restore: nn.Module
    ) -> None:
        """tables  of each flow time (rows, width), at least two wide"""
        rows = []
        for time, table in zip(flow_times(len(tables)), tables):
            last = torch.zeros_like(table[:1])
            last[0, 0], last[0, 1] = time, guidance(time, most_guidance)
            rows.append(torch.cat([table, last]))
        super().__init__(rows, normalise, restore)

    def step(
        self,
        x: torch.Tensor,
        goals: torch.Tensor,
        weights: torch.Tensor,
        prepared: tuple[torch.Tensor, ...],
        row: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        table, time, strength = row[:-1], row[-1, 0], row[-1, 1]
        velocity = self.velocity(x, prepared, table)
        pulled = velocity - strength * (goals - (x - time * velocity)) * weights[None, :, None]
        return x - pulled * (1.0 / self.steps), velocity


class UnrolledFlow(nn.Module):
    """All steps, as the unrolled graph computes them."""

    def __init__(self, step: FlowStep) -> None:
        super().__init__()
        self.first = step

    def forward(
        self, noise: torch.Tensor, prefix: torch.Tensor, prefix_weights: torch.Tensor, *linked: torch.Tensor
    ) -> torch.Tensor:
        first = self.first
        goals, weights = first.held(noise, prefix, prefix_weights)
        x, prepared = first.begin(noise, goals, weights), first.prepare(*linked)
        for row in first.noisy:
            x, _ = first.step(x, goals, weights, prepared, row)
        return first.finish(x, prefix)


def time_rows(
    source: Source, first: str, action_in: str, times: list[torch.Tensor]
) -> tuple[nn.Linear, list[torch.Tensor]]:
    """An MLP of an action's embedding beside that of the time, as one layer of the action and a constant for each time.

    The action's own embedding is linear as well, and becomes part of that layer.
    """
    embed, mixing = source.linear(action_in), source.linear(first)
    of_action, of_time = mixing.weight.double().chunk(2, dim=1)
    joined = nn.Linear(embed.in_features, mixing.out_features, bias=False, device="meta")
    joined.weight = nn.Parameter((of_action @ embed.weight.double()).float(), requires_grad=False)
    offset = of_action @ embed.bias.double() + mixing.bias.double()
    return joined, [(time.double() @ of_time.T + offset).float() for time in times]
