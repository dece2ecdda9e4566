"""The robot `vla_edge`: LeRobot's names and units outside, an arm in a process of its own inside."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lerobot.cameras import CameraConfig, make_cameras_from_configs
from lerobot.robots import Robot, RobotConfig
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from edge.arms import load_arm
from edge.cameras import open_camera
from edge.doors.following import FollowingArm, follow
from edge.doors.lerobot_names import ROBOTS, LeRobotAxes, with_calibration


@RobotConfig.register_subclass("vla_edge")
@dataclass
class VlaEdgeConfig(RobotConfig):
    """`--robot.type=vla_edge` and its options.

    arm           profile: so101, bi_so101, franka, ..., or a .toml file
    bridge        where it is, as `edge-run --bridge`: feetech:/dev/ttyACM0, feetech:LEFT,RIGHT, sim:, ...
    speed         share of the arm's operating speed, above 0 to 1
    cameras       LeRobot's own
    edge_cameras  others by URL, as `edge-run --camera`; sim: is a camera of the simulated scene, by its name
    frame_px      height and width of those
    scene_seed    with sim: and a scene: where its objects are; without, the arm is simulated alone
    task          which scene, by its instruction
    log           a file for `edge-run --replay`
    """

    arm: str = "so101"
    bridge: str = "sim:"
    speed: float = 1.0
    cameras: dict[str, CameraConfig] = field(default_factory=dict)
    edge_cameras: dict[str, str] = field(default_factory=dict)
    frame_px: tuple[int, int] = (240, 320)
    scene_seed: int | None = None
    task: str = ""
    log: str | None = None


class VlaEdge(Robot):
    """Positions in degrees and a gripper of 0 to 100, as LeRobot has an SO arm's; see `Robot` for the methods."""

    config_class = VlaEdgeConfig
    name = "vla_edge"

    def __init__(self, config: VlaEdgeConfig) -> None:
        self.name = ROBOTS.get(config.arm) or load_arm(config.arm).name
        super().__init__(config)
        self.config = config
        self.cameras = make_cameras_from_configs(config.cameras)
        self._axes = LeRobotAxes(load_arm(config.arm))
        self._arm: FollowingArm | None = None
        self._opened, self._eyes = ExitStack(), {}

    @property
    def _bridge(self) -> str:
        return with_calibration(self.config.bridge, Path(self.calibration_fpath), load_arm(self.config.arm))

    @cached_property
    def observation_features(self) -> dict[str, Any]:
        shapes: dict[str, Any] = {name: (camera.height, camera.width, 3) for name, camera in self.cameras.items()}
        return self.action_features | shapes | dict.fromkeys(self.config.edge_cameras, (*self.config.frame_px, 3))

    @cached_property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(self._axes.names, float)

    @property
    def is_connected(self) -> bool:
        return self._arm is not None and self._arm.moves

    def connect(self, calibrate: bool = True) -> None:
        """Switches the drive on where the arm stands. What keeps it from that is raised, and it has not moved."""
        if self._arm is not None:
            raise DeviceAlreadyConnectedError(f"{self} is connected already")
        config = self.config
        scene = [name for name, url in config.edge_cameras.items() if url == "sim:"]
        with ExitStack() as opened:
            for camera in self.cameras.values():
                camera.connect()
                opened.callback(camera.disconnect)
            arm = opened.enter_context(
                follow(
                    config.arm,
                    self._bridge,
                    cameras=scene,
                    scene_seed=config.scene_seed,
                    task=config.task,
                    speed=config.speed,
                    log=config.log,
                )
            )
            for name, url in (config.edge_cameras | arm.cameras).items():
                eye = open_camera(url, config.frame_px, name)
                opened.callback(eye.close)
                self._eyes[name] = eye
            self._arm, self._opened = arm, opened.pop_all()

    @property
    def is_calibrated(self) -> bool:
        """True: an arm without its calibration does not connect, and says how to make one."""
        return True

    def calibrate(self) -> None:
        """Done beforehand, by `edge-calibrate` or `lerobot-calibrate --robot.type=so101_follower` with the same id."""

    def configure(self) -> None:
        """Nothing: the arm's drive configures itself when it connects."""

    def _connected(self) -> FollowingArm:
        if self._arm is None:
            raise DeviceNotConnectedError(f"{self} is not connected")
        return self._arm

    def get_observation(self) -> dict[str, Any]:
        """Raises `SafetyStop` once the arm has stopped, `CameraUnhealthy` for a picture that must not be used."""
        seen: dict[str, Any] = self._axes.shown(self._connected().q())
        seen |= {name: camera.read_latest() for name, camera in self.cameras.items()}
        return seen | {name: eye.grab().image for name, eye in self._eyes.items()}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Makes it the arm's newest set-point; returns it as far as it lies within the arm's limits.

        Raises `ValueError` for what is not one finite number per joint: the arm keeps its last set-point.
        """
        arm = self._connected()
        return self._axes.shown(arm.go(self._axes.read(action)))

    def disconnect(self) -> None:
        """A controlled stop, then the drive is off."""
        self._connected()
        self._arm = None
        self._eyes.clear()
        self._opened.close()
