"""The policy `vla_edge`: LeRobot's observations in, its actions out, the bundle's engines between."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_IMAGES, OBS_STATE
from numpy.typing import NDArray

import edge
from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.doors.lerobot_names import LeRobotAxes
from lerobot_policy_vla_edge.configuration_vla_edge import NOT_TRAINED, VlaEdgeConfig


class VlaEdgePolicy(PreTrainedPolicy):
    """One action a call, in degrees and a gripper of 0 to 100. Raises `VlaEdgeError`, and moves nothing itself."""

    config_class = VlaEdgeConfig
    name = "vla_edge"

    def __init__(self, config: VlaEdgeConfig, **kwargs: Any) -> None:
        super().__init__(config)
        self.config = config
        self._bundle = load_bundle(Path(config.bundle))
        self._axes = LeRobotAxes(load_arm(config.arm))
        self._increments = self._bundle.manifest.continues
        self._task: str | None = None
        self.reset()

    @classmethod
    def from_pretrained(
        cls, pretrained_name_or_path: str | Path, *, config: PreTrainedConfig | None = None, **kwargs: Any
    ) -> VlaEdgePolicy:
        """The policy that a `config.json` describes; the weights are in its bundle."""
        found = config or PreTrainedConfig.from_pretrained(pretrained_name_or_path)
        assert isinstance(found, VlaEdgeConfig)
        return cls(found).eval()

    def reset(self) -> None:
        """An episode begins."""
        self._commanded: NDArray[np.float64] | None = None
        if self._task is not None:
            self._stepper.reset()

    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor:
        """The action (1, J) of the step that begins now, of an observation: pictures (1, 3, H, W) from 0 to 1, state
        (1, J), and the task."""
        self._open(batch.get("task", ""))
        state, cameras = batch[OBS_STATE], self._stepper.cameras
        if len(state) != 1:
            raise ValueError(f"{len(state)} observations at once; a bundle sees one arm")
        q = self._axes.read(dict(zip(self._axes.names, state[0].tolist(), strict=True)))
        row = self._stepper.step([_frame(batch[f"{OBS_IMAGES}.{camera.name}"]) for camera in cameras], q)
        if self._increments:
            row = row + (q if self._commanded is None else self._commanded)
        self._commanded = row
        return torch.tensor([list(self._axes.shown(row).values())], dtype=torch.float32)

    def _open(self, task: Any) -> None:
        """Engines and prompt; another task than the last one begins anew."""
        text = task if isinstance(task, str) else next(iter(task), "")
        manifest = self._bundle.manifest
        text = text or (manifest.text.task if manifest.text is not None else "") or ""
        if text == self._task:
            return
        config = self.config
        self._stepper = edge.open_policy(
            self._bundle,
            config.arm,
            text,
            seed=config.seed,
            execute_steps=config.execute_steps,
            threads=config.threads,
        )
        self._task, self._commanded = text, None

    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> NoReturn:
        raise NotImplementedError("a bundle's chunks are executed here one action at a time: --inference.type=sync")

    def forward(self, batch: dict[str, Any]) -> NoReturn:
        raise NotImplementedError(NOT_TRAINED)

    def get_optim_params(self) -> NoReturn:
        raise NotImplementedError(NOT_TRAINED)


def _frame(picture: torch.Tensor) -> NDArray[np.uint8]:
    """As the camera gave it: uint8 (H, W, 3)."""
    frame: NDArray[np.uint8] = (picture[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return frame
