"""Validation with committed prefixes: each figure tells the fault it is there for from a policy without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from export.families.action_prior.batch import Window
from export.families.action_prior.config import PolicyConfig
from export.training.committed import DELAYS, EXECUTED, CommittedChunks
from export.training.data import Demonstrations, Windows, fit_embodiment
from export.training.processes import ALONE
from export.training.source import Rows
from export.training.validation import own_units
from tests.export.small import small

CONFIG: PolicyConfig = small(noise_scale=0.0)
CPU = torch.device("cpu")
STEPS, EPISODES = 70, 6
Answer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""(demonstrated actions, prefix, committed) to a chunk."""


def demonstrations() -> Windows:
    """Every episode begins at rest, moves, and rests: the history before an episode is one of standing still."""
    rng = np.random.default_rng(0)
    moves = 0.1 * rng.standard_normal((EPISODES, 1, 7)) * np.exp(-np.arange(STEPS) / 4)[None, :, None]
    actions = moves.reshape(-1, 7).astype(np.float32)
    data = Demonstrations(
        embodiment="arm",
        step_s=0.1,
        joints=tuple("abcdefg"),
        instructions=("reach",),
        state_slots=tuple(range(8, 15)),
        action_slots=tuple(range(29, 36)),
        states=np.cumsum(actions, axis=0),
        actions=actions,
        instruction=np.zeros(len(actions), np.int32),
        segment=np.repeat(np.arange(EPISODES), STEPS),
        episode=np.repeat(np.arange(EPISODES), STEPS),
        frames=None,
    )
    return Windows(data, fit_embodiment(data, 0, CONFIG.normalisation_quantile), CONFIG)


@dataclass
class Scripted:
    """A policy that answers as it is given; z is the number of the row."""

    windows: Windows
    answer: Answer
    config: PolicyConfig = CONFIG
    asked: list[tuple[Rows, torch.Tensor, torch.Tensor]] = field(default_factory=list)

    def chunk(
        self, noise: torch.Tensor, z: torch.Tensor, prefix: torch.Tensor, committed: torch.Tensor, used: torch.Tensor
    ) -> torch.Tensor:
        rows = z[:, 0].long().numpy()
        committed = committed.expand(len(rows), -1)
        self.asked.append((rows, prefix, committed))
        free = self.answer(self.windows.window(rows, CPU).actions, prefix, committed) * used[:, None]
        return torch.where(committed[..., None], prefix, free)


def judged(answer: Answer, count: int = 1000) -> tuple[dict[str, float], Scripted]:
    windows = demonstrations()
    policy = Scripted(windows, answer)

    def latents(rows: Rows, _: Window) -> torch.Tensor:
        return torch.from_numpy(rows[:, None]).float()

    units, noise = own_units((windows.embodiment,), CONFIG), torch.zeros(count, CONFIG.horizon, CONFIG.action_slots)
    committed = CommittedChunks(
        policy,
        windows,
        windows.whole(),
        count,
        units,
        noise,
        CPU,
        latents,
        seed=0,  # type: ignore[arg-type]
    )
    assert min(map(len, (committed.followed, committed.resting, committed.away))) >= EPISODES
    return committed.judge(ALONE), policy


def test_a_policy_that_does_what_was_demonstrated_is_without_fault() -> None:
    found, _ = judged(lambda actions, prefix, committed: actions)
    assert found["validation_committed_mae"] == 0 and found["validation_return"] == pytest.approx(1)
    assert found["validation_drift_rad"] < 1e-4


def test_a_policy_that_goes_on_as_the_prefix_does_not_return() -> None:
    """What training on clean prefixes leaves: a prefix of nothing means stay."""

    def follows(actions: torch.Tensor, prefix: torch.Tensor, committed: torch.Tensor) -> torch.Tensor:
        steps = committed.sum(dim=1).clamp(min=1)[:, None]
        onwards = ((prefix * committed[..., None]).sum(dim=1) / steps)[:, None].expand_as(actions)
        return torch.where(committed.any(dim=1)[:, None, None], onwards, actions)

    found, _ = judged(follows)
    assert found["validation_return"] == 0 and found["validation_drift_rad"] == 0
    assert found["validation_committed_mae"] > 0.01, "and a prefix of its own is not what comes next"


def test_a_policy_that_creeps_drifts() -> None:
    found, policy = judged(lambda actions, prefix, committed: actions + 0.02)
    scale = np.mean(policy.windows.embodiment.actions.scale)
    assert found["validation_drift_rad"] == pytest.approx(0.02 * scale, rel=0.1)
    assert found["validation_committed_mae"] == pytest.approx(0.02, rel=1e-4)


def test_the_prefix_is_the_policys_own_at_the_delays_that_occur() -> None:
    _, policy = judged(lambda actions, prefix, committed: actions + 0.3)
    asked = [entry for entry in policy.asked if entry[2].any()]
    delays = torch.cat([committed.sum(dim=1) for _, _, committed in asked])
    assert set(delays.tolist()) == set(DELAYS)
    used = policy.windows.window(np.array([0]), CPU).slots[0]
    followed = 0
    for (earlier, _, nothing), (rows, prefix, committed) in zip(policy.asked, policy.asked[1:]):
        if nothing.any() or not committed.any():
            continue
        np.testing.assert_array_equal(earlier, rows - EXECUTED)
        said = policy.windows.window(earlier, CPU).actions + 0.3
        for row in range(len(rows)):
            d = int(committed[row].sum())
            assert torch.allclose(prefix[row, :d][:, used], said[row, EXECUTED : EXECUTED + d][:, used])
            followed += 1
    assert followed > 50


def test_data_without_an_arm_that_rests_has_no_such_figure() -> None:
    windows = demonstrations()
    moving = windows.whole()[5:9]
    policy = Scripted(windows, lambda actions, prefix, committed: actions)
    noise = torch.zeros(4, CONFIG.horizon, CONFIG.action_slots)
    units = own_units((windows.embodiment,), CONFIG)
    committed = CommittedChunks(
        policy,
        windows,
        moving,
        4,
        units,
        noise,
        CPU,
        lambda rows, _: torch.from_numpy(rows[:, None]).float(),
        0,  # type: ignore[arg-type]
    )
    assert set(committed.judge(ALONE)) == {"validation_committed_mae"}
