"""What of a Diffusion policy's config.json is implemented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from export.families.base import CheckpointError
from export.families.lerobot.documents import read_fields
from export.families.lerobot.folder import Folder

IGNORED = frozenset(
    {
        *("compile_mode", "compile_model", "crop_is_random", "do_mask_loss_for_padding", "drop_n_last_frames"),
        *("gradient_checkpointing", "pretrained_backbone_weights"),
    }
)
"""Training's; a trained policy crops around the centre, whatever training did."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Fields of LeRobot's, `policies/diffusion/configuration_diffusion.py`; folders name them all."""

    horizon: int
    n_action_steps: int
    down_dims: tuple[int, ...]
    n_obs_steps: int = 2
    vision_backbone: Literal["resnet18", "resnet34"] = "resnet18"
    resize_shape: tuple[int, int] | None = None
    crop_ratio: float = 1.0
    crop_shape: tuple[int, int] | None = None
    use_group_norm: bool = False
    spatial_softmax_num_keypoints: int = 32
    use_separate_rgb_encoder_per_camera: bool = True
    kernel_size: int = 5
    n_groups: int = 8
    diffusion_step_embed_dim: int = 128
    use_film_scale_modulation: bool = True
    noise_scheduler_type: Literal["DDPM", "DDIM"] = "DDPM"
    num_train_timesteps: int = 100
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "squaredcos_cap_v2"
    beta_start: float = 0.0001
    beta_end: float = 0.02
    prediction_type: Literal["epsilon", "sample"] = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: int | None = None

    @property
    def steps(self) -> int:
        """Of denoising."""
        return self.num_train_timesteps if self.num_inference_steps is None else self.num_inference_steps

    @property
    def rows(self) -> int:
        """Of a chunk: those from the present observation on."""
        return self.horizon - self.n_obs_steps + 1


def read_config(folder: Folder) -> DiffusionConfig:
    """Raises `CheckpointError`."""
    file, config = folder.config_file, read_fields(folder.config_file, folder.config, DiffusionConfig, ignored=IGNORED)
    for name, value in config.__dict__.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, int) and not isinstance(number, bool) and number < 1 for number in numbers):
            raise CheckpointError(f"{file}: '{name}' is {value}; it must be at least 1")
    if config.steps > config.num_train_timesteps:
        raise CheckpointError(
            f"{file}: 'num_inference_steps' is more than 'num_train_timesteps'; set it to at most that"
        )
    if config.n_action_steps > config.rows:
        raise CheckpointError(
            f"{file}: 'n_action_steps' is more than the {config.rows} rows of a chunk; set it to that"
        )
    if config.horizon % 2 ** len(config.down_dims):
        raise CheckpointError(
            f"{file}: 'horizon' is no multiple of {2 ** len(config.down_dims)}; copy the folder again"
        )
    if any(width % config.n_groups for width in config.down_dims) or config.down_dims[0] % 8:
        raise CheckpointError(f"{file}: 'down_dims' are no multiples of 'n_groups' and 8; copy the folder again")
    sizes = {(camera.height, camera.width) for camera in folder.cameras}
    if len(sizes) != 1:
        raise CheckpointError(f"{file}: pictures of several sizes; a diffusion policy has one")
    seen = config.resize_shape or sizes.pop()
    if config.crop_shape is not None and (config.crop_shape[0] > seen[0] or config.crop_shape[1] > seen[1]):
        raise CheckpointError(f"{file}: 'crop_shape' is larger than the picture; copy the folder again")
    return config
