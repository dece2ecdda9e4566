"""Policies of LeRobot: which family reads which folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.families.act.policy import read_act
from export.families.base import CheckpointError
from export.families.diffusion.policy import read_diffusion
from export.families.lerobot.folder import Folder, read_folder
from export.families.lerobot.policy import Beside, Policy
from export.families.pi.policy import read_pi
from export.families.smolvla.policy import read_smolvla

NOTHING = Beside()

READERS: dict[str, Callable[[Folder, Beside], Policy]] = {
    "act": lambda folder, _: read_act(folder),
    "diffusion": lambda folder, _: read_diffusion(folder),
    "smolvla": read_smolvla,
    "pi0": read_pi,
    "pi05": read_pi,
}
"""By the type that a config names."""


def read_policy(path: Path, base: Path | None = None, beside: Beside = NOTHING) -> Policy:
    """Reads and checks a whole folder, with what is `beside` it. Raises `CheckpointError`."""
    folder = read_folder(path, base)
    if folder.kind not in READERS:
        raise CheckpointError(
            f"{folder.config_file}: a policy of type '{folder.kind}'; {', '.join(READERS)} are supported"
        )
    return READERS[folder.kind](folder, beside)
