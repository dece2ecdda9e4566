"""Stage 1: encoder and decoder from trajectories alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.policy.checkpoint import Checkpoint
from export.policy.config import PolicyConfig
from export.policy.policy import ActionPrior
from export.training.data import Demonstrations, Windows, fit_embodiment
from export.training.loop import Losses, Schedule, run


def train_prior(config: PolicyConfig, data: Demonstrations, schedule: Schedule, seed: int, folder: Path) -> Checkpoint:
    """Trains a prior from random weights; the statistics fitted here stay with the policy through stage 2."""
    torch.manual_seed(seed)
    embodiment = fit_embodiment(data, index=0, quantile=config.normalisation_quantile)
    windows = Windows(data, embodiment, config)
    prior = ActionPrior(config)
    device = torch.device("cpu")

    def losses_at(step: int, rows: np.ndarray) -> Losses:
        window = windows.window(rows, device)
        return prior.losses(window, prior.encode_future(window))

    run(prior, losses_at, np.arange(len(windows)), schedule, seed, folder, "prior")
    return Checkpoint(config, prior.state_dict(), (embodiment,), tokenizer=None)
