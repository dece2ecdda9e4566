"""A LoRA is merged into its base as PEFT merges it, or refused with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from export.engines.lerobot import read_policy
from export.families.base import CheckpointError
from export.families.lerobot.policy import Beside
from tests.export.families.lerobot_engines import FOLDERS

ACT = FOLDERS / "act"
BASE = Beside(base=ACT)


@pytest.mark.parametrize("name", ["act_lora", "act_rslora"])
def test_the_merge_is_pefts_own(name: str) -> None:
    weights, merged = read_policy(FOLDERS / name, BASE).folder.weights, load_file(FOLDERS / name / "merged.safetensors")
    before = load_file(ACT / "model.safetensors")
    assert len(merged) >= 8, "two products of three layers, and the head"
    for key in weights.shapes:
        wanted = merged.get(key, before[key])
        assert torch.allclose(weights.take(key), wanted, rtol=1e-6, atol=1e-7), key
        assert (key in merged) == (not torch.equal(weights.take(key), before[key])), key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "'use_dora' is True"),
        ({"peft_type": "VERA"}, "'peft_type' is 'VERA'"),
        ({"bias": "all"}, "'bias' is 'all'"),
        ({"velora_config": {"rank": 2}}, "'velora_config'"),
        ({"an_option_of_tomorrow": 3}, "'an_option_of_tomorrow' is 3"),
    ],
)
def test_an_option_that_is_not_merged_is_refused(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDERS / "act_lora", tmp_path / "lora")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError) as refused:
        read_policy(folder, BASE)
    assert message in str(refused.value) and "merge_and_unload" in str(refused.value)


def test_an_adapter_without_its_base_says_what_to_add() -> None:
    with pytest.raises(CheckpointError, match="--base DIR"):
        read_policy(FOLDERS / "act_lora")


@pytest.mark.parametrize(
    ("damage", "message"), [("drop", "has no lora_A"), ("shape", "does not fit"), ("nan", "is not finite")]
)
def test_a_damaged_adapter_is_refused(damage: str, message: str, tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDERS / "act_lora", tmp_path / "lora")
    held = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in held if ".lora_A." in name)
    if damage == "drop":
        del held[name]
    else:
        held[name] = held[name][:, 1:].contiguous() if damage == "shape" else held[name] * float("nan")
    save_file(held, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        read_policy(folder, BASE)


def test_another_base_is_refused() -> None:
    with pytest.raises(CheckpointError, match="--base"):
        read_policy(FOLDERS / "act_lora", Beside(base=FOLDERS / "diffusion"))
