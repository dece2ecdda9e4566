"""What of a GR00T's config, of its base model's and of its vision-language model's is implemented.

Facts: LeRobot 0.6.1, `policies/groot/configuration_groot.py` and `groot_n1_7.py`. Of the base model's config its code
reads the fields below and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from export.families.base import CheckpointError
from export.families.groot.language import TextShape
from export.families.groot.network import NORM, Blocks
from export.families.groot.vision import TowerShape
from export.families.lerobot.documents import read_document, read_fields
from export.families.lerobot.folder import Folder
from export.families.vla.hub import read_model_config

FIXED = {"n_obs_steps": 1, "tokenizer_assets_repo": None}
IGNORED = frozenset(
    {
        *("tune_llm", "tune_visual", "tune_projector", "tune_diffusion_model", "tune_vlln", "tune_top_llm_layers"),
        *("use_bf16", "model_params_fp32", "use_flash_attention"),
        *("use_relative_actions", "relative_exclude_joints", "base_model_path"),
        *("warmup_ratio", "image_size", "lora_rank", "lora_alpha", "lora_dropout", "lora_full_model", "video_backend"),
        *("balance_dataset_weights", "balance_trajectory_weights", "dataset_paths", "output_dir", "save_steps"),
        *("max_steps", "batch_size", "dataloader_num_workers", "report_to", "resume"),
    }
)
"""Ways of training and computing, and fields that LeRobot keeps and does not use. Which actions are relative is read
from the processor's step, which does it."""
FORMER = {"chunk_size": 50, "n_action_steps": 50, "max_state_dim": 64, "max_action_dim": 32}
"""Defaults of N1.5, in the place of which LeRobot reads those of N1.7."""
NO_TRANSFORM = (None, "none", "")
MODELS = ("nvidia/Cosmos-Reason2", "Qwen/Qwen3-VL")


@dataclass(frozen=True)
class GrootConfig:
    """Fields and defaults of LeRobot's."""

    chunk_size: int = 40
    n_action_steps: int = 40
    max_state_dim: int = 132
    max_action_dim: int = 132
    embodiment_tag: str = "new_embodiment"
    action_decode_transform: str | None = "auto"
    num_inference_timesteps: int | None = None
    rtc_ramp_rate: float | None = None


@dataclass(frozen=True)
class BaseConfig:
    """Fields and defaults of the base model's that say what is computed."""

    model_name: str = "nvidia/Cosmos-Reason2-2B"
    backbone_model_type: str = "qwen"
    backbone_embedding_dim: int = 2048
    select_layer: int = 16
    max_state_dim: int = 132
    max_action_dim: int = 132
    action_horizon: int = 40
    hidden_size: int = 1024
    input_embedding_dim: int = 1536
    add_pos_embed: bool = True
    use_vlln: bool = True
    max_seq_len: int = 1024
    use_alternate_vl_dit: bool = True
    attend_text_every_n_blocks: int = 2
    diffusion_model_cfg: dict | None = None  # type: ignore[type-arg]  # read below
    vl_self_attention_cfg: dict | None = None  # type: ignore[type-arg]
    num_inference_timesteps: int = 4
    num_timestep_buckets: int = 1000
    max_num_embodiments: int = 32
    rtc_ramp_rate: float = 6.0


BASE_FIXED = {
    "state_history_length": 1,
    "apply_sincos_state_encoding": False,
    "exclude_state": False,
    "use_mean_std": False,
    "reproject_vision": False,
}


@dataclass(frozen=True)
class StackConfig:
    """Of a stack of transformer blocks; defaults of LeRobot's classes."""

    num_layers: int = 12
    num_attention_heads: int = 8
    attention_head_dim: int = 64
    norm_eps: float = NORM
    output_dim: int = 26
    interleave_self_attention: bool = False


