"""Stage 1: encoder and decoder from trajectories alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from export.policy.checkpoint import Checkpoint
from export.policy.config import PolicyConfig
from export.policy.policy import ActionPrior
from export.training.data import Demonstrations, fit_embodiments
from export.training.loop import Losses, Schedule, run
from export.training.mixture import Mixture


def train_prior(
    config: PolicyConfig,
    datasets: Sequence[Demonstrations],
    schedule: Schedule,
    seed: int,
    folder: Path,
    weights: Sequence[float] | None = None,
) -> Checkpoint:
    """Trains a prior from random weights; the statistics fitted here stay with the policy through stage 2.

    `weights` say how often each dataset is drawn; without them every window is as likely as any other.
    """
    torch.manual_seed(seed)
    embodiments = fit_embodiments(datasets, config.normalisation_quantile)
    windows = Mixture(datasets, embodiments, config)
    prior = ActionPrior(config)
    device = torch.device("cpu")

    def losses_at(step: int, rows: np.ndarray) -> Losses:
        window = windows.window(rows, device)
        return prior.losses(window, prior.encode_future(window))

    everything = np.arange(len(windows))
    run(prior, losses_at, everything, schedule, seed, folder, "prior", draw=partial(windows.draw, weights=weights))
    return Checkpoint(config, prior.state_dict(), embodiments, tokenizer=None)
