"""ACT restated, with LeRobot's names of its tensors, so that a folder's are compared and loaded one by one.

Zhao et al., 2023 (arXiv 2304.13705); facts of LeRobot's `policies/act/modeling_act.py`. A trained policy's latent is
zero; what encodes demonstrations into it is compared with the file and then let go.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from export.families.act.config import ActConfig
from export.families.lerobot.resnet import FrozenBatchNorm, resnet

POSITION_EPSILON, POSITION_BASE = 1e-6, 10000.0


class EncoderLayer(nn.Module):
    """Attention of tokens (tokens, width) to themselves, and two linear layers. Positions go to queries and keys."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        width = config.dim_model
        self.self_attn = nn.MultiheadAttention(width, config.n_heads)
        self.linear1, self.linear2 = nn.Linear(width, config.dim_feedforward), nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.first, self.activation = config.pre_norm, getattr(nn.functional, config.feedforward_activation)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        seen = self.norm1(x) if self.first else x
        x = x + attend(self.self_attn, seen + positions, seen + positions, seen)
        x = x if self.first else self.norm1(x)
        seen = self.norm2(x) if self.first else x
        x = x + self.linear2(self.activation(self.linear1(seen)))
        return x if self.first else self.norm2(x)


class DecoderLayer(nn.Module):
    """The same for the chunk's rows, with attention to the encoder's tokens in between."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        width = config.dim_model
        self.self_attn = nn.MultiheadAttention(width, config.n_heads)
        self.multihead_attn = nn.MultiheadAttention(width, config.n_heads)
        self.linear1, self.linear2 = nn.Linear(width, config.dim_feedforward), nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.first, self.activation = config.pre_norm, getattr(nn.functional, config.feedforward_activation)

    def forward(
        self, x: torch.Tensor, memory: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """rows, positions: what is added to the chunk's queries, and to the encoder's tokens as keys."""
        seen = self.norm1(x) if self.first else x
        x = x + attend(self.self_attn, seen + rows, seen + rows, seen)
        x = x if self.first else self.norm1(x)
        seen = self.norm2(x) if self.first else x
        x = x + attend(self.multihead_attn, seen + rows, memory + positions, memory)
        x = x if self.first else self.norm2(x)
        seen = self.norm3(x) if self.first else x
        x = x + self.linear2(self.activation(self.linear1(seen)))
        return x if self.first else self.norm3(x)


class Stack(nn.Module):
    """Layers, and a norm behind them."""

    def __init__(self, layers: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x, *more)
        return self.norm(x)


class ActNetwork(nn.Module):
    """Pictures and state, normalised, to a normalised chunk. Tensors are named as below `model.` of the file."""

    def __init__(self, config: ActConfig, state_width: int, action_width: int, resnet_width: int) -> None:
        super().__init__()
        width = config.dim_model
        self.config = config

        def encoder(layers: int) -> Stack:
            norm = nn.LayerNorm(width) if config.pre_norm else nn.Identity()
            return Stack([EncoderLayer(config) for _ in range(layers)], norm)

        if config.use_vae:
            self.vae_encoder = encoder(config.n_vae_encoder_layers)
            self.vae_encoder_cls_embed = nn.Embedding(1, width)
            self.vae_encoder_robot_state_input_proj = nn.Linear(state_width, width)
            self.vae_encoder_action_input_proj = nn.Linear(action_width, width)
            self.vae_encoder_latent_output_proj = nn.Linear(width, 2 * config.latent_dim)
            self.register_buffer("vae_encoder_pos_enc", torch.zeros(1, 2 + config.chunk_size, width))
        self.backbone = nn.ModuleDict(resnet(config.vision_backbone, resnet_width, FrozenBatchNorm))
        self.encoder = encoder(config.n_encoder_layers)
        self.decoder = Stack([DecoderLayer(config) for _ in range(config.n_decoder_layers)], nn.LayerNorm(width))
        self.encoder_robot_state_input_proj = nn.Linear(state_width, width)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, width)
        self.encoder_img_feat_input_proj = nn.Conv2d(8 * resnet_width, width, 1)
        self.encoder_1d_feature_pos_embed = nn.Embedding(2, width)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, width)
        self.action_head = nn.Linear(width, action_width)

    def forget_demonstrations(self) -> None:
        """Lets go of what only training uses."""
        for name in [name for name in self._modules if name.startswith("vae_")]:
            delattr(self, name)
        if self.config.use_vae:
            del self.vae_encoder_pos_enc

    def features(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures of one camera (1, 3, H, W) to (1, width, rows, columns)."""
        for module in self.backbone.values():
            pictures = module(pictures)
        return self.encoder_img_feat_input_proj(pictures)

    def forward(self, pictures: list[torch.Tensor], state: torch.Tensor) -> torch.Tensor:
        """pictures (1, 3, H, W) of each camera, state (width,); the chunk is (chunk_size, axes)."""
        latent = torch.zeros(self.config.latent_dim)
        tokens = [self.encoder_latent_input_proj(latent)[None], self.encoder_robot_state_input_proj(state)[None]]
        positions = [self.encoder_1d_feature_pos_embed.weight]
        for picture in pictures:
            found = self.features(picture)[0]
            tokens.append(found.flatten(1).T)
            positions.append(picture_positions(found.shape[1], found.shape[2], self.config.dim_model))
        where, rows = torch.cat(positions), self.decoder_pos_embed.weight
        memory = self.encoder(torch.cat(tokens), where)
        return self.action_head(self.decoder(torch.zeros_like(rows), memory, rows, where))


def attend(
    attention: nn.MultiheadAttention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    """Of (rows, width) to (tokens, width)."""
    return attention(query, key, value, need_weights=False)[0]


def picture_positions(rows: int, columns: int, width: int) -> torch.Tensor:
    """Sines and cosines of where a cell of the feature map lies, (rows * columns, width): half for each direction.

    Cells are counted from 1, and a picture is one turn high and wide.
    """
    half = width // 2
    periods = POSITION_BASE ** (2 * (torch.arange(half, dtype=torch.float32) // 2) / half)
    found = []
    for count, axis in ((rows, 0), (columns, 1)):
        steps = torch.arange(1, count + 1, dtype=torch.float32)
        angles = (steps / (count + POSITION_EPSILON) * (2 * math.pi))[:, None] / periods
        waves = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1)
        found.append(waves[:, None].expand(-1, columns, -1) if axis == 0 else waves[None].expand(rows, -1, -1))
    return torch.cat(found, dim=-1).reshape(rows * columns, width)
