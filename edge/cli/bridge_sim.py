"""`bridge-sim`: the C firmware on a pseudo-terminal, with a simulated arm behind it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from edge.arms import ArmProfile, available_arms, load_arm
from edge.cli.parser import add_version, complain, described
from edge.errors import InputError, VlaEdgeError
from edge.run.outputs import OVERWRITE, check_outputs
from firmware_bridge.errors import BridgeError
from firmware_bridge.simulator import SimulatedArm, command


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="bridge-sim",
        **described(
            "Starts the firmware on a pseudo-terminal. The first line of stdout is JSON with its port.",
            """
            bridge-sim --arm franka --trace trace.csv
            edge-run --arm franka --bundle bundle --bridge serial:/dev/pts/3 --camera pattern:    # beside it
            """,
            "It runs until Ctrl-C or SIGTERM. Exit code 2: bad input.",
        ),
    )
    add_version(root)
    root.add_argument("--arm", required=True, metavar="NAME", help=f"compiled profile: {', '.join(available_arms())}")
    root.add_argument(
        "--plant",
        choices=("ideal", "mujoco"),
        default="ideal",
        help="what follows the set-points: an ideal arm (default), or an FR3 with physics (needs the sim extra)",
    )
    root.add_argument(
        "--scene-seed", type=int, default=0, help="with mujoco: where the cubes stand (default %(default)d)"
    )
    root.add_argument(
        "--line",
        choices=("serial", "slcan", "slcan-fd"),
        default="serial",
        help="what the pseudo-terminal is: the line itself (default), or an SLCAN adapter on a simulated CAN bus",
    )
    root.add_argument("--node", type=int, choices=range(16), default=0, metavar="N", help="with slcan: 0 to 15")
    root.add_argument(
        "--trace", type=Path, metavar="FILE.csv", help="every 1 kHz output: tick_us,state,q0..,dq0..,chunk,limited"
    )
    root.add_argument("--overwrite", action="store_true", help=OVERWRITE)
    return root


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if args.trace is not None:
            check_outputs({"--trace": (args.trace, "recording")}, [Path(args.arm)], args.overwrite)
        arm = load_arm(args.arm)
        scene = _open_scene(arm, args.scene_seed) if args.plant == "mujoco" else None
        model, start = (_write_model(scene), scene.start) if scene else (None, arm.home_rad)
        simulated = SimulatedArm(arm.name, start, model, args.trace, line=args.line, node=args.node)
        arguments = command(simulated, realtime=True, parent=None)
    except (VlaEdgeError, BridgeError) as error:
        complain("bridge-sim", error)
        return 2
    os.execv(arguments[0], arguments)  # never returns
    raise AssertionError


def _open_scene(arm: ArmProfile, seed: int) -> Any:
    try:
        from edge.sim.scenes import open_scene
    except ImportError as error:
        raise InputError(
            f"--plant mujoco needs the 'sim' extra ({error.name} is missing): pip install 'vla-edge[sim]'"
        ) from None
    return open_scene(arm, seed)


def _write_model(scene: Any) -> Path:
    from edge.sim.library import save_model

    descriptor = os.memfd_create("scene", 0)  # inherited over exec, and gone with the process
    path = Path(f"/proc/self/fd/{descriptor}")
    save_model(scene.model, path)
    return path


if __name__ == "__main__":
    sys.exit(main())
