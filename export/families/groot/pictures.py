"""From a camera's raw frame to the pixels of Qwen3-VL's vision tower, byte for byte as LeRobot prepares them.

LeRobot resizes bytes on the CPU: torch's bicubic filter along the width and then along the height, its weights whole
numbers of at most 16 bits, each result rounded to a byte. All of that is a product of whole numbers below 2^24, which
FP32 holds exactly, so that an engine has the same bytes.

Facts: LeRobot 0.6.1, `policies/groot/processor_groot.py`; torch, `aten/src/ATen/native/cpu/UpSampleKernel.cpp`;
transformers 5.5, `models/qwen2_vl/image_processing_qwen2_vl.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from export.families.groot.area import Size, area_resize

MOST_BITS, WEIGHT_BITS = 22, 15


@dataclass(frozen=True)
class Geometry:
    """What LeRobot's step does to a frame before Qwen3-VL's own processor; without a target it does nothing.

    edge     of the square that a frame is made into first
    crop     part of that square which is kept, around its middle; None for all
    by_area  sides keep their ratio, the shorter one is `edge` before and after the crop, and OpenCV resizes
    """

    target: Size | None
    edge: int
    crop: float | None
    letter_box: bool
    by_area: bool = False


@dataclass(frozen=True)
class Patches:
    """Qwen3-VL's own picture processor.

    factor      sides of a picture are multiples of so many pixels
    pixels      fewest and most of a picture
    mean, std   of the pixels from 0 to 1, by channel
    """

    factor: int
    pixels: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def size_of(self, picture: Size) -> Size:
        """Pixels of a picture that may have any size. Raises `ValueError` for one that is a mere strip."""
        height, width = picture
        if max(picture) > 200 * min(picture):
            raise ValueError(f"pictures of {height} x {width} are longer than 200 times their width")
        least, most = self.pixels
        made = (round(height / self.factor) * self.factor, round(width / self.factor) * self.factor)
        if made[0] * made[1] > most:
            ratio = math.sqrt(height * width / most)
            return tuple(max(self.factor, math.floor(side / ratio / self.factor) * self.factor) for side in picture)  # type: ignore[return-value]
        if made[0] * made[1] < least:
            ratio = math.sqrt(least / (height * width))
            return tuple(math.ceil(side * ratio / self.factor) * self.factor for side in picture)  # type: ignore[return-value]
        return made


class Prepared(nn.Module):
    """Raw frames of one camera as the vision tower's normalised pixels; `size` is theirs."""

    def __init__(self, frame: Size, geometry: Geometry, patches: Patches) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        size = frame
        if geometry.target is not None:
            if geometry.letter_box and size[0] != size[1]:
                side = max(size)
                top, left = (side - size[0]) // 2, (side - size[1]) // 2
                stages.append(nn.ZeroPad2d((left, side - size[1] - left, top, side - size[0] - top)))
                size = (side, side)
            if geometry.by_area:
                size = _shortest(stages, size, geometry.edge)
                size = _shortest(stages, _crop(stages, size, geometry.crop, math.floor), geometry.edge)
            else:
                size = _resize(stages, size, (geometry.edge, geometry.edge))
                size = _resize(stages, _crop(stages, size, geometry.crop, round), geometry.target)
        self.size = _resize(stages, size, patches.size_of(size))
        self.stages = nn.Sequential(*stages)
        self.mean, self.std = (nn.Buffer(255 * torch.tensor(row).view(3, 1, 1)) for row in (patches.mean, patches.std))

    def forward(self, frame: torch.Tensor) -> torch.Tensor:
        """uint8 (height, width, 3) to (1, 3, height, width)."""
        return (self.stages(frame.float().permute(2, 0, 1)[None]) - self.mean) / self.std


class Cropped(nn.Module):
    """A part of pictures (..., height, width)."""

    def __init__(self, first: Size, size: Size) -> None:
        super().__init__()
        self.rows, self.columns = (slice(start, start + length) for start, length in zip(first, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., self.rows, self.columns]


class Resized(nn.Module):
    """Whole numbers from 0 to 255, (..., height, width), to another size."""

    def __init__(self, size: Size, into: Size) -> None:
        super().__init__()
        (rows, row_bits), (columns, column_bits) = (byte_weights(*pair) for pair in zip(size, into))
        self.rows, self.columns = nn.Buffer(rows.T.contiguous()), nn.Buffer(columns)
        self.row_scale, self.column_scale = 2.0**-row_bits, 2.0**-column_bits
        self.changed = tuple(a != b for a, b in zip(size, into))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.changed[1]:
            x = _rounded(x @ self.columns * self.column_scale)
        return _rounded(self.rows @ x * self.row_scale) if self.changed[0] else x


def _rounded(x: torch.Tensor) -> torch.Tensor:
    return (x + 0.5).floor().clamp(0.0, 255.0)


def _resize(stages: list[nn.Module], size: Size, into: Size) -> Size:
    if size != into:
        stages.append(Resized(size, into))
    return into


def _shortest(stages: list[nn.Module], size: Size, edge: int) -> Size:
    """The shorter side becomes `edge` pixels long."""
    if min(size) == edge:
        return size
    scale = edge / min(size)
    into = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    stages.append(area_resize(size, into))
    return into


def _crop(stages: list[nn.Module], size: Size, part: float | None, whole: Callable[[float], int]) -> Size:
    if part is None or not 0.0 < part < 1.0:
        return size
    kept = (max(1, whole(size[0] * part)), max(1, whole(size[1] * part)))
    stages.append(Cropped(((size[0] - kept[0]) // 2, (size[1] - kept[1]) // 2), kept))
    return kept


def byte_weights(length: int, into: int) -> tuple[torch.Tensor, int]:
    """Weights (length, into) of the bicubic filter along one side, as the whole numbers that torch uses for bytes, and
    by which power of two they are multiplied."""
    lines = torch.eye(length, dtype=torch.float64)[None, None]
    weights = nn.functional.interpolate(lines, (length, into), mode="bicubic", antialias=True, align_corners=False)[
        0, 0
    ]
    largest, bits = float(weights.max()), 0
    while bits < MOST_BITS and int(0.5 + largest * 2 ** (bits + 1)) < 1 << WEIGHT_BITS:
        bits += 1
    scaled = weights * 2.0**bits
    return torch.trunc(scaled + 0.5 * scaled.sign()).float(), bits
