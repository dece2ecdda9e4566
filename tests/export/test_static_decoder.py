"""The static decoder and encoder compute what the unmodified transformers classes compute."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from export.engines.observations import draw_samples
from export.engines.static_decoder import DecoderStep, UnrolledDecoder
from export.engines.static_encoder import StaticEncoder
from export.families.action_prior.config import tiny
from export.families.action_prior.policy import ActionPrior

VARIANTS = {
    "tiny": tiny(),
    "given where steps end": dataclasses.replace(tiny(), target_time=True),
    "actions only": dataclasses.replace(tiny(), encoder_sees="actions", pose_weight=0.0),
    "latent added": dataclasses.replace(tiny(), latent_injection="add"),
    "causal": dataclasses.replace(tiny(), encoder_causal=True, decoder_causal=True),
    "another horizon": dataclasses.replace(tiny(), horizon=9, max_delay=3, history=4),
    "no grouped queries": dataclasses.replace(
        tiny(),
        encoder=dataclasses.replace(tiny().encoder, kv_heads=4),
        decoder=dataclasses.replace(tiny().decoder, kv_heads=4),
    ),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def prior(request: pytest.FixtureRequest) -> ActionPrior:
    torch.manual_seed(1)
    made = ActionPrior(request.param).eval()
    with torch.no_grad():
        for weights in made.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return made


@torch.no_grad()
def test_static_encoder_equals_transformers(prior: ActionPrior) -> None:
    static = StaticEncoder(copy.deepcopy(prior.encoder)).eval()
    for sample in draw_samples(prior.config, 4, seed=0):
        inputs = [sample[name] for name in ("states", "actions", "mask", "embodiment")]
        assert (static(*inputs) - prior.encoder(*inputs)).abs().max() < 2e-6


@torch.no_grad()
@pytest.mark.parametrize("steps", [1, 3])
def test_static_decoder_equals_transformers(prior: ActionPrior, steps: int) -> None:
    static = UnrolledDecoder(DecoderStep(copy.deepcopy(prior.decoder), steps)).eval()
    for sample in draw_samples(prior.config, 4, seed=0):
        noise, prefix, committed, used = (sample[name] for name in ("noise", "prefix", "committed", "used"))
        z = torch.nn.functional.normalize(torch.randn(1, prior.config.latent), dim=-1)
        chunk, first = static(noise, z, prefix, committed, used)
        start = torch.where(committed[..., None], prefix, noise * used[:, None])
        end = torch.ones(1, prior.config.horizon) if steps == 1 else None
        assert (first - prior.decoder(start, committed.float(), z, end)).abs().max() < 1e-5
        x = start
        for step in range(steps):
            r = torch.where(committed, 1.0, step / steps)
            x = x + prior.decoder(x, r, z, end) * used[:, None] / steps
            x = torch.where(committed[..., None], prefix, x)
        assert (chunk - x).abs().max() < 1e-5
