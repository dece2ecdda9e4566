"""Stage 0: a VLM that starts from nothing learns to find the cube that the instruction names.

The paper's VLM comes pretrained and can point at things. Ours has random weights, and stage 2 alone does not teach it:
what the instruction means pays only once the image is understood, and the reverse, while the history explains most of
a motion without either. Pointing at the named cube gives both a direct signal. The head that reads the answer is thrown
away; only the backbone goes on.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn

from export.families.action_prior.backbone import Backbone
from export.families.action_prior.checkpoint import Checkpoint
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.policy import Losses
from export.families.action_prior.qwen import PreciseLinear
from export.training.data import DatasetError
from export.training.instructions import InstructionTokens
from export.training.loop import Batch, Task, run
from export.training.numerics import device_of
from export.training.processes import ALONE, Processes
from export.training.schedule import Schedule, Settings
from export.training.source import Rows, sha256_of, uniform
from firmware_bridge.reading import told

SCENES_FORMAT = 1


@dataclass(frozen=True)
class Scenes:
    """Rendered scenes: frames uint8 (n, h, w, 3), places `xy_m` (n, targets, 2).

    Instruction i names target i % targets.
    """

    instructions: tuple[str, ...]
    frames: NDArray[np.uint8]
    xy_m: NDArray[np.float32]


def read_scenes(folder: Path) -> Scenes:
    """Reads `scenes.json` and `scenes.npz`. Raises `DatasetError`."""
    try:
        description = json.loads((folder / "scenes.json").read_text())
        with np.load(folder / "scenes.npz", allow_pickle=False) as archive:
            frames, xy_m = archive["frames"], archive["xy_m"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{folder}: cannot be read as rendered scenes: {told(error)}") from None
    if description.get("format") != SCENES_FORMAT:
        raise DatasetError(
            f"{folder}/scenes.json: format {description.get('format')!r}; this version reads {SCENES_FORMAT}"
        )
    return Scenes(tuple(description["instructions"]), frames, xy_m)


class Pointer(nn.Module):
    """The backbone with a linear head that says where the named target and all targets are, in spreads from the mean.

    All of them besides the named one, so that seeing them pays before the words are understood.
    """

    def __init__(self, config: PolicyConfig, targets: int) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.place = PreciseLinear(config.text.hidden, 2 * (1 + targets))

    def forward(self, frames: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Places, (batch, 1 + targets, 2), the named one first. The history token is the learned one for none."""
        batch, config = len(frames), self.backbone.config
        history = torch.zeros(batch, config.latent, device=frames.device)
        absent = torch.zeros(batch, dtype=torch.bool, device=frames.device)
        first = torch.zeros(batch, dtype=torch.int64, device=frames.device)
        output = self.backbone.outputs(self.backbone.see(frames), tokens, mask, history, absent, first)
        places: torch.Tensor = self.place(output[:, -1])
        return places.unflatten(-1, (-1, 2))


def train_pointing(
    config: PolicyConfig,
    tokenizer: Tokenizer,
    scenes: Scenes,
    schedule: Schedule,
    settings: Settings,
    folder: Path,
    processes: Processes = ALONE,
) -> Checkpoint:
    """Trains a backbone from random weights; the checkpoint holds nothing else."""
    torch.manual_seed(settings.seed)
    device = device_of(settings, processes)
    text = InstructionTokens(tokenizer, scenes.instructions, config.token_budget)
    mean, spread = scenes.xy_m.mean(axis=(0, 1)), scenes.xy_m.std(axis=(0, 1))
    targets, width = scenes.xy_m.shape[1], text.longest
    pointer = Pointer(config, targets).to(device)
    spread_m = torch.from_numpy(spread).to(device)

    def batch_at(step: int, rows: Rows) -> Batch:
        instruction = np.random.default_rng([settings.seed, step, 1]).integers(len(scenes.instructions), size=len(rows))
        named = scenes.xy_m[rows, instruction % targets]
        wanted = torch.from_numpy((np.concatenate([named[:, None], scenes.xy_m[rows]], axis=1) - mean) / spread)

        def losses(part: slice) -> Losses:
            frames = torch.from_numpy(scenes.frames[rows[part]][:, None]).to(device)
            tokens, mask = (one[:, :width] for one in text.of(instruction[part]))
            away = pointer(frames, tokens.to(device), mask.to(device)) - wanted[part].to(device)
            error = away.square().mean(dim=2).sum(dim=0) / len(rows)
            apart_m = (away.detach() * spread_m).norm(dim=-1).sum(dim=0) / len(rows)
            return {"loss": error[0] + error[1:].mean(), "named_m": apart_m[0], "all_m": apart_m[1:].mean()}

        return losses

    about = {
        "config": config.to_plain(),
        "tokenizer": tokenizer.to_str(),
        "data: places": sha256_of(scenes.xy_m),
        "data: frames": sha256_of(scenes.frames),
        "data: instructions": sha256_of(scenes.instructions),
    }
    sampler = uniform(np.arange(len(scenes.frames)), schedule.batch, settings.seed)
    run(Task("pointing", pointer, sampler, batch_at, about), schedule, settings, folder, processes)
    weights = {f"backbone.{name}": value for name, value in pointer.backbone.state_dict().items()}
    return Checkpoint(config, weights, (), tokenizer.to_str())
