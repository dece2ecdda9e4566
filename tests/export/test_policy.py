"""The network does what the paper says of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from export.families.action_prior.action_decoder import ActionDecoder, AdaptiveNorm
from export.families.action_prior.action_encoder import ActionEncoder
from export.families.action_prior.backbone import Backbone
from export.families.action_prior.batch import draw_batch, noised_chunk, totals
from export.families.action_prior.config import PolicyConfig, paper, tiny
from export.families.action_prior.flow import integrate
from export.families.action_prior.layout import prompt_layout
from export.families.action_prior.policy import ActionPrior, VlaPolicy, Window

BATCH = 3


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def window(config: PolicyConfig) -> Window:
    slots = torch.zeros(BATCH, config.action_slots, dtype=torch.bool)
    slots[:, 29:36] = True
    return Window(
        states=torch.randn(BATCH, config.horizon, config.state_slots),
        actions=torch.randn(BATCH, config.horizon, config.action_slots) * slots[:, None],
        valid=torch.ones(BATCH, config.horizon, dtype=torch.bool),
        slots=slots,
        past_states=torch.randn(BATCH, config.history, config.state_slots),
        past_actions=torch.randn(BATCH, config.history, config.action_slots),
        past_mask=torch.ones(BATCH, config.history, dtype=torch.bool),
        embodiment=torch.zeros(BATCH, dtype=torch.int64),
        given=torch.zeros(BATCH, dtype=torch.int64),
    )


def looks(config: PolicyConfig) -> dict[str, torch.Tensor]:
    return {
        "frames": torch.randint(0, 256, (BATCH, config.cameras, *config.frame_px, 3), dtype=torch.uint8),
        "tokens": torch.randint(0, config.vocabulary, (BATCH, config.token_budget)),
        "token_mask": torch.arange(config.token_budget).expand(BATCH, -1) < 5,
        "history": torch.randn(BATCH, config.latent),
        "has_history": torch.ones(BATCH, dtype=torch.bool),
        "embodiment": torch.zeros(BATCH, dtype=torch.int64),
    }


def test_paper_preset_has_the_papers_sizes() -> None:
    with torch.device("meta"):
        policy = VlaPolicy(paper())

    def billions(module: torch.nn.Module) -> float:
        return sum(weight.numel() for weight in module.parameters()) / 1e9

    assert billions(policy.backbone.vlm) == pytest.approx(2.13, abs=0.01), "Qwen3-VL-2B"
    assert billions(policy.encoder.model) == pytest.approx(0.44, abs=0.005), "Qwen3-0.6B without its embeddings"
    qwen = sum(weight.numel() for name, weight in policy.decoder.layers.named_parameters() if "modulation" not in name)
    assert qwen / 1e9 == pytest.approx(0.44, abs=0.005)


def test_latents_have_unit_length() -> None:
    config = tiny()
    z = ActionPrior(config).encode_future(window(config))
    z_prime = Backbone(config)(**looks(config))
    assert z.shape == z_prime.shape == (BATCH, config.latent)
    assert z.norm(dim=1).tolist() == pytest.approx([1.0] * BATCH)
    assert z_prime.norm(dim=1).tolist() == pytest.approx([1.0] * BATCH)


@pytest.mark.parametrize("causal", [False, True])
def test_the_encoder_never_looks_at_pairs_that_do_not_exist(causal: bool) -> None:
    encoder = ActionEncoder(dataclasses.replace(tiny(), encoder_causal=causal)).eval()
    states, actions = torch.randn(1, 15, 74), torch.randn(1, 15, 37)
    mask = torch.arange(15)[None] >= 6
    embodiment = torch.zeros(1, dtype=torch.int64)
    before = encoder(states, actions, mask, embodiment)
    states[:, :6], actions[:, :6] = 99.0, -99.0
    assert torch.equal(before, encoder(states, actions, mask, embodiment))
    actions[:, 6] = 1.0
    assert not torch.allclose(before, encoder(states, actions, mask, embodiment), atol=1e-4)


def test_soft_prompts_tell_embodiments_apart() -> None:
    encoder = ActionEncoder(tiny()).eval()
    inputs = torch.randn(1, 15, 74), torch.randn(1, 15, 37), torch.ones(1, 15, dtype=torch.bool)
    assert not torch.allclose(encoder(*inputs, torch.tensor([0])), encoder(*inputs, torch.tensor([1])), atol=1e-4)


def test_every_input_of_the_backbone_reaches_the_query() -> None:
    config = tiny()
    backbone = Backbone(config).eval()
    inputs = looks(config)
    before = backbone(**inputs)
    for name, changed in {
        "frames": 255 - inputs["frames"],
        "tokens": (inputs["tokens"] + 1) % config.vocabulary,
        "history": -inputs["history"],
        "has_history": ~inputs["has_history"],
        "embodiment": inputs["embodiment"] + 1,
    }.items():
        assert (backbone(**{**inputs, name: changed}) - before).abs().max() > 1e-4, name


def test_padding_after_the_instruction_is_never_looked_at() -> None:
    config = tiny()
    backbone = Backbone(config).eval()
    inputs = looks(config)
    other = dict(inputs, tokens=inputs["tokens"].clone())
    other["tokens"][:, 5:] = 7
    assert torch.equal(backbone(**inputs), backbone(**other))


def test_columns_of_padding_may_be_left_out() -> None:
    config = dataclasses.replace(tiny(), cameras=2)
    backbone = Backbone(config).eval()
    inputs = looks(config)
    narrow = dict(inputs, tokens=inputs["tokens"][:, :5], token_mask=inputs["token_mask"][:, :5])
    assert torch.allclose(backbone(**inputs), backbone(**narrow), atol=1e-6)
    full, layout = prompt_layout(config), prompt_layout(config).with_budget(5)
    left_out = config.token_budget - 5
    assert (layout.length, layout.history, layout.query) == tuple(
        one - left_out for one in (full.length, full.history, full.query)
    )
    assert torch.equal(
        layout.positions[:, [layout.history, layout.query]], full.positions[:, [full.history, full.query]]
    )
    with pytest.raises(ValueError, match="17 columns of instruction, and the layout has 16"):
        full.with_budget(17)


@pytest.mark.parametrize("columns", [5, tiny().token_budget])
def test_z_is_read_where_the_query_stands(columns: int) -> None:
    backbone, layout = Backbone(tiny()).eval(), prompt_layout(tiny()).with_budget(columns)
    output = torch.randn(BATCH, layout.length, tiny().text.hidden)
    other = torch.randn_like(output)
    other[:, layout.query] = output[:, layout.query]
    assert torch.equal(backbone.latent(output), backbone.latent(other))


def test_one_row_of_flow_times_serves_a_whole_batch() -> None:
    config = tiny()
    prior = ActionPrior(config).eval()
    for norm in (module for module in prior.modules() if isinstance(module, AdaptiveNorm)):
        torch.nn.init.normal_(norm.modulation.weight, std=0.1)
    noise = torch.randn(BATCH, config.horizon, config.action_slots)
    prefix, z = torch.randn_like(noise), torch.nn.functional.normalize(torch.randn(BATCH, config.latent), dim=1)
    committed = torch.arange(config.horizon)[None] < 3
    used = torch.ones(BATCH, config.action_slots)
    rows = prior.chunk(noise, z, prefix, committed.expand(BATCH, -1), used)
    one = prior.chunk(noise, z, prefix, committed, used)
    assert torch.allclose(rows, one, atol=1e-5)


def test_prompt_positions_are_those_of_qwen3_vl() -> None:
    config = dataclasses.replace(tiny(), cameras=2)
    layout = prompt_layout(config)
    vlm = Backbone(config).vlm
    kinds = torch.zeros(1, layout.length, dtype=torch.int64)
    for image in layout.images:
        kinds[:, image] = 1
    ids = torch.where(kinds == 1, vlm.config.image_token_id, 5)
    grid = torch.tensor([[1, 12, 12], [1, 12, 12]])
    positions, _ = vlm.get_rope_index(
        ids, mm_token_type_ids=kinds.int(), image_grid_thw=grid, attention_mask=torch.ones_like(ids)
    )
    assert torch.equal(positions[:, 0], layout.positions)


def test_adaptive_norm_starts_as_the_plain_norm() -> None:
    adaptive, plain = AdaptiveNorm(16, 8), Qwen3RMSNorm(16)
    x = torch.randn(2, 5, 16)
    scale, shift, gate = adaptive.modulate(torch.randn(2, 5, 8))
    assert torch.equal(adaptive(x, (scale, shift, gate)), plain(x))
    assert torch.equal(gate, torch.ones_like(gate))


def test_flow_runs_from_noise_at_0_to_data_at_1() -> None:
    config = dataclasses.replace(tiny(), loss_on_unused_slots=True, max_delay=0)
    batch = window(config)
    draw = draw_batch(config, BATCH, (0,), torch.device("cpu"))
    for r, wanted in ((0.0, draw.noise), (1.0, batch.actions)):
        noised = noised_chunk(config, batch, dataclasses.replace(draw, time=torch.full((BATCH,), r)))
        assert torch.equal(noised.x, wanted) and torch.all(noised.r == r)
    assert torch.equal(noised.velocity, batch.actions - draw.noise)
    actions, noise = torch.randn(2, 15, 37), torch.randn(2, 15, 37)
    exact = integrate(
        lambda x, r: actions - noise,
        noise,
        torch.zeros(2, 15, 37),
        torch.zeros(2, 15, dtype=torch.bool),
        torch.ones(2, 37),
        steps=10,
    )
    assert exact == pytest.approx(actions, abs=1e-5)


def test_one_flow_time_per_action() -> None:
    decoder = ActionDecoder(tiny()).eval()
    torch.nn.init.normal_(decoder.layers[0].input_layernorm.modulation.weight, std=0.5)
    x, z = torch.randn(1, 15, 37), torch.randn(1, 128)
    r = torch.full((1, 15), 0.3)
    other = r.clone()
    other[0, 9] = 1.0
    assert not torch.allclose(decoder(x, r, z), decoder(x, other, z), atol=1e-5)


@pytest.mark.parametrize("injection", ["token", "add"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_committed_prefix_comes_back_untouched_and_steers_the_rest(injection: str, causal: bool) -> None:
    config = dataclasses.replace(tiny(), latent_injection=injection, decoder_causal=causal)  # type: ignore[arg-type]
    policy = VlaPolicy(config).eval()
    noise, z = torch.randn(1, 15, 37), torch.nn.functional.normalize(torch.randn(1, 128), dim=-1)
    prefix, used = torch.randn(1, 15, 37), torch.ones(1, 37)
    committed = torch.arange(15)[None] < 4
    chunk = policy.chunk(noise, z, prefix, committed, used)
    assert torch.equal(chunk[:, :4], prefix[:, :4])
    other = policy.chunk(noise, z, -prefix, committed, used)
    assert not torch.allclose(chunk[:, 4:], other[:, 4:], atol=1e-5)
    prefix[:, 4:] = 123.0
    assert torch.equal(chunk, policy.chunk(noise, z, prefix, committed, used)), "only committed rows are read"


def test_slots_that_an_arm_does_not_use_stay_zero() -> None:
    policy = VlaPolicy(tiny()).eval()
    used = torch.zeros(1, 37)
    used[:, 29:36] = 1
    chunk = policy.chunk(
        torch.randn(1, 15, 37), torch.randn(1, 128), torch.zeros(1, 15, 37), torch.zeros(1, 15, dtype=torch.bool), used
    )
    assert torch.all(chunk[..., :29] == 0) and torch.all(chunk[..., 36:] == 0)


def test_padded_steps_and_unused_slots_do_not_count_in_the_loss() -> None:
    config = dataclasses.replace(tiny(), max_delay=0)
    prior = ActionPrior(config)
    full = window(config)
    valid = full.valid.clone()
    valid[:, 6:] = False
    short = dataclasses.replace(full, valid=valid)
    nonsense = dataclasses.replace(short, actions=full.actions.clone())
    nonsense.actions[:, 6:] = 1e3 * full.slots[:, None]
    z = torch.nn.functional.normalize(torch.randn(BATCH, config.latent), dim=-1)

    def gradient(batch: Window) -> torch.Tensor:
        prior.zero_grad()
        draw = draw_batch(config, BATCH, (1,), torch.device("cpu"))
        prior.flow_loss(batch, z, draw, totals(config, batch, draw)).backward()
        return prior.decoder.action_out.bias.grad.clone()

    assert torch.all(gradient(short)[:29] == 0), "slots not in use get no gradient"
    assert torch.isfinite(gradient(nonsense)).all()


def test_distillation_fades_out_of_the_loss() -> None:
    config = tiny()
    policy = VlaPolicy(config)
    from export.families.action_prior.policy import Observation

    inputs = looks(config)
    observation = Observation(inputs["frames"], inputs["tokens"], inputs["token_mask"])
    batch = window(config)
    draw = draw_batch(config, BATCH, (1,), torch.device("cpu"))
    rest = (batch, observation, draw, totals(config, batch, draw))
    early, late = policy.vla_losses(*rest, distillation=0.5), policy.vla_losses(*rest, distillation=0.0)
    assert set(late) == {"predict", "loss"}
    total = early["predict"] + 0.5 * (early["align"] + early["reconstruct"] + config.pose_weight * early["pose"])
    assert early["loss"].item() == pytest.approx(total.item())


def test_the_alignment_pulls_the_backbone_and_not_the_encoder() -> None:
    config = dataclasses.replace(tiny(), history_gradient=False)
    policy = VlaPolicy(config)
    from export.families.action_prior.policy import Observation

    inputs = looks(config)
    observation = Observation(inputs["frames"], inputs["tokens"], inputs["token_mask"])
    batch = window(config)
    draw = draw_batch(config, BATCH, (1,), torch.device("cpu"))
    whole = totals(config, batch, draw)
    policy.vla_losses(batch, observation, draw, whole, distillation=1.0)["align"].backward()
    assert policy.backbone.query.grad is not None
    assert all(weight.grad is None for weight in policy.encoder.parameters())
