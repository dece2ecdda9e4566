"""SmolVLA, pi0, pi0.5 and GR00T: the engines made of LeRobot's own folders answer as LeRobot's own code did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from export.families.vla.text import prompt_ids
from tests.export.families.lerobot_engines import FOLDERS, Exported, read_fixture, restated, values_of
from tools.lerobot.inputs import observations, read

FAMILIES = ("smolvla", "pi05", "pi0")
GROOT = pytest.param("groot", marks=pytest.mark.slow(reason="a quarter of a minute an export; make lerobot-groot"))
OF_RANGE, COSINE, RELATIVE = 1e-4, 0.99, 0.14
"""Gates of docs/reference/engines.md; FP32's is a part of each axis's range in the training statistics."""


@pytest.fixture(scope="module", params=[*FAMILIES, GROOT])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    yield Exported(request.param, "fp32", tmp_path_factory.mktemp(request.param))


def answers(exported: Exported, name: str) -> NDArray[np.float32]:
    return read(exported.policy.folder.path, name)[1]


@pytest.mark.long
def test_engines_agree_with_lerobot(exported: Exported) -> None:
    report = exported.maker.report()
    assert report["passed"], (report["agreement"], report["negative_control"])
    span, found = exported.policy.action_range.numpy(), exported.chunks()
    assert found.shape == exported.wanted.shape and len(found) == 64
    assert (np.abs(found - exported.wanted).max(axis=(0, 1)) <= OF_RANGE * span).all()
    mixed_up = np.roll(exported.wanted, 1, axis=0)
    assert (np.abs(found - mixed_up).max(axis=(0, 1)) > 10 * OF_RANGE * span).all()


@pytest.mark.long
def test_guidance_agrees_with_lerobots_real_time_chunking(exported: Exported) -> None:
    span, guided = exported.policy.action_range.numpy(), answers(exported, "guided")
    found = exported.chunks(answers(exported, "goals"))
    assert (np.abs(found - guided).max(axis=(0, 1)) <= OF_RANGE * span).all()
    assert (np.abs(guided - exported.wanted).max(axis=(0, 1)) > 100 * OF_RANGE * span).all(), "guidance shows"


@pytest.mark.long
def test_every_input_shows_in_the_answer_but_padding(exported: Exported) -> None:
    """Otherwise an agreement would say nothing of it."""
    policy, seen = exported.policy, list(observations(exported.inputs))[:2]
    one, other = (values_of(policy, exported.inputs, each, answers(exported, "goals")[0]) for each in seen)
    wanted, span = exported.chunk(dict(one)), policy.action_range.numpy()
    for port, feed in policy.feeds.items():
        if feed["kind"] == "tokens":
            padded = one[port].where(one[port.replace("tokens", "token_mask")], 7)
            assert np.abs(exported.chunk({**one, port: padded}) - wanted).max() <= (OF_RANGE * span).max()
        if feed["kind"] == "committed_goals":
            other[port] = one[port] + 1
        if feed["kind"] == "prefix_weights":
            other[port] = one[port] / 2
        moved = np.abs(exported.chunk({**one, port: other[port]}) - wanted).max(axis=0)
        assert (moved > 10 * OF_RANGE * span).any(), port


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *((name, precision) for name in FAMILIES for precision in ("bf16", "int8")),
        pytest.param("groot", "bf16", marks=GROOT.marks),  # INT8 fails the gate of its features, and no export passes
    ],
)
def test_lower_precisions_keep_to_their_gates(name: str, precision: str, tmp_path: Path) -> None:
    exported = Exported(name, precision, tmp_path)
    report = exported.maker.report()
    assert report["passed"], (report["agreement"], report["negative_control"])
    found, span = exported.chunks(), exported.policy.action_range.numpy()
    cosine, relative = compared(found, exported.wanted, span)
    assert cosine >= COSINE and relative <= RELATIVE
    cosine, relative = compared(found, np.roll(exported.wanted, 1, axis=0), span)
    assert cosine < COSINE and relative > RELATIVE, "answers to other observations must not pass"


def compared(found: NDArray[np.float32], wanted: NDArray[np.float32], span: NDArray[np.float32]) -> tuple[float, float]:
    """The worst cosine and relative RMS error of all chunks, axes in units of their ranges, around their middle."""
    middle = wanted.mean(axis=(0, 1))
    rows = [((one - middle) / span).reshape(len(one), -1) for one in (found, wanted)]
    lengths = [np.linalg.norm(one, axis=1) for one in rows]
    cosine = (rows[0] * rows[1]).sum(axis=1) / (lengths[0] * lengths[1])
    return float(cosine.min()), float((np.linalg.norm(rows[0] - rows[1], axis=1) / lengths[1]).max())


@pytest.mark.parametrize("name", FAMILIES)  # of GR00T's the whole is held to LeRobot's in test_groot.py
def test_the_prompt_has_lerobots_tokens(name: str) -> None:
    policy, (inputs, tokens) = read_fixture(name), read(FOLDERS / name, "tokens")
    for seen, wanted in zip(observations(inputs), tokens):
        assert policy.text is not None
        assert prompt_ids(policy.text, seen.task, seen.states[-1]) == [token for token in wanted if token]


@pytest.mark.parametrize(
    ("name", "guided"),
    [
        *((name, guided) for name in (*FAMILIES, "smolvla_variant", "groot") for guided in (False, True)),
        ("groot_variant", False),
        ("groot_area", False),
    ],
)
def test_the_restated_network_agrees_with_lerobot(name: str, guided: bool) -> None:
    """What is traced, on a few observations; the variant is what the defaults leave out."""
    policy, (inputs, wanted) = read_fixture(name), read(FOLDERS / name, "guided" if guided else "chunk")
    goals = read(FOLDERS / name, "goals")[1] if guided else [None] * len(wanted)
    answer, span = restated(policy), policy.action_range.numpy()
    for seen, right, plan in list(zip(observations(inputs), wanted, goals))[:6]:
        found = answer(values_of(policy, inputs, seen, plan))
        assert (np.abs(found[: len(right)] - right).max(axis=0) <= OF_RANGE * span).all()
