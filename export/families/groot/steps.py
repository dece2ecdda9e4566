"""GR00T's own processor steps: how pictures are made smaller, and what the numbers of states and actions become.

Facts: LeRobot 0.6.1, `policies/groot/processor_groot.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from export.families.base import CheckpointError
from export.families.groot.config import GrootConfig
from export.families.groot.pictures import Geometry
from export.families.lerobot.documents import read_fields
from export.families.lerobot.folder import (
    ACTION,
    BATCH,
    DEVICE,
    POSTPROCESSOR,
    PREPROCESSOR,
    RENAME,
    STATE,
    Camera,
    Folder,
)
from export.families.lerobot.statistics import Normaliser, read_tensors
from firmware_bridge.reading import told

PACK, ENCODE = "groot_n1_7_pack_inputs_v1", "groot_n1_7_vlm_encode_v1"
RESTORE, DECODE = "groot_action_unpack_unnormalize_v2", "groot_n1_7_action_decode_v1"
BEFORE = (RENAME, BATCH, PACK, ENCODE, DEVICE)
OF_N15 = (
    "groot_pack_inputs_v3",
    "groot_eagle_encode_v3",
    "groot_eagle_collate_v3",
    "groot_action_unpack_unnormalize_v1",
)
MODES, KINDS = {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"}, {STATE: "STATE"}
PICTURES = "observation.images."
ALIASES = {"wrist_image": "image2"}
"""What LeRobot takes in the place of a camera that is not there."""
Options = TypeVar("Options")


@dataclass(frozen=True)
class Pack:
    """Options and defaults of the step that puts an observation together."""

    valid_action_horizon: int = 40
    video_horizon: int | None = None
    max_state_dim: int = 132
    max_action_dim: int = 132
    formalize_language: bool = True
    embodiment_tag: str = "new_embodiment"
    embodiment_mapping: dict | None = None  # type: ignore[type-arg]
    clip_outliers: bool = True
    video_modality_keys: tuple[str, ...] | None = None
    raw_stats: dict | None = None  # type: ignore[type-arg]
    modality_config: dict | None = None  # type: ignore[type-arg]


@dataclass(frozen=True)
class Encode:
    """Of the step that makes pictures smaller and writes the prompt."""

    image_crop_size: tuple[int, int] | None = None
    image_target_size: tuple[int, int] | None = None
    shortest_image_edge: int | None = None
    crop_fraction: float | None = None
    letter_box_transform: bool = False
    use_albumentations: bool = False


@dataclass(frozen=True)
class Restore:
    """Of the step that makes actions of a network's answer, by the statistics of a dataset."""

    env_action_dim: int = 0
    clip_normalized_action: bool = False


@dataclass(frozen=True)
class Decode:
    """Of the step that does so by groups of axes."""

    env_action_dim: int = 0
    raw_stats: dict | None = None  # type: ignore[type-arg]
    modality_config: dict | None = None  # type: ignore[type-arg]
    use_percentiles: bool = False
    use_relative_action: bool = False


PACK_FIXED = {"state_horizon": 1, "language_key": "task", "normalize_min_max": True}
PACK_IGNORED = frozenset({"state_dropout_prob", "action_horizon", "use_percentiles"})
RESTORE_FIXED = {"normalize_min_max": True, "libero_gripper_action": False}


@dataclass(frozen=True)
class Actions:
    """Actions from -1 to 1 in the robot's units: `middle + half x`, each (rows, axes), or one row for all.

    clipped   to -1 and 1 before that
    relative  axes whose actions are relative to the state
    horizon   rows of a chunk that mean something
    """

    middle: torch.Tensor
    half: torch.Tensor
    clipped: bool
    relative: tuple[bool, ...]
    horizon: int


@dataclass(frozen=True)
class Processors:
    """What the steps say. `folder` has their statistics in the place of a normaliser's; cameras in the policy's order.

    embodiment  number of its own layers
    clipped     whether states are kept between -1 and 1
    plain       whether instructions lose capitals and punctuation
    """

    folder: Folder
    embodiment: int
    clipped: bool
    plain: bool
    geometry: Geometry
    actions: Actions


