"""Compares the engines with FP32 torch, on the worst of many samples, and makes sure that the comparison can fail.

The reference goes through the unmodified transformers classes, not through the modules that were traced.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge.engines import Engine
from export.policy.config import PolicyConfig
from export.policy.policy import VlaPolicy

ENGINE_LIMIT = 1e-5
CHUNK_LIMIT = 1e-4
PERTURBATION = 1e-2
"""Relative size of the noise on the weights in the negative control."""
Sample = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Agreement:
    """Worst values over all samples; `limit` is for the largest absolute error."""

    samples: int
    max_abs: float
    relative_rms: float
    cosine: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.max_abs <= self.limit  # false for NaN too

    def to_plain(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def compare(pairs: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]], limit: float) -> Agreement:
    """Judges pairs of (engine, reference) outputs."""
    errors, relative, cosines = [], [], []
    for found, wanted in pairs:
        a, b = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
        errors.append(float(np.abs(a - b).max()))
        relative.append(float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2))))
        cosines.append(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))))
    return Agreement(len(errors), float(np.max(errors)), float(np.max(relative)), float(np.min(cosines)), limit)


def draw_samples(config: PolicyConfig, count: int, seed: int) -> list[Sample]:
    """Whole observations: frames from flat to noisy, instructions and histories of every length, prefixes up to the
    longest delay, and one embodiment's slots."""
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
        used = (torch.rand(1, config.action_slots, generator=generator) < 0.5).float()
        samples.append(
            {
                "states": randn(1, config.history, config.state_slots),
                "actions": randn(1, config.history, config.action_slots) * used,
                "mask": torch.arange(config.history)[None] >= randint(0, config.history + 1),
                "embodiment": randint(0, config.embodiments, 1),
                "frames": frames.permute(0, 2, 3, 1)[None].contiguous(),
                "tokens": randint(0, config.vocabulary, 1, config.token_budget),
                "token_mask": torch.arange(config.token_budget)[None] < randint(1, config.token_budget + 1),
                "noise": randn(1, config.horizon, config.action_slots),
                "prefix": randn(1, config.horizon, config.action_slots) * used,
                "committed": torch.arange(config.horizon)[None] < randint(0, config.max_delay + 1),
                "used": used,
            }
        )
    return samples


class Reference:
    """The policy in FP32 torch, one method per engine and one for the whole chunk."""

    def __init__(self, policy: VlaPolicy, steps: int) -> None:
        self.policy, self.steps = policy.eval(), steps

    @torch.no_grad()
    def history_encoder(self, sample: Sample) -> dict[str, torch.Tensor]:
        z = self.policy.encoder(sample["states"], sample["actions"], sample["mask"], sample["embodiment"])
        return {"z_history": z}

    @torch.no_grad()
    def backbone(self, sample: Sample) -> dict[str, torch.Tensor]:
        names = ("frames", "tokens", "token_mask", "history", "has_history", "embodiment")
        return {"z": self.policy.backbone(*(sample[name] for name in names))}

    @torch.no_grad()
    def action_decoder(self, sample: Sample) -> dict[str, torch.Tensor]:
        noise, z, prefix, committed, used = (sample[name] for name in ("noise", "z", "prefix", "committed", "used"))
        start = torch.where(committed[..., None], prefix, noise * used[:, None])
        return {
            "chunk": self.policy.chunk(noise, z, prefix, committed, used, self.steps),
            "first_velocity": self.policy.decoder(start, committed.float(), z),
        }


def linked(sample: Sample, reference: Reference) -> Sample:
    """A sample with the reference's own latents filled in, so that each engine is judged on its own."""
    full = dict(sample)
    full["history"] = reference.history_encoder(full)["z_history"]
    full["has_history"] = full["mask"].any(dim=1)
    full["z"] = reference.backbone(full)["z"]
    return full


def run_engine(engine: Engine, sample: Sample) -> dict[str, NDArray[Any]]:
    """Fills the inputs from the sample by name; returns copies of the outputs."""
    for name, array in engine.inputs.items():
        array[:] = sample[name].numpy()
    engine.run()
    return {name: array.copy() for name, array in engine.outputs.items()}


def run_chain(engines: dict[str, Engine], sample: Sample) -> NDArray[Any]:
    """The whole chunk, each engine fed by the one before, as on the robot."""
    chained = dict(sample)
    chained["history"] = torch.from_numpy(run_engine(engines["history_encoder"], chained)["z_history"])
    chained["has_history"] = chained["mask"].any(dim=1)
    chained["z"] = torch.from_numpy(run_engine(engines["backbone"], chained)["z"])
    return run_engine(engines["action_decoder"], chained)["chunk"]


def agreements(
    engines: dict[str, Engine], reference: Reference, samples: list[Sample], advance: Callable[[], None]
) -> dict[str, Agreement]:
    """One judgement per engine output, and one for the whole chunk."""
    pairs: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for sample in samples:
        full = linked(sample, reference)
        for name, engine in engines.items():
            wanted = getattr(reference, name)(full)
            for output, found in run_engine(engine, full).items():
                pairs.setdefault(f"{name}.{output}", []).append((found, wanted[output].numpy()))
        whole = reference.action_decoder(full)["chunk"].numpy()
        pairs.setdefault("whole_chunk", []).append((run_chain(engines, sample), whole))
        advance()
    return {
        name: compare(found, CHUNK_LIMIT if name == "whole_chunk" else ENGINE_LIMIT) for name, found in pairs.items()
    }


def perturbed(policy: VlaPolicy, seed: int) -> VlaPolicy:
    """A copy whose weights are all slightly off: the comparison must notice in every engine."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(policy)
    with torch.no_grad():
        for weights in other.parameters():
            weights += PERTURBATION * weights.std(correction=0) * torch.randn(weights.shape, generator=generator)
    return other


def verification(
    engines: dict[str, Engine], policy: VlaPolicy, steps: int, count: int, seed: int, advance: Callable[[], None]
) -> dict[str, Any]:
    """The content of `verification.json`. `advance` is called once per sample, 1.25 x `count` times."""
    samples = draw_samples(policy.config, count, seed)
    found = agreements(engines, Reference(policy, steps), samples, advance)
    control_samples = samples[: max(1, count // 4)]
    control = agreements(engines, Reference(perturbed(policy, seed), steps), control_samples, advance)
    caught = all(not agreement.passed for agreement in control.values())
    return {
        "passed": all(agreement.passed for agreement in found.values()) and caught,
        "reference": f"torch {torch.__version__}, float32, unmodified transformers classes",
        "engine": next(iter(engines.values())).describe(),
        "seed": seed,
        "agreement": {name: agreement.to_plain() for name, agreement in found.items()},
        "negative_control": {
            "what": f"the reference's weights off by {PERTURBATION:g} of their spread; every comparison must fail",
            "caught": caught,
            "agreement": {name: agreement.to_plain() for name, agreement in control.items()},
        },
    }
