"""The steps from noise to a sample, as numbers: what a scheduler computes of its betas.

DDPM: Ho et al., 2020 (arXiv 2006.11239), equation 7. DDIM: Song et al., 2020 (arXiv 2010.02502), equation 12, without
noise in between. Facts of diffusers' schedulers: betas and their products in FP32, steps spaced from 0 ("leading"), the
variance of DDPM "fixed_small" and at least 1e-20, no noise in the last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from export.families.diffusion.config import DiffusionConfig

LARGEST_BETA, SMALLEST_VARIANCE = 0.999, 1e-20


@dataclass(frozen=True)
class Step:
    """One step at time `time`: with the network's answer y at state x, noise n and c a clamp,

        sample = sample_of_state x + sample_of_answer y
        other  = other_of_state x + other_of_answer y
        next   = of_sample c(sample) + of_state x + of_other other + of_noise n

    `other` is the noise that DDIM goes on with; DDPM's `of_other` is 0.
    """

    time: int
    sample_of_state: float
    sample_of_answer: float
    other_of_state: float
    other_of_answer: float
    of_sample: float
    of_state: float
    of_other: float
    of_noise: float

    def numbers(self) -> list[float]:
        return list(self.__dict__.values())[1:]


def schedule(config: DiffusionConfig) -> list[Step]:
    """The steps in the order in which they run."""
    products = torch.cumprod(1.0 - _betas(config), dim=0).tolist()
    jump = config.num_train_timesteps // config.steps
    return [_step(config, products, time, time - jump) for time in range((config.steps - 1) * jump, -1, -jump)]


def _step(config: DiffusionConfig, products: list[float], time: int, before: int) -> Step:
    kept, kept_before = products[time], products[before] if before >= 0 else 1.0
    lost, lost_before = 1.0 - kept, 1.0 - kept_before
    if config.prediction_type == "epsilon":
        sample = (1 / math.sqrt(kept), -math.sqrt(lost / kept))
        other = (0.0, 1.0)
    else:
        sample = (0.0, 1.0)
        other = (1 / math.sqrt(lost), -math.sqrt(kept / lost))
    if config.noise_scheduler_type == "DDIM":
        last = (math.sqrt(kept_before), 0.0, math.sqrt(lost_before), 0.0)
    else:
        ratio = kept / kept_before
        variance = max(lost_before / lost * (1 - ratio), SMALLEST_VARIANCE)
        last = (
            math.sqrt(kept_before) * (1 - ratio) / lost,
            math.sqrt(ratio) * lost_before / lost,
            0.0,
            math.sqrt(variance) if time > 0 else 0.0,
        )
    return Step(time, *sample, *other, *last)


def _betas(config: DiffusionConfig) -> torch.Tensor:
    count, first, last = config.num_train_timesteps, config.beta_start, config.beta_end
    if config.beta_schedule == "linear":
        return torch.linspace(first, last, count, dtype=torch.float32)
    if config.beta_schedule == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, count, dtype=torch.float32) ** 2

    def kept(part: float) -> float:
        return math.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - kept((index + 1) / count) / kept(index / count), LARGEST_BETA) for index in range(count)]
    return torch.tensor(betas, dtype=torch.float32)
