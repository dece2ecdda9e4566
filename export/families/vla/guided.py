"""What a folder says of real-time chunking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from export.families.base import CheckpointError
from export.families.lerobot.folder import Folder
from export.families.vla.flow import MAX_GUIDANCE

DECAYS: dict[str, Literal["linear", "exponential"]] = {"LINEAR": "linear", "EXP": "exponential"}


@dataclass(frozen=True)
class Guidance:
    """`most` is the largest factor; `decay` how weights fall behind the committed steps.

    How far they reach, and whether guidance is used at all, is the run's: weights of zero are none.
    """

    most: float = MAX_GUIDANCE
    decay: Literal["linear", "exponential"] = "linear"


def read_guidance(folder: Folder, config: Mapping[str, Any] | None) -> Guidance:
    """Of the field `rtc_config`. Raises `CheckpointError`."""
    if config is None:
        return Guidance()
    most, schedule = (
        config.get("max_guidance_weight", MAX_GUIDANCE),
        str(config.get("prefix_attention_schedule", "LINEAR")),
    )
    if schedule.upper() not in DECAYS:
        raise CheckpointError(
            f"{folder.config_file}: 'prefix_attention_schedule' is {schedule}; {' and '.join(DECAYS)} are implemented"
        )
    if not isinstance(most, int | float) or not 0 < most < 1e6:
        raise CheckpointError(f"{folder.config_file}: 'max_guidance_weight' is {most!r}; it must be a positive number")
    return Guidance(float(most), DECAYS[schedule.upper()])
