"""How chunks go on from a committed prefix, as on the robot, where all but the first request carry one.

Three figures, of episodes that training never sees. The error of chunks whose prefix is the policy's own: what its
chunk of `EXECUTED` steps before says of the steps until this one arrives. And two with a prefix of nothing, where the
arm rested: how fast it leaves a place where it should stay, and how much of the way it goes where it should move. A
policy that takes "nothing is committed" for "stay" goes none of it, and nothing then stops its drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from export.families.action_prior.batch import Window
from export.families.action_prior.policy import ActionPrior
from export.training.processes import Processes
from export.training.source import STILL, Rows, Source

Latents = Callable[[Rows, Window], torch.Tensor]
"""z, or z', of some rows and their window."""
DELAYS = (1, 2, 3)
"""Steps that are committed when a request is made, in turn: what inference of up to 300 ms takes."""
EXECUTED = 5
"""Steps between two requests, as `edge-run` has it."""
FAR = 1.0
"""In normalised units: an arm has a way to go whose increments over a chunk add up to more."""
MOST_SCANNED, PART = 16_384, 64


class CommittedChunks:
    """Judges fixed rows. Each kind of row may be missing in the data, and then so is its figure."""

    def __init__(
        self,
        policy: ActionPrior,
        windows: Source,
        held_out: Rows,
        count: int,
        units: torch.Tensor,
        noise: torch.Tensor,
        device: torch.device,
        latents: Latents,
        seed: int,
    ) -> None:
        self._policy, self._windows, self._latents, self._device = policy, windows, latents, device
        self._units, self._noise = units, noise
        rng = np.random.default_rng([seed, 0, 4])
        scanned = rng.permutation(held_out)[:MOST_SCANNED]
        kinds = [self._kinds(scanned[part : part + 1024]) for part in range(0, len(scanned), 1024)]
        chosen = np.concatenate(kinds, axis=1) if kinds else np.zeros((3, 0), bool)
        self.followed, self.resting, self.away = (np.sort(scanned[kind][:count]) for kind in chosen)

    def judge(self, processes: Processes) -> dict[str, float]:
        """Means: `validation_committed_mae`, normalised as `validation_mae` is; `validation_drift_rad`, the increment
        of a step where the arm should stay, in the data's own unit; `validation_return`, the part of the demonstrated
        way that is gone, 1 for all of it."""
        sums = [0.0] * 6
        for at, rows in self._parts(self.followed, processes):
            sums[0:2] = _added(sums[0:2], self._followed(rows, at))
        for at, rows in self._parts(self.resting, processes):
            sums[2:4] = _added(sums[2:4], self._drift(rows, at))
        for at, rows in self._parts(self.away, processes):
            sums[4:6] = _added(sums[4:6], self._return(rows, at))
        sums = processes.add(sums)
        names = ("validation_committed_mae", "validation_drift_rad", "validation_return")
        return {name: sums[2 * at] / sums[2 * at + 1] for at, name in enumerate(names) if sums[2 * at + 1]}

    def _kinds(self, rows: Rows) -> np.ndarray:
        """Which rows (n,) have the policy's own chunk before them, rest, or rest and should move; bool (3, n)."""
        cpu = torch.device("cpu")
        window = self._windows.window(rows, cpu)
        before = rows - EXECUTED
        known = before >= 0
        known &= self._windows.episode[np.maximum(before, 0)] == self._windows.episode[rows]
        known &= self._windows.window(np.where(known, before, rows), cpu).valid[:, EXECUTED].numpy()
        whole = window.valid.all(dim=1)
        rested = whole & (window.past_actions.abs().amax((1, 2)) < STILL)
        stays = rested & (window.actions.abs().amax((1, 2)) < STILL)
        leaves = rested & (window.actions.sum(dim=1).norm(dim=1) > FAR)
        return np.stack([known, stays.numpy(), leaves.numpy()])

    def _parts(self, rows: Rows, processes: Processes) -> Iterator[tuple[slice, Rows]]:
        for first in range(processes.rank * PART, len(rows), processes.count * PART):
            yield slice(first, min(first + PART, len(rows))), rows[first : first + PART]

    def _chunk(self, rows: Rows, window: Window, prefix: torch.Tensor, at: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Chunks (n, horizon, slots) after `prefix` of the same shape, and which of their actions are not committed."""
        delays = torch.tensor(DELAYS, device=self._device)[torch.arange(at.start, at.stop) % len(DELAYS)]
        committed = torch.arange(prefix.shape[1], device=self._device) < delays[:, None]
        z = self._latents(rows, window)
        chunk = self._policy.chunk(self._noise[at], z, prefix, committed, window.slots.float())
        return chunk, ~committed

    def _followed(self, rows: Rows, at: slice) -> tuple[float, float]:
        earlier = self._windows.window(rows - EXECUTED, self._device)
        nothing = torch.zeros_like(earlier.valid[:1])
        before = self._policy.chunk(
            self._noise[at],
            self._latents(rows - EXECUTED, earlier),
            torch.zeros_like(earlier.actions),
            nothing,
            earlier.slots.float(),
        )
        prefix = torch.zeros_like(before)
        prefix[:, : before.shape[1] - EXECUTED] = before[:, EXECUTED:]
        window = self._windows.window(rows, self._device)
        chunk, free = self._chunk(rows, window, prefix, at)
        counts = ((window.valid & free)[..., None] & window.slots[:, None]).double()
        return float(((chunk - window.actions).abs() * counts).sum()), float(counts.sum())

    def _drift(self, rows: Rows, at: slice) -> tuple[float, float]:
        window = self._windows.window(rows, self._device)
        chunk, free = self._chunk(rows, window, torch.zeros_like(window.actions), at)
        steady = (chunk * free[..., None]).sum(dim=1) / free.sum(dim=1)[:, None]
        own = steady.abs().double() * self._units[window.embodiment] * window.slots
        return float(own.sum()), float(window.slots.sum())

    def _return(self, rows: Rows, at: slice) -> tuple[float, float]:
        window = self._windows.window(rows, self._device)
        chunk, free = self._chunk(rows, window, torch.zeros_like(window.actions), at)
        gone, wanted = ((one * free[..., None]).sum(dim=1).double() for one in (chunk, window.actions))
        return float((gone * wanted).sum()), float(wanted.square().sum())


def _added(sums: list[float], found: tuple[float, float]) -> list[float]:
    return [total + value for total, value in zip(sums, found)]
