"""Stage 2: the VLM learns to speak the prior's latent; the decoder is reused, the encoder becomes the history token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from export.policy.backbone import Backbone, Seen
from export.policy.checkpoint import Checkpoint, CheckpointError
from export.policy.policy import VlaPolicy
from export.training.data import Demonstrations
from export.training.instructions import InstructionTokens
from export.training.loop import Losses, Pretrained, Schedule, run
from export.training.mixture import Mixture


class SeenFrames:
    """What a vision tower that is not trained makes of every frame of a dataset, computed once; in half precision."""

    def __init__(self, backbone: Backbone, windows: Mixture, batch: int = 64) -> None:
        config = backbone.config
        layers = 1 + len(config.vision.deepstack_layers)
        shape = (len(windows), layers, config.cameras, config.image_tokens, config.text.hidden)
        self._features = torch.empty(shape, dtype=torch.float16)
        backbone.eval()
        with torch.no_grad():
            for first in tqdm(range(0, len(windows), batch), desc="frames", unit="batch", mininterval=1.0):
                rows = np.arange(first, min(first + batch, len(windows)))
                seen = backbone.see(torch.from_numpy(windows.frames(rows)))
                self._features[first : first + batch] = torch.stack([seen.tokens, *seen.deepstack], dim=1)

    def of(self, rows: np.ndarray) -> Seen:
        """The features of these frames, in single precision."""
        tokens, *deepstack = self._features[torch.from_numpy(rows)].float().unbind(dim=1)
        return Seen(tokens, tuple(deepstack))


def train_vla(
    prior: Checkpoint,
    vlm: Checkpoint | None,
    tokenizer: Tokenizer,
    datasets: Sequence[Demonstrations],
    schedule: Schedule,
    distillation_steps: int,
    seed: int,
    folder: Path,
    freeze_prior: bool = False,
    without_history: float | None = None,
    whole_windows: bool = False,
    weights: Sequence[float] | None = None,
) -> Checkpoint:
    """Trains the whole policy from a stage-1 checkpoint, and from a VLM that can see already if there is one.

    Whatever has been trained before learns at a lower rate. The eyes of such a VLM stay as they are, and so do encoder
    and decoder if `freeze_prior` says so. `without_history` replaces the configuration's. lambda(k) falls from 1 to 0
    over `distillation_steps`. With `whole_windows`, chunks that a new instruction cuts short are left out: when it will
    come is in no observation, and z of such a chunk is no target that can be hit. The datasets share their
    instructions; `weights` say how often each is drawn.
    """
    torch.manual_seed(seed)
    config = prior.config
    if vlm is not None and (vlm.config != config or vlm.tokenizer != tokenizer.to_str()):
        raise CheckpointError("the VLM was trained with another configuration or other instructions than this run's")
    if without_history is not None:
        config = replace(config, without_history=without_history)
    windows = Mixture(datasets, prior.embodiments, config)
    text = InstructionTokens(tokenizer, datasets[0].instructions, config.token_budget)
    policy = VlaPolicy(config)
    policy.load_state_dict(prior.state_dict, strict=False)
    trained = [policy.encoder, policy.decoder]
    if freeze_prior:
        policy.requires_grad_(False).backbone.requires_grad_(True)
    seen = None
    if vlm is not None:
        backbone = {name: value for name, value in vlm.state_dict.items() if name.startswith("backbone.")}
        policy.backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in backbone.items()})
        policy.backbone.vlm.visual.requires_grad_(False)
        trained.append(policy.backbone.vlm.language_model)
        seen = SeenFrames(policy.backbone, windows)
    pretrained = Pretrained(tuple(parameter for part in trained for parameter in part.parameters()))
    device = torch.device("cpu")

    def losses_at(step: int, rows: np.ndarray) -> Losses:
        distillation = max(0.0, 1.0 - step / distillation_steps) if distillation_steps else 0.0
        observation = windows.observation(rows, text, device)
        if seen is not None:
            observation = replace(observation, frames=seen.of(rows))
        return policy.vla_losses(windows.window(rows, device), observation, distillation)

    candidates = windows.whole() if whole_windows else windows.demonstrated()
    draw = partial(windows.draw, weights=weights)
    run(policy, losses_at, candidates, schedule, seed, folder, "vla", pretrained, draw)
    return Checkpoint(config, policy.state_dict(), prior.embodiments, tokenizer.to_str())
