"""What of a pi0's or pi0.5's folder is implemented, and the sizes that LeRobot's code has for the variants it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from export.families.base import CheckpointError
from export.families.lerobot.documents import read_fields
from export.families.lerobot.folder import BATCH, DEVICE, NORMALISE, PREPROCESSOR, RENAME, RESTORE, Folder
from export.families.lerobot.weights import Renamed, Weights, tied
from export.families.pi.network import Gemma, PiShape
from export.families.vla.layer import layer_tensors
from export.families.vla.siglip import TowerShape, tower_tensors
from export.families.vla.text import TOKENIZE

PI0_NEW_LINE, PI05_PROMPT = "pi0_new_line_processor", "pi05_prepare_state_tokenizer_processor_step"
RELATIVE, ABSOLUTE = "relative_actions_processor", "absolute_actions_processor"
STEPS = {
    "pi0": (RENAME, BATCH, PI0_NEW_LINE, TOKENIZE, DEVICE, RELATIVE, NORMALISE),
    "pi05": (RENAME, BATCH, RELATIVE, NORMALISE, PI05_PROMPT, TOKENIZE, DEVICE),
}
AFTER = (RESTORE, ABSOLUTE, DEVICE)
FIXED = {"n_obs_steps": 1}
IGNORED = frozenset(
    {
        *("dtype", "gradient_checkpointing", "compile_model", "compile_mode", "freeze_vision_encoder"),
        *("train_expert_only", "action_feature_names", "relative_exclude_joints", "use_relative_actions"),
        *("time_sampling_beta_alpha", "time_sampling_beta_beta", "time_sampling_scale", "time_sampling_offset"),
    }
)
"""Ways of training and computing. Which actions are relative is read from the processor's step, which does it."""


@dataclass(frozen=True)
class Sizes:
    """LeRobot's literals: `get_gemma_config` and `PaliGemmaWithExpertModel` in `policies/pi05/modeling_pi05.py`."""

    stacks: Mapping[str, Gemma]
    tower: TowerShape
    vocabulary: int


SIZES = Sizes(
    {
        "gemma_2b": Gemma(hidden=2048, layers=18, ffn=16_384, heads=8, kv_heads=1, head_dim=256),
        "gemma_300m": Gemma(hidden=1024, layers=18, ffn=4096, heads=8, kv_heads=1, head_dim=256),
    },
    TowerShape(hidden=1152, ffn=4304, layers=27, heads=16, side_px=224, patch_px=14, epsilon=1e-6),
    257_152,
)


@dataclass(frozen=True)
class PiConfig:
    """Fields and defaults of LeRobot's, `policies/pi0` and `policies/pi05`."""

    paligemma_variant: Literal["gemma_300m", "gemma_2b"] = "gemma_2b"
    action_expert_variant: Literal["gemma_300m", "gemma_2b"] = "gemma_300m"
    chunk_size: int = 50
    n_action_steps: int = 50
    max_state_dim: int = 32
    max_action_dim: int = 32
    num_inference_steps: int = 10
    min_period: float = 4e-3
    max_period: float = 4.0
    image_resolution: tuple[int, int] = (224, 224)
    empty_cameras: int = 0
    tokenizer_max_length: int | None = None
    rtc_config: dict | None = None  # type: ignore[type-arg]  # what the reader checks is no more than that


def read_config(folder: Folder) -> PiConfig:
    """Raises `CheckpointError`."""
    config = read_fields(folder.config_file, folder.config, PiConfig, FIXED, IGNORED)
    if config.tokenizer_max_length is None:
        config = replace(config, tokenizer_max_length=200 if folder.kind == "pi05" else 48)
    height, width = config.image_resolution
    if height != width or height % SIZES.tower.patch_px:
        raise CheckpointError(
            f"{folder.config_file}: 'image_resolution' is {[height, width]}; squares in steps of "
            f"{SIZES.tower.patch_px} pixels are implemented"
        )
    return config


def read_shape(folder: Folder, config: PiConfig) -> PiShape:
    """Sizes of the networks."""
    assert config.tokenizer_max_length is not None
    return PiShape(
        tower=replace(SIZES.tower, side_px=config.image_resolution[0]),
        text=SIZES.stacks[config.paligemma_variant],
        expert=SIZES.stacks[config.action_expert_variant],
        vocabulary=SIZES.vocabulary,
        images=len(folder.cameras),
        tokens=config.tokenizer_max_length,
        chunk=config.chunk_size,
        steps=config.num_inference_steps,
        state_width=config.max_state_dim,
        action_width=config.max_action_dim,
        periods=(config.min_period, config.max_period),
        adaptive=folder.kind == "pi05",
    )


def check_steps(folder: Folder, config: PiConfig) -> None:
    """Refuses processors that are not implemented. LeRobot before 0.5.1 had no relative actions.

    Raises `CheckpointError`.
    """
    if _has_relative(folder):
        folder.expect_steps(STEPS[folder.kind], AFTER)
        return
    kept = [name for name in STEPS[folder.kind] if name != RELATIVE]
    folder.expect_steps(kept, [name for name in AFTER if name != ABSOLUTE])
    if folder.kind == "pi05" and folder.state_width != config.max_state_dim:
        raise CheckpointError(
            f"{folder.path / PREPROCESSOR}: no step '{RELATIVE}', so LeRobot 0.4 or 0.5.0 wrote it: the former puts "
            f"{config.max_state_dim} numbers of the state into the prompt, the latter {folder.state_width}, and the "
            "folder does not say which; train on with 0.5.1 or newer and export that"
        )


