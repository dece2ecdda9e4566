"""What boards can do, and what of that programs have been seen to reach: every figure of the predictions, with its
source.

Peaks, bandwidth and memory stand in `edge.engines.memory_plan` (NVIDIA's data sheets). The shares are those that
FlashRT's authors report for their hand-written kernels of pi0.5 and GR00T on these two generations; whoever runs
TensorRT should expect to reach no more. Nothing here was measured on a Jetson by this project.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.engines.memory_plan import TARGETS, Target


@dataclass(frozen=True)
class Reached:
    """Shares of the dense peak and of the bandwidth that a program reaches."""

    compute: float
    bandwidth: float


ORIN = Reached(0.68, 0.77)
THOR = Reached(0.38, 0.68)
REACHED = {"orin-nano": ORIN, "orin-nx": ORIN, "agx-orin": ORIN, "thor": THOR}


@dataclass(frozen=True)
class Published:
    """A latency that somebody else has measured, and what has to be read for it."""

    what: str
    board: str
    bytes_read: float
    steps: int
    floor_ms: float
    measured_ms: float


GROOT = Published("GR00T N1.7, action model, one flow step", "agx-orin", 8.73e9, 4, 13.7, 14.33)
"""FlashRT's report: 8.73 GB over 4 steps, of which one was measured with 14.33 ms beside a floor of 13.7 ms."""


def peak(target: Target, precision: str) -> float:
    """Dense operations per second in a precision."""
    return target.int8_ops if precision == "int8" else target.fp16_flops


def seconds(board: str, operations: float, bytes_read: float, precision: str, reached: Reached | None = None) -> float:
    """The roofline's time for one piece of work: the slower of computing and reading.

    Without `reached` at what the data sheet promises, which is the floor.
    """
    target, share = TARGETS[board], reached or Reached(1.0, 1.0)
    compute_s = operations / (share.compute * peak(target, precision))
    return max(compute_s, bytes_read / (share.bandwidth * target.bandwidth))


def predicted_published(published: Published) -> float:
    """Milliseconds that the method gives for a published measurement."""
    each = published.bytes_read / published.steps
    return 1e3 * seconds(published.board, 0.0, each, "bf16", REACHED[published.board])