def read_steps(folder: Folder, config: GrootConfig) -> Processors:
    """Raises `CheckpointError`."""
    names = [step.name for step in (*folder.before, *folder.after)]
    if any(name in OF_N15 for name in names):
        raise CheckpointError(
            f"{folder.path}: GR00T N1.5, which LeRobot has left out since 0.6; train nvidia/GR00T-N1.7-3B instead"
        )
    decoding = DECODE if DECODE in names else RESTORE
    folder.expect_steps(BEFORE, (decoding, DEVICE))
    pack = _options(folder, PREPROCESSOR, PACK, Pack, PACK_FIXED, PACK_IGNORED)
    encode = _options(folder, PREPROCESSOR, ENCODE, Encode, {}, {"model_name", "device"})
    _check_pack(folder, pack, config)
    inputs = _normaliser(folder, PREPROCESSOR, PACK)
    inputs.affine(STATE, folder.state_width)  # refuses statistics that do not fit
    if decoding == RESTORE:
        outputs, actions = _by_dataset(folder, pack)
    else:
        outputs, actions = _by_groups(folder, pack)
    cameras = _cameras(folder, pack.video_modality_keys)
    return Processors(
        replace(folder, cameras=cameras, inputs=inputs, outputs=outputs),
        (pack.embodiment_mapping or {})[pack.embodiment_tag],
        pack.clip_outliers,
        pack.formalize_language,
        _geometry(folder, encode),
        replace(actions, horizon=min(actions.horizon, pack.valid_action_horizon, config.chunk_size)),
    )


def _options(
    folder: Folder,
    file: str,
    name: str,
    shape: type[Options],
    fixed: Mapping[str, object],
    ignored: Sequence[str] | set[str] | frozenset[str],
) -> Options:
    document = {**folder.step(name).config, "type": name}
    return read_fields(folder.path / file, document, shape, fixed, ignored)


def _check_pack(folder: Folder, pack: Pack, config: GrootConfig) -> None:
    file = folder.path / PREPROCESSOR
    for option in ("max_state_dim", "max_action_dim", "embodiment_tag"):
        step, said = getattr(pack, option), getattr(config, option)
        if step != said:
            raise CheckpointError(
                f"{file}: '{option}' is {step}, and {said} in {folder.config_file.name}; copy the whole folder"
            )
    if pack.video_horizon not in (None, 1):
        raise CheckpointError(f"{file}: 'video_horizon' is {pack.video_horizon}; only 1 frame is implemented")
    if pack.valid_action_horizon < 1:
        raise CheckpointError(f"{file}: 'valid_action_horizon' is {pack.valid_action_horizon}; it must be at least 1")
    number = (pack.embodiment_mapping or {}).get(pack.embodiment_tag)
    if not isinstance(number, int):
        raise CheckpointError(
            f"{file}: 'embodiment_mapping' has no number for '{pack.embodiment_tag}', for which LeRobot takes 0; "
            "write the one that it was trained with"
        )


def _cameras(folder: Folder, named: Sequence[str] | None) -> tuple[Camera, ...]:
    """In LeRobot's order: the one that the step names, else the alphabet's."""
    file = folder.path / PREPROCESSOR
    others = [camera.feature for camera in folder.cameras if not camera.feature.startswith(PICTURES)]
    if others:
        raise CheckpointError(f"{folder.config_file}: '{others[0]}' is none of {PICTURES}*; rename it")
    if len({(camera.height, camera.width) for camera in folder.cameras}) > 1:
        raise CheckpointError(f"{folder.config_file}: pictures of several sizes, which LeRobot itself cannot stack")
    known = {camera.feature.removeprefix(PICTURES): camera for camera in folder.cameras}
    if not named:
        return tuple(known[name] for name in sorted(known))
    found = [name if name in known else ALIASES.get(name, name) for name in named]
    if sorted(found) != sorted(known):
        raise CheckpointError(
            f"{file}: 'video_modality_keys' are {', '.join(named)}, and the policy's pictures {', '.join(known)}; "
            "rename these in the folder"
        )
    return tuple(known[name] for name in found)