def _has_relative(folder: Folder) -> bool:
    return any(step.name in (RELATIVE, ABSOLUTE) for step in (*folder.before, *folder.after))


def relative_axes(folder: Folder) -> tuple[bool, ...]:
    """Which actions are relative to the state, as the step does it. Raises `CheckpointError`."""
    if not _has_relative(folder):
        return (False,) * folder.action_width
    before, after = folder.step(RELATIVE).config, folder.step(ABSOLUTE).config
    enabled = bool(before.get("enabled"))
    if enabled != bool(after.get("enabled")):
        raise CheckpointError(
            f"{folder.path}: '{RELATIVE}' and '{ABSOLUTE}' are not enabled alike; copy the whole folder"
        )
    names = before.get("action_names")
    excluded = [str(name).lower() for name in before.get("exclude_joints") or () if name]
    width = folder.action_width
    if not enabled:
        return (False,) * width
    if not excluded or names is None:
        return (True,) * width
    if len(names) != width:
        raise CheckpointError(
            f"{folder.path}: '{RELATIVE}' names {len(names)} actions, the policy has {width}; copy the whole folder"
        )
    return tuple(not any(one in str(name).lower() for one in excluded) for name in names)


TEXT, EXPERT = (
    "model.paligemma_with_expert.paligemma.model.language_model.",
    "model.paligemma_with_expert.gemma_expert.",
)
EMBEDDING, HEAD = f"{TEXT}embed_tokens.weight", "model.paligemma_with_expert.paligemma.lm_head.weight"


def pi_tensors(weights: Weights, adaptive: bool) -> Renamed:
    """A folder's tensors under the names that LeRobot gives them when it reads it.

    Files converted from openpi leave out `model.`; the embeddings and the language model's head are one tensor, saved
    under either name.
    """
    names: dict[str, str] = {}
    for name in weights.shapes:
        known = name if name.startswith("model.") else f"model.{name}"
        if adaptive:
            if known.startswith("model.state_proj."):
                continue
            known = known.replace("model.action_time_mlp_", "model.time_mlp_")
        else:
            known = known.replace("model.time_mlp_", "model.action_time_mlp_")
        names[known] = name
    tied(names, EMBEDDING, HEAD)
    return Renamed(weights, names)


def expected_tensors(shape: PiShape) -> dict[str, tuple[int, ...]]:
    """Every tensor of a folder, by name."""
    paligemma, text, expert = "model.paligemma_with_expert.paligemma.model.", shape.text, shape.expert
    tensors: dict[str, tuple[int, ...]] = tower_tensors(f"{paligemma}vision_tower.vision_model.", shape.tower)
    tensors |= {
        f"{paligemma}multi_modal_projector.linear.weight": (text.hidden, shape.tower.hidden),
        f"{paligemma}multi_modal_projector.linear.bias": (text.hidden,),
        EMBEDDING: (shape.vocabulary, text.hidden),
        HEAD: (shape.vocabulary, text.hidden),
        f"{EXPERT}lm_head.weight": (shape.vocabulary, expert.hidden),
    }
    for prefix, stack, adaptive in ((TEXT, text, False), (f"{EXPERT}model.", expert, shape.adaptive)):
        tensors |= _norm(f"{prefix}norm", stack.hidden, adaptive)
        for index in range(stack.layers):
            layer, hidden, ffn = f"{prefix}layers.{index}.", stack.hidden, stack.ffn
            queries, shared = stack.heads * stack.head_dim, stack.kv_heads * stack.head_dim
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors |= _norm(f"{layer}{name}", hidden, adaptive)
            tensors |= layer_tensors(layer, hidden, ffn, queries, shared, hidden)
    width = expert.hidden
    mlp = [("time_mlp_in", width, width), ("time_mlp_out", width, width)]
    if not shape.adaptive:
        mlp = [("action_time_mlp_in", width, 2 * width), ("action_time_mlp_out", width, width)]
        mlp.append(("state_proj", width, shape.state_width))
    for name, made, taken in (
        *mlp,
        ("action_in_proj", width, shape.action_width),
        ("action_out_proj", shape.action_width, width),
    ):
        tensors[f"model.{name}.weight"], tensors[f"model.{name}.bias"] = (made, taken), (made,)
    return tensors


def _norm(name: str, hidden: int, adaptive: bool) -> dict[str, tuple[int, ...]]:
    if adaptive:
        return {f"{name}.dense.weight": (3 * hidden, hidden), f"{name}.dense.bias": (3 * hidden,)}
    return {f"{name}.weight": (hidden,)}


def unused_tensors(shape: PiShape) -> list[str]:
    """Those that no engine takes: the last layer's keys and values are the end of the language model."""
    rest = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    last = f"{TEXT}layers.{shape.text.layers - 1}."
    ending = [f"{last}{name}.weight" for name in (*rest, "post_attention_layernorm")]
    return [*ending, f"{TEXT}norm.weight", HEAD, f"{EXPERT}lm_head.weight"]
