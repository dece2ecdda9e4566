"""From a folder to pi0's or pi0.5's two engines."""

from __future__ import annotations

from export.families.lerobot.folder import Folder
from export.families.lerobot.pictures import state_of
from export.families.lerobot.policy import Beside, Policy
from export.families.lerobot.weights import check_values, compare
from export.families.pi.config import (
    check_steps,
    expected_tensors,
    pi_tensors,
    read_config,
    read_shape,
    relative_axes,
    unused_tensors,
)
from export.families.pi.network import PiBackbone, PiDecoder
from export.families.vla.guided import read_guidance
from export.families.vla.policy import DECODER, Cache, Networks, Prompt, actions_of, flow_policy, frames_of
from export.families.vla.text import check_tokenizing, read_tokenizer

TEMPLATES = {"pi0": "{task}{newline}", "pi05": "Task: {task}, State: {state};{newline}Action: "}
STATE_BINS = 256


def read_pi(folder: Folder, beside: Beside) -> Policy:
    """Checks all of a folder but the values of the weights that engines take. Raises `CheckpointError`."""
    config = read_config(folder)
    check_steps(folder, config)
    shape = read_shape(folder, config)
    weights = pi_tensors(folder.weights, shape.adaptive)
    compare(weights, expected_tensors(shape), folder.kind)
    check_values(weights, unused_tensors(shape))
    check_tokenizing(folder, shape.tokens)
    tokenizer = read_tokenizer(folder, beside.tokenizer, shape.vocabulary)
    guidance = read_guidance(folder, config.rtc_config)
    size, bins = config.image_resolution, STATE_BINS if shape.adaptive else 0
    frames_of(folder, size, True), state_of(folder), actions_of(folder)  # refuses statistics that do not fit
    networks = Networks(
        Prompt(tokenizer, shape.tokens, shape.vocabulary, TEMPLATES[folder.kind], shape.adaptive, state_bins=bins),
        guidance,
        Cache(shape.text.layers, shape.text.kv_heads, shape.prefix, shape.text.head_dim),
        (shape.chunk, shape.action_width),
        shape.steps,
        relative_axes(folder),
        lambda: PiBackbone(weights, shape, frames_of(folder, size, True)),
        lambda: PiDecoder(weights, shape, guidance.most, state_of(folder), *actions_of(folder)),
    )
    return flow_policy(folder, networks, None if shape.adaptive else DECODER, config.n_action_steps)
