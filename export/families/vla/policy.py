"""A policy of two engines: a backbone that sees and reads, and a decoder that follows a flow over what that leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from export.families.lerobot.folder import ACTION, STATE, Folder
from export.families.lerobot.pictures import Normalised, Restored, goals_of
from export.families.lerobot.policy import Part, Policy, Static, checked_execute, frame_port
from export.families.vla.flow import FlowStep, UnrolledFlow
from export.families.vla.frames import Frames
from export.families.vla.guided import Guidance

BACKBONE, DECODER = "backbone", "decoder"


@dataclass(frozen=True)
class Prompt:
    """How a task becomes tokens.

    tokenizer   document of the tokenizer, which adds its special tokens
    vocabulary  so many tokens have an embedding
    template    from {task}, {state} and {newline}
    clean       whether spaces around the task are cut, and its underscores and ends of line become spaces
    plain       whether the task becomes lower case and loses what is no letter, digit, space or underscore
    special     whether the tokenizer adds its special tokens
    state_bins  the state in the prompt is in so many bins; 0 where it is not
    """

    tokenizer: str
    budget: int
    vocabulary: int
    template: str
    clean: bool = False
    plain: bool = False
    special: bool = True
    state_bins: int = 0


class Links(Protocol):
    """What the decoder reads of the prefix, on the device."""

    def examples(self) -> dict[str, torch.Tensor]:
        """By name: outputs of the backbone that are inputs of the decoder."""


@dataclass(frozen=True)
class Cache:
    """Shape of the keys and values that the decoder reads; `prefix` is how many tokens they are of."""

    layers: int
    kv_heads: int
    prefix: int
    head_dim: int

    def examples(self) -> dict[str, torch.Tensor]:
        shape = (self.layers, self.kv_heads, self.prefix, self.head_dim)
        mask = torch.ones(self.prefix, dtype=torch.bool)
        return {"keys": torch.randn(shape), "values": torch.randn(shape), "prefix_mask": mask}


@dataclass(frozen=True)
class Networks:
    """What a family makes of a folder. Both networks are built when they are asked for.

    noise     shape of the noise a chunk is made of: its rows are the chunk's, unless `horizon` says that fewer are
    relative  actions that are relative to the state, by axis
    """

    prompt: Prompt
    guidance: Guidance
    links: Links
    noise: tuple[int, int]
    steps: int
    relative: tuple[bool, ...]
    backbone: Callable[[], nn.Module]
    decoder: Callable[[], FlowStep]
    horizon: int | None = None


def flow_policy(folder: Folder, networks: Networks, state_in: str | None, execute: int) -> Policy:
    """The policy of a folder; `state_in` is the engine that takes the state. Raises `CheckpointError`."""
    prompt, links = networks.prompt, networks.links.examples()
    chunk = networks.horizon or networks.noise[0]
    seen: dict[str, torch.Tensor] = {}
    feeds: dict[str, dict[str, Any]] = {}
    for camera in folder.cameras:
        seen[frame_port(camera.name)] = torch.zeros(camera.height, camera.width, 3, dtype=torch.uint8)
        feeds[f"{BACKBONE}.{frame_port(camera.name)}"] = {"kind": "frame", "camera": camera.name}
    tokens = {
        "tokens": torch.arange(prompt.budget) % prompt.vocabulary,
        "token_mask": torch.arange(prompt.budget) < prompt.budget // 2,  # some of it padding
    }
    feeds |= {f"{BACKBONE}.{name}": {"kind": name} for name in tokens}
    drawn = {
        "noise": torch.randn(networks.noise),
        "prefix": torch.randn(chunk, folder.action_width),
        "prefix_weights": torch.linspace(1, 0, chunk),
    }
    feeds[f"{DECODER}.noise"] = {"kind": "normal"}
    feeds[f"{DECODER}.prefix"] = {"kind": "committed_goals"}
    feeds[f"{DECODER}.prefix_weights"] = {"kind": "prefix_weights", "decay": networks.guidance.decay}
    state = {"state": torch.zeros(folder.state_width)}
    if state_in is not None:
        feeds[f"{state_in}.state"] = {"kind": "state"}
    backbone = {**seen, **(state if state_in == BACKBONE else {}), **tokens}
    decoder = {**drawn, **links, **(state if state_in == DECODER else {})}

    def encode() -> nn.Module:
        return networks.backbone().eval()

    def follow() -> nn.Module:
        return UnrolledFlow(networks.decoder()).eval()

    def static_encode() -> Static:
        module = encode()
        return Static(module, module)

    def static_follow() -> Static:
        step = networks.decoder().eval()
        return Static(step, UnrolledFlow(step).eval(), step.noisy)

    return Policy(
        folder,
        (
            Part(BACKBONE, backbone, tuple(links), encode, static_encode),
            Part(DECODER, decoder, ("chunk",), follow, static_follow),
        ),
        tuple((f"{BACKBONE}.{name}", f"{DECODER}.{name}") for name in links),
        feeds,
        f"{DECODER}.chunk",
        chunk,
        checked_execute(folder, execute, chunk),
        steps=networks.steps,
        prefix="guided",
        text=text_of(folder, prompt),
        relative=networks.relative,
    )


def text_of(folder: Folder, prompt: Prompt) -> dict[str, Any]:
    """What a manifest says of the text, with the tokenizer's document. Raises `CheckpointError`."""
    text = {
        "document": prompt.tokenizer,
        "budget": prompt.budget,
        "vocabulary": prompt.vocabulary,
        "template": prompt.template,
        "clean": prompt.clean,
        "plain": prompt.plain,
        "special": prompt.special,
    }
    if prompt.state_bins:
        affine, width = folder.inputs.affine(STATE, folder.state_width), (folder.state_width,)
        numbers = {"offset": affine.offset.expand(width).tolist(), "scale": affine.divisor.expand(width).tolist()}
        text["state_bins"] = {"count": prompt.state_bins, **numbers}
    return text


def frames_of(folder: Folder, image_px: tuple[int, int] | None, centred: bool) -> dict[str, Frames]:
    """What becomes of every camera's frames; without a size they keep their own. Raises `CheckpointError`."""
    made = {}
    for camera in folder.cameras:
        size = (camera.height, camera.width)
        made[camera.name] = Frames(folder.inputs.affine(camera.feature, 3), size, image_px or size, centred)
    return made


def actions_of(folder: Folder) -> tuple[Normalised, Restored]:
    """Of actions in the robot's units: to the network's, and back. Raises `CheckpointError`."""
    return Normalised(folder.outputs.affine(ACTION, folder.action_width)), goals_of(folder)
