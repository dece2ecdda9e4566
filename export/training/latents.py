"""z of every window, for stages that train the decoder alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from export.families.action_prior.policy import ActionPrior, VlaPolicy
from export.training.instructions import InstructionTokens
from export.training.schedule import TrainingError
from export.training.seen import Looks
from export.training.source import Rows, Source

PART = 64


class Latents:
    """z of every window, computed once: what makes it is not trained here.

    For a whole policy it is z' with the history token, and another without, where it was trained without as well.
    """

    def __init__(
        self, policy: ActionPrior, windows: Source, text: InstructionTokens | None, device: torch.device
    ) -> None:
        self._device = device
        shape = (len(windows), policy.config.latent)
        if not isinstance(policy, VlaPolicy):
            self._with = torch.empty(shape)
            self._fill(len(windows), lambda rows: [policy.encode_future(windows.window(rows, device))], [self._with])
            self._without = self._with
            return
        if text is None:
            raise TrainingError("the teacher sees images and reads instructions, this data has none")
        looks = Looks(policy.backbone, windows, text, device, frozen=False)
        self._with = self._without = torch.empty(shape)
        if policy.config.without_history > 0:
            self._without = torch.empty(shape)

        def both(rows: Rows) -> list[torch.Tensor]:
            window = windows.window(rows, device)
            everywhere = torch.full_like(window.past_mask[:, 0], policy.config.history_compressor != "none")
            choices = [everywhere, torch.zeros_like(everywhere)]
            return policy.latents(window, looks.of(rows), choices[: len(tables)])

        tables = [self._with] if self._without is self._with else [self._with, self._without]
        self._fill(len(windows), both, tables)

    def of(self, rows: Rows, with_history: torch.Tensor | None = None) -> torch.Tensor:
        """z of these rows (batch, latent); by default with the history token."""
        at = torch.from_numpy(rows)
        z = self._with[at].to(self._device)
        if with_history is None:
            return z
        return torch.where(with_history[:, None], z, self._without[at].to(self._device))

    @torch.no_grad()
    def _fill(self, count: int, latents: Callable[[Rows], list[torch.Tensor]], tables: list[torch.Tensor]) -> None:
        for first in tqdm(range(0, count, PART), desc="latents", unit="batch", mininterval=1.0):
            rows = np.arange(first, min(first + PART, count))
            for table, found in zip(tables, latents(rows)):
                table[first : first + len(rows)] = found.cpu()
