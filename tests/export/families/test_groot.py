"""GR00T N1.7: what its folder and those beside it say, what of it is refused, and pictures byte for byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from export.engines.lerobot import read_policy
from export.families.base import CheckpointError
from export.families.groot.area import area_resize
from export.families.groot.network import GrootBackbone
from export.families.groot.pictures import Geometry, Patches, Prepared, Resized
from export.families.lerobot.policy import Beside, Policy
from export.families.vla.text import prompt_ids
from tests.export.families.lerobot_engines import FOLDERS, read_fixture, restated, values_of
from tests.export.families.test_damaged import POST, PRE, WEIGHTS, Change, config, cut, document, option, step, tensors
from tools.lerobot.inputs import observations, read

BASE, VLM = "groot_base", "groot_vlm"
HEAD = "_groot_model.action_head."
USED, UNUSED = f"{HEAD}action_decoder.layer2.W", "_groot_model.backbone.model.model.language_model.norm.weight"
PACKED = "policy_preprocessor_step_2_groot_n1_7_pack_inputs_v1.safetensors"
RESTORED = "policy_postprocessor_step_0_groot_action_unpack_unnormalize_v2.safetensors"


@pytest.mark.parametrize("name", ["groot", "groot_variant", "groot_area"])
def test_the_whole_prompt_has_lerobots_tokens(name: str) -> None:
    """What is fixed of it as well, with the tokens that stand for pictures."""
    policy, (inputs, tokens) = read_fixture(name), read(FOLDERS / name, "tokens")
    backbone = policy.parts[0].reference()
    assert policy.text is not None and isinstance(backbone, GrootBackbone)
    layout = backbone.text.layout
    first, *others = layout.parts
    picture = [7] * (layout.tokens[0] * layout.tokens[1])
    fixed = [*first, *(token for part in others for token in (*picture, *part))]
    for seen, wanted in zip(observations(inputs), tokens):
        ids = prompt_ids(policy.text, seen.task, seen.states[-1])
        assert [*fixed, *ids] == [token for token in wanted if token]


def test_every_input_shows_in_the_answer_but_padding() -> None:
    """Otherwise an agreement would say nothing of it."""
    policy, (inputs, goals) = read_fixture("groot"), read(FOLDERS / "groot", "goals")
    answer, span = restated(policy), policy.action_range.numpy()
    one, other = (values_of(policy, inputs, seen, goals[0]) for seen in list(observations(inputs))[:2])
    wanted = answer(one)
    for port, feed in policy.feeds.items():
        if feed["kind"] == "tokens":
            padded = one[port].where(one[port.replace("tokens", "token_mask")], 7)
            assert np.abs(answer({**one, port: padded}) - wanted).max() <= (1e-4 * span).max()
        if feed["kind"] == "committed_goals":
            other[port] = one[port] + 1
        if feed["kind"] == "prefix_weights":
            other[port] = one[port] / 2
        moved = np.abs(answer({**one, port: other[port]}) - wanted).max(axis=0)
        assert (moved > 1e-3 * span).any(), port


@pytest.mark.parametrize(
    ("size", "into"), [((48, 64), (64, 64)), ((480, 640), (256, 256)), ((230, 230), (256, 256)), ((50, 70), (50, 32))]
)
def test_pictures_are_resized_to_torchs_own_bytes(size: tuple[int, int], into: tuple[int, int]) -> None:
    frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(frame, into, mode="bicubic", antialias=True, align_corners=False)
    assert torch.equal(Resized(size, into)(frame.float()), wanted.float())


@pytest.mark.parametrize(
    ("size", "into", "most"),
    [
        ((480, 640), (256, 341), 3e-4),  # means that may lie on halves
        ((100, 100), (64, 64), 0.0),
        ((512, 768), (256, 384), 0.0),
        ((512, 512), (128, 128), 0.0),
        ((57, 76), (64, 85), 0.0),
        ((229, 306), (256, 342), 0.0),
    ],
)
def test_pictures_are_resized_to_opencvs_own_bytes(size: tuple[int, int], into: tuple[int, int], most: float) -> None:
    opencv = pytest.importorskip("cv2")
    frame = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = torch.from_numpy(opencv.resize(frame.numpy(), into[::-1], interpolation=opencv.INTER_AREA))
    off = (area_resize(size, into)(frame.float().permute(2, 0, 1)).permute(1, 2, 0) - wanted.float()).abs()
    assert off.max() <= 1 and (off > 0).float().mean() <= most


def test_the_sizes_of_a_real_policy() -> None:
    """A camera of 480 x 640 by LeRobot's defaults, Qwen3-VL's own processor behind them."""
    patches = Patches(32, (65_536, 16_777_216), (0.5,) * 3, (0.5,) * 3)
    frame = torch.randint(0, 256, (480, 640, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    seen = Prepared((480, 640), Geometry((256, 256), 256, 230 / 256, False), patches)(frame)
    assert seen.shape == (1, 3, 256, 256) and float(seen.min()) >= -1 and float(seen.max()) <= 1
    by_area = Prepared((480, 640), Geometry((256, 256), 256, 230 / 256, False, by_area=True), patches)
    assert by_area(frame).shape == (1, 3, *by_area.size) and by_area.size == (256, 352)
    assert patches.size_of((100, 100)) == (256, 256) and patches.size_of((250, 330)) == (256, 320)
    assert Patches(32, (1, 65_536), (0.5,) * 3, (0.5,) * 3).size_of((480, 640)) == (192, 288)


@pytest.mark.parametrize(
    ("name", "relative", "rows", "cameras"),
    [("groot", 0, (20, 15), ["front", "wrist"]), ("groot_variant", 5, (12, 8), ["wrist", "above"])],
)
def test_what_a_folder_says(name: str, relative: int, rows: tuple[int, int], cameras: list[str]) -> None:
    policy = read_fixture(name)
    assert sum(policy.relative) == relative and (policy.horizon, policy.execute) == rows
    assert [camera.name for camera in policy.folder.cameras] == cameras
    assert policy.text is not None and policy.text["template"] == "{task}<|im_end|>{newline}"


# ---- Damage, and what is not implemented.


def beside(folder: str, change: Change) -> Change:
    """A change of one of the folders beside the policy's."""
    return lambda path: change(path.with_name(folder))


