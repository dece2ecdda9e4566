"""The backbone with nothing left to decide at run time: fixed prompt, fixed image count, constants folded.

It takes over the modules of a `Backbone` and computes the same function for one observation, without what a tracer
cannot follow: splitting the vision attention by image, boolean indexing for the deepstack features, positions and
masks built on the fly.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionBlock, apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from export.engines.static_layers import (
    StaticLayer,
    StaticMerger,
    consumed,
    norm_of,
    project_linears,
    rotary_constants,
)
from export.families.action_prior.backbone import Backbone
from export.families.action_prior.qwen import MASKED

EMBEDDING = "backbone.vlm.language_model.embed_tokens.weight"
"""Name of the table of token embeddings in the traced graph."""


class StaticBackbone(nn.Module):
    """`Backbone.forward` for a batch of one; every constant is a buffer. The backbone is used up."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.visual = backbone.vlm.visual
        language = backbone.vlm.language_model
        layout, config = backbone.layout, backbone.config
        with torch.no_grad():
            grid = backbone.grid(1)[:1]
            indices, weights = get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=self.visual.num_grid_per_side,
                mode=self.visual.interpolation_mode,
                align_corners=self.visual.interpolation_align_corners,
                spatial_merge_size=config.vision.merge,
                kwargs={},
            )
            self.patch_positions = nn.Buffer((self.visual.pos_embed(indices) * weights[:, :, None]).sum(1))
            cos, sin = self.visual.rotary_pos_emb(
                self.patch_positions, get_vision_position_ids(grid, config.vision.merge, kwargs={})
            )
            self.vision_cos = nn.Buffer(cos)
            self.vision_sin = nn.Buffer(sin)
            cos, sin = rotary_constants(*language.rotary_emb(torch.zeros(1), layout.positions[:, None]))
            self.text_cos = nn.Buffer(cos)
            self.text_sin = nn.Buffer(sin)
            causal = torch.ones(layout.length, layout.length, dtype=torch.bool).tril()
            self.causal = nn.Buffer(causal[None])
        patches = self.visual.patch_embed.proj
        # Frames that stand still fill every temporal patch alike, so their weights add up.
        self.patch_weight = nn.Buffer(patches.weight.detach().sum(2).flatten(1).T.contiguous())
        self.patch_bias = nn.Buffer(patches.bias.detach())
        for block in self.visual.blocks:
            project_linears(block, precise=False)
        self.merger = StaticMerger(self.visual.merger)
        self.deepstack_mergers = nn.ModuleList(StaticMerger(merger) for merger in self.visual.deepstack_merger_list)
        self.visual.merger, self.visual.deepstack_merger_list = nn.Identity(), nn.ModuleList()
        backbone.history_projector = project_linears(backbone.history_projector, precise=True)
        backbone.head = project_linears(backbone.head, precise=True)
        self.norm = norm_of(language.norm)
        self.layers = consumed(language.layers, StaticLayer)
        backbone.vlm.visual = nn.Identity()  # from here on it is known by one name only

    def forward(
        self,
        frames: torch.Tensor,
        tokens: torch.Tensor,
        token_mask: torch.Tensor,
        history: torch.Tensor,
        has_history: torch.Tensor,
        embodiment: torch.Tensor,
    ) -> torch.Tensor:
        """z', shape (1, latent); arguments as in `Backbone.forward` with a batch of one."""
        layout = self.backbone.layout
        image_tokens, deepstack = self.see(frames)
        x = self.backbone.prompt(image_tokens, tokens, history, has_history, embodiment)
        before = torch.ones_like(token_mask[:, :1]).expand(1, layout.instruction.start)
        after = torch.ones_like(token_mask[:, :1]).expand(1, layout.length - layout.instruction.stop)
        visible = torch.cat([before, token_mask, after], dim=1)
        bias = torch.where(self.causal & visible[:, None, :], 0.0, MASKED)
        for index, layer in enumerate(self.layers):
            x = layer(x, (self.text_cos, self.text_sin), bias)
            if index < len(deepstack):
                x = x + self.at_image_positions(deepstack[index])
        query = self.norm(x[:, layout.query])
        return nn.functional.normalize(self.backbone.head(query), dim=-1)

    def see(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Image tokens (1, cameras, tokens, hidden), and the deepstack features (cameras, tokens, hidden) per depth."""
        cameras = self.backbone.config.cameras
        patches = self.backbone.patches(frames, temporal=1) @ self.patch_weight + self.patch_bias
        x = patches.view(cameras, -1, patches.shape[-1]) + self.patch_positions
        deepstack = []
        for index, block in enumerate(self.visual.blocks):
            x = self.vision_block(block, x)
            if index in self.visual.deepstack_visual_indexes:
                deepstack.append(self.deepstack_mergers[self.visual.deepstack_visual_indexes.index(index)](x))
        return self.merger(x)[None], deepstack

    def vision_block(self, block: Qwen3VLVisionBlock, x: torch.Tensor) -> torch.Tensor:
        """One block of the vision tower on a batch of images, (cameras, patches, hidden)."""
        attention = block.attn
        images, patches, hidden = x.shape
        qkv = attention.qkv(block.norm1(x)).view(images, patches, 3, attention.num_heads, -1)
        query, key = apply_rotary_pos_emb_vision(qkv[:, :, 0], qkv[:, :, 1], self.vision_cos, self.vision_sin)
        query, key, value = (part.transpose(1, 2) for part in (query, key, qkv[:, :, 2]))
        weights = torch.softmax(query @ key.transpose(-1, -2) * attention.scaling, dim=-1)
        x = x + attention.proj((weights @ value).transpose(1, 2).reshape(images, patches, hidden))
        return x + block.mlp(block.norm2(x))

    def at_image_positions(self, features: torch.Tensor) -> torch.Tensor:
        """Features (cameras, tokens, hidden) at their places in the prompt, zero elsewhere, (1, length, hidden)."""
        layout, hidden = self.backbone.layout, features.shape[-1]
        parts, reached = [], 0
        for camera, image in enumerate(layout.images):
            parts += [features.new_zeros(image.start - reached, hidden), features[camera]]
            reached = image.stop
        parts.append(features.new_zeros(layout.length - reached, hidden))
        return torch.cat(parts)[None]
