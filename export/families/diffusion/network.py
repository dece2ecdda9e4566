"""Diffusion Policy restated, with LeRobot's names of its tensors, so that a folder's weights are compared one by one.

Chi et al., 2023 (arXiv 2303.04137); facts of LeRobot's `policies/diffusion/modeling_diffusion.py`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import nn

from export.families.diffusion.config import DiffusionConfig
from export.families.diffusion.schedule import schedule
from export.families.lerobot.resnet import group_norm, map_size, resnet

Stages = Any
"""Modules of our own classes in lists: torch gives an element of one the type `Module`."""
FINAL_GROUPS = 8
"""Of the last block's norm, whatever `n_groups` says."""


class Keypoints(nn.Module):
    """Feature maps (n, channels, rows, columns) to where each of K maps has its weight, (n, 2 K) from -1 to 1.

    Finn et al., 2015 (arXiv 1509.06113). The grid of coordinates is stored in the file.
    """

    def __init__(self, channels: int, size: tuple[int, int], count: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, count, 1)
        self.pos_grid = nn.Buffer(torch.zeros(size[0] * size[1], 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.softmax(self.nets(x).flatten(2), dim=-1) @ self.pos_grid).flatten(1)


class Encoder(nn.Module):
    """Pictures (n, 3, H, W), normalised, to features (n, 2 K)."""

    def __init__(self, config: DiffusionConfig, frame_px: tuple[int, int], width: int) -> None:
        super().__init__()
        self.resize_shape, self.crop_shape = config.resize_shape, crop_of(config)
        norm = group_norm if config.use_group_norm else nn.BatchNorm2d
        self.backbone = nn.Sequential(*resnet(config.vision_backbone, width, norm).values())
        count = config.spatial_softmax_num_keypoints
        size = map_size(*(self.crop_shape or self.resize_shape or frame_px))
        self.pool = Keypoints(8 * width, size, count)
        self.out = nn.Linear(2 * count, 2 * count)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.resize_shape is not None:
            x = resize(x, self.resize_shape)
        if self.crop_shape is not None:
            top, left = (round((have - want) / 2) for have, want in zip(x.shape[2:], self.crop_shape))
            x = x[:, :, top : top + self.crop_shape[0], left : left + self.crop_shape[1]]
        return torch.relu(self.out(self.pool(self.backbone(x))))


def crop_of(config: DiffusionConfig) -> tuple[int, int] | None:
    """What is left of a picture: resized ones keep a part, others the size that was named."""
    if config.resize_shape is None:
        return config.crop_shape
    if config.crop_ratio == 1.0:
        return None
    return int(config.resize_shape[0] * config.crop_ratio), int(config.resize_shape[1] * config.crop_ratio)


resize = partial(nn.functional.interpolate, mode="bilinear", align_corners=False, antialias=True)


class StepPosition(nn.Module):
    """Sines and cosines of a step's time, (width,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.waves = width // 2

    def forward(self, time: int) -> torch.Tensor:
        angles = time * torch.exp(torch.arange(self.waves) * -(math.log(10000) / (self.waves - 1)))
        return torch.cat([angles.sin(), angles.cos()])


class ConvBlock(nn.Module):
    """Convolution along time, group norm, Mish."""

    def __init__(self, channels: int, made: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(channels, made, kernel, padding=kernel // 2), nn.GroupNorm(groups, made), nn.Mish()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class ResidualBlock(nn.Module):
    """Two of them, the first modulated by the condition (FiLM), beside a way past them."""

    def __init__(self, channels: int, made: int, condition: int, config: DiffusionConfig) -> None:
        super().__init__()
        kernel, groups = config.kernel_size, config.n_groups
        self.made, self.scales = made, config.use_film_scale_modulation
        self.conv1, self.conv2 = ConvBlock(channels, made, kernel, groups), ConvBlock(made, made, kernel, groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, made * (2 if self.scales else 1)))
        self.residual_conv = nn.Conv1d(channels, made, 1) if channels != made else nn.Identity()

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        change = self.cond_encoder(condition)[..., None]
        y = self.conv1(x)
        y = change[:, : self.made] * y + change[:, self.made :] if self.scales else y + change
        return self.conv2(y) + self.residual_conv(x)


class Unet(nn.Module):
    """State (1, axes, rows) and condition to the network's answer of the same shape."""

    def __init__(self, config: DiffusionConfig, axes: int, condition: int) -> None:
        super().__init__()
        width, dims = config.diffusion_step_embed_dim, config.down_dims
        self.diffusion_step_encoder = nn.Sequential(
            StepPosition(width), nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width)
        )
        block = partial(ResidualBlock, condition=width + condition, config=config)
        self.down_modules: Stages = nn.ModuleList()
        for index, (channels, made) in enumerate(zip((axes, *dims[:-1]), dims)):
            half = nn.Conv1d(made, made, 3, 2, 1) if index < len(dims) - 1 else nn.Identity()
            self.down_modules.append(nn.ModuleList([block(channels, made), block(made, made), half]))
        self.mid_modules = nn.ModuleList([block(dims[-1], dims[-1]), block(dims[-1], dims[-1])])
        self.up_modules: Stages = nn.ModuleList()
        for channels, made in zip(dims[:0:-1], dims[-2::-1]):
            double = nn.ConvTranspose1d(made, made, 4, 2, 1)
            self.up_modules.append(nn.ModuleList([block(2 * channels, made), block(made, made), double]))
        self.final_conv: Stages = nn.Sequential(
            ConvBlock(dims[0], dims[0], config.kernel_size, FINAL_GROUPS), nn.Conv1d(dims[0], axes, 1)
        )

    def blocks(self) -> list[ResidualBlock]:
        """In the order in which they run."""
        return [block for block in self.modules() if isinstance(block, ResidualBlock)]

    def forward(self, x: torch.Tensor, time: int, condition: torch.Tensor) -> torch.Tensor:
        seen = torch.cat([self.diffusion_step_encoder(time)[None], condition], dim=-1)
        passed = []
        for first, second, half in self.down_modules:
            x = second(first(x, seen), seen)
            passed.append(x)
            x = half(x)
        for block in self.mid_modules:
            x = block(x, seen)
        for first, second, double in self.up_modules:
            x = double(second(first(torch.cat([x, passed.pop()], dim=1), seen), seen))
        return self.final_conv(x)


