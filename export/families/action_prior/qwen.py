"""Builds the transformers configurations that our shapes describe, and two helpers shared by the parts."""

from __future__ import annotations

import torch
from torch import nn
from transformers import Qwen3Config, Qwen3VLConfig

from export.families.action_prior.config import PolicyConfig, TransformerShape

MASKED = torch.finfo(torch.float32).min


def qwen3_config(shape: TransformerShape) -> Qwen3Config:
    """A Qwen3 stack without a vocabulary: its inputs are embeddings."""
    config = Qwen3Config(
        vocab_size=1,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        use_cache=False,
    )
    config._attn_implementation = "eager"
    return config


def qwen3_vl_config(config: PolicyConfig) -> Qwen3VLConfig:
    """The VLM backbone: vision tower and language model."""
    text, vision = config.text, config.vision
    return Qwen3VLConfig(
        text_config={
            "vocab_size": config.vocabulary,
            "hidden_size": text.hidden,
            "intermediate_size": text.ffn,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": text.rope_theta,
                "mrope_section": list(config.mrope_section),
                "mrope_interleaved": True,
            },
            "use_cache": False,
        },
        vision_config={
            "depth": vision.layers,
            "hidden_size": vision.hidden,
            "intermediate_size": vision.ffn,
            "num_heads": vision.heads,
            "patch_size": vision.patch_px,
            "spatial_merge_size": vision.merge,
            "temporal_patch_size": vision.temporal_patch,
            "out_hidden_size": text.hidden,
            "num_position_embeddings": vision.position_grid**2,
            "deepstack_visual_indexes": list(vision.deepstack_layers),
        },
        tie_word_embeddings=True,
    )


class PreciseLinear(nn.Linear):
    """A linear layer that stays in FP32 when the network around it is trained in BF16.

    What it is for: the flow state, the flow time and the latents. Exports keep the same layers in FP32.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def projector(inputs: int, outputs: int, width: int) -> nn.Module:
    """Linear when `width` is 0, else one hidden layer of that width; in FP32."""
    if width == 0:
        return PreciseLinear(inputs, outputs)
    return nn.Sequential(PreciseLinear(inputs, width), nn.SiLU(), PreciseLinear(width, outputs))


def attention_bias(visible: torch.Tensor, causal: bool) -> torch.Tensor:
    """Additive attention mask, shape (batch, 1, n, n): 0 where a token may look, a huge negative elsewhere.

    `visible` is bool, shape (batch, n): the tokens that exist.
    """
    batch, length = visible.shape
    allowed = visible[:, None, None, :].expand(batch, 1, length, length)
    if causal:
        allowed = allowed & torch.ones(length, length, dtype=torch.bool, device=visible.device).tril()
    return torch.where(allowed, 0.0, MASKED)
