"""Tensors of a checkpoint by name, as layers to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from export.families.layers import Projection


class Tensors(Protocol):
    """A file of tensors, each read in FP32 when it is taken."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def take(self, name: str) -> torch.Tensor: ...


@dataclass(frozen=True)
class Source:
    """The tensors whose names begin with `prefix`."""

    tensors: Tensors
    prefix: str = ""

    def at(self, name: str | int) -> Source:
        """Those of a module below."""
        return Source(self.tensors, f"{self.prefix}{name}.")

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors.take(self.prefix + name)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors.shapes[self.prefix + name]

    def linear(self, name: str, scale: float = 1.0) -> nn.Linear:
        """A linear layer; a factor of what it gives becomes part of it."""
        weight = self.tensor(f"{name}.weight")
        layer = nn.Linear(
            weight.shape[1], weight.shape[0], f"{self.prefix}{name}.bias" in self.tensors.shapes, device="meta"
        )
        layer.weight = nn.Parameter(weight * scale, requires_grad=False)
        if layer.bias is not None:
            layer.bias = nn.Parameter(self.tensor(f"{name}.bias") * scale, requires_grad=False)
        return layer

    def projection(self, *names: str, precise: bool = False) -> Projection:
        """Linear layers of the same input, as one product."""
        return Projection([self.linear(name) for name in names], precise)

    def layer_norm(self, name: str, epsilon: float) -> nn.LayerNorm:
        weight, bias = self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")
        norm = nn.LayerNorm(len(weight), epsilon, device="meta")
        norm.weight, norm.bias = (nn.Parameter(tensor, requires_grad=False) for tensor in (weight, bias))
        return norm
