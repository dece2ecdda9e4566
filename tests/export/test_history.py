"""How the history reaches the policy: both passes of the paper, the compressors, an encoder of actions alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edge.engines import OnnxRuntimeEngine
from export.engines.graphs import graph_of, part_of
from export.engines.observations import draw_samples
from export.engines.package import engine_spec
from export.engines.trace import trace, write
from export.engines.verify import INPUTS, answer, run_engine
from export.families.action_prior.batch import Draw, draw_batch, totals
from export.families.action_prior.checkpoint import Checkpoint
from export.families.action_prior.config import ConfigError, PolicyConfig
from export.families.action_prior.history_mlp import HistoryMlp
from export.families.action_prior.policy import ActionPrior, VlaPolicy
from export.training.distil import student
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.vla import Plan, Start, train_vla
from tests.export.small import INSTRUCTIONS, QUIET, few, read_windows, small, write_dataset

DEVICE = torch.device("cpu")
COMPRESSORS = {
    "encoder": {},
    "actions": {"encoder_sees": "actions", "pose_weight": 0.0},
    "mlp": {"history_compressor": "mlp"},
    "mlp of actions": {"history_compressor": "mlp", "encoder_sees": "actions", "pose_weight": 0.0},
    "none": {"history_compressor": "none"},
}


class Scene:
    """A policy with weights at random, and eight windows to ask it about."""

    def __init__(self, folder: Path, **changes: object) -> None:
        self.config: PolicyConfig = small(**changes)
        self.windows, self.arm = read_windows(write_dataset(folder, frames=64), self.config)
        self.tokenizer = word_tokenizer(tuple(INSTRUCTIONS))
        self.text = InstructionTokens(self.tokenizer, tuple(INSTRUCTIONS), self.config.token_budget)
        rows = self.windows.whole()[8:16]
        self.window = self.windows.window(rows, DEVICE)
        self.observation = self.windows.observation(rows, self.text, DEVICE)
        self.draw = draw_batch(self.config, 8, (2,), DEVICE)
        torch.manual_seed(0)
        self.policy = VlaPolicy(self.config).eval()
        with torch.no_grad():
            for weights in self.policy.parameters():
                weights.add_(0.1 * torch.randn_like(weights))

    def losses(self, draw: Draw, distillation: float) -> dict[str, torch.Tensor]:
        whole = totals(self.config, self.window, draw)
        return self.policy.vla_losses(self.window, self.observation, draw, whole, distillation)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.config, self.policy.state_dict(), (self.arm,), self.tokenizer.to_str())


@torch.no_grad()
@pytest.mark.parametrize("distillation", [0.0, 0.7])
def test_both_passes_are_the_papers_mean(distillation: float, tmp_path: Path) -> None:
    """`L_total = (L(z_hist) + L(no history)) / 2`, with the same noise in both, as two separate losses give it."""
    scene = Scene(tmp_path, history_passes="both")
    found = scene.losses(scene.draw, distillation)
    scene.policy.config = dataclasses.replace(scene.config, history_passes="sampled")
    one, other = (
        scene.losses(dataclasses.replace(scene.draw, with_history=torch.full((8,), present)), distillation)
        for present in (True, False)
    )
    assert set(found) == set(one) == set(other)
    for name, value in found.items():
        assert value.item() == pytest.approx((one[name] + other[name]).item() / 2, rel=1e-5), name
    assert one["predict"].item() != pytest.approx(other["predict"].item(), rel=1e-4)


def test_a_share_of_a_batch_goes_without(tmp_path: Path) -> None:
    config = small(without_history=0.25)
    assert int(draw_batch(config, 16, (1,), DEVICE).with_history.sum()) == 12
    none = dataclasses.replace(config, history_compressor="none")
    assert not draw_batch(none, 16, (1,), DEVICE).with_history.any()


@torch.no_grad()
@pytest.mark.parametrize("name", COMPRESSORS)
def test_what_a_compressor_sees(name: str, tmp_path: Path) -> None:
    scene = Scene(tmp_path, **COMPRESSORS[name])
    always = [torch.ones(8, dtype=torch.bool)]
    before = scene.policy.latents(scene.window, scene.observation, always)[0]
    assert before.norm(dim=1).tolist() == pytest.approx([1.0] * 8)

    def differs(**changed: torch.Tensor) -> bool:
        window = dataclasses.replace(scene.window, **changed)
        return not torch.equal(scene.policy.latents(window, scene.observation, always)[0], before)

    assert differs(past_states=scene.window.past_states + 0.5) is (name in ("encoder", "mlp"))
    assert differs(past_actions=scene.window.past_actions + 0.5) is (name != "none")
    assert differs(past_mask=torch.arange(15).expand(8, -1) >= 3) is (name != "none")
    assert hasattr(scene.policy, "history_mlp") is name.startswith("mlp")


def test_an_encoder_of_actions_never_sees_a_state(tmp_path: Path) -> None:
    scene = Scene(tmp_path, **COMPRESSORS["actions"])
    prior = ActionPrior(scene.config)
    z = prior.encode_future(scene.window)
    assert torch.equal(z, prior.encode_future(dataclasses.replace(scene.window, states=scene.window.states + 1)))
    assert not torch.equal(z, prior.encode_future(dataclasses.replace(scene.window, actions=-scene.window.actions)))
    assert not any("state_in" in weight for weight, _ in prior.named_parameters())
    with pytest.raises(ConfigError, match="cannot know the pose: set pose_weight to 0"):
        small(encoder_sees="actions", pose_weight=1.0)


@torch.no_grad()
def test_the_mlp_never_looks_at_pairs_that_do_not_exist() -> None:
    mlp = HistoryMlp(small()).eval()
    states, actions, mask = torch.randn(1, 15, 74), torch.randn(1, 15, 37), torch.arange(15)[None] >= 6
    embodiment = torch.zeros(1, dtype=torch.int64)
    before = mlp(states, actions, mask, embodiment)
    states[:, :6], actions[:, :6] = 99.0, -99.0
    assert torch.equal(before, mlp(states, actions, mask, embodiment))
    assert not torch.equal(before, mlp(states, actions, mask, embodiment + 1))


def test_the_mlp_learns_in_stage_2(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "data", history_compressor="mlp")
    prior = {
        name: value for name, value in scene.policy.state_dict().items() if name.startswith(("encoder", "decoder"))
    }
    start = Start(Checkpoint(scene.config, prior, (scene.arm,), None), scene.tokenizer)
    after = train_vla(start, scene.windows, scene.text, few(2), Plan(0), QUIET, tmp_path)
    torch.manual_seed(QUIET.seed)
    fresh = VlaPolicy(scene.config).state_dict()
    moved = {name for name, value in after.state_dict.items() if not torch.equal(value, {**fresh, **prior}[name])}
    assert "history_mlp.pairs_in.weight" in moved
    assert not any(name.startswith("encoder.") for name in moved), "no loss reaches the encoder"


ENGINES = [
    ("actions", "history_encoder"),
    ("mlp of actions", "history_encoder"),
    ("none", "backbone"),
    ("distilled", "action_decoder"),
]


@pytest.mark.parametrize(("name", "engine"), ENGINES)
def test_engines_keep_the_inputs_that_the_runtime_fills(name: str, engine: str, tmp_path: Path) -> None:
    """Also those that this kind of policy makes nothing of; and they compute what torch does."""
    scene = Scene(tmp_path / "data", **COMPRESSORS.get(name, {}))
    checkpoint, part = scene.checkpoint(), part_of(engine, scene.config)
    if name == "distilled":
        policy = student(checkpoint)
        torch.nn.init.normal_(policy.decoder.step.mlp[2].weight)
        checkpoint = dataclasses.replace(checkpoint, config=policy.config, state_dict=policy.state_dict())
    config = checkpoint.config
    steps = config.flow_steps if name == "distilled" else 2
    write(trace(graph_of(engine, checkpoint.part(part), steps)), tmp_path / f"{engine}.onnx")
    spec = engine_spec(tmp_path, engine)
    assert {tensor.name for tensor in spec.inputs} == set(INPUTS[engine])
    opened = OnnxRuntimeEngine(tmp_path / spec.file, spec, threads=1)
    for sample in draw_samples(config, 3, seed=0):
        sample["history"] = sample["z"] = torch.nn.functional.normalize(torch.randn(1, config.latent), dim=-1)
        sample["has_history"] = torch.ones(1, dtype=torch.bool)
        wanted = answer(checkpoint.part(part), sample, steps)
        for output, array in run_engine(opened, sample).items():
            assert np.abs(array - wanted[output].numpy()).max() < 1e-5
        if name == "distilled":
            undistilled = answer(scene.checkpoint().part(part), sample, steps)["chunk"]
            assert (undistilled - wanted["chunk"]).abs().max() > 1e-2, "the step's size makes a difference"
