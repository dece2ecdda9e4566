"""A folder that is damaged, partial, of another policy, or more than is implemented, is refused by name in one line."""

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
from export.families.lerobot.others import OTHERS
from tests.export.families.lerobot_engines import FOLDERS

WEIGHTS, PRE, POST = "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"
NORMALISER = "policy_preprocessor_step_3_normalizer_processor.safetensors"
RESTORER = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
Change = Callable[[Path], object]


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def apply(folder: Path) -> None:
        held = load_file(folder / name)
        change(held)
        save_file(held, folder / name)

    return apply


def document(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(folder: Path) -> None:
        held = json.loads((folder / name).read_text())
        change(held)
        (folder / name).write_text(json.dumps(held))

    return apply


def config(**fields: object) -> Change:
    return document("config.json", lambda held: held.update(fields))


def cut(name: str, share: float) -> Change:
    return lambda folder: (folder / name).write_bytes(
        (folder / name).read_bytes()[: int(share * (folder / name).stat().st_size)]
    )


def first(held: dict[str, torch.Tensor], part: str) -> str:
    return sorted(name for name in held if part in name)[0]


def renamed(held: dict[str, torch.Tensor]) -> None:
    name = first(held, ".layer") if any("layer" in name for name in held) else first(held, "backbone")
    held[f"{name}_2"] = held.pop(name)


def reshaped(held: dict[str, torch.Tensor]) -> None:
    name = first(held, "bias")
    held[name] = torch.cat([held[name], held[name]])


def transposed(held: dict[str, torch.Tensor]) -> None:
    name = next(name for name in sorted(held) if held[name].ndim == 2 and held[name].shape[0] != held[name].shape[1])
    held[name] = held[name].T.contiguous()


def poisoned(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def apply(held: dict[str, torch.Tensor]) -> None:
        held[first(held, "weight")].view(-1)[-1] = value

    return apply


def step(number: int, **fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda held: held["steps"][number].update(fields)


def option(number: int, name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda held: held["steps"][number]["config"].update({name: value})


def moved(names: Callable[[str], str]) -> Callable[[dict[str, Any]], None]:
    """Keys with other names, in the places that they had."""

    def apply(held: dict[str, Any]) -> None:
        held |= {names(name): held.pop(name) for name in list(held)}

    return apply


def with_underscore(name: str) -> str:
    return name.replace("images.front", "images.wrist_left")


MIGRATED = (
    document("config.json", lambda held: moved(with_underscore)(held["input_features"])),
    document(PRE, lambda held: moved(with_underscore)(held["steps"][3]["config"]["features"])),
    tensors(NORMALISER, moved(lambda name: with_underscore(name).replace("wrist_left", "wrist.left"))),
)
"""A folder with a camera 'wrist_left', as LeRobot's script converts it."""

DAMAGES: dict[str, tuple[Change, str]] = {
    "weights gone": (lambda folder: (folder / WEIGHTS).unlink(), "model.safetensors: missing"),
    "weights empty": (cut(WEIGHTS, 0), "cannot be read"),
    "weights cut in the header": (cut(WEIGHTS, 0.001), "cannot be read"),
    "weights cut in the middle": (cut(WEIGHTS, 0.5), "cannot be read"),
    "weights cut at the end": (cut(WEIGHTS, 0.9999), "cannot be read"),
    "a tensor dropped": (tensors(WEIGHTS, lambda held: held.pop(first(held, "weight"))), "no tensor '"),
    "a tensor more": (tensors(WEIGHTS, lambda held: held.update(more=torch.zeros(2))), "'more' belongs to no"),
    "a tensor renamed": (tensors(WEIGHTS, renamed), "no tensor '"),
    "a tensor of another size": (tensors(WEIGHTS, reshaped), "has the shape"),
    "a tensor transposed": (tensors(WEIGHTS, transposed), "has the shape"),
    "NaN in a weight": (tensors(WEIGHTS, poisoned(float("nan"))), "is not finite"),
    "infinity in a weight": (tensors(WEIGHTS, poisoned(float("inf"))), "is not finite"),
    "weights of another type": (
        tensors(WEIGHTS, lambda held: held.update({first(held, "bias"): held[first(held, "bias")].double()})),
        "is of type F64",
    ),
    "config gone": (lambda folder: (folder / "config.json").unlink(), "config.json: missing"),
    "config cut": (cut("config.json", 0.5), "config.json: is not JSON"),
    "config of another family": (
        document("config.json", lambda held: held.update(type={"act": "diffusion", "diffusion": "act"}[held["type"]])),
        "config.json: '",
    ),
    "a family that is not supported": (config(type="vqbet"), "a policy of type 'vqbet' (VQ-BeT draws codes"),
    "no family": (config(type=None), "no 'type' of a policy"),
    "a field that nobody knows": (config(mixture_of_experts=4), "'mixture_of_experts' (4) is a field that is not"),
    "a field of another type": (config(n_action_steps="ten"), "'n_action_steps' is \"ten\""),
    "another backbone": (config(vision_backbone="resnet50"), "'vision_backbone' is \"resnet50\""),
    "more layers than there are": (config(vision_backbone="resnet34"), "no tensor '"),
    "no cameras": (
        document("config.json", lambda held: held["input_features"].pop("observation.images.front")),
        "normalises 'observation.images.front', which config.json does not have",
    ),
    "a camera of another size": (
        document(
            "config.json", lambda held: held["input_features"]["observation.images.front"].update(shape=[3, 32, 32])
        ),
        "'observation.images.front' is",
    ),
    "an input that is not implemented": (
        document(
            "config.json",
            lambda held: held["input_features"].update({"observation.force": {"type": "ENV", "shape": [3]}}),
        ),
        "takes 'observation.force' (ENV)",
    ),
    "no processors": (
        lambda folder: [(folder / name).unlink() for name in (PRE, POST)],
        "migrate_policy_normalization --pretrained-path",
    ),
    "statistics under the name that LeRobot's migration gives them": (
        lambda folder: [move(folder) for move in MIGRATED],
        "has the statistics of 'observation.images.wrist_left' as 'observation.images.wrist.left'",
    ),
    "no preprocessor": (lambda folder: (folder / PRE).unlink(), "policy_preprocessor.json: missing"),
    "a step that is not implemented": (
        document(PRE, lambda held: held["steps"].insert(1, {"registry_name": "augment_processor", "config": {}})),
        "step 'augment_processor' is not implemented",
    ),
    "steps in another order": (document(PRE, lambda held: held["steps"].reverse()), "in this order"),
    "a step left out": (document(PRE, lambda held: held["steps"].pop(0)), "in this order"),
    "a step out of another module": (
        document(POST, step(1, registry_name=None, **{"class": "mine.Smooth"})),
        "step 'mine.Smooth' is not implemented",
    ),
    "an option of the normaliser": (document(PRE, option(3, "clip", 5.0)), "option 'clip' of the normaliser"),
    "half precision in a step": (document(PRE, option(2, "float_dtype", "float16")), "casts to 'float16'"),
    "an unknown normalisation": (
        document(PRE, option(3, "norm_map", {"STATE": "LOG"})),
        "normalisation 'LOG' of 'observation.state'",
    ),
    "statistics gone": (lambda folder: (folder / NORMALISER).unlink(), f"{NORMALISER}: missing"),
    "statistics cut": (cut(RESTORER, 0.5), "cannot be read"),
    "statistics outside the folder": (document(PRE, step(3, state_file="../other")), "no file of the folder"),
    "statistics of another width": (
        tensors(
            RESTORER, lambda held: held.update({name: held[name][:5].clone() for name in held if "action" in name})
        ),
        "has the shape (5,)",
    ),
    "statistics that are not finite": (
        tensors(NORMALISER, lambda held: [held[name].fill_(float("nan")) for name in held if "state" in name]),
        "is not finite",
    ),
    "a picture's statistics of another width": (
        tensors(NORMALISER, lambda held: held.update({"observation.images.front.mean": torch.zeros(1, 1, 1)})),
        "'observation.images.front.mean' has the shape",
    ),
}
KINDS = {"act": "act", "diffusion_variant": "diffusion"}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_folder_is_refused_by_name(name: str, damage: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(FOLDERS / name, folder)
    change, message = DAMAGES[damage]
    change(folder)
    with pytest.raises(CheckpointError) as refused:
        read_policy(folder)
    text = str(refused.value)
    assert message in text and "\n" not in text and str(folder) in text


NVIDIAS_CONFIG = {"architectures": ["Gr00tN1d7"], "model_type": "Gr00tN1d7", "model_name": "nvidia/Cosmos-Reason2-2B"}


@pytest.mark.parametrize(
    ("held", "named"),
    [
        *(({"type": kind}, f"a policy of type '{kind}' ({reason})") for kind, reason in OTHERS.items()),
        ({"type": "next_year"}, "a policy of type 'next_year'; act"),
        (NVIDIAS_CONFIG, "NVIDIA's own folder of GR00T; what LeRobot's training makes"),
        ({"model_type": "qwen3"}, "no 'type' of a policy"),
    ],
)
def test_a_policy_without_an_exporter_is_refused_by_name(held: dict[str, Any], named: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(held))
    with pytest.raises(CheckpointError) as refused:
        read_policy(tmp_path)
    text = str(refused.value)
    assert named in text and text.endswith("smolvla, pi0, pi05, groot are supported") and "\n" not in text


@pytest.mark.parametrize("name", ["act", "act_variant", "diffusion", "diffusion_variant"])
def test_a_sound_folder_is_read(name: str) -> None:
    policy = read_policy(FOLDERS / name)
    assert policy.folder.action_width == 6 and 0 < policy.execute < policy.horizon


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("act", "temporal_ensemble_coeff", 0.01),
        ("act", "replace_final_stride_with_dilation", True),
        ("act", "n_obs_steps", 2),
        ("act", "feedforward_activation", "glu"),
        ("act", "dim_model", 63),
        ("act", "n_encoder_layers", 0),
        ("act", "n_action_steps", 21),
        ("diffusion", "noise_scheduler_type", "PNDM"),
        ("diffusion", "prediction_type", "v_prediction"),
        ("diffusion", "beta_schedule", "sigmoid"),
        ("diffusion", "num_inference_steps", 101),
        ("diffusion", "horizon", 17),
        ("diffusion", "crop_shape", [61, 64]),
        ("diffusion", "n_groups", 5),
        ("diffusion", "n_obs_steps", 0),
    ],
)
def test_a_field_with_a_value_that_is_not_implemented_is_refused(
    name: str, field: str, value: object, tmp_path: Path
) -> None:
    shutil.copytree(FOLDERS / name, tmp_path / name)
    config(**{field: value})(tmp_path / name)
    with pytest.raises(CheckpointError, match=f"'{field}'"):
        read_policy(tmp_path / name)


def test_a_field_of_training_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "act", tmp_path / "act")
    config(kl_weight=3.0, optimizer_lr=1.0, optimizer_new=2, repo_id="me/act", use_amp=True, later=None)(
        tmp_path / "act"
    )
    assert read_policy(tmp_path / "act").horizon == 20
