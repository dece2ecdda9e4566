"""What a controller was made from, as the record with which a log's replay makes it again."""

from __future__ import annotations

from dataclasses import asdict

from edge.inference.layout import pack_plain
from edge.run.controller import Controller


def pack_controller(controller: Controller, step_s: float, latency_us: int) -> bytes:
    """Arm, shape and settings, and the first latency it was told.

    An arm without bounds for goals is written as it was before there were any, so that such logs still compare.
    """
    arm = {name: value for name, value in asdict(controller.arm).items() if name != "goals" or value is not None}
    return pack_plain(
        {
            "arm": arm,
            "shape": asdict(controller.shape),
            "settings": asdict(controller.settings),
            "step_s": step_s,
            "latency_us": latency_us,
        }
    )
