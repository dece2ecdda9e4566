"""What of a SmolVLA policy's folder, and of the vision-language model it names, is implemented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.families.base import CheckpointError
from export.families.lerobot.documents import read_fields
from export.families.lerobot.folder import BATCH, DEVICE, NORMALISE, RENAME, Folder
from export.families.smolvla.network import SmolVlaShape
from export.families.vla.hub import read_model_config
from export.families.vla.layer import layer_tensors
from export.families.vla.siglip import TowerShape, tower_tensors
from export.families.vla.text import NEW_LINE, TOKENIZE

FIXED = {
    "n_obs_steps": 1,
    "adapt_to_pi_aloha": False,
    "use_delta_joint_actions_aloha": False,
    "add_image_special_tokens": False,
}
IGNORED = frozenset(
    {
        *("freeze_vision_encoder", "train_expert_only", "train_state_proj", "load_vlm_weights", "use_cache"),
        *("compile_model", "compile_mode"),
        *("pad_language_to", "prefix_length"),  # more padding, which is masked
    }
)
STEPS = (RENAME, BATCH, NEW_LINE, TOKENIZE, DEVICE, NORMALISE)


@dataclass(frozen=True)
class SmolVlaConfig:
    """Fields and defaults of LeRobot's, `policies/smolvla/configuration_smolvla.py`."""

    chunk_size: int = 50
    n_action_steps: int = 50
    max_state_dim: int = 32
    max_action_dim: int = 32
    resize_imgs_with_padding: tuple[int, int] | None = (512, 512)
    empty_cameras: int = 0
    tokenizer_max_length: int = 48
    num_steps: int = 10
    vlm_model_name: str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
    attention_mode: str = "cross_attn"
    num_expert_layers: int = -1
    num_vlm_layers: int = 16
    self_attn_every_n_layers: int = 2
    expert_width_multiplier: float = 0.75
    min_period: float = 4e-3
    max_period: float = 4.0
    rtc_config: dict | None = None  # type: ignore[type-arg]  # what the reader checks is no more than that


def read_config(folder: Folder) -> SmolVlaConfig:
    """Raises `CheckpointError`."""
    config = read_fields(folder.config_file, folder.config, SmolVlaConfig, FIXED, IGNORED)
    sizes = ("chunk_size", "n_action_steps", "max_state_dim", "max_action_dim", "tokenizer_max_length", "num_steps")
    small = [name for name in sizes if getattr(config, name) < 1]
    if small:
        raise CheckpointError(
            f"{folder.config_file}: '{small[0]}' is {getattr(config, small[0])}; it must be at least 1"
        )
    if config.num_expert_layers > 0 and config.num_expert_layers != config.num_vlm_layers:
        raise CheckpointError(
            f"{folder.config_file}: 'num_expert_layers' is {config.num_expert_layers}; only an expert with as many "
            "layers as the language model is implemented (-1)"
        )
    for name, most, width in (
        ("max_state_dim", config.max_state_dim, folder.state_width),
        ("max_action_dim", config.max_action_dim, folder.action_width),
    ):
        if width > most:
            raise CheckpointError(
                f"{folder.config_file}: '{name}' is {most}, below the {width} axes; copy the folder again"
            )
    size = config.resize_imgs_with_padding
    if size is not None and size[0] != size[1]:
        raise CheckpointError(
            f"{folder.config_file}: 'resize_imgs_with_padding' is {list(size)}; only a square is implemented"
        )
    if size is None and {(camera.height, camera.width) for camera in folder.cameras} != {
        (folder.cameras[0].width,) * 2
    }:
        raise CheckpointError(
            f"{folder.config_file}: 'resize_imgs_with_padding' is null, and the pictures are no squares of one size; "
            "set it as in training"
        )
    return config


