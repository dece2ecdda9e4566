"""From a folder to a Diffusion policy's two engines."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from export.families.diffusion.config import DiffusionConfig, read_config
from export.families.diffusion.engine import Denoising, DenoisingStep, StaticCondition
from export.families.diffusion.network import DiffusionNetwork
from export.families.lerobot.folder import Folder
from export.families.lerobot.pictures import Normalised, Pictures, Restored, goals_of, pictures_of, state_of
from export.families.lerobot.policy import Part, Policy, Static, checked_execute, frame_port
from export.families.lerobot.resnet import width_of
from export.families.lerobot.weights import check_values, compare, fill, shapes_of

BELOW = "diffusion."
BACKBONE, DECODER = "backbone", "decoder"


class ConditionReference(nn.Module):
    """The encoders as they are stated, from raw numbers."""

    def __init__(self, network: DiffusionNetwork, pictures: list[Pictures], states: Normalised) -> None:
        super().__init__()
        self.network, self.pictures, self.states = network, nn.ModuleList(pictures), states

    def forward(self, states: torch.Tensor, *frames: torch.Tensor) -> torch.Tensor:
        seen = [prepare(frame) for prepare, frame in zip(self.pictures, frames)]
        return self.network.condition(seen, self.states(states))


class SampleReference(nn.Module):
    """The denoising as it is stated, to raw numbers."""

    def __init__(self, network: DiffusionNetwork, restored: Restored) -> None:
        super().__init__()
        self.network, self.restored = network, restored

    def forward(self, noise: torch.Tensor, condition: torch.Tensor, *step_noise: torch.Tensor) -> torch.Tensor:
        return self.restored(self.network.sample(condition, noise, step_noise[0] if step_noise else None))


def read_diffusion(folder: Folder) -> Policy:
    """Checks everything in the folder. Raises `CheckpointError`."""
    folder.expect_steps()
    config = read_config(folder)
    network = _network(folder, config)
    compare(folder.weights, shapes_of(network, BELOW), folder.kind)
    pictures_of(folder), state_of(folder), goals_of(folder)
    check_values(folder.weights, folder.weights.shapes)
    count, axes = config.n_obs_steps, folder.action_width
    several = (count,) if count > 1 else ()
    seen = {"state": torch.zeros(*several, folder.state_width)}
    feeds: dict[str, dict[str, str]] = {f"{BACKBONE}.state": {"kind": "state"}}
    for camera in folder.cameras:
        seen[frame_port(camera.name)] = torch.zeros(*several, camera.height, camera.width, 3, dtype=torch.uint8)
        feeds[f"{BACKBONE}.{frame_port(camera.name)}"] = {"kind": "frame", "camera": camera.name}
    features = folder.state_width + len(folder.cameras) * 2 * config.spatial_softmax_num_keypoints
    drawn = {"noise": torch.randn(config.horizon, axes), "condition": torch.randn(1, count * features)}
    feeds[f"{DECODER}.noise"] = {"kind": "normal"}
    if config.noise_scheduler_type == "DDPM":
        drawn["step_noise"] = torch.randn(config.steps, config.horizon, axes)
        feeds[f"{DECODER}.step_noise"] = {"kind": "normal"}
    parts = (
        Part(
            BACKBONE,
            seen,
            ("condition",),
            partial(condition, folder, config),
            partial(static_condition, folder, config),
        ),
        Part(DECODER, drawn, ("chunk",), partial(sample, folder, config), partial(static_sample, folder, config)),
    )
    links = ((f"{BACKBONE}.condition", f"{DECODER}.condition"),)
    execute = checked_execute(folder, config.n_action_steps, config.rows)
    return Policy(folder, parts, links, feeds, f"{DECODER}.chunk", config.rows, execute, count, config.steps)


def condition(folder: Folder, config: DiffusionConfig) -> ConditionReference:
    return ConditionReference(_filled(folder, config), pictures_of(folder), state_of(folder)).eval()


def sample(folder: Folder, config: DiffusionConfig) -> SampleReference:
    return SampleReference(_filled(folder, config), goals_of(folder)).eval()


def static_condition(folder: Folder, config: DiffusionConfig) -> Static:
    found = condition(folder, config)
    camera = folder.cameras[0]
    size = (camera.height, camera.width)
    module = StaticCondition(found.network, list(found.pictures), size, found.states).eval()
    return Static(module, module)


def static_sample(folder: Folder, config: DiffusionConfig) -> Static:
    step = DenoisingStep(_filled(folder, config), goals_of(folder)).eval()
    return Static(step, Denoising(step).eval(), step.rows)


def _filled(folder: Folder, config: DiffusionConfig) -> DiffusionNetwork:
    network = _network(folder, config)
    fill(network, folder.weights, BELOW)
    return network


def _network(folder: Folder, config: DiffusionConfig) -> DiffusionNetwork:
    """Without weights."""
    number = "0." if config.use_separate_rgb_encoder_per_camera else ""
    first = f"{BELOW}rgb_encoder.{number}backbone.0.weight"
    width, camera = width_of(folder.weights.shapes, first, folder.weights.file), folder.cameras[0]
    size = (camera.height, camera.width)
    with torch.device("meta"):
        return DiffusionNetwork(config, len(folder.cameras), size, folder.state_width, folder.action_width, width)
