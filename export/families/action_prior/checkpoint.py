"""`checkpoint.pt`: tensors and plain data only, read with `weights_only=True`; anything else is refused."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from export.families.action_prior.config import ConfigError, PolicyConfig
from export.families.action_prior.embodiment import Embodiment
from export.families.action_prior.parts import PARTS, parts_of
from export.families.action_prior.policy import VlaPolicy
from export.families.base import CheckpointError as CheckpointError

FORMAT = 1
KEYS = {"config", "state_dict", "normalisation", "embodiments", "tokenizer", "format"}


@dataclass(frozen=True)
class Checkpoint:
    """What a `checkpoint.pt` holds, checked: the whole policy, or the part of it that a stage has trained.

    `tokenizer` is None for a stage-1 checkpoint, which reads no text.
    """

    config: PolicyConfig
    state_dict: dict[str, torch.Tensor]
    embodiments: tuple[Embodiment, ...]
    tokenizer: str | None

    def build(self) -> VlaPolicy:
        """The whole policy with these weights, in eval mode. Raises `CheckpointError` when they do not fit."""
        self._require(*parts_of(self.config))
        policy = VlaPolicy(self.config)
        self.load_into(policy)
        return policy.eval()

    def part(self, name: str) -> nn.Module:
        """One of the three parts with these weights, in eval mode (see `export.families.action_prior.parts`)."""
        prefix = name + "."
        weights = {key.removeprefix(prefix): value for key, value in self.state_dict.items() if key.startswith(prefix)}
        self._require(name)
        module = PARTS[name](self.config)
        self.load_into(module, weights)
        return module.eval()

    def _require(self, *parts: str) -> None:
        held = {name.split(".")[0] for name in self.state_dict}
        for part in parts:
            if part not in held:
                stage = "stage-0 checkpoint (VLM" if "decoder" not in held else "stage-1 checkpoint (action prior"
                raise CheckpointError(f"this is a {stage} only); train stage 2 first: edge-train vla")

    def load_into(self, module: nn.Module, weights: dict[str, torch.Tensor] | None = None) -> None:
        try:
            module.load_state_dict(self.state_dict if weights is None else weights)
        except RuntimeError as error:
            first = str(error).splitlines()[1:2] or [str(error)]
            raise CheckpointError(f"the weights do not fit the configuration:{first[0].strip()[:200]}") from None


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
    save_whole(path, document)


def save_whole(path: Path, document: dict[str, Any]) -> None:
    """Writes the file whole or not at all, also when the process is killed or the power fails while it does."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as opened:
        torch.save(document, opened)
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)


def is_checkpoint(path: Path) -> bool:
    """Whether a file has the parts that a checkpoint has, as far as their names go; its tensors are not read."""
    with suppress(OSError, zipfile.BadZipFile, zlib.error), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("/data.pkl"):
                pickled = archive.read(name)
                return all(key.encode() in pickled for key in KEYS)
    return False


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads and checks a checkpoint. Raises `CheckpointError`."""
    document = read_document(path)
    missing = KEYS - set(document)
    if missing:
        raise CheckpointError(f"{path} is not a vla-edge checkpoint: it has no {', '.join(sorted(missing))}")
    if document["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {document['format']!r}; this version reads {FORMAT}")
    weights = document["state_dict"]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise CheckpointError(f"{path}: state_dict must map names to tensors")
    broken = next(
        (name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()), None
    )
    if broken:
        raise CheckpointError(
            f"{path}: the weights of {broken} hold NaN or infinity; train again or take an earlier checkpoint"
        )
    try:
        config = PolicyConfig.from_plain(document["config"])
        embodiments = tuple(
            Embodiment.from_plain(name, described, document["normalisation"][name])
            for name, described in document["embodiments"].items()
        )
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: bad configuration: {error}") from None
    tokenizer = document["tokenizer"]
    if tokenizer is not None:
        _check_tokenizer(path, tokenizer)
    return Checkpoint(config, weights, embodiments, tokenizer)


def read_document(path: Path) -> dict[str, Any]:
    """Tensors and plain data of a file that `save_whole` wrote. Raises `CheckpointError`; runs no code of it."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a torch checkpoint, or it was cut short; copy it again")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself reads past a wrong checksum
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: the checksum of {damaged} is wrong; copy it again")
        document = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} holds pickled code, which is never run; save tensors and plain data only (docs/architecture.md)"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is damaged: {str(error).splitlines()[0][:160]}; copy or train it again"
        ) from None
    if not isinstance(document, dict):
        raise CheckpointError(
            f"{path} is not a vla-edge checkpoint: it holds a {type(document).__name__}, not a mapping"
        )
    return document


def _check_tokenizer(path: Path, tokenizer: Any) -> None:
    try:
        Tokenizer.from_str(tokenizer)
    except Exception as error:  # the library raises bare Exception for a bad document
        raise CheckpointError(f"{path}: the tokenizer cannot be read: {str(error)[:120]}") from None