STACK_FIXED = {"positional_embeddings": None, "activation_fn": "gelu-approximate", "attention_bias": True}
HEAD_FIXED = {**STACK_FIXED, "norm_type": "ada_norm", "norm_elementwise_affine": False}
FEATURES_FIXED = {**STACK_FIXED, "norm_elementwise_affine": True}
STACK_IGNORED = frozenset(
    {
        *("dropout", "final_dropout", "num_embeds_ada_norm", "upcast_attention", "compute_dtype"),
        "max_num_positional_embeddings",
    }
)


def read_config(folder: Folder) -> GrootConfig:
    """Raises `CheckpointError`."""
    file = folder.config_file
    config = read_fields(file, folder.config, GrootConfig, FIXED, IGNORED)
    for name, former in FORMER.items():
        value = getattr(config, name)
        if value == former:
            raise CheckpointError(
                f"{file}: '{name}' is {former}, N1.5's default, for which LeRobot takes "
                f"{getattr(GrootConfig(), name)}; write that there"
            )
        if value < 1:
            raise CheckpointError(f"{file}: '{name}' is {value}; it must be at least 1")
    transform = config.action_decode_transform
    if transform not in NO_TRANSFORM and (transform != "auto" or config.embodiment_tag == "libero_sim"):
        raise CheckpointError(
            f"{file}: 'action_decode_transform' is '{transform}' for '{config.embodiment_tag}'; none is implemented: "
            'train or export with "none"'
        )
    for name, width in (("max_state_dim", folder.state_width), ("max_action_dim", folder.action_width)):
        if width > getattr(config, name):
            raise CheckpointError(
                f"{file}: '{name}' is {getattr(config, name)}, below the {width} axes; copy the folder again"
            )
    return config


def read_base(folder: Folder, named: Path | None) -> tuple[Path, BaseConfig, StackConfig, StackConfig | None]:
    """The base model's config file and what it says: of all, of the head's blocks and of the features'.

    Raises `CheckpointError`.
    """
    wanted = folder.config.get("base_model_path") or "nvidia/GR00T-N1.7-3B"
    if named is None:
        raise CheckpointError(
            f"{folder.path}: the sizes of its base model are not in the folder; copy config.json of {wanted} and name "
            "its folder: --base DIR"
        )
    file = named / "config.json"
    document = read_document(file)
    if document.get("model_type") != "Gr00tN1d7":
        raise CheckpointError(
            f"{file}: a model of type '{document.get('model_type')}'; GR00T N1.7's is a 'Gr00tN1d7': name the folder "
            f"of {wanted} with --base"
        )
    known = {*(field.name for field in fields(BaseConfig)), *BASE_FIXED}
    held = {name: value for name, value in document.items() if name in known}
    base = read_fields(file, {**held, "type": "GR00T"}, BaseConfig, BASE_FIXED)
    if base.backbone_model_type != "qwen" and not any(name in base.model_name for name in MODELS):
        raise CheckpointError(f"{file}: 'model_name' is '{base.model_name}'; only a Qwen3-VL is implemented")
    if base.diffusion_model_cfg is None:
        raise CheckpointError(f"{file}: no 'diffusion_model_cfg' there; copy it again")
    head = _stack(file, "diffusion_model_cfg", base.diffusion_model_cfg, HEAD_FIXED)
    mixing = base.vl_self_attention_cfg
    features = None
    if mixing is not None and mixing.get("num_layers", 0):
        features = _stack(file, "vl_self_attention_cfg", mixing, FEATURES_FIXED)
    _check_sizes(file, base, head, features)
    return file, base, head, features


def _stack(file: Path, name: str, document: Mapping[str, Any], fixed: Mapping[str, object]) -> StackConfig:
    missing = [one for one in ("positional_embeddings", "norm_type") if one in fixed and one not in document]
    if missing:
        raise CheckpointError(
            f"{file}: no '{missing[0]}' in '{name}', for which LeRobot takes something that is not implemented; "
            "copy it again"
        )
    config = read_fields(file, {**document, "type": name}, StackConfig, fixed, STACK_IGNORED)
    for size in ("num_layers", "num_attention_heads", "attention_head_dim"):
        if getattr(config, size) < 1:
            raise CheckpointError(f"{file}: '{size}' of '{name}' is {getattr(config, size)}; it must be at least 1")
    return config


