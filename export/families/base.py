"""What `edge-export` needs of a policy family, and which family a checkpoint belongs to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from edge.bundle import ACTION_PRIOR
from edge.registry import Registry
from firmware_bridge.reading import OneLine

Stage: TypeAlias = Callable[[str, int], Callable[[], object]]
"""(name, size) starts a stage and returns its `advance`."""


class CheckpointError(OneLine):
    """A checkpoint that cannot be used; the message is one line that names the fix."""


class Exporter(Protocol):
    """A policy that was read, ready to become a bundle."""

    @property
    def summary(self) -> str:
        """What is made, in a few words."""

    @property
    def table(self) -> Sequence[tuple[str, str]]:
        """What was read, row by row: printed before anything is made."""

    def write(self, out: Path, stage: Stage) -> dict[str, Any]:
        """Writes the bundle whole or not at all, and returns its `verification.json`.

        It has `passed`, the `agreement` of each engine with the policy, and the `negative_control`.
        """


@dataclass(frozen=True)
class Given:
    """What a checkpoint does not say and the user does: options of the command, None where they were not given.

    dataset  the folder of the dataset it was trained on: rate, robot, names of the axes
    arm      a profile; `rate_hz` of its steps, `units` of its numbers
    base     the folder of the policy that an adapter changes
    tokenizer, vlm  folders of what some policies take from elsewhere
    calibration  of the arm that has recorded: what -100 to 100 are of
    """

    dataset: Path | None = None
    arm: str | None = None
    rate_hz: float | None = None
    units: str | None = None
    base: Path | None = None
    tokenizer: Path | None = None
    vlm: Path | None = None
    calibration: Path | None = None


@dataclass(frozen=True)
class Family:
    """Base of the drivers: a policy family, with the options of `edge-export`.

    precision     of the large products
    flow_steps    in the decoder; None for the checkpoint's own
    samples       observations to verify on, drawn with `seed`
    observations  recorded ones to calibrate and verify on instead
    given          what the checkpoint does not say
    task           what the policy does when nobody says it, for one that follows instructions
    """

    precision: str = "fp32"
    flow_steps: int | None = None
    samples: int = 64
    seed: int = 0
    observations: Path | None = None
    given: Given = Given()
    task: str = ""

    @classmethod
    def recognises(cls, checkpoint: Path) -> bool:
        """Whether a file is a checkpoint of this family, from as little of it as possible; runs no code of it."""
        raise NotImplementedError

    def open(self, checkpoint: Path) -> Exporter:
        """Reads and checks the checkpoint. Raises `CheckpointError`."""
        raise NotImplementedError


FAMILIES: Registry[Family] = Registry(
    "vla_edge.families",
    "policy family",
    {ACTION_PRIOR: "export.engines.family:ActionPrior", "lerobot": "export.engines.lerobot:LeRobot"},
    CheckpointError,
)


def family_of(checkpoint: Path) -> type[Family]:
    """The family that recognises a checkpoint, else the project's own, which reports what is wrong with it.

    Raises `CheckpointError` when none does and one could not be loaded, which may be the one.
    """
    problems = []
    for name in FAMILIES.names():
        try:
            family = FAMILIES.load(name)
            if family.recognises(checkpoint):
                return family
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError(f"{checkpoint}: no policy family recognises it; {'; '.join(problems)}")
    if checkpoint.is_dir():
        raise CheckpointError(
            f"{checkpoint}: holds no policy; name a checkpoint.pt, or a folder of LeRobot's with a config.json"
        )
    return FAMILIES.load(ACTION_PRIOR)
