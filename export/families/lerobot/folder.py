"""A LeRobot `pretrained_model` folder: which policy it holds, its cameras and axes, its processors.

Facts: LeRobot 0.4 to 0.6.1, `configs/policies.py`, `processor/pipeline.py`, `policies/pretrained.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from export.families.base import CheckpointError
from export.families.lerobot.adapter import ADAPTER_CONFIG, AdaptedWeights
from export.families.lerobot.documents import DOCUMENT, read_document
from export.families.lerobot.others import why_not
from export.families.lerobot.statistics import Normaliser, read_normaliser
from export.families.lerobot.weights import FolderWeights, WeightsFile
from firmware_bridge.reading import Between, Name, Sized, shown, told

EMPTY = Annotated[int, Between(0, 16)]
"""Cameras that a policy has and nobody sees through."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
SUPPORTED = ("act", "diffusion", "smolvla", "pi0", "pi05", "groot")
"""Types of policy, as a config names them, that have an exporter."""
STATE, ACTION = "observation.state", "action"
RENAME, BATCH, DEVICE = "rename_observations_processor", "to_batch_processor", "device_processor"
NORMALISE, RESTORE = "normalizer_processor", "unnormalizer_processor"
BEFORE, AFTER = (RENAME, BATCH, DEVICE, NORMALISE), (RESTORE, DEVICE)
"""The steps that most families have, in their order."""
OF_ITS_OWN = frozenset({"groot"})
"""Types of policy that normalise in steps of their own, which their families read, and are made of a base model."""
FORMER_NAMES = {"delta_actions_processor": "relative_actions_processor"}
"""Of steps that LeRobot renamed and left otherwise as they were (0.5.1)."""
PICTURES = ("observation.images.", "observation.")


@dataclass(frozen=True)
class Camera:
    """`name` is the robot's own, `feature` what the policy calls its pictures; pixels of these."""

    name: str
    feature: str
    height: int
    width: int


@dataclass(frozen=True)
class Step:
    """One step of a processor."""

    name: str
    config: Mapping[str, Any]
    state: Path | None


@dataclass(frozen=True)
class Folder:
    """What a folder says, before any family looks at it.

    cameras        in the order in which the policy takes their pictures
    empty_cameras  pictures that the policy takes and no camera gives
    """

    path: Path
    kind: str
    config: Mapping[str, Any]
    cameras: tuple[Camera, ...]
    empty_cameras: tuple[str, ...]
    state_width: int
    action_width: int
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    inputs: Normaliser
    outputs: Normaliser
    weights: FolderWeights

    @property
    def config_file(self) -> Path:
        return self.path / CONFIG

    def expect_steps(self, before: Sequence[str] = BEFORE, after: Sequence[str] = AFTER) -> None:
        """Refuses a step that is not among these, by name, and another order. Raises `CheckpointError`."""
        for file, found, wanted in ((PREPROCESSOR, self.before, before), (POSTPROCESSOR, self.after, after)):
            names = [step.name for step in found]
            unknown = [name for name in names if name not in wanted]
            if unknown:
                raise CheckpointError(
                    f"{self.path / file}: step '{unknown[0]}' is not implemented for {self.kind}; "
                    f"these are: {', '.join(wanted)}"
                )
            if names != list(wanted):
                raise CheckpointError(
                    f"{self.path / file}: the steps are {', '.join(names)}; {self.kind} has {', '.join(wanted)}, "
                    "in this order"
                )

    def step(self, name: str) -> Step:
        """A step by name, which is there."""
        return next(step for step in (*self.before, *self.after) if step.name == name)


def is_folder(path: Path) -> bool:
    """Whether LeRobot's training, or its adapters, wrote this folder, or a part of it."""
    return path.is_dir() and any((path / name).exists() for name in (CONFIG, WEIGHTS, ADAPTER_CONFIG, PREPROCESSOR))


