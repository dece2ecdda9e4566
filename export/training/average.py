"""A running average of the weights in training: smoother than the last step, and better to deploy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """`average = d average + (1 - d) weights` after every step, with d = min(decay, (1 + k) / (10 + k)) at step k.

    The decay grows, so that the random weights of the start are forgotten (the schedule of TensorFlow's
    ExponentialMovingAverage). Only parameters that are trained have an average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        named = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
        self._names = [name for name, _ in named]
        self._weights: list[torch.Tensor] = [weight for _, weight in named]
        self._averages = [weight.detach().clone() for weight in self._weights]

    def update(self, step: int) -> None:
        """Takes in the weights after `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._weights, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module computes with the averages inside, and with its own weights again after."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchanges weights and averages; no number changes."""
        for index, weight in enumerate(self._weights):
            weight.data, self._averages[index] = self._averages[index], weight.data

    def state(self) -> dict[str, torch.Tensor]:
        return dict(zip(self._names, self._averages))

    def load(self, state: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, average in zip(self._names, self._averages):
                average.copy_(state[name])