def _check_sizes(file: Path, base: BaseConfig, head: StackConfig, features: StackConfig | None) -> None:
    """Holds sizes against each other that LeRobot's own code fails with, or that mean nothing."""
    least = ("select_layer", "action_horizon", "num_inference_timesteps", "attend_text_every_n_blocks")
    small = [name for name in least if getattr(base, name) < 1]
    if small:
        raise CheckpointError(f"{file}: '{small[0]}' is {getattr(base, small[0])}; it must be at least 1")
    if base.use_alternate_vl_dit and not head.interleave_self_attention:
        raise CheckpointError(
            f"{file}: 'interleave_self_attention' is false and 'use_alternate_vl_dit' true; copy it again"
        )
    pairs = [
        ("input_embedding_dim", base.input_embedding_dim, head.num_attention_heads * head.attention_head_dim),
        ("hidden_size", base.hidden_size, head.output_dim),
    ]
    if features is not None:
        mixed = features.num_attention_heads * features.attention_head_dim
        pairs.append(("backbone_embedding_dim", base.backbone_embedding_dim, mixed))
    for name, value, wanted in pairs:
        if value != wanted:
            raise CheckpointError(f"{file}: '{name}' is {value}, and its blocks are {wanted} wide; copy it again")
    if base.add_pos_embed and base.max_seq_len < base.action_horizon:
        raise CheckpointError(f"{file}: 'max_seq_len' is {base.max_seq_len}, below the chunk; copy it again")


def blocks_of(config: StackConfig) -> Blocks:
    return Blocks(config.num_layers, config.num_attention_heads, config.attention_head_dim, config.norm_eps)


def read_vlm(folder: Path, base: BaseConfig) -> tuple[TextShape, TowerShape, int]:
    """Sizes of the language model and of the tower, and the token that stands for pictures.

    Raises `CheckpointError`.
    """
    from transformers import Qwen3VLConfig

    config, file = read_model_config(folder, Qwen3VLConfig, "GR00T N1.7")
    text, vision = config.text_config, config.vision_config
    rotary: dict[str, Any] = text.rope_parameters
    for part, name, found, wanted in (
        ("text", "hidden_act", text.hidden_act, "silu"),
        ("text", "attention_bias", text.attention_bias, False),
        ("text", "rope_type", rotary.get("rope_type"), "default"),
        ("vision", "hidden_act", vision.hidden_act, "gelu_pytorch_tanh"),
        ("vision", "in_channels", vision.in_channels, 3),
        ("text", "hidden_size", text.hidden_size, base.backbone_embedding_dim),
        ("vision", "out_hidden_size", vision.out_hidden_size, text.hidden_size),
    ):
        if found != wanted:
            raise CheckpointError(
                f"{file}: '{name}' of the {part} is {found!r}, and {wanted!r} is implemented for {base.model_name}"
            )
    if base.select_layer > text.num_hidden_layers:
        raise CheckpointError(
            f"{file}: the language model has {text.num_hidden_layers} layers, the policy uses {base.select_layer}; "
            f"name the folder of {base.model_name}"
        )
    time, row, column = rotary.get("mrope_section") or (24, 20, 20)
    grid = round(vision.num_position_embeddings**0.5)
    return (
        TextShape(
            hidden=text.hidden_size,
            ffn=text.intermediate_size,
            layers=base.select_layer,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=text.head_dim,
            epsilon=text.rms_norm_eps,
            wavelength=rotary["rope_theta"],
            sections=(time, row, column),
            vocabulary=text.vocab_size,
        ),
        TowerShape(
            hidden=vision.hidden_size,
            ffn=vision.intermediate_size,
            layers=vision.depth,
            heads=vision.num_heads,
            patch_px=vision.patch_size,
            repeats=vision.temporal_patch_size,
            merge=vision.spatial_merge_size,
            grid=grid,
            deepstack=tuple(vision.deepstack_visual_indexes),
            into=vision.out_hidden_size,
        ),
        config.image_token_id,
    )
