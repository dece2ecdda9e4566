"""Folders as `save_pretrained` writes them give the weights that transformers itself would load."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from transformers import Qwen3ForCausalLM, Qwen3VLForConditionalGeneration

from edge.bundle import load_bundle
from export.commands.export import main
from export.commands.train import main as train
from export.engines.observations import draw_samples
from export.families.action_prior.checkpoint import CheckpointError, load_checkpoint
from export.families.action_prior.config import PolicyConfig, tiny
from export.families.action_prior.folder import PretrainedParts, shards, with_folders
from export.families.action_prior.qwen import qwen3_config, qwen3_vl_config
from export.training.instructions import word_tokenizer
from tests.export.small import INSTRUCTIONS, write_dataset

WIDER = dataclasses.replace(
    tiny(vocabulary=96),
    text=dataclasses.replace(tiny().text, hidden=96, layers=3, ffn=160, rope_theta=5e6),
    vision=dataclasses.replace(tiny().vision, layers=2, deepstack_layers=(0,)),
    encoder=dataclasses.replace(tiny().encoder, layers=2, ffn=200, rope_theta=1e6),
    decoder=dataclasses.replace(tiny().decoder, layers=2, ffn=200, rope_theta=1e6),
)
"""Sizes that no preset has, so that they can only come from the folders."""


def spread(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.05 * torch.randn_like(weights))
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("folders")
    vlm = qwen3_vl_config(WIDER)
    vlm.vision_start_token_id, vlm.vision_end_token_id = 5, 6
    spread(Qwen3VLForConditionalGeneration(vlm)).save_pretrained(root / "vlm", max_shard_size="300KB")
    prior = qwen3_config(WIDER.encoder)
    prior.vocab_size = 50
    spread(Qwen3ForCausalLM(prior)).save_pretrained(root / "prior", max_shard_size="300KB")
    return root / "vlm", root / "prior"


@pytest.fixture(scope="module")
def config(folders: tuple[Path, Path]) -> PolicyConfig:
    return with_folders(tiny(), *folders)


def test_sizes_come_from_the_folders(config: PolicyConfig) -> None:
    for name in ("text", "vision", "encoder", "decoder", "vocabulary", "mrope_section"):
        assert getattr(config, name) == getattr(WIDER, name), name
    assert config.tied_image_tokens == (5, 6)


@torch.no_grad()
def test_the_vlm_is_the_one_that_transformers_loads(folders: tuple[Path, Path], config: PolicyConfig) -> None:
    assert len(shards(folders[0])) > 2
    parts = PretrainedParts(config, 1, *folders)
    ours, theirs = parts.part("backbone"), parts.part("backbone")
    theirs.vlm = Qwen3VLForConditionalGeneration.from_pretrained(folders[0], dtype=torch.float32).model.eval()
    plain = PretrainedParts(config, 1, None, None).part("backbone")
    for sample in draw_samples(config, 3, 0):
        inputs = [sample[name] for name in ("frames", "tokens", "token_mask")]
        rest = [torch.randn(1, config.latent), torch.ones(1, dtype=torch.bool), sample["embodiment"]]
        assert torch.equal(ours(*inputs, *rest), theirs(*inputs, *rest))
        assert not torch.allclose(ours(*inputs, *rest), plain(*inputs, *rest), atol=1e-2)


@torch.no_grad()
def test_encoder_and_decoder_take_the_language_models_layers(folders: tuple[Path, Path], config: PolicyConfig) -> None:
    theirs = Qwen3ForCausalLM.from_pretrained(folders[1], dtype=torch.float32).model.state_dict()
    parts = PretrainedParts(config, 1, *folders)
    encoder, decoder = parts.part("encoder").state_dict(), parts.part("decoder").state_dict()
    for name, tensor in theirs.items():
        if name.startswith("embed_tokens"):
            continue
        assert torch.equal(encoder[f"model.{name}"], tensor)
        adaptive = name.endswith("layernorm.weight") or name == "norm.weight"
        assert torch.equal(decoder[name.replace(".weight", ".norm.weight") if adaptive else name], tensor)


def test_a_bfloat16_folder_is_widened(folders: tuple[Path, Path], config: PolicyConfig, tmp_path: Path) -> None:
    half = Qwen3ForCausalLM.from_pretrained(folders[1], dtype=torch.bfloat16)
    half.save_pretrained(tmp_path)
    weight = PretrainedParts(config, 1, None, tmp_path).part("encoder").model.norm.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, half.model.norm.weight.float())


def test_a_folder_becomes_a_verified_bundle(folders: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["--preset", "tiny", "--vlm", str(folders[0]), "--prior", str(folders[1])]
    shape = ["--cameras", "2", "--frame-px", "60,80", "--image-px", "48,64", "--horizon", "9", "--token-budget", "12"]
    out = tmp_path / "bundle"
    assert main([*arguments, *shape, "--samples", "4", "--flow-steps", "2", "-o", str(out)]) == 0
    manifest = load_bundle(out).manifest
    assert [camera.frame_px for camera in manifest.cameras] == [(60, 80)] * 2 and manifest.policy.horizon == 9
    assert manifest.arms == ()


def test_training_starts_from_folders(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """`--init-action` and `--init-vlm`: after one step at a rate of nothing, the weights are the folders'."""
    data = write_dataset(tmp_path / "data", frames=128)
    vlm, action = folders
    word_tokenizer(tuple(INSTRUCTIONS)).save(str(vlm / "tokenizer.json"))
    still = ["--data", str(data), "--steps", "1", "--batch", "2", "--rate", "1e-30", "--final-rate", "1e-30"]
    still += ["--no-tensorboard"]
    assert train(["prior", *still, "--init-action", str(action), "--out", str(tmp_path / "a")]) == 0
    prior = tmp_path / "a" / "checkpoint.pt"
    arguments = ["vla", *still, "--init-vlm", str(vlm), "--out"]
    assert train([*arguments, str(tmp_path / "b"), "--prior", str(prior)]) == 0
    assert train([*arguments, str(tmp_path / "c"), "--init-action", str(action)]) == 0
    for name in "bc":
        found = load_checkpoint(tmp_path / name / "checkpoint.pt")
        assert with_folders(tiny(), *folders) == found.config
        parts = PretrainedParts(found.config, 0, *folders)
        for part in ("backbone.vlm", "encoder.model", "decoder.layers"):
            top, _, inner = part.partition(".")
            for weight, value in getattr(parts.part(top), inner).state_dict().items():
                if "modulation" not in weight:
                    assert torch.equal(found.state_dict[f"{part}.{weight}"], value), weight
        assert found.tokenizer is not None and "blue" in found.tokenizer