def base(**fields: object) -> Change:
    return beside(BASE, config(**fields))


def nested(name: str, **fields: object) -> Change:
    return beside(BASE, document("config.json", lambda held: held[name].update(fields)))


def vlm(part: str, **fields: object) -> Change:
    return beside(VLM, document("config.json", lambda held: held[part].update(fields)))


def removed(name: str, *keys: str) -> Change:
    """Without a key of a document, which may be one of a table in it."""

    def apply(held: dict[str, Any]) -> None:
        for key in keys[:-1]:
            held = held[key]
        del held[keys[-1]]

    return document(name, apply)


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Change:
    def apply(held: dict[str, torch.Tensor]) -> None:
        made = change(held.pop(name))
        held |= {} if made is None else {name: made.contiguous()}

    return tensors(WEIGHTS, apply)


def spoiled(found: torch.Tensor) -> torch.Tensor:
    found.view(-1)[-1] = float("nan")
    return found


def narrower(feature: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def apply(held: dict[str, torch.Tensor]) -> None:
        held |= {name: held[name][:5].clone() for name in held if name.startswith(feature) and held[name].numel() == 6}

    return apply


def unknown_step(held: dict[str, Any]) -> None:
    held["steps"].insert(2, {"registry_name": "smooth_state_processor", "config": {}})


def gone(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


DAMAGES: dict[str, tuple[Change, str]] = {
    "weights gone": (gone(WEIGHTS), "model.safetensors: missing"),
    "weights cut": (cut(WEIGHTS, 0.7), "cannot be read"),
    "a tensor dropped": (tensor(USED, lambda _: None), f"no tensor '{USED}'"),
    "a tensor of another shape": (tensor(USED, lambda found: found[1:]), f"'{USED}' has the shape"),
    "a tensor that is not finite": (tensor(USED, spoiled), f"'{USED}' is not finite"),
    "an unused tensor dropped": (tensor(UNUSED, lambda _: None), f"no tensor '{UNUSED}'"),
    "an unused tensor that is not finite": (tensor(UNUSED, spoiled), f"'{UNUSED}' is not finite"),
    "one tensor more": (tensors(WEIGHTS, lambda held: held.update(more=torch.zeros(2))), "'more' belongs to no groot"),
    "layers missing at the end": (base(select_layer=3), "layers.3."),
    "statistics gone": (gone(PACKED), f"{PACKED}: missing"),
    "statistics cut": (cut(RESTORED, 0.5), "cannot be read"),
    "states of another width": (tensors(PACKED, narrower("observation.state")), "belong to another policy"),
    "actions of another width": (tensors(RESTORED, narrower("action")), "belong to another policy"),
    "no statistics of the state": (
        tensors(PACKED, lambda held: [held.pop(name) for name in list(held) if "state" in name]),
        "no statistics of 'observation.state'",
    ),
    "a step that is not implemented": (document(PRE, unknown_step), "step 'smooth_state_processor' is not implemented"),
    "N1.5": (document(PRE, step(2, registry_name="groot_pack_inputs_v3")), "GR00T N1.5, which LeRobot has left out"),
    "an option that is not implemented": (document(PRE, option(2, "smooth", 3)), "'smooth' (3) is a field"),
    "several frames": (document(PRE, option(2, "video_horizon", 2)), "'video_horizon' is 2"),
    "no normalisation": (document(PRE, option(2, "normalize_min_max", False)), "'normalize_min_max' is false"),
    "an embodiment without a number": (document(PRE, option(2, "embodiment_mapping", {})), "no number for 'new_emb"),
    "cameras of other names": (
        document(PRE, option(2, "video_modality_keys", ["front", "top"])),
        "'video_modality_keys' are front, top",
    ),
    "a gripper of LIBERO": (
        document(POST, option(0, "libero_gripper_action", True)),
        "'libero_gripper_action' is true",
    ),
    "another width in the postprocessor": (document(POST, option(0, "env_action_dim", 7)), "'env_action_dim' is 7"),
    "a field that nobody knows": (config(mixture_of_experts=4), "'mixture_of_experts' (4) is a field"),
    "a default of N1.5": (config(chunk_size=50), "'chunk_size' is 50, N1.5's default"),
    "a transform of actions": (config(action_decode_transform="libero"), "'action_decode_transform' is 'libero'"),
    "another embodiment": (config(embodiment_tag="gr1"), "'embodiment_tag' is new_embodiment, and gr1 in config.json"),
    "cameras of several sizes": (
        document(
            "config.json", lambda held: held["input_features"]["observation.images.front"].update(shape=[3, 64, 64])
        ),
        "pictures of several sizes",
    ),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "an adapter (LoRA) of a 'groot' is not implemented",
    ),
    "another base model": (base(model_type="Gr00tN1d5"), "a model of type 'Gr00tN1d5'"),
    "a base model of another width": (base(max_state_dim=20), "'max_state_dim' is 16, and 20 in"),
    "a base model with sines of the state": (base(apply_sincos_state_encoding=True), "'apply_sincos_state_encoding'"),
    "a base model with a history": (base(state_history_length=2), "'state_history_length' is 2"),
    "a head with positions": (nested("diffusion_model_cfg", positional_embeddings="sinusoidal"), "'positional_embedd"),
    "a head that does not say": (
        beside(BASE, removed("config.json", "diffusion_model_cfg", "norm_type")),
        "no 'norm_type' in 'diffusion_model_cfg'",
    ),
    "a head of another width": (nested("diffusion_model_cfg", num_attention_heads=2), "'input_embedding_dim' is 64"),
    "a head with an option more": (nested("diffusion_model_cfg", window=4), "'window' (4) is a field"),
    "another language model": (
        beside(VLM, config(model_type="qwen2_vl")),
        "a model of type 'qwen2_vl'; GR00T N1.7's is a 'qwen3_vl'",
    ),
    "a language model of another width": (vlm("text_config", hidden_size=96), "'hidden_size' of the text is 96"),
    "a language model with fewer layers": (vlm("text_config", num_hidden_layers=3), "has 3 layers, the policy uses 4"),
    "a tower of another depth": (vlm("vision_config", depth=2), "belongs to no groot policy"),
    "no tokenizer": (beside(VLM, gone("tokenizer.json")), "tokenizer.json: missing"),
    "no picture processor": (beside(VLM, gone("preprocessor_config.json")), "preprocessor_config.json: missing"),
    "another picture processor": (
        beside(VLM, document("preprocessor_config.json", lambda held: held.update(resample=2))),
        "'resample' is 2",
    ),
    "no chat template": (beside(VLM, gone("chat_template.jinja")), "its chat template cannot be used"),
    "a chat template without pictures": (
        beside(VLM, lambda path: (path / "chat_template.jinja").write_text("{{ messages[0].content[-1].text }}")),
        "does not write 2 pictures and the instruction",
    ),
}
GROUPS: dict[str, tuple[Change, str]] = {
    "statistics that differ before and after": (
        document(POST, lambda held: held["steps"][0]["config"]["raw_stats"]["action"]["arm"].update(q01=[0.0] * 5)),
        "'raw_stats' of 'groot_n1_7_action_decode_v1' is not what",
    ),
    "a group without bounds": (
        lambda folder: [raw(lambda stats: stats["action"]["gripper"].pop("q99"))(folder)],
        "no 'q99' of 'action.gripper' in 'raw_stats'",
    ),
    "a group whose bound is empty": (
        lambda folder: [raw(lambda stats: stats["action"]["gripper"].update(q99=[]))(folder)],
        "'q99' of 'action.gripper' in 'raw_stats' is empty or not finite",
    ),
    "a group of another width": (
        lambda folder: [raw(lambda stats: stats["action"]["gripper"].update(q01=[0.0] * 2, q99=[1.0] * 2))(folder)],
        "have 7 actions and 6 states",
    ),
    "poses of an end effector": (
        lambda folder: [modalities(lambda held: held["action"]["action_configs"][0].update(type="EEF"))(folder)],
        "relative poses of an end effector",
    ),
    "relative to another state": (
        lambda folder: [
            modalities(lambda held: held["action"]["action_configs"][0].update(state_key="gripper"))(folder)
        ],
        "relative to the state 'gripper' in other columns",
    ),
}


def raw(change: Callable[[dict[str, Any]], object], name: str = "raw_stats") -> Change:
    """A change of what both processors have alike."""

    def apply(folder: Path) -> None:
        document(PRE, lambda held: change(held["steps"][2]["config"][name]))(folder)
        document(POST, lambda held: change(held["steps"][0]["config"][name]))(folder)

    return apply


def modalities(change: Callable[[dict[str, Any]], object]) -> Change:
    return raw(change, "modality_config")


def copied(name: str, into: Path) -> Path:
    for part in (name, f"{name}_base", VLM):
        shutil.copytree(FOLDERS / part, into / part)
    return into / name


def build(folder: Path) -> Policy:
    policy = read_policy(folder, Beside(vlm=folder.with_name(VLM), base=folder.with_name(f"{folder.name}_base")))
    for part in policy.parts:
        part.reference()
    return policy


@pytest.mark.parametrize(
    ("name", "damage"), [*(("groot", one) for one in DAMAGES), *(("groot_variant", one) for one in GROUPS)]
)
def test_a_damaged_folder_is_refused_by_name(name: str, damage: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    change, message = {**DAMAGES, **GROUPS}[damage]
    change(folder)
    with pytest.raises(CheckpointError) as refused:
        build(folder)
    text = str(refused.value)
    assert message in text and "\n" not in text and str(tmp_path) in text


def test_fields_of_training_change_nothing(tmp_path: Path) -> None:
    folder = copied("groot", tmp_path)
    config(use_bf16=True, tune_llm=True, lora_rank=4, optimizer_lr=1.0, base_model_path="nvidia/GR00T-N1.7-3B")(folder)
    base(tune_llm=True, noise_s=0.5, a_field_that_lerobot_does_not_read=3)(folder)
    assert build(folder).horizon == 20


def test_steps_are_the_folders_own_where_it_says_them(tmp_path: Path) -> None:
    folder = copied("groot", tmp_path)
    config(num_inference_timesteps=2, n_action_steps=4)(folder)
    policy = build(folder)
    assert (policy.steps, policy.execute) == (2, 4)


@pytest.mark.parametrize(
    ("given", "asked"), [(Beside(vlm=FOLDERS / VLM), "--base DIR"), (Beside(base=FOLDERS / BASE), "--vlm DIR")]
)
def test_what_the_folder_does_not_hold_is_asked_for(given: Beside, asked: str) -> None:
    with pytest.raises(CheckpointError, match=asked):
        read_policy(FOLDERS / "groot", given)


def test_the_committed_stand_ins_hold_no_weights() -> None:
    """Only LeRobot's own code needs the base model's; what is committed is its config."""
    assert not list(FOLDERS.glob("groot*_base/*.safetensors"))
    assert json.loads((FOLDERS / BASE / "config.json").read_text())["model_type"] == "Gr00tN1d7"
