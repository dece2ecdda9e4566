"""The settings of a run, each in one place."""

from __future__ import annotations

from dataclasses import dataclass

from edge.inference.process import InferenceSettings
from edge.run.supervision import OnLoss


@dataclass(frozen=True)
class RunSettings(InferenceSettings):
    """What decides a run: what decides its chunks, and how they are executed."""

    duration_s: float = 20.0
    rate_hz: float = 250.0
    """Of the control loop, 50 to 1000."""
    execute_steps: int | None = None
    """Steps executed of a chunk before the next one is requested; None for as many as the policy says."""
    on_loss: OnLoss = OnLoss.END
    realtime: bool = True
    """Whether to request priority, locked memory and a processor of the loop's own."""
    wait_for_start: bool = False
    """Whether an operator starts the motion."""
    ensemble: int = 1
    """Chunks over which each goal of a policy of positions is averaged."""
    approach: bool = False
    """Whether the arm may first go slowly to a policy's first goals, where they are far."""
