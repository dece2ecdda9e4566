"""Folders of SmolVLA, pi0 and pi0.5 that are damaged, or say what is not implemented: refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.engines.lerobot import read_policy
from export.families.base import CheckpointError
from export.families.lerobot.policy import Beside
from export.families.pi import config as pi_config
from tests.export.families.lerobot_engines import FOLDERS, NARROW, read_fixture

FAMILIES = ("smolvla", "pi05", "pi0")
USED = "model.action_out_proj.weight"
UNUSED = {
    "smolvla": "model.vlm_with_expert.vlm.lm_head.weight",
    "pi05": "model.paligemma_with_expert.gemma_expert.lm_head.weight",
    "pi0": "model.paligemma_with_expert.gemma_expert.lm_head.weight",
}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDERS / request.param, tmp_path / request.param))


def build(folder: Path) -> dict[str, torch.nn.Module]:
    return {part.name: part.reference() for part in read_fixture(folder.name, folder).parts}


def refusal(folder: Path) -> str:
    """What the exporter says, reading the folder and building both networks."""
    with pytest.raises(CheckpointError) as refused:
        build(folder)
    message = str(refused.value)
    assert "\n" not in message
    return message


def rewrite(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def reweigh(folder: Path, change: Callable[[Tensors], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_sound_folder_is_read(folder: Path) -> None:
    build(folder)


@pytest.mark.parametrize("left", [0, 1000, -100])
def test_truncated_weights(folder: Path, left: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    assert "model.safetensors" in refusal(folder)


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors: missing" in refusal(folder)


@pytest.mark.parametrize("used", [True, False])
def test_a_tensor_that_is_missing_renamed_misshapen_or_not_finite(folder: Path, used: bool, tmp_path: Path) -> None:
    name = USED if used else UNUSED[folder.name]
    whole = (folder / "model.safetensors").read_bytes()

    def renamed(tensors: Tensors) -> None:
        tensors["model.other.weight"] = tensors.pop(name)

    def reshaped(tensors: Tensors) -> None:
        tensors[name] = tensors[name][1:].clone()

    def spoiled(tensors: Tensors) -> None:
        tensors[name][0, 0] = float("nan")

    for change in (lambda tensors: tensors.pop(name), renamed, reshaped, spoiled):
        (folder / "model.safetensors").write_bytes(whole)
        reweigh(folder, change)
        assert f"'{name}'" in refusal(folder)


def test_layers_that_are_missing_at_the_end(folder: Path) -> None:
    """The rest would be a smaller policy, complete in itself."""
    layers = {
        name.split("layers.")[1].split(".")[0] for name in load_file(folder / "model.safetensors") if "layers." in name
    }
    last = max(layers, key=int)

    def shorten(tensors: Tensors) -> None:
        for name in [name for name in tensors if f"layers.{last}." in name]:
            del tensors[name]

    reweigh(folder, shorten)
    assert f"layers.{last}." in refusal(folder)


def test_statistics_of_another_policy(folder: Path) -> None:
    for file in folder.glob("policy_*.safetensors"):
        tensors = {name: torch.cat([tensor, tensor]) for name, tensor in load_file(file).items()}
        save_file(tensors, file)
    assert "these statistics belong to another policy" in refusal(folder)


def test_a_config_of_another_family(folder: Path) -> None:
    others = {"smolvla": "pi0", "pi0": "pi05", "pi05": "smolvla"}
    rewrite(folder / "config.json", lambda config: config.update(type=others[folder.name]))
    assert "config.json: '" in refusal(folder) or "policy_preprocessor.json: step '" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_obs_steps", 2),
        ("a_new_field", 3),
        ("chunk_size", "fifty"),
        ("rtc_config", {"prefix_attention_schedule": "ZEROS"}),
        ("rtc_config", {"max_guidance_weight": -1}),
    ],
)
def test_a_field_that_is_not_implemented(folder: Path, field: str, value: object) -> None:
    rewrite(folder / "config.json", lambda config: config.update({field: value}))
    named = next(iter(value)) if isinstance(value, dict) else field
    assert f"'{named}'" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("smolvla", "adapt_to_pi_aloha", True),
        ("smolvla", "add_image_special_tokens", True),
        ("smolvla", "num_expert_layers", 2),
        ("smolvla", "resize_imgs_with_padding", [64, 32]),
        ("smolvla", "num_vlm_layers", 9),
        ("pi05", "image_resolution", [56, 70]),
        ("pi05", "paligemma_variant", "gemma_9b"),
    ],
)
def test_a_value_that_a_family_does_not_implement(name: str, field: str, value: object, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDERS / name, tmp_path / name))
    rewrite(folder / "config.json", lambda config: config.update({field: value}))
    assert field in refusal(folder) or "the language model has 5 layers" in refusal(folder)


def test_a_step_that_is_not_implemented(folder: Path) -> None:
    rewrite(
        folder / "policy_preprocessor.json",
        lambda document: document["steps"].insert(1, {"registry_name": "smooth_state_processor", "config": {}}),
    )
    assert "step 'smooth_state_processor'" in refusal(folder)


@pytest.mark.parametrize(("option", "value"), [("padding_side", "left"), ("max_length", 7), ("truncation", False)])
def test_another_way_of_tokenizing(folder: Path, option: str, value: object) -> None:
    def change(document: Any) -> None:
        next(s for s in document["steps"] if s["registry_name"] == "tokenizer_processor")["config"][option] = value

    rewrite(folder / "policy_preprocessor.json", change)
    assert f"'{option}'" in refusal(folder)


@pytest.mark.parametrize("folder", ["pi05", "pi0"], indirect=True)
def test_relative_actions_on_one_side_only(folder: Path) -> None:
    def change(document: Any) -> None:
        step = next(s for s in document["steps"] if s["registry_name"] == "absolute_actions_processor")
        step["config"]["enabled"] = not step["config"]["enabled"]

    rewrite(folder / "policy_postprocessor.json", change)
    assert "not enabled alike" in refusal(folder)


def test_what_the_folder_does_not_hold_is_asked_for(folder: Path) -> None:
    wanted = "--vlm DIR" if folder.name == "smolvla" else "--tokenizer DIR"
    with pytest.raises(CheckpointError, match=wanted):
        read_policy(folder) if folder.name == "smolvla" else narrow(folder, Beside())


def test_a_folder_of_another_language_model() -> None:
    with pytest.raises(CheckpointError, match="'smolvlm'"):
        read_policy(FOLDERS / "smolvla", Beside(vlm=FOLDERS / "pi0"))


def test_a_tokenizer_of_another_policy(folder: Path, tmp_path: Path) -> None:
    larger = Path(shutil.copytree(FOLDERS / "pi_tokenizer", tmp_path / "larger"))
    rewrite(
        larger / "tokenizer.json",
        lambda document: document["added_tokens"].extend(
            {**document["added_tokens"][0], "id": 400 + number, "content": f"<more{number}>"} for number in range(90)
        ),
    )
    with pytest.raises(CheckpointError, match="and the policy knows 304"):
        narrow(folder, Beside(larger / "tokenizer.json", FOLDERS / "smolvla_vlm"))


def narrow(folder: Path, beside: Beside) -> None:
    """Reads a folder of the reduced sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pi_config, "SIZES", NARROW)
        read_policy(folder, beside)


@pytest.mark.parametrize("folder", ["pi05", "pi0"], indirect=True)
def test_openpis_names_are_read(folder: Path) -> None:
    """A file converted from openpi leaves out `model.`, and has one tensor for the embeddings and the head."""
    before = build(folder)["backbone"].state_dict()

    def convert(tensors: Tensors) -> None:
        embedding = tensors.pop(pi_config.EMBEDDING)
        tensors[pi_config.HEAD] = embedding
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    reweigh(folder, convert)
    after = build(folder)["backbone"].state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("folder", ["pi05", "pi0"], indirect=True)
def test_folders_from_before_relative_actions(folder: Path) -> None:
    """LeRobot 0.4 and 0.5.0. What they put into pi0.5's prompt differs, and the folder does not say which wrote it."""

    def forget(document: Any) -> None:
        steps = document["steps"]
        steps[:] = [step for step in steps if "actions_processor" not in step["registry_name"]]

    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        rewrite(folder / name, forget)
    if folder.name == "pi05":
        assert "puts 32 numbers of the state into the prompt, the latter 6" in refusal(folder)
    else:
        assert read_fixture("pi0", folder).relative == (False,) * 6