def test_a_vlm_without_a_tokenizer_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", frames=128)
    copy = broken(folders[0], tmp_path, "nothing")
    (copy / "tokenizer.json").unlink(missing_ok=True)
    assert train(["vla", "--data", str(data), "--out", str(tmp_path / "o"), "--init-vlm", str(copy)]) == 2
    assert "tokenizer.json: the tokenizer cannot be read" in capsys.readouterr().err


def broken(folder: Path, tmp_path: Path, change: str) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    first = shards(copy)[0]
    document = json.loads((copy / "config.json").read_text())
    index = json.loads((copy / "model.safetensors.index.json").read_text())
    if change == "missing shard":
        first.unlink()
    elif change == "cut shard":
        first.write_bytes(first.read_bytes()[:-100])
    elif change == "shard elsewhere":
        index["weight_map"]["model.norm.weight"] = "../secret.safetensors"
    elif change == "fewer tensors":
        index["weight_map"] = {name: file for name, file in index["weight_map"].items() if file != first.name}
    elif change == "another kind":
        document["model_type"] = "llama"
    elif change == "scaled rope":
        document["rope_parameters"]["rope_type"] = "yarn"
    elif change == "other sizes":
        document["intermediate_size"] = 128
    elif change == "no index":
        (copy / "model.safetensors.index.json").unlink()
        return copy
    (copy / "config.json").write_text(json.dumps(document))
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing shard", "is missing; copy the whole folder"),
        ("cut shard", "cannot be read"),
        ("shard elsewhere", "names a file outside the folder"),
        ("fewer tensors", "no tensor for"),
        ("another kind", "holds a model of type 'llama', here belongs one of type 'qwen3'"),
        ("scaled rope", "rotary positions of type 'yarn' are not supported"),
        ("other sizes", "where the policy has"),
        ("no index", "neither model.safetensors.index.json nor model.safetensors there"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    folders: tuple[Path, Path], tmp_path: Path, change: str, message: str
) -> None:
    folder = broken(folders[1], tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        PretrainedParts(with_folders(tiny(), None, folder), 1, None, folder).part("encoder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x"], "name a checkpoint, or --preset for random weights"),
        (["a.pt", "--preset", "tiny", "-o", "x"], "a checkpoint has its own sizes and weights"),
        (["--preset", "tiny", "--vlm", "nowhere", "-o", "x"], "nowhere/config.json: cannot be read"),
        (["--preset", "tiny", "--image-px", "50,50", "-o", "x"], "must be multiples of patch_px x merge"),
        (["--preset", "tiny", "--observations", "d", "-o", "x"], "--observations belong to a trained checkpoint"),
    ],
)
def test_the_command_refuses_what_does_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
