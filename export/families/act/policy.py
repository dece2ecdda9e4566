"""From a folder to ACT's one engine."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from export.families.act.config import ActConfig, read_config
from export.families.act.engine import StaticAct
from export.families.act.network import ActNetwork
from export.families.lerobot.folder import Folder
from export.families.lerobot.pictures import Normalised, Pictures, Restored, goals_of, pictures_of, state_of
from export.families.lerobot.policy import Part, Policy, Static, checked_execute, frame_port
from export.families.lerobot.resnet import width_of
from export.families.lerobot.weights import check_values, compare, fill, shapes_of

BELOW = "model."
ENGINE = "policy"


class ActReference(nn.Module):
    """The network as it is stated, from raw numbers to raw numbers."""

    def __init__(self, network: ActNetwork, pictures: list[Pictures], state: Normalised, restored: Restored) -> None:
        super().__init__()
        self.network, self.pictures, self.state, self.restored = network, nn.ModuleList(pictures), state, restored

    def forward(self, state: torch.Tensor, *frames: torch.Tensor) -> torch.Tensor:
        seen = [prepare(frame) for prepare, frame in zip(self.pictures, frames)]
        return self.restored(self.network(seen, self.state(state)))


def read_act(folder: Folder) -> Policy:
    """Checks everything in the folder. Raises `CheckpointError`."""
    folder.expect_steps()
    config = read_config(folder)
    network = _network(folder, config)
    compare(folder.weights, shapes_of(network, BELOW), folder.kind)
    pictures_of(folder), state_of(folder), goals_of(folder)
    check_values(folder.weights, folder.weights.shapes)
    inputs = {"state": torch.zeros(folder.state_width)}
    feeds: dict[str, dict[str, str]] = {f"{ENGINE}.state": {"kind": "state"}}
    for camera in folder.cameras:
        inputs[frame_port(camera.name)] = torch.zeros(camera.height, camera.width, 3, dtype=torch.uint8)
        feeds[f"{ENGINE}.{frame_port(camera.name)}"] = {"kind": "frame", "camera": camera.name}
    part = Part(ENGINE, inputs, ("chunk",), partial(reference, folder, config), partial(static, folder, config))
    execute = checked_execute(folder, config.n_action_steps, config.chunk_size)
    return Policy(folder, (part,), (), feeds, f"{ENGINE}.chunk", config.chunk_size, execute)


def reference(folder: Folder, config: ActConfig) -> ActReference:
    network = _network(folder, config)
    fill(network, folder.weights, BELOW)
    network.forget_demonstrations()
    return ActReference(network, pictures_of(folder), state_of(folder), goals_of(folder)).eval()


def static(folder: Folder, config: ActConfig) -> Static:
    found = reference(folder, config)
    sizes = [(camera.height, camera.width) for camera in folder.cameras]
    module = StaticAct(found.network, list(found.pictures), sizes, found.state, found.restored).eval()
    return Static(module, module)


def _network(folder: Folder, config: ActConfig) -> ActNetwork:
    """Without weights."""
    width = width_of(folder.weights.shapes, f"{BELOW}backbone.conv1.weight", folder.weights.file)
    with torch.device("meta"):
        return ActNetwork(config, folder.state_width, folder.action_width, width)
