"""A run to look at: joints commanded and measured, chunk boundaries, buffer level. Needs the `plot` extra."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from edge import __version__
from edge.arms import ArmProfile
from edge.bundle.files import replacing
from edge.log.recorder import Samples
from firmware_bridge.errors import BuildError
from firmware_bridge.native import cache_folder

MADE_BY = f"vla-edge {__version__}"
LEAST_SPAN = 0.02
"""Of an axis that hardly moves, in its unit: its noise should not look like motion, nor its ticks need many digits."""
LABELS_AT = -0.066
"""In widths of the plot, left of the longest tick, such as -2.3575."""


def plot_run(path: Path, samples: Samples, arm: ArmProfile, title: str) -> str:
    """Writes a PNG. Returns why there is none, "" when there is. Raises OSError.

    The lag is that of the joints: a gripper that holds something is not behind.
    """
    if "matplotlib" not in sys.modules:  # its list of fonts goes where everything of ours does
        with suppress(BuildError):
            os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
    try:
        from matplotlib.figure import Figure  # pyplot would look for a display, and takes as long again to load
    except ImportError:
        return "pip install 'vla-edge[plot]'"
    if len(samples.device_us) == 0:
        return "the arm was never heard"
    zero_us = int(samples.splices_us[0]) if len(samples.splices_us) else int(samples.device_us[0])
    seconds = (samples.device_us - zero_us) * 1e-6
    splices = (samples.splices_us - zero_us) * 1e-6
    rows = arm.dof + 2
    height = 1.35 * rows
    figure = Figure(figsize=(10, height))
    axes = figure.subplots(rows, 1, sharex=True)
    # Margins and labels by hand: a layout that is computed draws all of it twice.
    figure.subplots_adjust(left=0.1, right=0.99, bottom=0.5 / height, top=1 - 0.35 / height, hspace=0.14)
    for joint, (name, unit) in enumerate(zip(arm.joints, arm.units)):
        axis = axes[joint]
        axis.plot(seconds, samples.commanded_rad[:, joint], color="tab:blue", linewidth=1.4, label="commanded")
        axis.plot(
            seconds, samples.measured_rad[:, joint], color="tab:orange", linewidth=1.0, linestyle="--", label="measured"
        )
        axis.set_ylabel(f"{name}\n{unit}", fontsize=8)
        low, high = axis.get_ylim()
        if high - low < LEAST_SPAN:
            axis.set_ylim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
    axes[0].legend(loc="upper right", fontsize=8, ncols=2)
    turning = [axis for axis in range(arm.dof) if arm.units[axis] == "rad" and axis not in arm.grippers]
    lag = 1000 * (samples.commanded_rad - samples.measured_rad)[:, turning]
    axes[-2].plot(seconds, np.abs(lag).max(axis=1), color="tab:red", linewidth=1.0)
    axes[-2].set_ylabel("largest\nlag, mrad", fontsize=8)
    axes[-1].fill_between(seconds, samples.buffered_ms, step="mid", color="tab:green", alpha=0.4)
    axes[-1].set_ylabel("buffered\nms", fontsize=8)
    axes[-1].set_xlabel("device time since the first chunk, s   (thin lines: chunks joined)")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.tick_params(labelsize=8)
        axis.ticklabel_format(useOffset=False)
        axis.yaxis.set_label_coords(LABELS_AT, 0.5)
        axis.vlines(splices, 0, 1, transform=axis.get_xaxis_transform(), color="black", linewidth=0.4, alpha=0.4)
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / height, va="top")
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=110, metadata={"Software": MADE_BY})
    return ""
