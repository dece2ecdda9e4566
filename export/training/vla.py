"""Stage 2: the VLM learns to speak the prior's latent; the decoder is reused, the encoder becomes the history token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from export.policy.checkpoint import Checkpoint, CheckpointError
from export.policy.policy import VlaPolicy
from export.training.data import Demonstrations, Windows
from export.training.instructions import InstructionTokens
from export.training.loop import Losses, Pretrained, Schedule, run


def train_vla(
    prior: Checkpoint,
    vlm: Checkpoint | None,
    tokenizer: Tokenizer,
    data: Demonstrations,
    schedule: Schedule,
    distillation_steps: int,
    seed: int,
    folder: Path,
) -> Checkpoint:
    """Trains the whole policy from a stage-1 checkpoint, and from a VLM of stage 0 if there is one.

    Whatever an earlier stage has trained learns at a lower rate, and the eyes of a VLM of stage 0 stay as they are.
    lambda(k) falls from 1 to 0 over `distillation_steps`.
    """
    torch.manual_seed(seed)
    embodiment = next((arm for arm in prior.embodiments if arm.name == data.embodiment), None)
    if embodiment is None:
        known = ", ".join(arm.name for arm in prior.embodiments)
        raise CheckpointError(f"the prior was trained for {known}, the data is of {data.embodiment}")
    config = prior.config
    if vlm is not None and (vlm.config != config or vlm.tokenizer != tokenizer.to_str()):
        raise CheckpointError("the VLM was trained with another configuration or other instructions than this run's")
    windows = Windows(data, embodiment, config)
    text = InstructionTokens(tokenizer, data.instructions, config.token_budget)
    policy = VlaPolicy(config)
    policy.load_state_dict(prior.state_dict, strict=False)
    trained = [policy.encoder, policy.decoder]
    if vlm is not None:
        policy.backbone.load_state_dict(
            {name.removeprefix("backbone."): value for name, value in vlm.state_dict.items()}
        )
        policy.backbone.vlm.visual.requires_grad_(False)
        trained.append(policy.backbone.vlm.language_model)
    pretrained = Pretrained(tuple(parameter for part in trained for parameter in part.parameters()))
    device = torch.device("cpu")

    def losses_at(step: int, rows: np.ndarray) -> Losses:
        distillation = max(0.0, 1.0 - step / distillation_steps) if distillation_steps else 0.0
        return policy.vla_losses(windows.window(rows, device), windows.observation(rows, text, device), distillation)

    run(policy, losses_at, np.arange(len(windows)), schedule, seed, folder, "vla", pretrained)
    return Checkpoint(config, policy.state_dict(), prior.embodiments, tokenizer.to_str())