def _geometry(folder: Folder, encode: Encode) -> Geometry:
    target, crop = encode.image_target_size, encode.crop_fraction
    sizes = [*(target or ()), *(encode.image_crop_size or ())]
    sizes += [] if encode.shortest_image_edge is None else [encode.shortest_image_edge]
    if any(not 1 <= size <= 8192 for size in sizes):
        raise CheckpointError(f"{folder.path / PREPROCESSOR}: '{ENCODE}' has sizes {sizes}; 1 to 8192 are possible")
    if target is None:
        return Geometry(None, 0, None, False)
    if crop is None and encode.image_crop_size is not None:
        crop = encode.image_crop_size[0] / target[0]
    edge = encode.shortest_image_edge or target[0]
    return Geometry(target, edge, crop, encode.letter_box_transform, encode.use_albumentations)


def _normaliser(folder: Folder, document: str, name: str) -> Normaliser:
    """A step's statistics, which are of the whole dataset."""
    state = folder.step(name).state
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in ({} if state is None else read_tensors(state)).items():
        feature, _, statistic = key.rpartition(".")
        found.setdefault(feature, {})[statistic] = tensor
    wanted = STATE if name == PACK else ACTION
    if wanted not in found:
        raise CheckpointError(
            f"{state or folder.path / document}: no statistics of '{wanted}', without which its numbers mean nothing; "
            "train with a dataset that has them"
        )
    return Normaliser(state or folder.path / document, 0.0, MODES, KINDS, None, found)


def _by_dataset(folder: Folder, pack: Pack) -> tuple[Normaliser, Actions]:
    options = _options(folder, POSTPROCESSOR, RESTORE, Restore, RESTORE_FIXED, {"libero_gripper_binarize"})
    width = folder.action_width
    _check_width(folder, options.env_action_dim, width)
    outputs = _normaliser(folder, POSTPROCESSOR, RESTORE)
    affine = outputs.affine(ACTION, width)
    middle, half = affine.offset[None], affine.factor[None]
    actions = Actions(middle, half, options.clip_normalized_action, (False,) * width, pack.valid_action_horizon)
    return outputs, actions


def _by_groups(folder: Folder, pack: Pack) -> tuple[Normaliser, Actions]:
    file = folder.path / POSTPROCESSOR
    options = _options(folder, POSTPROCESSOR, DECODE, Decode, {}, {"action_decode_transform"})
    _check_width(folder, options.env_action_dim, folder.action_width)
    for name in ("raw_stats", "modality_config"):
        if not getattr(options, name) or getattr(options, name) != getattr(pack, name):
            raise CheckpointError(
                f"{file}: '{name}' of '{DECODE}' is not what '{PACK}' has in {PREPROCESSOR}; copy the whole folder"
            )
    groups = _Groups(file, options)
    low, high, relative = groups.actions()
    if low.shape[1] != folder.action_width or groups.state_width() < folder.state_width:
        raise CheckpointError(
            f"{file}: the groups of '{DECODE}' have {low.shape[1]} actions and {groups.state_width()} states, the "
            f"policy {folder.action_width} and {folder.state_width}; these statistics belong to another policy"
        )
    said = {"min": low.amin(0), "max": high.amax(0)}
    outputs = Normaliser(file, 0.0, MODES, KINDS, None, {ACTION: said})
    return outputs, Actions((low + high) / 2, (high - low) / 2, True, relative, groups.horizon)


def _check_width(folder: Folder, said: int, width: int) -> None:
    if said not in (0, width):
        raise CheckpointError(
            f"{folder.path / POSTPROCESSOR}: 'env_action_dim' is {said}, and the policy has {width} actions; "
            "copy the whole folder"
        )


