"""The backbone for large batches: the same weights and the same function, computed without a loop over images.

The transformers classes split the vision attention by image and find image tokens by boolean indexing; with a thousand
windows in a batch that costs far more than the computing. Here every image is a row of one batch, and every shape is
fixed, so that `torch.compile` takes `_vision` and `_text` as one graph each.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionBlock, apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from export.families.action_prior.backbone import Backbone, Seen
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.qwen import MASKED


def _constant(value: torch.Tensor) -> nn.Buffer:
    return nn.Buffer(value.clone(), persistent=False)


class BatchedBackbone(Backbone):
    """A `Backbone` whose `see` and `outputs` are computed over whole batches; its weights have the same names."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__(config)
        visual, language = self.vlm.visual, self.vlm.language_model
        with torch.no_grad():
            grid = self.grid(1)[:1]
            indices, weights = get_vision_interpolation_indices_and_weights(
                grid,
                num_grid_per_side=visual.num_grid_per_side,
                mode=visual.interpolation_mode,
                align_corners=visual.interpolation_align_corners,
                spatial_merge_size=config.vision.merge,
                kwargs={},
            )
            self.place_indices, self.place_weights = _constant(indices), _constant(weights)
            vision = visual.rotary_pos_emb(
                torch.zeros(1), get_vision_position_ids(grid, config.vision.merge, kwargs={})
            )
            text = language.rotary_emb(torch.zeros(1), self.layout.positions[:, None])
            self.vision_cos, self.vision_sin = map(_constant, vision)
            self.text_cos, self.text_sin = map(_constant, text)
            causal = torch.ones(self.layout.length, self.layout.length, dtype=torch.bool).tril()
            self.causal = _constant(causal[None, None])

    def see(self, frames: torch.Tensor) -> Seen:
        """The vision tower's part of frames (batch, cameras, height, width, 3)."""
        config = self.config
        features = self._vision(self.patches(frames, temporal=1))
        shape = (frames.shape[0], config.cameras, config.image_tokens, config.text.hidden)
        tokens, *deepstack = (part.view(shape) for part in features)
        return Seen(tokens, tuple(deepstack))

    def outputs(
        self,
        seen: Seen,
        tokens: torch.Tensor,
        token_mask: torch.Tensor,
        history: torch.Tensor,
        has_history: torch.Tensor,
        embodiment: torch.Tensor,
    ) -> torch.Tensor:
        """As `Backbone.outputs`."""
        prompt = self.prompt(seen.tokens, tokens, history, has_history, embodiment)
        layout = self.layout
        visible = torch.ones(len(tokens), layout.length, dtype=torch.bool, device=tokens.device)
        visible[:, layout.instruction] = token_mask
        bias = torch.where(self.causal & visible[:, None, None, :], 0.0, MASKED)
        output: torch.Tensor = self._text(prompt, bias, tuple(self._in_place(layer) for layer in seen.deepstack))
        return output

    def _vision(self, patches: torch.Tensor) -> list[torch.Tensor]:
        """Image tokens, then the deepstack features, from patches (images x patches, values)."""
        visual = self.vlm.visual
        weight = visual.patch_embed.proj.weight.sum(2).flatten(1)  # a frame that stands still: its weights add up
        x = F.linear(patches, weight, visual.patch_embed.proj.bias).float()
        places = (visual.pos_embed(self.place_indices) * self.place_weights[:, :, None]).sum(1)
        x = x.view(-1, len(places), x.shape[-1]) + places
        deepstack = []
        for index, block in enumerate(visual.blocks):
            x = self._block(block, x)
            if index in visual.deepstack_visual_indexes:
                merger = visual.deepstack_merger_list[visual.deepstack_visual_indexes.index(index)]
                deepstack.append(merger(x.flatten(0, 1)))
        return [visual.merger(x.flatten(0, 1)), *deepstack]

    def _block(self, block: Qwen3VLVisionBlock, x: torch.Tensor) -> torch.Tensor:
        attention = block.attn
        images, patches, hidden = x.shape
        qkv = attention.qkv(block.norm1(x)).view(images, patches, 3, attention.num_heads, -1)
        query, key = apply_rotary_pos_emb_vision(qkv[:, :, 0], qkv[:, :, 1], self.vision_cos, self.vision_sin)
        query, key, value = (part.transpose(1, 2) for part in (query, key, qkv[:, :, 2]))
        seen = F.scaled_dot_product_attention(query.to(value.dtype), key.to(value.dtype), value)
        x = x + attention.proj(seen.transpose(1, 2).reshape(images, patches, hidden))
        return x + block.mlp(block.norm2(x))

    def _text(self, x: torch.Tensor, bias: torch.Tensor, deepstack: tuple[torch.Tensor, ...]) -> torch.Tensor:
        language = self.vlm.language_model
        for index, layer in enumerate(language.layers):
            x = layer(x, position_embeddings=(self.text_cos, self.text_sin), attention_mask=bias)
            if index < len(deepstack):
                x = x + deepstack[index]
        normed: torch.Tensor = language.norm(x)
        return normed

    def _in_place(self, features: torch.Tensor) -> torch.Tensor:
        """Features (batch, cameras, tokens, hidden) where the prompt has its images, zero elsewhere."""
        layout, (batch, _, _, hidden) = self.layout, features.shape
        parts, reached = [], 0
        for camera, image in enumerate(layout.images):
            parts += [features.new_zeros(batch, image.start - reached, hidden), features[:, camera]]
            reached = image.stop
        parts.append(features.new_zeros(batch, layout.length - reached, hidden))
        return torch.cat(parts, dim=1)
