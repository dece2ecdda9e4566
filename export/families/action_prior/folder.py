"""Pretrained weights from local Hugging Face folders: config.json, an index, and safetensors shards.

A Qwen3-VL folder fills the backbone's VLM, a Qwen3 folder encoder and decoder. What the policy adds to them (soft
prompts, projectors, modulations) keeps its seeded random weights until it is trained. Nothing is fetched, and no code
of a folder is run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from edge.bundle import sha256
from export.families.action_prior.checkpoint import CheckpointError
from export.families.action_prior.config import ConfigError, PolicyConfig, TransformerShape, VisionShape
from export.families.action_prior.parts import RandomParts
from firmware_bridge.reading import told

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
EPSILON = 1e-6
"""Of every norm of the policy, as in Qwen3."""
OURS = ("soft_prompt", "query", "no_history", "history_projector", "head", "cls", "state_in", "action_in")
OURS_IN_DECODER = ("latent_in", "time", "step", "action_out")
"""What the policy adds to the pretrained models; in the decoder also the modulation of every norm."""


class PretrainedParts(RandomParts):
    """Parts with seeded random weights, and pretrained ones over them where there is a folder."""

    def __init__(self, config: PolicyConfig, seed: int, vlm: Path | None, prior: Path | None) -> None:
        super().__init__(config, seed)
        self.vlm, self.prior = vlm, prior

    def part(self, name: str) -> nn.Module:
        part = super().part(name)
        folder = self.vlm if name == "backbone" else self.prior
        if folder is not None and name in RENAMES:
            load_into(part, folder, RENAMES[name])
        return part


def with_folders(config: PolicyConfig, vlm: Path | None, prior: Path | None) -> PolicyConfig:
    """The configuration with the sizes that the folders have. Raises `CheckpointError`."""
    try:
        if vlm is not None:
            document = _config(vlm, "qwen3_vl")
            text, vision = document["text_config"], document["vision_config"]
            config = dataclasses.replace(
                config,
                text=_transformer(text),
                vision=_vision(vision),
                vocabulary=int(text["vocab_size"]),
                mrope_section=tuple(_rope(text)["mrope_section"]),
                tied_image_tokens=(int(document["vision_start_token_id"]), int(document["vision_end_token_id"])),
            )
        if prior is not None:
            shape = _transformer(_config(prior, "qwen3"))
            config = dataclasses.replace(config, encoder=shape, decoder=shape)
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{vlm or prior}/config.json does not describe such a model: {told(error)}") from None
    return config


def load_into(part: nn.Module, folder: Path, rename: Callable[[str], str | None]) -> None:
    """Copies the folder's tensors into the part, one at a time, whatever their type. Raises `CheckpointError`."""
    parameters, filled = dict(part.named_parameters()), set[str]()
    for name, tensor in tensors(folder):
        target = rename(name)
        if target is None:
            continue
        if target not in parameters or parameters[target].shape != tensor.shape:
            expected = tuple(parameters[target].shape) if target in parameters else "nothing"
            raise CheckpointError(f"{folder}: {name} is {tuple(tensor.shape)} where the policy has {expected}")
        with torch.no_grad():
            parameters[target].copy_(tensor)
        filled.add(target)
    ours = (*OURS, *OURS_IN_DECODER)
    missing = [name for name in parameters if name.split(".")[0] not in ours and ".modulation." not in f".{name}"]
    missing = [name for name in missing if name not in filled]
    if missing:
        raise CheckpointError(f"{folder}: no tensor for {missing[0]} and {len(missing) - 1} others; is it complete?")


def tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a folder by name. Raises `CheckpointError` for a shard that is missing or damaged."""
    for shard in shards(folder):
        try:
            with safe_open(str(shard), framework="pt", device="cpu") as opened:
                for name in opened.keys():  # noqa: SIM118 - the reader is no mapping
                    yield name, opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{shard}: cannot be read ({str(error)[:120]}); copy it again") from None


def shards(folder: Path) -> list[Path]:
    """The files that hold the weights. Raises `CheckpointError`."""
    if (folder / INDEX).is_file():
        try:
            files = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            raise CheckpointError(f"{folder / INDEX}: is no index of shards; copy it again") from None
        if any(Path(name).name != name for name in files):
            raise CheckpointError(f"{folder / INDEX}: names a file outside the folder")
    elif (folder / SINGLE).is_file():
        files = [SINGLE]
    else:
        raise CheckpointError(f"{folder}: neither {INDEX} nor {SINGLE} there; copy the whole folder")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {missing[0]} is missing; copy the whole folder")
    return [folder / name for name in files]


def fingerprint(config: PolicyConfig, seed: int, folders: list[Path]) -> str:
    """SHA-256 of what random and pretrained weights follow from."""
    digest = hashlib.sha256(json.dumps([config.to_plain(), seed], sort_keys=True).encode())
    for folder in folders:
        for shard in shards(folder):
            digest.update(sha256(shard).encode())
    return digest.hexdigest()


def _config(folder: Path, kind: str) -> dict[str, Any]:
    try:
        document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json: cannot be read ({str(error)[:120]})") from None
    if not isinstance(document, dict) or document.get("model_type") != kind:
        found = document.get("model_type") if isinstance(document, dict) else None
        raise CheckpointError(f"{folder}: holds a model of type {found!r}, here belongs one of type {kind!r}")
    return document


def _rope(document: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters, under the name they have now or the one they had in older folders."""
    rope = dict(document.get("rope_parameters") or document.get("rope_scaling") or {})
    rope.setdefault("rope_theta", document.get("rope_theta"))
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(f"rotary positions of type {rope['rope_type']!r} are not supported")
    return rope


def _transformer(document: dict[str, Any]) -> TransformerShape:
    if document.get("rms_norm_eps", EPSILON) != EPSILON or document.get("attention_bias"):
        raise ConfigError("rms_norm_eps other than 1e-6 and attention biases are not supported")
    return TransformerShape(
        hidden=int(document["hidden_size"]),
        layers=int(document["num_hidden_layers"]),
        heads=int(document["num_attention_heads"]),
        kv_heads=int(document["num_key_value_heads"]),
        head_dim=int(document["head_dim"]),
        ffn=int(document["intermediate_size"]),
        rope_theta=float(_rope(document)["rope_theta"]),
    )


def _vision(document: dict[str, Any]) -> VisionShape:
    return VisionShape(
        hidden=int(document["hidden_size"]),
        layers=int(document["depth"]),
        heads=int(document["num_heads"]),
        ffn=int(document["intermediate_size"]),
        patch_px=int(document["patch_size"]),
        merge=int(document["spatial_merge_size"]),
        temporal_patch=int(document["temporal_patch_size"]),
        position_grid=math.isqrt(int(document["num_position_embeddings"])),
        deepstack_layers=tuple(int(layer) for layer in document["deepstack_visual_indexes"]),
    )


def _backbone_name(name: str) -> str | None:
    return None if name.startswith("lm_head.") else "vlm." + name.removeprefix("model.")


def _encoder_name(name: str) -> str | None:
    inner = name.removeprefix("model.")
    return None if inner.startswith(("lm_head.", "embed_tokens.")) else "model." + inner


def _decoder_name(name: str) -> str | None:
    inner = name.removeprefix("model.")
    if inner.startswith(("lm_head.", "embed_tokens.")):
        return None
    plain = inner.removesuffix(".weight")
    adaptive = plain == "norm" or plain.endswith(("input_layernorm", "post_attention_layernorm"))
    return f"{plain}.norm.weight" if adaptive else inner


RENAMES: dict[str, Callable[[str], str | None]] = {
    "backbone": _backbone_name,
    "encoder": _encoder_name,
    "decoder": _decoder_name,
}
"""From a folder's name of a tensor to the part's; None for what the part does not have."""