def read_shape(folder: Folder, config: SmolVlaConfig, vlm: Path) -> SmolVlaShape:
    """Sizes of the networks, most of them from the vision-language model's folder. Raises `CheckpointError`."""
    text, vision, merge = read_vlm(vlm)
    layers = config.num_vlm_layers if config.num_vlm_layers > 0 else text.num_hidden_layers
    if layers > text.num_hidden_layers:
        raise CheckpointError(
            f"{vlm}: the language model has {text.num_hidden_layers} layers, the policy uses {layers}; "
            f"name the folder of {config.vlm_model_name}"
        )
    tower = TowerShape(
        vision.hidden_size,
        vision.intermediate_size,
        vision.num_hidden_layers,
        vision.num_attention_heads,
        vision.image_size,
        vision.patch_size,
        vision.layer_norm_eps,
    )
    size = config.resize_imgs_with_padding
    image_px = folder.cameras[0].height if size is None else size[0]
    if image_px % (tower.patch_px * merge):
        raise CheckpointError(
            f"{folder.config_file}: pictures of {image_px} pixels are no whole number of patches of "
            f"{tower.patch_px * merge}; name the folder of {config.vlm_model_name} with --vlm"
        )
    expert = int(text.hidden_size * config.expert_width_multiplier)
    return SmolVlaShape(
        tower=tower,
        merge=merge,
        image_px=image_px,
        hidden=text.hidden_size,
        ffn=text.intermediate_size,
        layers=layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        epsilon=text.rms_norm_eps,
        vocabulary=text.vocab_size,
        tokens=config.tokenizer_max_length,
        expert_hidden=expert,
        expert_ffn=expert_ffn(expert),
        own_every=config.self_attn_every_n_layers if "cross" in config.attention_mode else 1,
        chunk=config.chunk_size,
        steps=config.num_steps,
        images=len(folder.cameras),
        state_width=config.max_state_dim,
        action_width=config.max_action_dim,
        periods=(config.min_period, config.max_period),
    )


def expert_ffn(hidden: int) -> int:
    """Of the expert's MLP: two thirds of four times its width, in steps of 256."""
    return -(-(4 * (2 * hidden // 3)) // 256) * 256


def read_vlm(folder: Path) -> tuple[Any, Any, int]:
    """Configurations of text and vision, and how many patches make a side of a token. Raises `CheckpointError`."""
    from transformers import SmolVLMConfig

    config, file = read_model_config(folder, SmolVLMConfig, "SmolVLA")
    text, vision = config.text_config, config.vision_config
    for part, name, wanted in (
        (text, "hidden_act", "silu"),
        (text, "attention_bias", False),
        (text, "mlp_bias", False),
        (vision, "hidden_act", "gelu_pytorch_tanh"),
        (vision, "num_channels", 3),
    ):
        if getattr(part, name) != wanted:
            raise CheckpointError(f"{file}: '{name}' is {getattr(part, name)!r}; only {wanted!r} is implemented")
    return text, vision, config.scale_factor


def expected_tensors(shape: SmolVlaShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of a folder, by name."""
    vlm, expert = "model.vlm_with_expert.vlm.", "model.vlm_with_expert.lm_expert."
    queries, shared = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    tensors: dict[str, tuple[int, ...]] = tower_tensors(f"{vlm}model.vision_model.", shape.tower)
    tensors[f"{vlm}model.connector.modality_projection.proj.weight"] = (
        shape.hidden,
        shape.tower.hidden * shape.merge**2,
    )
    for name in (f"{vlm}model.text_model.embed_tokens", f"{vlm}lm_head"):
        tensors[f"{name}.weight"] = (shape.vocabulary, shape.hidden)
    for prefix, hidden, ffn in (
        (f"{vlm}model.text_model.", shape.hidden, shape.ffn),
        (expert, shape.expert_hidden, shape.expert_ffn),
    ):
        tensors[f"{prefix}norm.weight"] = (hidden,)
        for index in range(shape.layers):
            layer = f"{prefix}layers.{index}."
            seen = hidden if prefix != expert or shape.attends_itself(index) else shared
            tensors |= {
                f"{layer}input_layernorm.weight": (hidden,),
                f"{layer}post_attention_layernorm.weight": (hidden,),
                **layer_tensors(layer, hidden, ffn, queries, shared, seen),
            }
    width = shape.expert_hidden
    for name, made, taken in (
        ("state_proj", shape.hidden, shape.state_width),
        ("action_in_proj", width, shape.action_width),
        ("action_out_proj", shape.action_width, width),
        ("action_time_mlp_in", width, 2 * width),
        ("action_time_mlp_out", width, width),
    ):
        tensors[f"model.{name}.weight"], tensors[f"model.{name}.bias"] = (made, taken), (made,)
    return tensors


def unused_tensors(shape: SmolVlaShape) -> list[str]:
    """Those that no engine takes: the last layer's keys and values are the end of the language model."""
    text, last = "model.vlm_with_expert.vlm.model.text_model.", shape.layers - 1
    rest = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ending = [f"{text}layers.{last}.{name}.weight" for name in (*rest, "post_attention_layernorm")]
    return [*ending, f"{text}norm.weight", "model.vlm_with_expert.vlm.lm_head.weight"]
