"""A LoRA adapter merged into the weights it was trained on, one tensor at a time.

Facts: PEFT's `adapter_config.json` and `adapter_model.safetensors` (`tuners/lora/`): W + scale B A, scale = alpha / r,
or alpha / sqrt(r) with rslora; a module that was trained whole is kept whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from export.families.base import CheckpointError
from export.families.lerobot.documents import read_document
from export.families.lerobot.weights import WeightsFile

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
IMPLEMENTED = {"alpha_pattern", "lora_alpha", "use_rslora"}
OF_TRAINING = {
    *("auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config"),
    *("exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform"),
    *("loftq_config", "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save", "peft_version"),
    *("qalora_group_size", "r", "rank_pattern", "revision", "runtime_config", "target_modules", "task_type"),
}
"""How an adapter began, and which modules it is of: what came of it is in the tensors. A rank is a tensor's own."""
FIXED = {"peft_type": "LORA", "bias": "none"}
"""Every other option has to be unset: it may change what a merge computes."""


class AdaptedWeights:
    """The base's tensors with the adapter's part in them. Raises `CheckpointError` for what it could not merge."""

    def __init__(self, path: Path, base: WeightsFile) -> None:
        self._config, self._base, self._adapter = (
            read_document(path / ADAPTER_CONFIG),
            base,
            WeightsFile(path / ADAPTER_WEIGHTS),
        )
        file = self._config_file = path / ADAPTER_CONFIG
        for name, value in self._config.items():
            unset = value in (None, False, [], {}) or value == FIXED.get(name)
            if not unset and name not in IMPLEMENTED | OF_TRAINING:
                raise CheckpointError(
                    f"{file}: '{name}' is {value!r}, which is not merged here; merge it with PEFT's "
                    "merge_and_unload() and export the result"
                )
        if self._config.get("peft_type") != FIXED["peft_type"] or "lora_alpha" not in self._config:
            raise CheckpointError(f"{file}: describes no LoRA; merge the adapter with PEFT's merge_and_unload()")
        self._pairs: dict[str, tuple[str, str]] = {}
        self._whole: dict[str, str] = {}
        for name in self._adapter.shapes:
            self._place(name)
        if not self._pairs and not self._whole:
            raise CheckpointError(f"{self._adapter.file}: changes nothing of the base; copy the folder again")

    @property
    def file(self) -> Path:
        return self._base.file

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self._base.files, *self._adapter.files, self._config_file)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._base.shapes

    def take(self, name: str) -> torch.Tensor:
        if name in self._whole:
            return self._adapter.take(self._whole[name])
        weight = self._base.take(name)
        if name in self._pairs:
            first, second = (self._adapter.take(part) for part in self._pairs[name])
            weight = weight + self._scale(name.removesuffix(".weight"), first.shape[0]) * (second @ first)
        return weight

    def _place(self, name: str) -> None:
        """Finds what a tensor of the adapter changes."""
        inner = name.removeprefix(PREFIX)
        module, _, _ = inner.rpartition(".lora_A.")
        if module:
            other, target = name.replace(".lora_A.", ".lora_B."), f"{module}.weight"
            shapes, base = self._adapter.shapes, self._base.shapes.get(target)
            if other not in shapes or base is None or (shapes[other][0], *shapes[name][1:]) != base:
                raise CheckpointError(
                    f"{self._adapter.file}: '{name}' does not fit '{target}' of {self._base.file}; "
                    "--base names another policy than the one it was trained on"
                )
            if len(base) != 2:
                raise CheckpointError(f"{self._adapter.file}: '{name}' adapts a convolution; merge it with PEFT first")
            self._pairs[target] = (name, other)
        elif ".lora_B." in inner:
            if name.replace(".lora_B.", ".lora_A.") not in self._adapter.shapes:
                raise CheckpointError(f"{self._adapter.file}: '{name}' has no lora_A; copy the folder again")
        elif self._base.shapes.get(inner) == self._adapter.shapes[name]:
            self._whole[inner] = name
        else:
            raise CheckpointError(
                f"{self._adapter.file}: '{name}' changes nothing that {self._base.file} has; "
                "--base names another policy"
            )

    def _scale(self, module: str, rank: int) -> float:
        alpha = float(_pattern(self._config.get("alpha_pattern"), module, self._config["lora_alpha"]))
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)


def _pattern(table: Any, module: str, default: Any) -> Any:
    """An option of one module, where the table has it: its keys match the end of the module's name."""
    for pattern, value in (table or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
