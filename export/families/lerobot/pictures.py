"""From a camera's bytes and the robot's numbers to what a network takes, and back."""

from __future__ import annotations

import torch
from torch import nn

from export.families.lerobot.folder import ACTION, STATE, Folder
from export.families.lerobot.statistics import Affine


class Pictures(nn.Module):
    """uint8 (height, width, 3), or (n, height, width, 3), to float32 (n, 3, height, width), normalised.

    The cast comes first: TensorRT has no transpose of bytes. One product and one sum do the rest.
    """

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        factor = 1 / (255 * affine.divisor.double())
        shift = -affine.offset.double() / affine.divisor.double()
        self.factor, self.shift = nn.Buffer(_channels(factor)), nn.Buffer(_channels(shift))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        frames = frames.float()
        frames = frames[None] if frames.ndim == 3 else frames
        return frames.permute(0, 3, 1, 2) * self.factor + self.shift


class Normalised(nn.Module):
    """The robot's numbers (..., width) as the network sees them."""

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.offset, self.divisor = nn.Buffer(affine.offset), nn.Buffer(affine.divisor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.offset) / self.divisor


class Restored(nn.Module):
    """What the network answers (..., width) in the robot's units."""

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.factor, self.offset = nn.Buffer(affine.factor), nn.Buffer(affine.offset)

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return y * self.factor + self.offset


def _channels(values: torch.Tensor) -> torch.Tensor:
    return values.float().expand(3).reshape(3, 1, 1).clone()


def pictures_of(folder: Folder) -> list[Pictures]:
    """What prepares the frames of each camera. Raises `CheckpointError` for statistics that do not fit."""
    return [Pictures(folder.inputs.affine(camera.feature, 3)) for camera in folder.cameras]


def state_of(folder: Folder) -> Normalised:
    """What prepares the state. Raises `CheckpointError` likewise."""
    return Normalised(folder.inputs.affine(STATE, folder.state_width))


def goals_of(folder: Folder) -> Restored:
    """What makes goals of the network's answer. Raises `CheckpointError` likewise."""
    return Restored(folder.outputs.affine(ACTION, folder.action_width))
