"""Policies of LeRobot: which family reads which folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.families.act.policy import read_act
from export.families.base import CheckpointError
from export.families.diffusion.policy import read_diffusion
from export.families.lerobot.folder import Folder, read_folder
from export.families.lerobot.policy import Policy

READERS: dict[str, Callable[[Folder], Policy]] = {"act": read_act, "diffusion": read_diffusion}
"""By the type that a config names."""


def read_policy(path: Path, base: Path | None = None) -> Policy:
    """Reads and checks a whole folder. Raises `CheckpointError`."""
    folder = read_folder(path, base)
    if folder.kind not in READERS:
        raise CheckpointError(
            f"{folder.config_file}: a policy of type '{folder.kind}'; {', '.join(READERS)} are supported"
        )
    return READERS[folder.kind](folder)
