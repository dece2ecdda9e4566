"""The static rewrite computes what the unmodified transformers classes compute."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from export.engines.static_backbone import StaticBackbone
from export.families.action_prior.backbone import Backbone
from export.families.action_prior.config import PolicyConfig, tiny

VARIANTS = {
    "one camera": tiny(),
    "three cameras": dataclasses.replace(tiny(), cameras=3),
    "wide image": dataclasses.replace(tiny(), image_px=(64, 128), frame_px=(90, 160)),
    "deeper features": dataclasses.replace(
        tiny(), vision=dataclasses.replace(tiny().vision, layers=4, deepstack_layers=(0, 1, 3))
    ),
    "two-layer projectors": dataclasses.replace(tiny(), projector_width=64),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_static_equals_transformers(config: PolicyConfig) -> None:
    torch.manual_seed(1)
    reference = Backbone(config).eval()
    for weights in reference.parameters():
        weights.add_(0.05 * torch.randn_like(weights))
    static = StaticBackbone(copy.deepcopy(reference)).eval()
    for words in (1, 7, config.token_budget):
        for has_history in (True, False):
            inputs = (
                torch.randint(0, 256, (1, config.cameras, *config.frame_px, 3), dtype=torch.uint8),
                torch.randint(0, config.vocabulary, (1, config.token_budget)),
                torch.arange(config.token_budget)[None] < words,
                torch.randn(1, config.latent),
                torch.tensor([has_history]),
                torch.tensor([2]),
            )
            assert (static(*inputs) - reference(*inputs)).abs().max() < 2e-6
