"""What the normaliser steps of a folder do: their statistics, checked, and the arithmetic they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from export.families.base import CheckpointError
from firmware_bridge.reading import told

IDENTITY, MEAN_STD = "IDENTITY", "MEAN_STD"
BOUNDS = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}
"""Modes that map two statistics to -1 and 1."""
OPTIONS = frozenset({"eps", "features", "norm_map", "normalize_observation_keys"})
RANGES = (("min", "max"), ("q01", "q99"), ("q10", "q90"))
"""Statistics that say between which values a feature was, the widest first."""


@dataclass(frozen=True)
class Affine:
    """In: `(x - offset) / divisor`. Out: `y * factor + offset`. MEAN_STD adds `eps` on the way in alone."""

    offset: torch.Tensor
    divisor: torch.Tensor
    factor: torch.Tensor


NOTHING = Affine(torch.zeros(()), torch.ones(()), torch.ones(()))


@dataclass(frozen=True)
class Normaliser:
    """A normaliser or unnormaliser step.

    modes   by kind of feature: VISUAL, STATE, ACTION
    kinds   by name of the feature
    only    observations that are normalised; None for all
    """

    file: Path
    eps: float
    modes: Mapping[str, str]
    kinds: Mapping[str, str]
    only: frozenset[str] | None
    statistics: Mapping[str, Mapping[str, torch.Tensor]]

    def affine(self, feature: str, width: int) -> Affine:
        """What happens to a feature with so many axes, or channels. Raises `CheckpointError`.

        A feature without statistics passes unchanged, as one does that the step does not name or that has no mode.
        """
        kind = "ACTION" if feature == "action" else self.kinds.get(feature)
        mode = self.modes.get(kind or "", IDENTITY)
        skipped = self.only is not None and kind != "ACTION" and feature not in self.only
        if mode == IDENTITY or skipped:
            return NOTHING
        if feature not in self.statistics:
            self._refuse_migrated(feature)
            return NOTHING
        if mode == MEAN_STD:
            mean, std = (self._statistic(feature, name, width, mode) for name in ("mean", "std"))
            if (std < 0).any():
                raise CheckpointError(f"{self.file}: '{feature}.std' is negative; copy the folder again")
            return Affine(mean, std + self.eps, std)
        if mode not in BOUNDS:
            raise CheckpointError(
                f"{self.file}: normalisation '{mode}' of '{feature}' is not implemented; "
                f"{', '.join((IDENTITY, MEAN_STD, *BOUNDS))} are"
            )
        low, high = (self._statistic(feature, name, width, mode) for name in BOUNDS[mode])
        if (high < low).any():
            raise CheckpointError(
                f"{self.file}: '{feature}.{BOUNDS[mode][1]}' lies below '{feature}.{BOUNDS[mode][0]}'; "
                "copy the folder again"
            )
        span = torch.where(high == low, torch.tensor(self.eps), high - low)
        return Affine(low + span / 2, span / 2, span / 2)

    def _refuse_migrated(self, feature: str) -> None:
        """LeRobot's migration of folders from before processors turns underscores of a name into dots. LeRobot then
        finds no statistics and passes unchanged what training normalised. Raises `CheckpointError`."""
        dotted = feature.replace("_", ".")
        if dotted in self.statistics:
            raise CheckpointError(
                f"{self.file}: has the statistics of '{feature}' as '{dotted}', a fault of LeRobot's migration, with "
                f"which they are not used; rename these tensors to '{feature}.*' there"
            )

    def bounds(self, feature: str, width: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The widest range that the statistics know of a feature, two of (width,); None without statistics."""
        held = self.statistics.get(feature, {})
        for low, high in RANGES:
            if low in held and high in held:
                return tuple(self._statistic(feature, name, width, "a range") for name in (low, high))  # type: ignore[return-value]
        if "mean" in held and "std" in held:
            mean, std = (self._statistic(feature, name, width, "a range") for name in ("mean", "std"))
            return mean - 2 * std, mean + 2 * std
        return None

    def _statistic(self, feature: str, name: str, width: int, mode: str) -> torch.Tensor:
        """(width,), finite."""
        found = self.statistics[feature].get(name)
        if found is None:
            raise CheckpointError(
                f"{self.file}: no '{feature}.{name}' there, which {mode} takes; copy the folder again, "
                "or train with a dataset that has these statistics"
            )
        if tuple(found.shape) not in ((width,), (width, 1, 1)):
            raise CheckpointError(
                f"{self.file}: '{feature}.{name}' has the shape {tuple(found.shape)}, and the policy's {feature} "
                f"has {width} numbers; these statistics belong to another policy"
            )
        if not torch.isfinite(found).all():
            raise CheckpointError(f"{self.file}: '{feature}.{name}' is not finite; train with sound statistics")
        return found.reshape(width).float()


def read_normaliser(config: Mapping[str, Any], document: Path, state: Path | None) -> Normaliser:
    """One step's `config` out of the processor's `document`, with its tensors. Raises `CheckpointError`."""
    unknown = sorted(set(config) - OPTIONS)
    if unknown:
        raise CheckpointError(f"{document}: option '{unknown[0]}' of the normaliser is not implemented; leave it out")
    try:
        kinds = {str(key): str(feature["type"]) for key, feature in config["features"].items()}
        modes = {str(kind): str(mode) for kind, mode in config["norm_map"].items()}
        only = config.get("normalize_observation_keys")
        eps = float(config["eps"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{document}: the normaliser is incomplete ({told(repr(error))}); copy the folder again"
        ) from None
    found: dict[str, dict[str, torch.Tensor]] = {}
    if state is not None:
        for name, tensor in read_tensors(state).items():
            feature, _, statistic = name.rpartition(".")
            found.setdefault(feature, {})[statistic] = tensor
    return Normaliser(state or document, eps, modes, kinds, None if only is None else frozenset(map(str, only)), found)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a small safetensors file. Raises `CheckpointError`."""
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; copy the whole folder")
    try:
        with safe_open(str(file), framework="pt", device="cpu") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - the reader is no mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: cannot be read ({str(error)[:120]}); copy it again") from None
