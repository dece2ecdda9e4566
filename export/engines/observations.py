"""What engines are calibrated and verified on: observations as the runtime would hand them over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from export.families.action_prior.checkpoint import Checkpoint, CheckpointError
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.training.data import DatasetError, Windows, read_demonstrations
from export.training.instructions import InstructionTokens

Sample = dict[str, torch.Tensor]
"""Inputs of all three engines by name, but for the latents."""


def draw_samples(config: PolicyConfig, count: int, seed: int, arms: Sequence[Embodiment] = ()) -> list[Sample]:
    """Whole observations out of thin air: frames from flat to noisy, instructions and histories of every length,
    prefixes up to the longest delay.

    Each is of one of `arms`, with its soft prompt, its slots and as much noise as a run has. Elsewhere a trained
    decoder may answer with numbers so large, or follow so unstable a flow, that FP32's own rounding is beyond the gate.
    Without arms, for random weights, the slots are drawn as well, and the noise is whole.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def randint(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape or (1,), generator=generator)

    samples = []
    for index in range(count):
        height, width = config.frame_px
        coarse = randn(config.cameras, 3, 4, 4) * (60.0 * (index % 4))
        smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
        frames = (127.5 + smooth + 20 * randn(config.cameras, 3, height, width)).clamp(0, 255).byte()
        used, seen, number = _slots(config, arms, generator)
        samples.append(
            {
                "states": randn(1, config.history, config.state_slots) * seen,
                "actions": randn(1, config.history, config.action_slots) * used,
                "mask": torch.arange(config.history)[None] >= randint(0, config.history + 1),
                "embodiment": number,
                "frames": frames.permute(0, 2, 3, 1)[None].contiguous(),
                "tokens": randint(0, config.vocabulary, 1, config.token_budget),
                "token_mask": torch.arange(config.token_budget)[None] < randint(1, config.token_budget + 1),
                "noise": (config.noise_scale if arms else 1.0) * randn(1, config.horizon, config.action_slots),
                "prefix": randn(1, config.horizon, config.action_slots) * used,
                "committed": torch.arange(config.horizon)[None] < randint(0, config.max_delay + 1),
                "used": used,
            }
        )
    return samples


def _slots(
    config: PolicyConfig, arms: Sequence[Embodiment], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Action and state slots in use, float (1, slots), and the embodiment's number, int64 (1,)."""
    if not arms:
        used = (torch.rand(1, config.action_slots, generator=generator) < 0.5).float()
        number = torch.randint(0, config.embodiments, (1,), generator=generator)
        return used, torch.ones(1, config.state_slots), number
    arm = arms[int(torch.randint(0, len(arms), (1,), generator=generator))]
    used, seen = torch.zeros(1, config.action_slots), torch.zeros(1, config.state_slots)
    used[:, list(arm.actions.slots)] = 1.0
    seen[:, list(arm.states.slots)] = 1.0
    return used, seen, torch.tensor([arm.index])


@dataclass(frozen=True)
class Recorded:
    """Observations from recorded demonstrations: what to calibrate on, and others, from other episodes, to judge by."""

    calibration: list[Sample]
    verification: list[Sample]


def recorded_samples(checkpoint: Checkpoint, folder: Path, calibrate: int, verify: int, seed: int) -> Recorded:
    """So many observations of each kind, with prefixes of every delay. Raises `CheckpointError`."""
    config = checkpoint.config
    try:
        data = read_demonstrations(folder, config=config, cameras=checkpoint.cameras)
        text = InstructionTokens(Tokenizer.from_str(checkpoint.tokenizer or ""), data.instructions, config.token_budget)
    except (DatasetError, ValueError) as error:
        raise CheckpointError(str(error)) from None
    arm = next((arm for arm in checkpoint.embodiments if arm.name == data.embodiment), None)
    if arm is None:
        raise CheckpointError(f"{folder}: recorded with '{data.embodiment}', which this policy was not trained for")
    windows, rng = Windows(data, arm, config), np.random.default_rng(seed)
    border = int(np.searchsorted(data.episode, round(0.75 * (data.episode[-1] + 1))))
    if not 0 < border < len(windows):
        raise CheckpointError(
            f"{folder}: too few episodes to calibrate on some and verify on others; record at least 4"
        )
    first = _samples(config, windows, text, rng.choice(border, calibrate, replace=calibrate > border), rng)
    others = border + rng.choice(len(windows) - border, verify, replace=verify > len(windows) - border)
    return Recorded(first, _samples(config, windows, text, others, rng))


def _samples(
    config: PolicyConfig,
    windows: Windows,
    text: InstructionTokens,
    steps: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[Sample]:
    samples, device = [], torch.device("cpu")
    for step in steps:
        rows = np.array([step])
        window, seen = windows.window(rows, device), windows.observation(rows, text, device)
        assert isinstance(seen.frames, torch.Tensor)
        noise = torch.from_numpy(rng.standard_normal(window.actions.shape, dtype=np.float32))
        samples.append(
            {
                "states": window.past_states,
                "actions": window.past_actions,
                "mask": window.past_mask,
                "embodiment": window.embodiment,
                "frames": seen.frames,
                "tokens": seen.tokens,
                "token_mask": seen.token_mask,
                "noise": config.noise_scale * noise,
                "prefix": window.actions,
                "committed": torch.arange(config.horizon)[None] < int(rng.integers(config.max_delay + 1)),
                "used": window.slots.float(),
            }
        )
    return samples
