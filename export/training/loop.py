"""One training loop for both stages: warm-up cosine AdamW, a progress bar, metrics on disk, exact resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

Losses = dict[str, torch.Tensor]
Draw = Callable[[np.random.Generator, int, NDArray[np.int64]], NDArray[np.int64]]
"""(generator, count, candidates) -> that many of the candidates."""


def uniform(generator: np.random.Generator, count: int, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every candidate is as likely as any other."""
    return generator.choice(candidates, count)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `final_rate` is reached at the last step along a cosine."""

    steps: int
    batch: int
    warmup: int
    peak_rate: float
    final_rate: float
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    save_every: int = 500

    def rate(self, step: int) -> float:
        """Learning rate at `step`, counted from 0."""
        if step < self.warmup:
            return self.peak_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.final_rate + 0.5 * (self.peak_rate - self.final_rate) * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class Pretrained:
    """Parameters that already know something: they move at a fraction of the rate, and hardly at all at first.

    Behind a head that still is random, gradients say little; at the full rate they would undo what was learnt.
    """

    parameters: tuple[nn.Parameter, ...]
    rate_factor: float = 0.3
    warmup: int = 300

    def factor(self, step: int) -> float:
        """What the rate at `step` is multiplied by."""
        return self.rate_factor * min(1.0, (step + 1) / self.warmup)


def run(
    module: nn.Module,
    losses_at: Callable[[int, NDArray[np.int64]], Losses],
    candidates: NDArray[np.int64],
    schedule: Schedule,
    seed: int,
    folder: Path,
    name: str,
    pretrained: Pretrained | None = None,
    draw: Draw = uniform,
) -> None:
    """Trains `module` in place; `losses_at(step, rows)` returns the losses of a batch, "loss" among them.

    Every step draws from its own seed, so a run that was stopped and resumed equals one that was not.
    """
    slow = {id(parameter) for parameter in pretrained.parameters} if pretrained else set()
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if id(parameter) not in slow]},
        {"params": [parameter for parameter in trained if id(parameter) in slow]},
    ]
    optimiser = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=schedule.peak_rate,
        weight_decay=schedule.weight_decay,
        betas=(0.9, 0.95),
    )
    state_file, metrics_file = folder / f"{name}.training.pt", folder / f"{name}.metrics.jsonl"
    first = _resume(state_file, module, optimiser)
    if first == 0:
        metrics_file.unlink(missing_ok=True)
    average = 0.0
    module.train()
    with tqdm(
        range(first, schedule.steps), initial=first, total=schedule.steps, desc=name, unit="step", mininterval=1.0
    ) as bar:
        for step in bar:
            torch.manual_seed(seed * 1_000_003 + step)
            rows = draw(np.random.default_rng([seed, step]), schedule.batch, candidates)
            losses = losses_at(step, rows)
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            gradient = nn.utils.clip_grad_norm_(module.parameters(), schedule.gradient_clip)
            factors = (1.0, pretrained.factor(step) if pretrained else 1.0)
            for group, factor in zip(optimiser.param_groups, factors):
                group["lr"] = schedule.rate(step) * factor
            optimiser.step()
            values = {key: float(value.detach()) for key, value in losses.items()}
            average = values["loss"] if step == first else 0.98 * average + 0.02 * values["loss"]
            bar.set_postfix(loss=f"{average:.4f}", refresh=False)
            if step % 20 == 0:
                record = {"step": step, "gradient_norm": float(gradient), "rate": schedule.rate(step), **values}
                with metrics_file.open("a") as metrics:
                    metrics.write(json.dumps(record) + "\n")
            if (step + 1) % schedule.save_every == 0 or step + 1 == schedule.steps:
                _save(state_file, module, optimiser, step + 1)
    module.eval()


def _save(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_name(path.name + ".partial")
    torch.save({"step": step, "module": module.state_dict(), "optimiser": optimiser.state_dict()}, partial)
    partial.replace(path)


def _resume(path: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])
