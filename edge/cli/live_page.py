"""The live page of a command's runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from edge.arms import ArmProfile
from edge.arms.bridge import is_simulated
from edge.arms.chain import chains_of
from edge.bundle import Bundle
from edge.doors.leading import LeadingRun
from edge.doors.view.launch import LiveView
from edge.inference.film import CameraView


def open_page(
    args: argparse.Namespace,
    arm: ArmProfile,
    policy: Bundle | LeadingRun,
    task: str | None,
    stack: ExitStack,
    say: Callable[[str], None],
    **offers: Any,
) -> LiveView:
    """Serves the page until `stack` is left; `offers` says which buttons it has beside those of every run."""
    if isinstance(policy, Bundle):
        parts, specs = list(policy.manifest.engines), policy.manifest.cameras
        step_s = policy.arm(arm.embodiment, arm.joints).step_s
    else:
        parts, specs, step_s = list(policy.parts), policy.cameras, policy.step_s
    about = {
        "arm": arm.model,
        "simulated": is_simulated(args.bridge),
        "joints": arm.joints,
        "units": arm.units,
        "task": task,
        "bridge": args.bridge,
        "parts": parts,
        "step_ms": 1000 * step_s,
        "limits": [arm.operating.position_min_rad, arm.operating.position_max_rad],
        "chains": chains_of(arm),
        **offers,
    }
    cameras = [CameraView(spec.name, spec.frame_px) for spec in specs]
    view = LiveView(arm.dof, about, args.view_port, cameras)
    stack.callback(view.close)
    say(f"live page: {view.url}")
    return view
