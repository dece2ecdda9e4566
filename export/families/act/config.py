"""What of an ACT policy's config.json is implemented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from export.families.base import CheckpointError
from export.families.lerobot.documents import read_fields
from export.families.lerobot.folder import Folder

FIXED = {"replace_final_stride_with_dilation": False, "n_obs_steps": 1, "temporal_ensemble_coeff": None}
IGNORED = frozenset({"pretrained_backbone_weights", "dropout", "kl_weight"})


@dataclass(frozen=True)
class ActConfig:
    """Fields and defaults of LeRobot's, `policies/act/configuration_act.py`."""

    chunk_size: int = 100
    n_action_steps: int = 100
    vision_backbone: Literal["resnet18", "resnet34"] = "resnet18"
    pre_norm: bool = False
    dim_model: int = 512
    n_heads: int = 8
    dim_feedforward: int = 3200
    feedforward_activation: Literal["relu", "gelu"] = "relu"
    n_encoder_layers: int = 4
    n_decoder_layers: int = 1
    use_vae: bool = True
    latent_dim: int = 32
    n_vae_encoder_layers: int = 4


def read_config(folder: Folder) -> ActConfig:
    """Raises `CheckpointError`."""
    config = read_fields(folder.config_file, folder.config, ActConfig, FIXED, IGNORED)
    sizes = {name: value for name, value in config.__dict__.items() if isinstance(value, int) and name[:3] != "pre"}
    small = [name for name, value in sizes.items() if value < 1 and not isinstance(value, bool)]
    if small:
        raise CheckpointError(f"{folder.config_file}: '{small[0]}' is {sizes[small[0]]}; it must be at least 1")
    if config.dim_model % (4 * config.n_heads) and config.dim_model % config.n_heads:
        raise CheckpointError(f"{folder.config_file}: 'dim_model' is no multiple of 'n_heads'; copy the folder again")
    if config.n_action_steps > config.chunk_size:
        raise CheckpointError(
            f"{folder.config_file}: 'n_action_steps' is more than 'chunk_size'; set it to at most that"
        )
    return config
