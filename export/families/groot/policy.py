"""From a folder to GR00T's two engines."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from export.families.base import CheckpointError
from export.families.groot.config import blocks_of, read_base, read_config, read_vlm
from export.families.groot.language import Layout
from export.families.groot.network import (
    EMBEDDING,
    HEAD,
    GrootBackbone,
    GrootDecoder,
    GrootShape,
    expected_tensors,
    unused_tensors,
)
from export.families.groot.pictures import Patches, Prepared
from export.families.groot.prompt import BUDGET, read_chat, read_patches
from export.families.groot.steps import Actions, Processors, read_steps
from export.families.lerobot.folder import STATE, Folder
from export.families.lerobot.policy import Beside, Policy
from export.families.lerobot.statistics import Affine
from export.families.lerobot.weights import Renamed, check_values, compare, tied
from export.families.vla.guided import Guidance
from export.families.vla.policy import DECODER, Networks, Prompt, flow_policy
from export.families.vla.text import document_of


def read_groot(folder: Folder, beside: Beside) -> Policy:
    """Checks all of a folder but the values of the weights that engines take. Raises `CheckpointError`."""
    config = read_config(folder)
    steps = read_steps(folder, config)
    folder = steps.folder
    base_file, base, head, features = read_base(folder, beside.base)
    for name in ("max_state_dim", "max_action_dim"):
        if getattr(base, name) != getattr(config, name):
            raise CheckpointError(
                f"{folder.config_file}: '{name}' is {getattr(config, name)}, and {getattr(base, name)} in {base_file}; "
                "name the base model that it was trained from"
            )
    if not 0 <= steps.embodiment < base.max_num_embodiments:
        raise CheckpointError(
            f"{folder.path}: '{config.embodiment_tag}' is number {steps.embodiment} of {base.max_num_embodiments} "
            "embodiments; name the base model that it was trained from"
        )
    if beside.vlm is None:
        raise CheckpointError(
            f"{folder.path}: its vision-language model is not in the folder; copy config.json, "
            f"preprocessor_config.json, tokenizer.json and tokenizer_config.json of {base.model_name} and name their "
            "folder: --vlm DIR"
        )
    text, tower, picture = read_vlm(beside.vlm, base)
    document = document_of(folder, beside.tokenizer or beside.vlm, text.vocabulary, base.model_name)
    chat = read_chat(beside.vlm, document, len(folder.cameras), picture)
    patches = read_patches(beside.vlm, tower)
    camera = folder.cameras[0]
    try:
        size = Prepared((camera.height, camera.width), steps.geometry, patches).size
    except ValueError as error:
        raise CheckpointError(f"{folder.config_file}: {error}; train with others") from None
    count = config.num_inference_timesteps or base.num_inference_timesteps
    shape = GrootShape(
        tower=tower,
        text=text,
        layout=Layout(chat.parts, (size[0] // patches.factor, size[1] // patches.factor), BUDGET),
        normed=base.use_vlln,
        features=None if features is None else blocks_of(features),
        head=blocks_of(head),
        itself=head.interleave_self_attention,
        words_every=base.attend_text_every_n_blocks if base.use_alternate_vl_dit else 0,
        row=steps.embodiment,
        embodiments=base.max_num_embodiments,
        answer=base.hidden_size,
        times=tuple(int(step / count * base.num_timestep_buckets) for step in range(count)),
        places=base.max_seq_len if base.add_pos_embed else 0,
        horizon=base.action_horizon,
        state_width=base.max_state_dim,
        action_width=base.max_action_dim,
        ramp=base.rtc_ramp_rate if config.rtc_ramp_rate is None else config.rtc_ramp_rate,
    )
    if not shape.ramp > 0:
        raise CheckpointError(f"{folder.config_file}: 'rtc_ramp_rate' is {shape.ramp}; it must be above 0")
    names = {name: name for name in folder.weights.shapes}
    tied(names, EMBEDDING, HEAD)
    weights = Renamed(folder.weights, names)
    compare(weights, expected_tensors(shape), folder.kind)
    check_values(weights, unused_tensors())
    horizon = min(steps.actions.horizon, shape.horizon)
    networks = Networks(
        Prompt(document, BUDGET, text.vocabulary, chat.template, plain=steps.plain, special=False),
        Guidance(),
        Features(shape.layout.length, text.hidden),
        (shape.horizon, shape.action_width),
        len(shape.times),
        steps.actions.relative,
        lambda: GrootBackbone(weights, shape, frames_of(folder, steps, patches)),
        lambda: GrootDecoder(weights, shape, state_of(steps), *actions_of(steps.actions, horizon)),
        horizon,
    )
    return flow_policy(folder, networks, DECODER, config.n_action_steps)


@dataclass(frozen=True)
class Features:
    """What the head attends to: so many tokens, of this width."""

    tokens: int
    width: int

    def examples(self) -> dict[str, torch.Tensor]:
        mask = torch.ones(self.tokens, dtype=torch.bool)
        return {"features": torch.randn(self.tokens, self.width), "prefix_mask": mask}


class Bounded(nn.Module):
    """Numbers of the robot as the network sees them, -1 to 1; one that never moved is 0."""

    def __init__(self, middle: torch.Tensor, half: torch.Tensor, clipped: bool) -> None:
        super().__init__()
        self.middle, self.factor = nn.Buffer(middle), nn.Buffer(torch.where(half > 0, 1 / half, 0.0))
        self.clipped = clipped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (x - self.middle) * self.factor
        return y.clamp(-1.0, 1.0) if self.clipped else y


class Unbounded(nn.Module):
    """The network's answers in the robot's units."""

    def __init__(self, middle: torch.Tensor, half: torch.Tensor, clipped: bool) -> None:
        super().__init__()
        self.middle, self.factor = nn.Buffer(middle), nn.Buffer(half)
        self.clipped = clipped

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return (y.clamp(-1.0, 1.0) if self.clipped else y) * self.factor + self.middle


def state_of(steps: Processors) -> Bounded:
    """What prepares the state."""
    affine: Affine = steps.folder.inputs.affine(STATE, steps.folder.state_width)
    return Bounded(affine.offset, affine.factor, steps.clipped)


def actions_of(actions: Actions, horizon: int) -> tuple[Bounded, Unbounded]:
    """Of chunks of so many rows: to the network's, and back. Goals that are committed are never cut."""
    middle, half = (part if len(part) == 1 else part[:horizon] for part in (actions.middle, actions.half))
    return Bounded(middle, half, False), Unbounded(middle, half, actions.clipped)


def frames_of(folder: Folder, steps: Processors, patches: Patches) -> dict[str, Prepared]:
    """What becomes of every camera's frames."""
    return {camera.name: Prepared((camera.height, camera.width), steps.geometry, patches) for camera in folder.cameras}