def read_folder(path: Path, base: Path | None = None) -> Folder:
    """Reads and checks a folder; `base` is the one that an adapter changes, or a policy is made of.

    Raises `CheckpointError`.
    """
    config = read_document(path / CONFIG)
    kind = config.get("type")
    if kind not in SUPPORTED:
        raise CheckpointError(f"{path / CONFIG}: {why_not(config)}; {', '.join(SUPPORTED)} are supported")
    if not (path / PREPROCESSOR).is_file() and not (path / POSTPROCESSOR).is_file():
        raise CheckpointError(
            f"{path}: no {PREPROCESSOR} there: LeRobot wrote this folder before it had processors (0.4); convert it "
            "where LeRobot is installed: python -m lerobot.processor.migrate_policy_normalization "
            f"--pretrained-path {path}, and export the folder that it writes beside it"
        )
    before, after = _steps(path, PREPROCESSOR), _steps(path, POSTPROCESSOR)
    cameras, empty = _cameras(path, config, _renamed(path, before))
    _check_features(path, config, before)
    return Folder(
        path=path,
        kind=str(kind),
        config=config,
        cameras=cameras,
        empty_cameras=empty,
        state_width=_width(path, config, "input_features", STATE, "STATE"),
        action_width=_width(path, config, "output_features", ACTION, "ACTION"),
        before=before,
        after=after,
        inputs=_normaliser(path / PREPROCESSOR, before, NORMALISE, kind),
        outputs=_normaliser(path / POSTPROCESSOR, after, RESTORE, kind),
        weights=_weights(path, base, kind),
    )


def _weights(path: Path, base: Path | None, kind: object) -> FolderWeights:
    if not (path / ADAPTER_CONFIG).is_file():
        if base is not None and kind not in OF_ITS_OWN:
            raise CheckpointError(f"{path}: no {ADAPTER_CONFIG} there, so it has no base; leave out --base")
        return WeightsFile(path / WEIGHTS)
    if kind in OF_ITS_OWN:
        raise CheckpointError(
            f"{path}: an adapter (LoRA) of a '{kind}' is not implemented; merge it into the policy where it was trained"
        )
    if base is None:
        named = read_document(path / ADAPTER_CONFIG).get("base_model_name_or_path")
        raise CheckpointError(
            f"{path}: holds an adapter (LoRA) alone; name the folder of the policy it was trained on "
            f"({named}): --base DIR"
        )
    return AdaptedWeights(path, WeightsFile(base / WEIGHTS))


def _steps(path: Path, name: str) -> tuple[Step, ...]:
    file = path / name
    document = read_document(file)
    steps = []
    try:
        for entry in document["steps"]:
            state = entry.get("state_file")
            if state is not None and not (isinstance(state, str) and len(state) <= 128 and Path(state).name == state):
                raise CheckpointError(f"{file}: state_file is {shown(state)}, no file of the folder; copy it again")
            called = str(entry.get("registry_name") or entry["class"])
            called = FORMER_NAMES.get(called, called)
            steps.append(Step(called, dict(entry.get("config") or {}), None if state is None else path / state))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: is no processor of LeRobot's ({told(repr(error))}); copy it again") from None
    for step in steps:
        if step.name == DEVICE and step.config.get("float_dtype") not in (None, "float32"):
            raise CheckpointError(
                f"{file}: '{DEVICE}' casts to {shown(step.config['float_dtype'])}; only float32 is implemented: "
                "set float_dtype to null"
            )
    return tuple(steps)


def _normaliser(file: Path, steps: Sequence[Step], name: str, kind: object) -> Normaliser:
    if kind in OF_ITS_OWN:
        return Normaliser(file, 0.0, {}, {}, None, {})
    found = [step for step in steps if step.name == name]
    if len(found) != 1:
        raise CheckpointError(f"{file}: {len(found)} steps called '{name}', and one is implemented; copy it again")
    return read_normaliser(found[0].config, file, found[0].state)