class DiffusionNetwork(nn.Module):
    """Tensors are named as below `diffusion.` of the file."""

    def __init__(
        self, config: DiffusionConfig, cameras: int, frame_px: tuple[int, int], state: int, axes: int, width: int
    ) -> None:
        super().__init__()
        self.config, self.cameras = config, cameras
        make = partial(Encoder, config, frame_px, width)
        self.separate = config.use_separate_rgb_encoder_per_camera
        self.rgb_encoder: Stages = nn.ModuleList([make() for _ in range(cameras)]) if self.separate else make()
        seen = state + cameras * 2 * config.spatial_softmax_num_keypoints
        self.unet = Unet(config, axes, seen * config.n_obs_steps)

    def encoders(self) -> list[Encoder]:
        """One for each camera; they may be the same."""
        return list(self.rgb_encoder) if self.separate else [self.rgb_encoder] * self.cameras

    def condition(self, pictures: list[torch.Tensor], states: torch.Tensor) -> torch.Tensor:
        """pictures (n, 3, H, W) of each camera, states (n, width), the newest last; (1, n * features)."""
        found = [encoder(picture) for encoder, picture in zip(self.encoders(), pictures)]
        return torch.cat([states, *found], dim=-1).flatten()[None]

    def sample(self, condition: torch.Tensor, noise: torch.Tensor, step_noise: torch.Tensor | None) -> torch.Tensor:
        """noise (horizon, axes), DDPM's step_noise (steps, horizon, axes); the rows from the present observation on."""
        x = noise.T[None]
        bound = self.config.clip_sample_range
        for index, step in enumerate(schedule(self.config)):
            answer = self.unet(x, step.time, condition)
            sample = step.sample_of_state * x + step.sample_of_answer * answer
            other = step.other_of_state * x + step.other_of_answer * answer
            sample = sample.clamp(-bound, bound) if self.config.clip_sample else sample
            x = step.of_sample * sample + step.of_state * x + step.of_other * other
            if step_noise is not None:
                x = x + step.of_noise * step_noise[index].T
        return x[0].T[self.config.n_obs_steps - 1 :]
