"""The tensors of a folder, compared one by one with what the policy is made of: keys, shapes and values.

LeRobot itself loads a truncated or partial file without a word and runs on random weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from export.families.base import CheckpointError

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Weights(Protocol):
    """Tensors by name; each is read when it is taken, into memory of its own, and a float one becomes FP32."""

    @property
    def file(self) -> Path:
        """What refusals name."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of every tensor, in the file's order."""

    def take(self, name: str) -> torch.Tensor:
        """Raises `CheckpointError` for one that is not finite."""


class FolderWeights(Weights, Protocol):
    """Those of a whole folder."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All that the tensors follow from."""


class Renamed:
    """Tensors under other names than the file's. `names` has the file's name of each by the new one."""

    def __init__(self, weights: Weights, names: Mapping[str, str]) -> None:
        self._weights = weights
        self._names = {known: name for known, name in names.items() if name in weights.shapes}

    @property
    def file(self) -> Path:
        return self._weights.file

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {known: self._weights.shapes[name] for known, name in self._names.items()}

    def take(self, name: str) -> torch.Tensor:
        return self._weights.take(self._names[name])


def tied(names: dict[str, str], one: str, other: str) -> None:
    """Two names of one tensor, which a file has under either: puts in the one that is missing."""
    for missing, found in ((one, other), (other, one)):
        if found in names:
            names.setdefault(missing, names[found])


class WeightsFile:
    """`model.safetensors`. Raises `CheckpointError` when it is missing, truncated or damaged."""

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; copy the whole folder")
        self._file = file
        try:
            self._opened = safe_open(str(file), framework="pt", device="cpu")
            slices = {name: self._opened.get_slice(name) for name in self._opened.keys()}  # noqa: SIM118
            self._shapes = {name: tuple(found.get_shape()) for name, found in slices.items()}
            types = {name: found.get_dtype() for name, found in slices.items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: cannot be read ({str(error)[:120]}); copy it again") from None
        for name, dtype in types.items():
            if dtype not in FLOATS and not dtype.startswith(("I", "U", "BOOL")):
                raise CheckpointError(f"{file}: '{name}' is of type {dtype}; {', '.join(FLOATS)} are read")

    @property
    def file(self) -> Path:
        return self._file

    @property
    def files(self) -> tuple[Path, ...]:
        return (self._file,)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def take(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._opened.get_tensor(name)
        if not tensor.is_floating_point():
            return tensor
        tensor = tensor.to(torch.float32, copy=True)  # of the file's own pages: a change would be seen by the next
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{self._file}: '{name}' is not finite; export another checkpoint of this training")
        return tensor


def compare(weights: Weights, expected: Mapping[str, tuple[int, ...]], policy: str) -> None:
    """Holds every key and shape of a file against what the policy is made of. Raises `CheckpointError`."""
    shapes = weights.shapes
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise CheckpointError(
            f"{weights.file}: no tensor '{missing[0]}'{_others(missing)}; the file is not whole or belongs to "
            f"another {policy} policy: copy the whole folder"
        )
    unknown = [name for name in shapes if name not in expected]
    if unknown:
        raise CheckpointError(
            f"{weights.file}: '{unknown[0]}'{_others(unknown)} belongs to no {policy} policy of this config.json; "
            "copy the whole folder"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise CheckpointError(
                f"{weights.file}: '{name}' has the shape {shapes[name]} where config.json makes it {shape}; "
                "copy the whole folder"
            )


def shapes_of(module: torch.nn.Module, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Names and shapes of a module's tensors, also of one on the meta device."""
    return {f"{prefix}{name}": tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def check_values(weights: Weights, names: Iterable[str]) -> None:
    """Reads tensors that no engine takes: a file that is damaged there is damaged. Raises `CheckpointError`."""
    for name in names:
        weights.take(name)


def fill(module: torch.nn.Module, weights: Weights, prefix: str = "") -> None:
    """Puts the file's tensors in the place of the module's, which may be on the meta device; all of them are there."""
    taken = {name: weights.take(f"{prefix}{name}") for name in module.state_dict()}
    module.load_state_dict(taken, assign=True)


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} others" if len(names) > 1 else ""