class _Groups:
    """Axes by groups, as NVIDIA's own processors have them: each group's statistics, and what it is relative to."""

    def __init__(self, file: Path, options: Decode) -> None:
        self._file, self._options = file, options
        self._stats: Mapping[str, Any] = options.raw_stats or {}
        modalities: Mapping[str, Any] = options.modality_config or {}
        try:
            action = modalities["action"]
            self._names = [str(name) for name in action["modality_keys"]]
            self._configs: list[Mapping[str, Any]] = [dict(one) for one in action.get("action_configs") or ()]
            self._states = [str(name) for name in modalities["state"]["modality_keys"]]
            self.horizon = len(action.get("delta_indices") or ()) or 1 << 16
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{file}: 'modality_config' is incomplete ({told(repr(error))}); copy the folder again"
            ) from None

    def actions(self) -> tuple[torch.Tensor, torch.Tensor, tuple[bool, ...]]:
        """Bounds (rows, axes), and which axes are relative."""
        lows: list[torch.Tensor] = []
        highs: list[torch.Tensor] = []
        relative: list[bool] = []
        at = 0
        for index, name in enumerate(self._names):
            config = self._configs[index] if index < len(self._configs) else {}
            added = self._options.use_relative_action and _word(config, "rep") == "relative"
            low, high = self._bounds("relative_action" if added else "action", name, added)
            width = low.shape[1]
            if added:
                self._check_relative(name, config, at, width)
            lows.append(low)
            highs.append(high)
            relative += [added] * width
            at += width
        rows = max((len(low) for low in lows), default=1)
        if not lows or any(len(low) not in (1, rows) for low in lows):
            raise CheckpointError(
                f"{self._file}: groups of actions with bounds of several lengths; copy the folder again"
            )
        if rows > 1:
            self.horizon = min(self.horizon, rows)
        low, high = (torch.cat([part.expand(rows, -1) for part in parts], dim=1) for parts in (lows, highs))
        if (high < low).any():
            raise CheckpointError(
                f"{self._file}: statistics whose largest value lies below the smallest; copy it again"
            )
        return low, high, tuple(relative)

    def state_width(self) -> int:
        return sum(self._width("state", name) for name in self._states)

    def _check_relative(self, name: str, config: Mapping[str, Any], at: int, width: int) -> None:
        """Goals are added to the state's own columns, which have to be the actions'."""
        if _word(config, "type") != "non_eef":
            raise CheckpointError(
                f"{self._file}: actions '{name}' are relative poses of an end effector; only joints are implemented"
            )
        wanted, start = str(config.get("state_key") or name), 0
        for state in self._states:
            if state == wanted:
                break
            start += self._width("state", state)
        else:
            raise CheckpointError(f"{self._file}: actions '{name}' are relative to '{wanted}', which is no state")
        if (start, self._width("state", wanted)) != (at, width):
            raise CheckpointError(
                f"{self._file}: actions '{name}' are relative to the state '{wanted}' in other columns; only the same "
                "order of states and actions is implemented"
            )

    def _bounds(self, modality: str, name: str, relative: bool) -> tuple[torch.Tensor, torch.Tensor]:
        quantiles = self._options.use_percentiles and not relative
        return tuple(self._statistic(modality, name, one) for one in (("q01", "q99") if quantiles else ("min", "max")))  # type: ignore[return-value]

    def _width(self, modality: str, name: str) -> int:
        held = self._stats.get(modality, {}).get(name, {})
        known = next((one for one in ("mean", "q01", "min", "max", "std") if held.get(one)), "mean")
        return self._statistic(modality, name, known).shape[1]

    def _statistic(self, modality: str, name: str, statistic: str) -> torch.Tensor:
        """(rows, axes), finite."""
        where = f"'{statistic}' of '{modality}.{name}' in 'raw_stats'"
        held = self._stats.get(modality, {}).get(name, {}).get(statistic)
        if held is None:
            raise CheckpointError(f"{self._file}: no {where}; copy the folder again")
        try:
            found = torch.tensor(held, dtype=torch.float32)
        except (TypeError, ValueError):
            raise CheckpointError(f"{self._file}: {where} is no table of numbers; copy the folder again") from None
        if found.ndim not in (1, 2) or not found.numel() or not torch.isfinite(found).all():
            raise CheckpointError(f"{self._file}: {where} is empty or not finite; train with sound statistics")
        return found.reshape(-1, found.shape[-1])


def _word(config: Mapping[str, Any], name: str) -> str:
    return str(config.get(name)).lower()
