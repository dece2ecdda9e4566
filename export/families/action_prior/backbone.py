"""The VLM backbone f: frames, instruction and history token in, the latent z' out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import Qwen3VLModel

from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.layout import prompt_layout
from export.families.action_prior.qwen import projector, qwen3_vl_config

IMAGE_MEAN, IMAGE_STD = 0.5, 0.5
"""Qwen3-VL's own image normalisation."""


@dataclass(frozen=True)
class Seen:
    """What the vision tower makes of frames.

    tokens (batch, cameras, image_tokens, hidden), and for each deepstack layer (batch, cameras, image_tokens, hidden)
    """

    tokens: torch.Tensor
    deepstack: tuple[torch.Tensor, ...]


class Backbone(nn.Module):
    """`z' = l2norm(head(f(p_k, images, instruction, z_hist, query)[query]))`.

    The forward pass goes through the unmodified transformers classes; exports are checked against it.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = prompt_layout(config)
        hidden = config.text.hidden
        self.vlm = Qwen3VLModel(qwen3_vl_config(config))
        self.vlm.visual.patch_embed.register_forward_hook(_in_fp32)
        self.soft_prompt = nn.Parameter(0.02 * torch.randn(config.embodiments, config.soft_prompt_tokens, hidden))
        self.query = nn.Parameter(0.02 * torch.randn(hidden))
        self.no_history = nn.Parameter(0.02 * torch.randn(hidden))
        self.history_projector = projector(config.latent, hidden, config.projector_width)
        self.head = projector(hidden, config.latent, config.projector_width)

    def forward(
        self,
        frames: torch.Tensor,
        tokens: torch.Tensor,
        token_mask: torch.Tensor,
        history: torch.Tensor,
        has_history: torch.Tensor,
        embodiment: torch.Tensor,
    ) -> torch.Tensor:
        """The latent z', unit length, shape (batch, latent).

        frames uint8 (batch, cameras, height, width, 3); the others as those of `outputs`.
        """
        return self.latent(self.outputs(self.see(frames), tokens, token_mask, history, has_history, embodiment))

    def see(self, frames: torch.Tensor) -> Seen:
        """The vision tower's part, which depends on the frames alone."""
        batch, config = frames.shape[0], self.config
        vision = self.vlm.visual(self.patches(frames), grid_thw=self.grid(batch).to(frames.device))
        shape = (batch, config.cameras, config.image_tokens, config.text.hidden)
        return Seen(vision.pooler_output.view(shape), tuple(layer.view(shape) for layer in vision.deepstack_features))

    def outputs(
        self,
        seen: Seen,
        tokens: torch.Tensor,
        token_mask: torch.Tensor,
        history: torch.Tensor,
        has_history: torch.Tensor,
        embodiment: torch.Tensor,
    ) -> torch.Tensor:
        """The language model's output at every position of the layout, shape (batch, length, hidden).

        tokens      int64 (batch, budget), padded. Nothing looks at padding, so columns at the end that are padding in
            every row may be left out: the output lacks them too, and is the same elsewhere
        token_mask  bool (batch, budget), True where a token is real
        history     float (batch, latent), z_hist
        has_history bool (batch,), False puts the learned "no history" token in its place; a policy without a history
            compressor always does
        embodiment  int64 (batch,), row of the soft-prompt table
        """
        batch, device = tokens.shape[0], tokens.device
        prompt = self.prompt(seen.tokens, tokens, history, has_history, embodiment)
        layout = self.layout.with_budget(tokens.shape[1])
        visible = torch.ones(batch, layout.length, dtype=torch.bool, device=device)
        visible[:, layout.instruction] = token_mask
        visual = torch.zeros(batch, layout.length, dtype=torch.bool, device=device)
        for image in layout.images:
            visual[:, image] = True
        output: torch.Tensor = self.vlm.language_model(
            inputs_embeds=prompt,
            attention_mask=visible.long(),
            position_ids=layout.positions.to(device)[:, None].expand(3, batch, -1),
            visual_pos_masks=visual,
            deepstack_visual_embeds=[layer.flatten(0, 2) for layer in seen.deepstack],
        ).last_hidden_state
        return output

    def latent(self, output: torch.Tensor) -> torch.Tensor:
        """z' from the language model's output, shape (batch, length, hidden); the query stands last."""
        return F.normalize(self.head(output[:, -1]), dim=-1)

    def grid(self, batch: int) -> torch.Tensor:
        """Patches of every image along time, height and width, int64, shape (batch x cameras, 3)."""
        patch = self.config.vision.patch_px
        size = (1, self.config.image_px[0] // patch, self.config.image_px[1] // patch)
        return torch.tensor(size).repeat(batch * self.config.cameras, 1)

    def patches(self, frames: torch.Tensor, temporal: int | None = None) -> torch.Tensor:
        """Resized and normalised patches in Qwen3-VL's order, shape (batch x cameras x patches, values per patch).

        Each holds its frame `temporal` times, by default as often as the vision tower's temporal patch is long.
        """
        vision, (height, width) = self.config.vision, self.config.image_px
        # Cast first: TensorRT takes bytes as an input, and does nothing else with them.
        images = frames.float().flatten(0, 1).permute(0, 3, 1, 2) / 255.0
        images = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
        images = (images - IMAGE_MEAN) / IMAGE_STD
        patch, merge = vision.patch_px, vision.merge
        rows, columns = height // patch // merge, width // patch // merge
        split = images.view(-1, 3, rows, merge, patch, columns, merge, patch)
        ordered = split.permute(0, 2, 5, 3, 6, 1, 4, 7)  # image, row, column, merge row, merge column, channel, y, x
        flat = ordered.reshape(-1, 3, 1, patch * patch)
        return flat.expand(-1, -1, temporal or vision.temporal_patch, -1).reshape(flat.shape[0], -1)

    def prompt(
        self,
        image_tokens: torch.Tensor,
        tokens: torch.Tensor,
        history: torch.Tensor,
        has_history: torch.Tensor,
        embodiment: torch.Tensor,
    ) -> torch.Tensor:
        """Input embeddings in the order of the layout, shape (batch, length, hidden)."""
        batch = tokens.shape[0]
        embed = self.vlm.language_model.embed_tokens
        start, end = (embed.weight[token].expand(batch, 1, -1) for token in self.config.tied_image_tokens)
        history_token = self.no_history.expand(batch, -1)
        if self.config.history_compressor != "none":
            history_token = torch.where(has_history[:, None], self.history_projector(history), history_token)
        parts = [self.soft_prompt[embodiment]]
        for camera in range(self.config.cameras):
            parts += [start, image_tokens[:, camera], end]
        parts += [embed(tokens), history_token[:, None], self.query.expand(batch, 1, -1)]
        return torch.cat(parts, dim=1)


def _in_fp32(module: nn.Module, inputs: tuple[torch.Tensor, ...], patches: torch.Tensor) -> torch.Tensor:
    """What the vision tower adds everything to, and takes norms of, is not rounded when training rounds to BF16."""
    return patches.float()
