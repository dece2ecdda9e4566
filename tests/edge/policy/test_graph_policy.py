"""From an observation to a chunk through the exported engines: the same chunk as torch, reproducible from its seed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.bundle import Bundle, TextSpec, load_bundle
from edge.errors import InputError
from edge.policy.base import PolicyInput, open_policy
from edge.policy.graph_policy import GraphPolicy
from edge.policy.prompt import Prompter
from export.families.action_prior.checkpoint import load_checkpoint
from export.training.instructions import InstructionTokens
from tests.conftest import SHIPPED
from tests.support import HOME

TASK = "reach the green cube"


@pytest.fixture(scope="module")
def policy(bundle_path: Path) -> GraphPolicy:
    return open_policy(load_bundle(bundle_path), "franka", TASK, threads=1)


def observation(seed: int = 3, prefix: int = 2) -> PolicyInput:
    rng = np.random.default_rng(seed)
    return PolicyInput(
        frames=rng.integers(0, 256, (1, 128, 128, 3), dtype=np.uint8),
        states_rad=HOME + 0.1 * rng.normal(size=(15, 7)),
        actions_rad=0.02 * rng.normal(size=(15, 7)),
        mask=np.ones(15, dtype=bool),
        prefix_rad=0.02 * rng.normal(size=(prefix, 7)),
        seed=(0, seed),
    )


@pytest.fixture(scope="module")
def noisy(bundle_path: Path) -> GraphPolicy:
    """The shipped policy starts every chunk without noise; this one takes all of it."""
    manifest = load_bundle(bundle_path).manifest
    feed = dataclasses.replace(manifest.graph.feeds["action_decoder.noise"], scale=1.0)
    graph = dataclasses.replace(manifest.graph, feeds={**manifest.graph.feeds, "action_decoder.noise": feed})
    return open_policy(Bundle(bundle_path, dataclasses.replace(manifest, graph=graph)), "franka", TASK, threads=1)


def test_the_seed_reproduces_a_chunk(policy: GraphPolicy, noisy: GraphPolicy) -> None:
    first = noisy.infer(observation()).increments_rad
    other = noisy.infer(dataclasses.replace(observation(), seed=(0, 99))).increments_rad
    again = noisy.infer(observation()).increments_rad
    assert first.shape == (15, 7)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    calm = [policy.infer(dataclasses.replace(observation(), seed=(0, seed))).increments_rad for seed in (3, 99)]
    assert np.array_equal(*calm) and not np.allclose(calm[0], first)


def test_the_committed_prefix_comes_back_as_it_went_in(policy: GraphPolicy) -> None:
    seen = observation(prefix=4)
    assert policy.infer(seen).increments_rad[:4] == pytest.approx(seen.prefix_rad, abs=1e-7)


def test_rows_that_the_mask_excludes_do_not_matter(policy: GraphPolicy) -> None:
    seen = observation()
    mask = np.arange(15) >= 9
    states = seen.states_rad.copy()
    states[:9] = 1e6
    short = dataclasses.replace(seen, mask=mask)
    other = dataclasses.replace(seen, mask=mask, states_rad=states)
    assert np.array_equal(policy.infer(short).increments_rad, policy.infer(other).increments_rad)


def test_the_runtime_computes_what_torch_computes(noisy: GraphPolicy) -> None:
    """Normalisation, slots, noise and chaining included: one observation through both worlds."""
    checkpoint = load_checkpoint(SHIPPED)
    torch_policy, config, arm = checkpoint.build(), checkpoint.config, checkpoint.embodiments[0]
    seen = observation()

    def row(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values)[None]

    from tokenizers import Tokenizer

    text = InstructionTokens(Tokenizer.from_str(checkpoint.tokenizer or ""), (TASK,), config.token_budget)
    tokens, token_mask = text.of(np.array([0]))
    noise = np.zeros((15, 37), np.float32)
    noise[:, list(arm.actions.slots)] = np.random.default_rng(seen.seed).standard_normal((15, 7), dtype=np.float32)
    prefix = np.zeros((15, 37), np.float32)
    prefix[:2] = arm.actions.spread_into(seen.prefix_rad, 37)
    used = torch.zeros(1, 37)
    used[:, list(arm.actions.slots)] = 1
    embodiment = torch.tensor([arm.index])
    with torch.no_grad():
        history = torch_policy.encoder(
            row(arm.states.spread_into(seen.states_rad, 74)),
            row(arm.actions.spread_into(seen.actions_rad, 37)),
            row(seen.mask),
            embodiment,
        )
        z = torch_policy.backbone(
            row(np.stack(seen.frames)), tokens, token_mask, history, torch.ones(1, dtype=torch.bool), embodiment
        )
        chunk = torch_policy.chunk(row(noise), z, row(prefix), torch.arange(15)[None] < 2, used)[0].numpy()
    wanted = chunk[:, list(arm.actions.slots)] * arm.actions.scale + arm.actions.offset
    assert noisy.infer(seen).increments_rad == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("", "the task is empty"),
        ("reach the purple cube", "never learned the word 'purple'; it knows: .*red"),
        ("reach the red cube " * 5, "has 20 tokens and this bundle takes 16"),
    ],
)
def test_a_task_that_the_policy_cannot_take_is_refused(bundle_path: Path, task: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Prompter(TextSpec("tokenizer.json", 16), bundle_path / "tokenizer.json", task)
