"""A leader arm of an SO-101 that waves by itself, in LeRobot's names and units."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from lerobot.teleoperators import Teleoperator, TeleoperatorConfig

# Where the simulated SO-101 begins, and how far it waves: degrees, the gripper in percent of its travel.
HOME = {
    "shoulder_pan.pos": 0.0,
    "shoulder_lift.pos": -51.6,
    "elbow_flex.pos": 51.6,
    "wrist_flex.pos": 45.8,
    "wrist_roll.pos": 0.0,
    "gripper.pos": 20.0,
}
WAVE = dict.fromkeys(HOME, 10.0)
RATE = 1.6


@TeleoperatorConfig.register_subclass("scripted")
@dataclass
class ScriptedConfig(TeleoperatorConfig):
    """`wild` sends the arm a jump far beyond its limits every second."""

    wild: bool = False


class Scripted(Teleoperator):
    config_class = ScriptedConfig
    name = "scripted"

    def __init__(self, config: ScriptedConfig) -> None:
        super().__init__(config)
        self._wild, self._began_s = config.wild, math.nan

    @property
    def action_features(self) -> dict[str, Any]:
        return dict.fromkeys(HOME, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        return {}

    @property
    def is_connected(self) -> bool:
        return not math.isnan(self._began_s)

    def connect(self, calibrate: bool = True) -> None:
        self._began_s = time.perf_counter()

    @property
    def is_calibrated(self) -> bool:
        return True

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    def get_action(self) -> dict[str, float]:
        t = time.perf_counter() - self._began_s
        far = 500.0 * (-1) ** int(t) if self._wild else 0.0
        return {name: home + WAVE[name] * math.sin(RATE * t) ** 3 + far for name, home in HOME.items()}

    def send_feedback(self, feedback: dict[str, Any]) -> None: ...

    def disconnect(self) -> None:
        self._began_s = math.nan
