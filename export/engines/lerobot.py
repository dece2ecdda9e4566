"""Policies of LeRobot: from a folder to a bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edge.bundle import (
    MANIFEST,
    REFERENCE,
    TOKENIZER,
    VERIFICATION,
    ActionNumber,
    ArmSpec,
    AxisSpec,
    CameraSpec,
    EngineSpec,
    Feed,
    GraphSpec,
    Manifest,
    PolicySpec,
    StateBins,
    StateNumber,
    TextSpec,
    Training,
    sha256,
)
from edge.bundle.manifest import ActionKind
from edge.cli.parser import MADE_BY
from export.engines.chain import draw_observations
from export.engines.package import REFERENCE_SAMPLES, whole_folder
from export.engines.recorded import recorded_observations
from export.engines.robot import Robot, find_robot
from export.engines.wired import Maker, Samples
from export.families.act.policy import read_act
from export.families.base import CheckpointError, Exporter, Family, Stage
from export.families.diffusion.policy import read_diffusion
from export.families.groot.policy import read_groot
from export.families.lerobot.folder import ACTION, STATE, Folder, is_folder, read_folder
from export.families.lerobot.policy import Beside, Policy, training_range
from export.families.pi.policy import read_pi
from export.families.smolvla.policy import read_smolvla
from export.training.lerobot.errors import DatasetError
from export.training.lerobot.info import read_info
from export.training.lerobot.rows import tasks_of

NOTHING = Beside()
CALIBRATION_SAMPLES = 64
"""Of which each passes through every part twice."""

READERS: dict[str, Callable[[Folder, Beside], Policy]] = {
    "act": lambda folder, _: read_act(folder),
    "diffusion": lambda folder, _: read_diffusion(folder),
    "smolvla": read_smolvla,
    "pi0": read_pi,
    "pi05": read_pi,
    "groot": read_groot,
}
"""By the type that a config names."""


def read_policy(path: Path, beside: Beside = NOTHING) -> Policy:
    """Reads and checks a whole folder, with what is `beside` it. Raises `CheckpointError`."""
    folder = read_folder(path, beside.base)
    return READERS[folder.kind](folder, beside)


@dataclass(frozen=True)
class LeRobot(Family):
    """A `pretrained_model` folder."""

    @classmethod
    def recognises(cls, checkpoint: Path) -> bool:
        return is_folder(checkpoint)

    def open(self, checkpoint: Path) -> Exporter:
        if self.flow_steps is not None:
            raise CheckpointError("--flow-steps: a LeRobot folder says itself in how many steps; leave it out")
        if self.precision == "int8" and self.observations is None:
            raise CheckpointError(
                "int8 is calibrated on recorded observations: add --observations DIR, the dataset it was trained on"
            )
        policy = read_policy(checkpoint, Beside(self.given.tokenizer, self.given.vlm, self.given.base))
        robot = find_robot(policy.folder, self.given, absolute=not any(policy.relative))
        return LeRobotExporter(policy, robot, self.precision, self._samples(policy), self.seed, self._task(policy))

    def _task(self, policy: Policy) -> str:
        """What was asked for, else what every episode of the dataset is about; empty where that is several things."""
        if self.task and policy.text is None:
            raise CheckpointError("--task: this policy follows no instruction; leave it out")
        if self.task or policy.text is None or self.given.dataset is None:
            return self.task
        try:
            tasks = tasks_of(read_info(self.given.dataset))
        except DatasetError:  # what nobody asked for need not be there
            return ""
        return tasks[0] if len(tasks) == 1 and tasks[0].isprintable() else ""

    def _samples(self, policy: Policy) -> Samples:
        """What to verify on, and for int8 what to calibrate on."""
        if self.observations is None:
            return Samples(draw_observations(policy, self.samples, self.seed), [], "synthetic")
        count = CALIBRATION_SAMPLES if self.precision == "int8" else 0
        return recorded_observations(policy, self.observations, count, self.samples, self.seed)


@dataclass(frozen=True)
class LeRobotExporter:
    """A policy that was read, and the arm it belongs to."""

    policy: Policy
    robot: Robot
    precision: str
    samples: Samples
    seed: int
    task: str = ""

    @property
    def summary(self) -> str:
        return f"{self.policy.folder.kind}, {self.precision}"

    @property
    def table(self) -> list[tuple[str, str]]:
        policy, robot, folder = self.policy, self.robot, self.policy.folder
        cameras = [f"{camera.name} {camera.height} x {camera.width}" for camera in folder.cameras]
        axes = [f"{axis.joint} {axis.unit}" for axis in robot.axes]
        seen = "" if policy.observations == 1 else f", sees {policy.observations} observations"
        steps = "one pass" if policy.steps == 1 else f"{policy.steps} steps"
        return [
            ("family", f"{folder.kind} of LeRobot, {steps}{seen}"),
            ("cameras", ", ".join(cameras)),
            ("arm", f"{robot.arm.name}, {len(robot.axes)} axes: {', '.join(axes)}"),
            ("order", robot.how["axes"]),
            ("units", f"{robot.units}: {robot.how['units']}"),
            ("rate", f"{robot.rate_hz:g} Hz"),
            ("chunk", f"{policy.horizon} goals, {policy.horizon * robot.step_s:.2f} s; {policy.execute} executed"),
        ]

    def write(self, out: Path, stage: Stage) -> dict[str, Any]:
        """The folder `out` appears when everything in it is complete; one that stood there before is replaced."""
        with whole_folder(out) as (folder, scratch):
            maker = Maker(self.policy, self.precision, self.samples, self.seed, folder, scratch, stage)
            for part in self.policy.parts:
                maker.make(part)
            report = maker.report()
            (folder / VERIFICATION).write_text(json.dumps(report, indent=2) + "\n")
            np.savez_compressed(folder / REFERENCE, **maker.examples(REFERENCE_SAMPLES))
            if self.policy.text is not None:
                (folder / TOKENIZER).write_text(self.policy.text["document"], encoding="utf-8")
            files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
            (folder / MANIFEST).write_text(self.manifest(maker.specs, files).to_json())
        return report

    def manifest(self, engines: dict[str, EngineSpec], files: dict[str, str]) -> Manifest:
        policy, folder = self.policy, self.policy.folder
        try:
            cameras = tuple(
                CameraSpec(camera.name, camera.height, camera.width, source=camera.feature) for camera in folder.cameras
            )
        except ValueError as error:
            raise CheckpointError(f"{folder.config_file}: {error}; rename it in the folder") from None
        return Manifest(
            policy=PolicySpec(
                family=folder.kind,
                horizon=policy.horizon,
                precision=self.precision,
                source="a LeRobot folder",
                observations=policy.observations,
                execute=policy.execute,
                prefix=policy.prefix,
            ),
            graph=GraphSpec(
                engines, policy.links, {port: Feed(**feed) for port, feed in policy.feeds.items()}, policy.result
            ),
            cameras=cameras,
            arms=(arm_spec(policy, self.robot),),
            checkpoint_sha256=fingerprint(folder),
            created_by=MADE_BY,
            files=files,
            text=text_spec(policy.text, self.task),
        )


def text_spec(text: Mapping[str, Any] | None, task: str = "") -> TextSpec | None:
    """How a task becomes tokens, if the policy takes one."""
    if text is None:
        return None
    bins = text.get("state_bins")
    return TextSpec(
        TOKENIZER,
        text["budget"],
        text["template"],
        text["clean"],
        text["plain"],
        text["special"],
        state_bins=None if bins is None else StateBins(bins["count"], tuple(bins["offset"]), tuple(bins["scale"])),
        task=task,
    )


def arm_spec(policy: Policy, robot: Robot) -> ArmSpec:
    """The arm's axes in its profile's order, each with its column and unit, and what is known of the training data."""
    folder, order = policy.folder, [axis.column for axis in robot.axes]

    kinds: list[ActionKind] = ["position"] * folder.action_width
    for column, relative in enumerate(policy.relative):
        kinds[column] = "position_relative_to_state" if relative else "position"

    def row(values: torch.Tensor) -> tuple[float, ...]:
        return tuple(values[order].tolist())

    state, action = training_range(folder, STATE), training_range(folder, ACTION)
    held = folder.inputs.statistics.get(STATE, {})
    known = {
        name: row(held[key].float()) for name, key in (("state_mean", "mean"), ("state_spread", "std")) if key in held
    }
    return ArmSpec(
        name=robot.arm.embodiment,
        step_s=robot.step_s,
        axes=tuple(
            AxisSpec(
                axis.joint,
                StateNumber(axis.column, axis.unit),
                ActionNumber(axis.column, kinds[axis.column], axis.unit),
                axis.source,
                axis.travel,
            )
            for axis in robot.axes
        ),
        training=Training(
            **known,
            state_min=row(state[0]),
            state_max=row(state[1]),
            action_min=row(action[0]),
            action_max=row(action[1]),
        ),
        source=robot.how["axes"],
    )


def fingerprint(folder: Folder) -> str:
    """SHA-256 of all the files that a policy follows from."""
    files = [folder.config_file, *folder.weights.files, folder.inputs.file, folder.outputs.file]
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()
