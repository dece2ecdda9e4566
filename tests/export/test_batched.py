"""The backbone for large batches computes what the transformers classes compute, forward and backward."""

from __future__ import annotations

import torch

from export.families.action_prior.backbone import Backbone
from export.families.action_prior.batched import BatchedBackbone
from export.families.action_prior.config import lift


def _inputs(backbone: Backbone, batch: int) -> tuple[torch.Tensor, ...]:
    config, draw = backbone.config, torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (batch, config.cameras, *config.frame_px, 3), dtype=torch.uint8, generator=draw)
    tokens = torch.randint(0, config.vocabulary, (batch, config.token_budget), generator=draw)
    mask = torch.arange(config.token_budget)[None] < torch.tensor([3, 16, 5])[:batch, None]
    history = torch.randn(batch, config.latent, generator=draw)
    return frames, tokens, mask, history, torch.tensor([True, False, True]), torch.tensor([0, 1, 1])


def test_outputs_and_gradients_are_those_of_the_plain_backbone() -> None:
    torch.manual_seed(1)
    plain = Backbone(lift())
    batched = BatchedBackbone(lift())
    batched.load_state_dict(plain.state_dict())
    found = []
    for backbone in (plain, batched):
        latent = backbone(*_inputs(backbone, 3))
        (latent * torch.linspace(-1, 1, latent.shape[1])).sum().backward()
        found.append((latent.detach(), {name: weight.grad for name, weight in backbone.named_parameters()}))
    (latent, gradients), (other, others) = found
    assert torch.allclose(latent, other, atol=1e-5)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        if gradient is None:
            assert others[name] is None, name
        else:
            assert torch.allclose(gradient, others[name], atol=1e-4 * float(gradient.abs().max()) + 1e-7), name
