"""ResNet-18 and 34 up to their last feature map, named as torchvision names them, and the form that engines run.

He et al., 2015. The width of the first stage is the file's: a trained policy has 64 channels there.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.families.base import CheckpointError

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
STANDARD_WIDTH = 64
Norm = Callable[[int], nn.Module]


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and without a counter, as object detectors have it."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale, shift = batch_norm_sum(self)
        return x * scale[:, None, None] + shift[:, None, None]


def group_norm(channels: int) -> nn.Module:
    """Diffusion policies' norm: about 16 channels in a group."""
    return nn.GroupNorm(channels // 16, channels)


class Block(nn.Module):
    """Two convolutions of 3 x 3 beside a way past them."""

    downsample: nn.Module | None

    def __init__(self, channels: int, made: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, made, 3, stride, 1, bias=False), norm(made)
        self.conv2, self.bn2 = nn.Conv2d(made, made, 3, 1, 1, bias=False), norm(made)
        past = nn.Sequential(nn.Conv2d(channels, made, 1, stride, bias=False), norm(made))
        self.downsample = past if stride != 1 or channels != made else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def resnet(name: str, width: int, norm: Norm) -> dict[str, nn.Module]:
    """The modules in their order, by torchvision's names; pictures (n, 3, H, W) to (n, 8 width, H/32, W/32)."""
    modules: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, width, 7, 2, 3, bias=False),
        "bn1": norm(width),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    channels = width
    for stage, count in enumerate(BLOCKS[name]):
        made, blocks = width << stage, []
        for index in range(count):
            blocks.append(Block(channels, made, 2 if stage and not index else 1, norm))
            channels = made
        modules[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return modules


def width_of(shapes: Any, first: str, file: Path) -> int:
    """Channels of the first stage, from the shape of its convolution. Raises `CheckpointError` where it has none."""
    shape = shapes.get(first)
    if shape is None or len(shape) != 4 or shape[0] < 1:
        raise CheckpointError(f"{file}: no tensor '{first}' of a ResNet; copy the whole folder")
    return int(shape[0])


def map_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the last feature map: five strides of two, each rounded up."""
    for _ in range(5):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width


def batch_norm_sum(norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch norm as scale and shift, each (channels,)."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


@torch.no_grad()
def merge_norms(module: nn.Module) -> nn.Module:
    """Puts every batch norm behind a convolution into it, in place: the same sums with fewer steps."""
    for child in module.children():
        merge_norms(child)
    names = list(module._modules)
    for first, second in pairwise(names):
        convolution, norm = module._modules[first], module._modules[second]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, FrozenBatchNorm | nn.BatchNorm2d):
            scale, shift = batch_norm_sum(norm)
            convolution.weight = nn.Parameter(convolution.weight * scale[:, None, None, None], requires_grad=False)
            convolution.bias = nn.Parameter(shift, requires_grad=False)
            module._modules[second] = nn.Identity()
    return module
