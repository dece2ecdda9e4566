"""From a folder to SmolVLA's two engines."""

from __future__ import annotations

from export.families.base import CheckpointError
from export.families.lerobot.folder import Folder
from export.families.lerobot.pictures import state_of
from export.families.lerobot.policy import Beside, Policy
from export.families.lerobot.weights import check_values, compare
from export.families.smolvla.config import STEPS, expected_tensors, read_config, read_shape, unused_tensors
from export.families.smolvla.network import SmolVlaBackbone, SmolVlaDecoder
from export.families.vla.guided import read_guidance
from export.families.vla.policy import BACKBONE, Cache, Networks, Prompt, actions_of, flow_policy, frames_of
from export.families.vla.text import check_tokenizing, read_tokenizer


def read_smolvla(folder: Folder, beside: Beside) -> Policy:
    """Checks all of a folder but the values of the weights that engines take. Raises `CheckpointError`."""
    config = read_config(folder)
    folder.expect_steps(STEPS)
    if beside.vlm is None:
        raise CheckpointError(
            f"{folder.path}: the sizes of its vision-language model are not in the folder; copy config.json and "
            f"tokenizer.json of {config.vlm_model_name} and name their folder: --vlm DIR"
        )
    shape = read_shape(folder, config, beside.vlm)
    compare(folder.weights, expected_tensors(shape), folder.kind)
    check_values(folder.weights, unused_tensors(shape))
    check_tokenizing(folder, shape.tokens)
    tokenizer = read_tokenizer(folder, beside.tokenizer or beside.vlm, shape.vocabulary)
    guidance = read_guidance(folder, config.rtc_config)
    size = None if config.resize_imgs_with_padding is None else (shape.image_px, shape.image_px)
    frames_of(folder, size, False), state_of(folder), actions_of(folder)  # refuses statistics that do not fit
    networks = Networks(
        Prompt(tokenizer, shape.tokens, shape.vocabulary, "{task}{newline}"),
        guidance,
        Cache(shape.layers, shape.kv_heads, shape.prefix, shape.head_dim),
        (shape.chunk, shape.action_width),
        shape.steps,
        (False,) * folder.action_width,
        lambda: SmolVlaBackbone(folder.weights, shape, frames_of(folder, size, False), state_of(folder)),
        lambda: SmolVlaDecoder(folder.weights, shape, guidance.most, *actions_of(folder)),
    )
    return flow_policy(folder, networks, BACKBONE, config.n_action_steps)
