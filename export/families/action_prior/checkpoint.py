"""`checkpoint.pt`: tensors and plain data only, read with `weights_only=True`; anything else is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from tokenizers import Tokenizer
from torch import nn

from export.families.action_prior.archive import plain_of, read_document, save_whole
from export.families.action_prior.config import ConfigError, PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.families.action_prior.parts import PARTS, parts_of
from export.families.action_prior.policy import VlaPolicy
from export.families.base import CheckpointError as CheckpointError
from firmware_bridge.reading import MOST_MESSAGE, Name, ReadError, Sized, one_line, shown, typed

M = TypeVar("M", bound=nn.Module)
FORMAT = 1
CAMERA = re.compile("[A-Za-z0-9_-]+")
KEYS = {"config", "state_dict", "normalisation", "embodiments", "tokenizer", "format"}


@dataclass(frozen=True)
class Checkpoint:
    """What a `checkpoint.pt` holds, checked: the whole policy, or the part of it that a stage has trained.

    `tokenizer` is None for a stage-1 checkpoint, which reads no text. `cameras` are the names of those that the policy
    sees, in their order; none in a checkpoint that sees nothing or is older.
    """

    config: PolicyConfig
    state_dict: dict[str, torch.Tensor]
    embodiments: tuple[Embodiment, ...]
    tokenizer: str | None
    cameras: tuple[str, ...] = ()

    def build(self) -> VlaPolicy:
        """The whole policy with these weights, in eval mode. Raises `CheckpointError` when they do not fit."""
        self._require(*parts_of(self.config))
        return self._filled(VlaPolicy, self.state_dict)

    def part(self, name: str) -> nn.Module:
        """One of the three parts with these weights, in eval mode (see `export.families.action_prior.parts`)."""
        prefix = name + "."
        weights = {key.removeprefix(prefix): value for key, value in self.state_dict.items() if key.startswith(prefix)}
        self._require(name)
        return self._filled(PARTS[name], weights)

    def _require(self, *parts: str) -> None:
        held = {name.split(".")[0] for name in self.state_dict}
        for part in parts:
            if part not in held:
                stage = "stage-0 checkpoint (VLM" if "decoder" not in held else "stage-1 checkpoint (action prior"
                raise CheckpointError(f"this is a {stage} only); train stage 2 first: edge-train vla")

    def _filled(self, kind: Callable[[PolicyConfig], M], weights: dict[str, torch.Tensor]) -> M:
        """A module with these weights. Its shapes are compared before memory is taken for them."""
        try:
            with torch.device("meta"):
                shapes = {name: tuple(tensor.shape) for name, tensor in kind(self.config).state_dict().items()}
        except Exception as error:  # sizes that do not go together; torch and transformers raise many kinds
            raise CheckpointError(f"bad configuration: no policy has its sizes ({one_line(str(error), 120)})") from None
        for name in sorted({*shapes, *weights}):
            wanted, found = shapes.get(name), tuple(weights[name].shape) if name in weights else None
            if wanted != found:
                raise CheckpointError(
                    f"the weights do not fit the configuration: {one_line(name, 80)} is {found or 'missing'} where "
                    f"{wanted or 'nothing'} belongs"
                )
        module = kind(self.config)
        module.load_state_dict(weights)
        return module.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the file whole or not at all."""
    document = {
        "format": FORMAT,
        "config": checkpoint.config.to_plain(),
        "state_dict": {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.state_dict.items()},
        "normalisation": {arm.name: arm.statistics() for arm in checkpoint.embodiments},
        "embodiments": {arm.name: arm.describe() for arm in checkpoint.embodiments},
        "tokenizer": checkpoint.tokenizer,
    }
    if checkpoint.cameras:
        document["cameras"] = list(checkpoint.cameras)
    save_whole(path, document)


def is_checkpoint(path: Path) -> bool:
    """Whether a file has the parts that a checkpoint has, as far as their names go; its tensors are not read."""
    with suppress(OSError, CheckpointError):
        pickled = plain_of(path)
        return all(key.encode() in pickled for key in KEYS)
    return False


@dataclass(frozen=True)
class _Document:
    """The file's own parts, before they are looked into."""

    config: dict[Name, Any]
    state_dict: Any
    normalisation: dict[Name, Any]
    embodiments: dict[Name, Any]
    tokenizer: Any
    format: int
    cameras: Annotated[tuple[Name, ...], Sized(0, 16)] = ()


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads and checks a checkpoint. Raises `CheckpointError`."""
    document = read_document(path)
    missing = KEYS - set(document)
    if missing:
        raise CheckpointError(f"{path} is not a vla-edge checkpoint: it has no {', '.join(sorted(missing))}")
    if type(document["format"]) is not int or document["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {shown(document['format'])}; this version reads {FORMAT}")
    _check_weights(path, document["state_dict"])
    try:
        parts = typed(_Document, document)
        config = PolicyConfig.from_plain(parts.config)
        embodiments = tuple(
            Embodiment.from_plain(name, described, parts.normalisation.get(name))
            for name, described in parts.embodiments.items()
        )
        _check_embodiments(config, embodiments)
        named = {name for name in parts.cameras if CAMERA.fullmatch(name)}
        if parts.cameras and not len(named) == len(parts.cameras) == config.cameras:
            raise ReadError(f"cameras are {', '.join(parts.cameras)}, and the policy sees {config.cameras}")
    except (ConfigError, ReadError) as error:
        raise CheckpointError(one_line(f"{path}: bad configuration: {error}", MOST_MESSAGE)) from None
    _check_tokenizer(path, parts.tokenizer)
    return Checkpoint(config, parts.state_dict, embodiments, parts.tokenizer, parts.cameras)


def _check_weights(path: Path, weights: Any) -> None:
    sound = isinstance(weights, dict) and all(isinstance(name, str) for name in weights)
    if not sound or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: state_dict must map names to tensors")
    for name, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(
                f"{path}: the weights of {one_line(name, 80)} hold NaN or infinity; train again or take an earlier "
                "checkpoint"
            )


def _check_embodiments(config: PolicyConfig, embodiments: tuple[Embodiment, ...]) -> None:
    """Raises `ReadError` for slots that the policy has not, or two arms in one row of its soft prompts."""
    rows = [arm.index for arm in embodiments]
    if len(set(rows)) != len(rows) or not all(row < config.embodiments for row in rows):
        raise ReadError(f"embodiments have the rows {rows} of {config.embodiments}; each has one of its own")
    for arm in embodiments:
        for what, slots, width in (
            ("actions", arm.actions.slots, config.action_slots),
            ("states", arm.states.slots, config.state_slots),
        ):
            if not all(slot < width for slot in slots):
                raise ReadError(f"{arm.name}.{what}.slots go up to {max(slots)}, and the policy has {width}")
        if len(arm.joints) != len(arm.actions.slots):
            raise ReadError(f"{arm.name} has {len(arm.joints)} joints and {len(arm.actions.slots)} slots of actions")


def _check_tokenizer(path: Path, tokenizer: Any) -> None:
    if tokenizer is None:
        return
    try:
        if not isinstance(tokenizer, str):
            raise ReadError(f"it is {shown(tokenizer)}")
        Tokenizer.from_str(tokenizer)
    except Exception as error:  # the library raises bare Exception for a bad document
        raise CheckpointError(f"{path}: the tokenizer cannot be read: {one_line(str(error), 120)}") from None
