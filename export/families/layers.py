"""What the engines of all families are made of: products that may run in a lower precision, norms, rotary positions."""

from __future__ import annotations

import torch
from torch import nn


class Projection(nn.Module):
    """`x @ weight + bias` with the weight as (inputs, outputs), so that no engine has to transpose it.

    `precise` keeps it in FP32 when the engine's precision is lower; without `int8` it stays FP32 in an INT8 engine.
    `smooth` moves large inputs into the weight.
    """

    bias: torch.Tensor | None
    calming: torch.Tensor | None

    def __init__(self, linears: list[nn.Linear], precise: bool) -> None:
        super().__init__()
        self.precise, self.int8 = precise, True
        weight = torch.cat([linear.weight.detach() for linear in linears]).T.contiguous()
        self.weight: torch.Tensor = nn.Buffer(weight)
        biases = [linear.bias.detach() for linear in linears if linear.bias is not None]
        bias = torch.cat(biases) if biases else None
        if (
            bias is not None and not precise
        ):  # on three axes ONNX Runtime leaves it out of a Gemm, which has no INT8 form
            bias = bias[None, None]
        self.register_buffer("bias", bias)
        self.register_buffer("calming", None)

    def smooth(self, factors: torch.Tensor) -> None:
        """Divides the inputs by `factors` (inputs,) and multiplies the weight: the same product, rounded better.

        A few channels of a transformer's activations are far larger than the others, and one INT8 scale for all of
        them would be theirs (Xiao et al., SmoothQuant, 2022).
        """
        self.weight *= factors[:, None]
        self.calming = 1 / factors

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.calming is None else x * self.calming
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class RootMeanSquareNorm(nn.Module):
    """The norm without a mean, spelled as runtimes look for it when they fuse it into one operation."""

    def __init__(self, weight: torch.Tensor, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Buffer(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x.pow(2).mean(-1, keepdim=True) + self.epsilon).sqrt() * self.weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions on the last axis, half against half; the sine carries the sign."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([second, first], dim=-1) * sin
