"""What of a bundle LeRobot needs to know: its `config.json`."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.optim import OptimizerConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.doors.lerobot_names import LeRobotAxes

NOT_TRAINED = "a bundle is not trained; train its checkpoint, and export it again"


@PreTrainedConfig.register_subclass("vla_edge")
@dataclass
class VlaEdgeConfig(PreTrainedConfig):
    """`--policy.path=DIR` and what may be changed of it.

    bundle         folder made by edge-export
    arm            profile of the arm that it moves: so101, franka, ..., or a .toml file
    execute_steps  of a chunk, before the next one is computed; none: what the bundle says
    threads, seed  as `edge-run` has them
    """

    bundle: str = ""
    arm: str = "so101"
    execute_steps: int | None = None
    threads: int = 1
    seed: int = 0
    action_feature_names: list[str] | None = None
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=dict)
    """Empty: the engines normalise."""

    def __post_init__(self) -> None:
        self.device = "cpu"  # where LeRobot's tensors are; the engines have their own
        super().__post_init__()

    @staticmethod
    def of(bundle: str, arm: str) -> VlaEdgeConfig:
        """Of a bundle's own cameras and of the arm's joints. Raises `VlaEdgeError`."""
        profile, opened = load_arm(arm), load_bundle(bundle)
        opened.arm(profile.embodiment, profile.joints)
        names = list(LeRobotAxes(profile).names)
        joints = (len(names),)
        pictures = {
            f"{OBS_IMAGES}.{camera.name}": PolicyFeature(FeatureType.VISUAL, (3, *camera.frame_px))
            for camera in opened.manifest.cameras
        }
        return VlaEdgeConfig(
            bundle=str(bundle),
            arm=arm,
            input_features={OBS_STATE: PolicyFeature(FeatureType.STATE, joints)} | pictures,
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, joints)},
            action_feature_names=names,
            push_to_hub=False,
        )

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None

    def get_optimizer_preset(self) -> OptimizerConfig:
        raise NotImplementedError(NOT_TRAINED)

    def get_scheduler_preset(self) -> None:
        raise NotImplementedError(NOT_TRAINED)

    def validate_features(self) -> None:
        """The bundle judges its frames and joints itself."""
