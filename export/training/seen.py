"""What the backbone is given of a dataset: frames, or what a vision tower that is not trained has made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from export.families.action_prior.backbone import Backbone, Seen
from export.families.action_prior.policy import Observation
from export.training.instructions import InstructionTokens
from export.training.source import Rows, Source

PART = 64


class Looks:
    """Observations by row. With `frozen` eyes every frame is seen once, before training, and kept in half precision.

    Instructions are as wide as the longest one of the data, not as the budget: nothing looks at padding.
    """

    def __init__(
        self, backbone: Backbone, windows: Source, text: InstructionTokens, device: torch.device, frozen: bool
    ) -> None:
        self._windows, self._text, self._device = windows, text, device
        self._features: torch.Tensor | None = None
        if frozen:
            self._see(backbone)

    def of(self, rows: Rows) -> Observation:
        """What the policy sees at these rows."""
        if self._features is None:
            look = self._windows.observation(rows, self._text, self._device)
            width = self._text.longest
            return replace(look, tokens=look.tokens[:, :width], token_mask=look.token_mask[:, :width])
        at = torch.from_numpy(rows)
        tokens, *deepstack = self._features[at].to(self._device).float().unbind(dim=1)
        return Observation(
            Seen(tokens, tuple(deepstack)), self._tokens[at].to(self._device), self._mask[at].to(self._device)
        )

    @torch.no_grad()
    def _see(self, backbone: Backbone) -> None:
        config, count = backbone.config, len(self._windows)
        layers = 1 + len(config.vision.deepstack_layers)
        shape = (count, layers, config.cameras, config.image_tokens, config.text.hidden)
        self._features = torch.empty(shape, dtype=torch.float16)
        width = self._text.longest
        self._tokens = torch.empty(count, width, dtype=torch.int64)
        self._mask = torch.empty(count, width, dtype=torch.bool)
        backbone.eval()
        for first in tqdm(range(0, count, PART), desc="frames", unit="batch", mininterval=1.0):
            rows = np.arange(first, min(first + PART, count))
            look = self._windows.observation(rows, self._text, self._device)
            assert isinstance(look.frames, torch.Tensor)
            seen = backbone.see(look.frames)
            self._features[first : first + PART] = torch.stack([seen.tokens, *seen.deepstack], dim=1).cpu()
            self._tokens[first : first + PART], self._mask[first : first + PART] = (
                look.tokens[:, :width].cpu(),
                look.token_mask[:, :width].cpu(),
            )