def _renamed(path: Path, steps: Sequence[Step]) -> dict[str, str]:
    """The robot's key of a feature, by the policy's."""
    robots: dict[str, str] = {}
    for step in steps:
        if step.name != RENAME:
            continue
        names = DOCUMENT.into(dict[str, str], step.config.get("rename_map") or {}, path / PREPROCESSOR, "rename_map")
        for theirs, ours in names.items():
            if ours in robots:
                raise CheckpointError(
                    f"{path / PREPROCESSOR}: '{RENAME}' makes both '{robots[ours]}' and '{theirs}' "
                    f"into '{ours}'; keep one"
                )
            robots[ours] = theirs
    return robots


def _cameras(
    path: Path, config: Mapping[str, Any], robots: Mapping[str, str]
) -> tuple[tuple[Camera, ...], tuple[str, ...]]:
    cameras: list[Camera] = []
    empty = []
    count = DOCUMENT.into(EMPTY, config.get("empty_cameras") or 0, path / CONFIG, "empty_cameras")
    nobodys = {f"observation.images.empty_camera_{number}" for number in range(count)}
    for feature, shape, kind in _features(path, config, "input_features"):
        if kind == "STATE" and feature == STATE:
            continue
        if kind != "VISUAL":
            raise CheckpointError(
                f"{path / CONFIG}: the policy takes '{feature}' ({kind}); pictures and {STATE} are implemented"
            )
        if len(shape) != 3 or shape[0] != 3:
            raise CheckpointError(
                f"{path / CONFIG}: '{feature}' has the shape {shape}; (3, height, width) is implemented"
            )
        if feature in nobodys:
            empty.append(feature)
            continue
        key = robots.get(feature, feature)
        name = next((key.removeprefix(start) for start in PICTURES if key.startswith(start)), key)
        if any(camera.name == name for camera in cameras):
            raise CheckpointError(f"{path / CONFIG}: two pictures of one camera, '{name}'; rename one of them")
        cameras.append(Camera(name, feature, shape[1], shape[2]))
    if not cameras:
        raise CheckpointError(f"{path / CONFIG}: a policy without a camera is not implemented")
    return tuple(cameras), tuple(empty)


def _check_features(path: Path, config: Mapping[str, Any], steps: Sequence[Step]) -> None:
    """Holds what is normalised against what the policy takes: they were written together."""
    taken = {
        name: shape
        for table in ("input_features", "output_features")
        for name, shape, _ in _features(path, config, table)
    }
    for step in steps:
        for name, shape, _ in _features(path, step.config, "features", PREPROCESSOR) if step.name == NORMALISE else ():
            if name not in taken:
                raise CheckpointError(
                    f"{path / PREPROCESSOR}: normalises '{name}', which {CONFIG} does not have; copy the whole folder"
                )
            if shape != taken[name]:
                raise CheckpointError(
                    f"{path / PREPROCESSOR}: '{name}' is {shape}, and {taken[name]} in {CONFIG}; copy the whole folder"
                )


def _width(path: Path, config: Mapping[str, Any], table: str, name: str, kind: str) -> int:
    for feature, shape, found in _features(path, config, table):
        if feature == name and found == kind and len(shape) == 1 and shape[0] > 0:
            return shape[0]
    raise CheckpointError(f"{path / CONFIG}: no '{name}' of one axis or more among {table}, which is needed")


def _features(
    path: Path, config: Mapping[str, Any], table: str, file: str = CONFIG
) -> list[tuple[str, tuple[int, ...], str]]:
    entries = DOCUMENT.into(dict[str, _Feature], config.get(table), path / file, table, extra=True)
    return [(name, entry.shape, entry.type) for name, entry in entries.items()]


@dataclass(frozen=True)
class _Feature:
    """An entry of the features of a config."""

    shape: Annotated[tuple[Annotated[int, Between(1, 1 << 14)], ...], Sized(1, 4)]
    type: Name
