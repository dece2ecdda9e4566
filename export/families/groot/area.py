"""OpenCV's INTER_AREA on bytes, which GR00T's step takes for `use_albumentations`, as an engine has it.

A smaller picture's pixels are the means of what they cover. A larger one's lie between two pixels, by OpenCV's linear
filter in whole numbers: weights of 11 bits, products shifted before they are added. FP32 holds every number here that
has to be whole. Where a mean lies on a half, OpenCV rounds what its own order of adding leaves, and a byte may be one
off: of random pictures 3 bytes in 100,000 from 480 x 640 to 256 x 341, and 4 in 1,000 where the sides are as 6 to 5.

Facts: OpenCV 4.13, `modules/imgproc/src/resize.cpp`.
"""

from __future__ import annotations

import math

import torch
from torch import nn

Size = tuple[int, int]
"""(height, width) in pixels."""
WEIGHT = 2048
"""Weights of the linear filter are whole parts of it."""
LEAST_PART = 1e-3
"""Of a pixel: less of it at an edge does not count."""


def area_resize(size: Size, into: Size) -> nn.Module:
    """From bytes (..., height, width) to another size."""
    factors = [of / to for of, to in zip(size, into)]
    if min(factors) < 1:
        return LargerArea(size, into)
    if all(factor.is_integer() for factor in factors):
        return WholeArea(size, into)
    return SmallerArea(size, into)


class SmallerArea(nn.Module):
    """Means of areas, some of whose pixels lie in two."""

    def __init__(self, size: Size, into: Size) -> None:
        super().__init__()
        rows, columns = (area_weights(*pair) for pair in zip(size, into))
        self.rows, self.columns = nn.Buffer(rows.T.contiguous()), nn.Buffer(columns)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.rows @ (x @ self.columns)).round().clamp(0.0, 255.0)


class WholeArea(nn.Module):
    """Means of whole pixels: a sum, and one rounding, of halves upwards where four are one."""

    def __init__(self, size: Size, into: Size) -> None:
        super().__init__()
        rows, columns = ((area_weights(*pair) > 0).float() for pair in zip(size, into))
        self.rows, self.columns = nn.Buffer(rows.T.contiguous()), nn.Buffer(columns)
        self.share = into[0] * into[1] / (size[0] * size[1])
        self.upwards = (2 * into[0], 2 * into[1]) == size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.rows @ (x @ self.columns) * self.share
        return (mean + 0.5).floor() if self.upwards else mean.round()


class LargerArea(nn.Module):
    """The linear filter: along the width, then along the height."""

    def __init__(self, size: Size, into: Size) -> None:
        super().__init__()
        (rows, row_weights), (columns, column_weights) = (linear_weights(*pair) for pair in zip(size, into))
        along = torch.zeros(size[1], into[1])
        for pixel, weight in zip(columns.T, column_weights.T):
            along.scatter_add_(0, pixel[None], weight[None])
        self.columns = nn.Buffer(along)
        self.rows, self.weights = nn.Buffer(rows), nn.Buffer(row_weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = (x @ self.columns / 16).floor()  # at most 15 bits
        both = [
            shifted(mixed[..., pixels, :], weights[:, None]) for pixels, weights in zip(self.rows.T, self.weights.T)
        ]
        return ((both[0] + both[1] + 2) / 4).floor().clamp(0.0, 255.0)


def shifted(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The whole part of x * weight / 65536, without a number above 24 bits on the way."""
    high = (x / 256).floor()
    low = x - 256 * high
    return ((weight * high + (weight * low / 256).floor()) / 256).floor()


def area_weights(length: int, into: int) -> torch.Tensor:
    """(length, into): which part of each of its pixels' mean a pixel is."""
    factor, weights = length / into, torch.zeros(length, into)
    for pixel in range(into):
        start, end = pixel * factor, (pixel + 1) * factor
        covered = min(factor, length - start)
        last = min(math.floor(end), length - 1)
        first = min(math.ceil(start), last)
        if first - start > LEAST_PART:
            weights[first - 1, pixel] = (first - start) / covered
        weights[first:last, pixel] = 1 / covered
        if end - last > LEAST_PART:
            weights[last, pixel] = min(end - last, 1.0, covered) / covered
    return weights


def linear_weights(length: int, into: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two pixels (into, 2) that each lies between, and their weights in parts of `WEIGHT`."""
    pixels, weights = torch.zeros(into, 2, dtype=torch.int64), torch.zeros(into, 2)
    for pixel in range(into):
        first = math.floor(pixel * (length / into))
        way = (pixel + 1) - (first + 1) * (into / length)
        way = way - math.floor(way) if way > 0 and first < length - 1 else 0.0
        first = min(first, length - 1)
        pixels[pixel] = torch.tensor([first, min(first + 1, length - 1)])
        weights[pixel] = torch.tensor([WEIGHT * (1 - way), WEIGHT * way]).round()
    return pixels, weights
